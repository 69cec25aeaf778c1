#include "shapes.h"

const char *greeting(void)
{
    return "hello from the first link";
}
