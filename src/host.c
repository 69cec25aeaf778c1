/* host.c - the part of the API for what is built upon the library. */
#include "src/session.h"

kld_status kld_report(kld_session *session, kld_severity severity, const char *id, const char *text)
{
    if (!session || !id || !text)
        return KLD_MISUSE;
    if (setjmp(session->oom))
        return KLD_NO_MEMORY;
    if (severity == KLD_ERROR)
        kld_error(session, id, NULL, "%s", text);
    else if (severity == KLD_WARNING)
        kld_warning(session, id, NULL, "%s", text);
    else
        kld_note(session, id, NULL, "%s", text);
    kld_checkpoint(session);
    return KLD_OK;
}

const kld_host *kld_session_host(const kld_session *session)
{
    return &session->host;
}
