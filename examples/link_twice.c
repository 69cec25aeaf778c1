/* link_twice - links a program twice in this process, both at once, and writes both.
 *
 *   link_twice OUTPUT1 OUTPUT2 INPUT...
 *
 * The inputs are read into memory first; from there on no file is touched until both links are done.
 * One program keeps its symbols and debug information, the other is stripped of what it does not
 * need to run. Build: cc link_twice.c -lkld (or libkld.a and `pkg-config --static --libs kld`).
 *
 *   cc -c -ffreestanding start.c main.c && link_twice full small start.o main.o */
#include <kld/kld.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct input {
    const char *name;
    void *data;
    size_t size;
};

/* One of the two links; each has a thread and a session of its own. */
struct job {
    const char *output;
    const struct input *inputs;
    int ninputs;
    const char *const (*options)[2]; /* name, value; up to NULL */
    bool done;
};

static bool read_input(struct input *in)
{
    FILE *file = fopen(in->name, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st) != 0) {
        perror(in->name);
        return false;
    }
    in->size = (size_t)st.st_size;
    in->data = malloc(in->size ? in->size : 1);
    bool good = in->data && fread(in->data, 1, in->size, file) == in->size;
    fclose(file);
    return good;
}

static bool write_program(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file) {
        perror(path);
        return false;
    }
    bool good = fwrite(data, 1, size, file) == size;
    good &= fclose(file) == 0;
    return good && chmod(path, 0755) == 0;
}

/* What kld has to say comes here, with all its parts; the text is the whole of it. */
static void show(void *context, const kld_message *message)
{
    const struct job *job = context;
    static const char *const words[] = {"note", "warning", "error"};
    fprintf(stderr, "%s: %s [%s]: %s\n", job->output, words[message->severity], message->id,
            message->text);
}

static bool link_and_write(kld_session *session, const struct job *job)
{
    const void *data;
    size_t size;
    for (int i = 0; job->options[i][0]; i++)
        if (kld_set(session, job->options[i][0], job->options[i][1]) != KLD_OK)
            return false;
    for (int i = 0; i < job->ninputs; i++) {
        kld_input in = {
            .size = sizeof(in),
            .name = job->inputs[i].name,
            .data = job->inputs[i].data,
            .length = job->inputs[i].size,
        };
        if (kld_add_input(session, &in) != KLD_OK)
            return false;
    }
    return kld_link(session) == KLD_OK && kld_output(session, &data, &size) == KLD_OK &&
           write_program(job->output, data, size);
}

static void *run(void *arg)
{
    struct job *job = arg;
    kld_host host = {.size = sizeof(host), .context = job, .message = show};
    kld_session *session = kld_new(&host);
    if (session)
        job->done = link_and_write(session, job);
    kld_free(session);
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const full[][2] = {
        {"output-memory", "1"}, {"build-id", "sha1"}, {NULL, NULL}};
    static const char *const small[][2] = {{"output-memory", "1"},
                                           {"strip", "all"},
                                           {"gc-sections", "1"},
                                           {"icf", "safe"},
                                           {NULL, NULL}};
    if (argc < 4) {
        fprintf(stderr, "usage: %s OUTPUT1 OUTPUT2 INPUT...\n", argv[0]);
        return 1;
    }
    int ninputs = argc - 3;
    struct input *inputs = calloc((size_t)ninputs, sizeof(*inputs));
    for (int i = 0; i < ninputs; i++) {
        inputs[i].name = argv[3 + i];
        if (!read_input(&inputs[i]))
            return 1;
    }
    struct job jobs[2] = {
        {.output = argv[1], .inputs = inputs, .ninputs = ninputs, .options = full},
        {.output = argv[2], .inputs = inputs, .ninputs = ninputs, .options = small},
    };
    pthread_t other;
    bool threaded = pthread_create(&other, NULL, run, &jobs[1]) == 0;
    run(&jobs[0]);
    if (threaded)
        pthread_join(other, NULL);
    else
        run(&jobs[1]);
    for (int i = 0; i < ninputs; i++)
        free(inputs[i].data);
    free(inputs);
    return jobs[0].done && jobs[1].done ? 0 : 1;
}
