/* fuzz_shared - any bytes as a shared library that a program, at a fixed address or not, is linked
 * with. */
#include "fuzz_link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const fixed[] = {"kind=executable", NULL};
    static const char *const pie[] = {"kind=pie", "export-dynamic=1", NULL};
    fuzz_link(data, size, fixed);
    fuzz_link(data, size, pie);
    return 0;
}
