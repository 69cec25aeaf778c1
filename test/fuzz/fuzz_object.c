/* fuzz_object - any bytes as a relocatable object of a program, of a library, of another object; and its
 * id. */
#include "fuzz_link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const program[] = {"gc-sections=1", "build-id=fast", "eh-frame-hdr=1", NULL};
    static const char *const library[] = {"kind=shared", "icf=all", "emit-relocs=1", NULL};
    static const char *const object[] = {"kind=relocatable", NULL};
    fuzz_link(data, size, program);
    fuzz_link(data, size, library);
    fuzz_link(data, size, object);
    unsigned char id[KLD_CONTENT_ID_SIZE];
    if (data)
        kld_obj_content_id(NULL, data, size, id);
    return 0;
}
