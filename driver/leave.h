/* leave.h - the end of the process. */
#ifndef KLD_DRIVER_LEAVE_H
#define KLD_DRIVER_LEAVE_H

#include <stdbool.h>

/* Ends the process, without cleaning up. Unless it is to be alone (--no-fork), much memory is left to a child. */
_Noreturn void kld_leave(int status, bool alone);

#endif
