/* host.c - the part of the API for what is built upon the library. */
#include "src/session.h"

static void report(struct kld_session *session, kld_severity severity, const char *id,
                   const char *text)
{
    if (severity == KLD_ERROR)
        kld_error(session, id, NULL, "%s", text);
    else if (severity == KLD_WARNING)
        kld_warning(session, id, NULL, "%s", text);
    else
        kld_note(session, id, NULL, "%s", text);
    kld_checkpoint(session);
}

kld_status kld_report(kld_session *session, kld_severity severity, const char *id, const char *text)
{
    if (!session || !id || !text)
        return KLD_MISUSE;
    if (session->no_memory)
        return KLD_NO_MEMORY;
    /* A callback may call this in the middle of kld_link, whose recovery point has to stay. */
    jmp_buf outer;
    memcpy(&outer, &session->oom, sizeof(outer));
    kld_status status = KLD_NO_MEMORY;
    if (!setjmp(session->oom)) {
        report(session, severity, id, text);
        status = KLD_OK;
    } else {
        session->no_memory = true;
    }
    memcpy(&session->oom, &outer, sizeof(outer));
    return status;
}

const kld_host *kld_session_host(const kld_session *session)
{
    return &session->host;
}
