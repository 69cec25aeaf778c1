#include "shapes.h"
#include <math.h>

int calls;

int square(int side)
{
    calls++;
    return side * side;
}

double circle(double radius)
{
    calls++;
    return acos(-1) * radius * radius;
}
