/* leave.h - the end of the process. */
#ifndef KLD_DRIVER_LEAVE_H
#define KLD_DRIVER_LEAVE_H

#include <stdbool.h>

/* Ends the process, without cleaning up. If all went well, much memory is left to a child, unless the process is to be
 * alone (--no-fork). */
_Noreturn void kld_leave(int status, bool alone);

#endif
