#include "shapes.h"
#include <stdio.h>

int main(void)
{
    printf("%s\n", greeting());
    printf("a square of 3: %d, a circle of 1: %.2f\n", square(3), circle(1));
    printf("%d calls\n", calls);
    return 0;
}
