/* kld.h - the public interface of libkld: a whole linker as a library.
 *
 * A session is a command line and what it is linked to: create it, set options, add inputs, link, read
 * the output, free it. Or change options and inputs, and link again: nothing of the last link counts
 * for the next one but, for incremental links, the state and the output.
 * Sessions share nothing; any number may run at once, each from one thread at a time. The
 * library has no writable globals and changes nothing of the process it runs in. Every error
 * reaches the host through its message callback; the call then returns a status.
 */
#ifndef KLD_KLD_H
#define KLD_KLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KLD_API __attribute__((visibility("default")))
#else
#define KLD_API
#endif

#define KLD_VERSION "0.1.0"

typedef struct kld_session kld_session;

/* What a call returns. */
typedef enum kld_status {
    KLD_OK = 0,        /* done */
    KLD_FAILED = 1,    /* errors were reported through the message callback */
    KLD_NO_MEMORY = 2, /* the host's allocator returned NULL; the session can only be freed */
    KLD_MISUSE = 3,    /* the call makes no sense now, or an argument is bad */
    KLD_INTERNAL = 4,  /* a defect of kld itself; reported like an error */
} kld_status;

typedef enum kld_severity {
    KLD_NOTE = 0,    /* what was asked for: --trace, --print-gc-sections, --stats ... */
    KLD_WARNING = 1, /* the link goes on */
    KLD_ERROR = 2,   /* the link fails */
} kld_severity;

/* One diagnostic. Strings are valid only during the callback; those that do not apply are NULL. */
typedef struct kld_message {
    size_t size; /* sizeof of this struct as the library knows it */
    kld_severity severity;
    const char *id;      /* stable, e.g. "undefined-symbol" */
    const char *file;    /* path of the input */
    const char *member;  /* archive member */
    const char *section; /* section name */
    const char *symbol;  /* the symbol's name as it is in the object (not demangled) */
    uint64_t offset;     /* bytes into the section, if has_offset; else into the file or a line */
    bool has_offset;
    const char *text; /* the whole message for people, without "kld: error: " */
} kld_message;

/* What the session needs of its surroundings. Zero-initialise, set size, fill in what you want;
 * a NULL member means the library's own: calloc and free, files of the file system, messages
 * dropped. All callbacks but message may be called from several threads at once. */
typedef struct kld_host {
    size_t size; /* sizeof(struct kld_host) */
    void *context;
    /* Returns size bytes, all zero, aligned for any object, or NULL. */
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *block, size_t size);
    /* Called from the thread that called the library, in input order. */
    void (*message)(void *context, const kld_message *message);
    /* Opens an input by path. On success: *data, *length (the bytes stay valid until close_file
     * or the end of the session) and true. On failure false, with errno set. */
    bool (*open_file)(void *context, const char *path, const void **data, size_t *length);
    void (*close_file)(void *context, const char *path, const void *data, size_t length);
    /* Names of temporary files while they exist, so that a signal handler of the host's can
     * remove them: path on creation, NULL once it is renamed or removed. */
    void (*temporary_file)(void *context, const char *path);
    /* Text that an option asks to print (--help, --version, --print-map). NULL: stdout of the
     * process when called through kld_run from the command, else dropped. */
    void (*print)(void *context, const char *text, size_t length);
    /* The environment, for GNU make's jobserver (MAKEFLAGS) and LD_LIBRARY_PATH; NULL: none. */
    const char *(*environment)(void *context, const char *name);
    /* Whether messages go to a terminal that shows colours. */
    bool colour;
} kld_host;

/* How an input is to be taken. */
enum {
    KLD_INPUT_LIBRARY = 1 << 0,       /* name is what follows -l: searched in the library path */
    KLD_INPUT_AS_NEEDED = 1 << 1,     /* --as-needed */
    KLD_INPUT_WHOLE_ARCHIVE = 1 << 2, /* --whole-archive */
    KLD_INPUT_STATIC = 1 << 3,        /* -Bstatic: no shared library is taken */
    KLD_INPUT_LAZY = 1 << 4,          /* --start-lib: an object taken as an archive member is */
    KLD_INPUT_BINARY = 1 << 5,        /* -b binary */
    KLD_INPUT_JUST_SYMBOLS = 1 << 6,  /* --just-symbols */
    KLD_INPUT_GROUP = 1 << 8,         /* --start-group: may refer back, for --warn-backrefs */
    KLD_INPUT_SCRIPT = 1 << 7,        /* -T: a linker script */
};

typedef struct kld_input {
    size_t size;      /* sizeof(struct kld_input) */
    const char *name; /* path, library name, or a label for bytes in memory */
    /* If not NULL: the input's bytes, which stay valid until kld_free, or until the input is replaced
     * or removed. They may be changed between two links (but not between kld_resolve and kld_emit). */
    const void *data;
    size_t length;
    unsigned flags; /* KLD_INPUT_* */
} kld_input;

/* A new session, or NULL if out of memory. host is copied; NULL means all defaults. */
KLD_API kld_session *kld_new(const kld_host *host);

/* Frees the session and all that it returned. NULL is allowed. */
KLD_API void kld_free(kld_session *session);

/* Sets an option, for all links from now on, by its canonical name (docs: `man kld`, --help; names without dashes, e.g.
 * "output", "gc-sections", "soname", "rpath"). value is text: "1"/"0" for switches, decimal or
 * 0x numbers; options that are lists append. Unknown names and values that do not parse are
 * reported and return KLD_FAILED. */
KLD_API kld_status kld_set(kld_session *session, const char *name, const char *value);

/* Adds an input at the end of the command line. Strings are copied; data is not. */
KLD_API kld_status kld_add_input(kld_session *session, const kld_input *input);

/* Names an input of a session; never 0. */
typedef uint64_t kld_input_handle;

/* The same; *handle is then what names the input in the next two calls. */
KLD_API kld_status kld_add_input_handle(kld_session *session, const kld_input *input,
                                        kld_input_handle *handle);

/* Another input in its place on the command line: other bytes, another file, other flags. The handle
 * stays; the bytes of the old one are not needed any more. */
KLD_API kld_status kld_replace_input(kld_session *session, kld_input_handle handle,
                                     const kld_input *input);

/* Takes it off the command line. The handle names nothing any more, nor are its bytes needed. */
KLD_API kld_status kld_remove_input(kld_session *session, kld_input_handle handle);

/* Reads an argv as a command of the given flavour would ("gnu"; argv[0] is not looked at) and
 * sets options and inputs from it. */
KLD_API kld_status kld_parse(kld_session *session, const char *flavour, int argc,
                             const char *const *argv);

/* ---- incremental links: options "incremental" and its kind ---- */

/* Where the state of incremental links is kept, as bytes that mean something to the library only.
 * With the option "incremental" the library's own is the file named by "incremental-state". Set
 * size; all callbacks are needed, and are called from the thread that links. */
typedef struct kld_state_store {
    size_t size; /* sizeof(kld_state_store) */
    void *context;
    /* The state of the last link, all of it; *data must be writable, and may be changed in memory
     * without the store's seeing it; it stays until close. False: there is none, or another link
     * is using it (*busy). */
    bool (*open)(void *context, void **data, size_t *length, bool *busy);
    /* Changes the stored state in place; may make it longer. In the order of the calls: the first
     * one marks it as not to be trusted, the last one takes that back. */
    bool (*update)(void *context, uint64_t offset, const void *data, size_t length);
    /* Replaces the stored state as a whole (or makes it); atomically where there are crashes. */
    bool (*replace)(void *context, const void *data, size_t length);
    /* The stored state is of no use any more: forget it. */
    void (*discard)(void *context);
    /* The link is done with it. */
    void (*close)(void *context);
} kld_state_store;

/* For all links from now on: another place for the state. Copied. */
KLD_API kld_status kld_set_state_store(kld_session *session, const kld_state_store *store);

/* The same without callbacks: the state that kld_serialize_state gave after an earlier link; none,
 * if length is 0. The bytes are copied. From here on the state is kept in memory, and no file; that of
 * one link is the prior state of the session's next one. */
KLD_API kld_status kld_set_prior_state(kld_session *session, const void *data, size_t length);

/* After a successful incremental link without a store of the host's: the state for the next one;
 * NULL and 0 if there is none (of what cannot be patched, or another link uses the file). Owned by
 * the session, until the next call. */
KLD_API kld_status kld_serialize_state(kld_session *session, const void **data, size_t *length);

typedef enum kld_outcome {
    KLD_OUTCOME_NONE = 0, /* no link yet, or the last one failed or is not finished */
    KLD_OUTCOME_FULL = 1, /* a full link: the first one, or not an incremental one */
    KLD_OUTCOME_PATCHED = 2,
    KLD_OUTCOME_FELL_BACK_FULL = 3,
} kld_outcome;

/* What the link was; *reason, if it is not NULL, becomes the number and a text of why it fell back
 * ("12 new-global: ..."), or NULL. Owned by the session. */
KLD_API kld_outcome kld_get_outcome(kld_session *session, const char **reason);

/* Links what has been added. With the option "output-memory" set, the output stays in memory for
 * kld_output; otherwise it is the file named by "output".
 *
 * May be called again, also after it failed: inputs are then read anew, as in a new session with the
 * same options and inputs. Errors that were reported since the last link make it fail. */
KLD_API kld_status kld_link(kld_session *session);

/* kld_link in two steps. The first one finds out all that can be known of the program before anything
 * is written: what is undefined, defined twice, missing or malformed is reported by it, and neither
 * output nor state change. kld_emit writes. (It may fail, too: what depends on addresses is found out
 * here, as are full disks.) With the option "incremental" the first one decides whether the output can
 * be patched; until the second, or kld_free, the output is locked against other links.
 *
 * kld_emit without kld_resolve is KLD_MISUSE. Calls that change options or inputs undo kld_resolve;
 * kld_link and kld_resolve begin again. */
KLD_API kld_status kld_resolve(kld_session *session);
KLD_API kld_status kld_emit(kld_session *session);

/* The linked bytes with "output-memory"; owned by the session, until the next link (with "incremental"
 * that may patch them where they are). */
KLD_API kld_status kld_output(kld_session *session, const void **data, size_t *length);

/* ---- ids of objects ---- */

enum { KLD_CONTENT_ID_SIZE = 32 };

/* An id of what a link depends on in the relocatable object at data: BLAKE2b-256 of its sections, with
 * their relocations in symbolic form, groups and symbols. The same for two compiles of one source
 * (debugging information that names another folder is another content); not of where in the file
 * things are, nor of the order of symbols and the name of the source file. The session is where
 * messages and memory are from, and is not changed; NULL means the library's own. */
KLD_API kld_status kld_obj_content_id(const kld_session *session, const void *data, size_t length,
                                      unsigned char id[KLD_CONTENT_ID_SIZE]);

/* The id of one section: its properties, bytes and relocations. */
typedef void kld_atom_id(void *context, const char *section,
                         const unsigned char id[KLD_CONTENT_ID_SIZE]);

/* The ids of all sections that the object's id is made of, in their order. If there is an error, each
 * is not called. */
KLD_API kld_status kld_obj_atom_ids(const kld_session *session, const void *data, size_t length,
                                    kld_atom_id *each, void *context);

/* The whole command in this process: parses, links, reports. Returns the exit status of the
 * command, 0 or 1. host may be NULL: messages are then dropped. */
KLD_API int kld_run(int argc, const char *const *argv, const kld_host *host);

/* For what is built upon the library, such as the parser of a command line: a message of its own
 * among the session's. An error makes kld_link fail. id and text as in kld_message. */
KLD_API kld_status kld_report(kld_session *session, kld_severity severity, const char *id,
                              const char *text);

/* The host as it was given to kld_new, its missing members filled in. */
KLD_API const kld_host *kld_session_host(const kld_session *session);

/* "0.1.0" */
KLD_API const char *kld_version(void);

#ifdef __cplusplus
}
#endif
#endif
