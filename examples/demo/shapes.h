#ifndef SHAPES_H
#define SHAPES_H

extern int calls; /* of square and circle */

int square(int side);
double circle(double radius);
const char *greeting(void);

#endif
