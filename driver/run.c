/* run.c - the whole command, without a process of its own: which flavour, then parse and link. */
#include "driver/command.h"
#include <string.h>

enum flavour { FLAVOUR_UNKNOWN, FLAVOUR_GNU, FLAVOUR_DARWIN, FLAVOUR_LINK };

static enum flavour flavour_of_name(const char *name)
{
    static const struct {
        char name[10];
        enum flavour flavour;
    } known[] = {
        {"darwin", FLAVOUR_DARWIN}, {"gnu", FLAVOUR_GNU},   {"ld", FLAVOUR_GNU},
        {"ld64", FLAVOUR_DARWIN},   {"link", FLAVOUR_LINK}, {"lld-link", FLAVOUR_LINK},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].flavour;
    return FLAVOUR_UNKNOWN;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* ld64.kld; kld-link, lld-link, link.exe; all else is GNU ld: ld, ld.bfd, x86_64-linux-gnu-ld... */
static enum flavour flavour_of_path(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    const char *base = slash ? slash + 1 : path ? path : "";
    if (strncmp(base, "ld64", 4) == 0)
        return FLAVOUR_DARWIN;
    if (strcmp(base, "link") == 0 || strcmp(base, "link.exe") == 0 || ends_with(base, "-link") ||
        ends_with(base, "-link.exe"))
        return FLAVOUR_LINK;
    return FLAVOUR_GNU;
}

/* "-flavor X" and "-flavor=X" as the first option. Moves *first behind it. */
static enum flavour choose_flavour(int argc, const char *const *argv, int *first, const char **name)
{
    *first = argc > 0 ? 1 : 0;
    const char *word = argc > 1 ? argv[1] : "";
    if (word[0] == '-')
        word += word[1] == '-' ? 2 : 1;
    else
        word = "";
    if (strncmp(word, "flavor=", 7) == 0) {
        *first = 2;
        *name = word + 7;
    } else if (strcmp(word, "flavor") == 0) {
        *first = argc > 2 ? 3 : 2;
        *name = argc > 2 ? argv[2] : "";
    } else {
        return flavour_of_path(argc > 0 ? argv[0] : NULL);
    }
    return flavour_of_name(*name);
}

/* An error before there is a session. */
static int fail(const kld_host *host, const char *id, const char *text)
{
    kld_message message = {.size = sizeof(message), .severity = KLD_ERROR, .id = id, .text = text};
    if (host->message)
        host->message(host->context, &message);
    return 1;
}

static kld_status parse(kld_session *session, struct kld_args *args, struct kld_gnu *gnu)
{
    *gnu = (struct kld_gnu){.session = session, .host = args->host, .args = args};
    const kld_host *host = args->host;
    /* collect2 demangles what it shows itself. */
    if (host->environment && host->environment(host->context, "COLLECT_NO_DEMANGLE"))
        kld_gnu_note_status(gnu, kld_set(session, "demangle", "0"));
    return kld_gnu_parse(gnu);
}

kld_status kld_parse(kld_session *session, const char *flavour, int argc, const char *const *argv)
{
    if (!session || !flavour || argc < 0 || (argc && !argv))
        return KLD_MISUSE;
    if (flavour_of_name(flavour) != FLAVOUR_GNU) {
        kld_report(session, KLD_ERROR, "flavour", "this flavour is unknown or not built yet");
        return KLD_FAILED;
    }
    struct kld_args args;
    kld_args_init(&args, kld_session_host(session));
    kld_status status = KLD_NO_MEMORY;
    struct kld_gnu gnu;
    if (argc < 1 || kld_args_add(&args, argc - 1, argv + 1)) {
        status = parse(session, &args, &gnu);
    } else if (args.error) {
        kld_report(session, KLD_ERROR, "response-file", args.error);
        status = KLD_FAILED;
    }
    kld_args_free(&args);
    if (status == KLD_NO_MEMORY) /* what was not read must not be linked without */
        kld_report(session, KLD_ERROR, "no-memory", "out of memory");
    return status;
}

static kld_status link_all(struct kld_gnu *gnu)
{
    if (gnu->stop || (!gnu->inputs && gnu->showed_version))
        return KLD_OK;
    if (gnu->inputs)
        return kld_link(gnu->session);
    kld_report(gnu->session, KLD_ERROR, "no-input", "no input files");
    return KLD_FAILED;
}

static int run_session(struct kld_args *args, const kld_host *host, bool leave_session)
{
    kld_session *session = kld_new(host);
    if (!session)
        return fail(host, "no-memory", "out of memory");
    struct kld_gnu gnu;
    kld_status status = parse(session, args, &gnu);
    if (status == KLD_OK)
        status = link_all(&gnu);
    if (status == KLD_NO_MEMORY)
        fail(host, "no-memory", "out of memory");
    if (!leave_session)
        kld_free(session);
    return status == KLD_OK ? 0 : 1;
}

static int run_gnu(struct kld_args *args, const struct kld_command_hooks *hooks)
{
    struct kld_presentation presentation = {0};
    kld_gnu_presentation(args, &presentation);
    kld_host host = *args->host;
    if (presentation.colour != KLD_COLOUR_AUTO)
        host.colour = presentation.colour == KLD_COLOUR_ALWAYS;
    if (hooks && hooks->present)
        hooks->present(hooks->context, &presentation);
    if (args->error)
        return fail(&host, "response-file", args->error);
    if (args->no_memory)
        return fail(&host, "no-memory", "out of memory");
    return run_session(args, &host, hooks && hooks->leave_session);
}

int kld_command_run(int argc, const char *const *argv, const kld_host *host,
                    const struct kld_command_hooks *hooks)
{
    int first, status;
    const char *name = NULL;
    struct kld_args args;
    kld_args_init(&args, host);
    switch (choose_flavour(argc, argv, &first, &name)) {
    case FLAVOUR_GNU:
        kld_args_add(&args, argc - first, argv + first);
        status = run_gnu(&args, hooks);
        break;
    case FLAVOUR_DARWIN:
        status = fail(host, "flavour", "the darwin flavour (ld64) is not built yet");
        break;
    case FLAVOUR_LINK:
        status = fail(host, "flavour", "the link flavour (lld-link) is not built yet");
        break;
    default:
        status =
            fail(host, "flavour",
                 kld_args_printf(&args, "unknown flavour '%s'; known are gnu, darwin, link", name));
        break;
    }
    kld_args_free(&args);
    return status;
}

int kld_run(int argc, const char *const *argv, const kld_host *host)
{
    static const kld_host none = {.size = sizeof(none)};
    return kld_command_run(argc, argv, host ? host : &none, NULL);
}
