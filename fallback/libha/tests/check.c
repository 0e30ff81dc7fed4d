#include "check.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds for one case; valgrind needs some. */
#define CASE_LIMIT 120

void check_failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s (errno %d, %s)\n", file, line, what, errno, strerror(errno));
    _exit(1);
}

void check_pause(void)
{
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
}

/* Cases. */

static int run_case(const struct test_case *test)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        alarm(CASE_LIMIT);
        test->run();
        exit(0); /* Not _exit: the library's own end, and leak checkers, are part of the test. */
    }
    CHECK(waitpid(child, &status, 0) == child);
    bool passed = WIFEXITED(status) && !WEXITSTATUS(status);
    if (WIFSIGNALED(status))
        printf("FAILED %s: %s\n", test->name, strsignal(WTERMSIG(status)));
    else
        printf("%s %s\n", passed ? "ok    " : "FAILED", test->name);
    return passed ? 0 : 1;
}

static bool is_wanted(const struct test_case *test, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], test->name))
            return true;
    return argc < 2;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

int run_cases(const struct test_case *cases, size_t count, int argc, char **argv)
{
    char directory[] = "/tmp/ha_posix.XXXXXX";
    int failed = 0, run = 0;
    CHECK(mkdtemp(directory));
    CHECK(!setenv("HA_QNX_RUNTIME", directory, 1));
    for (size_t i = 0; i < count; i++) {
        if (is_wanted(&cases[i], argc, argv)) {
            run++;
            failed += run_case(&cases[i]);
        }
    }
    nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (!run)
        fprintf(stderr, "there is no such case\n");
    return failed || !run;
}

/* Threads. */

pthread_t start_thread(void *(*function)(void *), void *argument)
{
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, function, argument));
    return thread;
}

pid_t own_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

bool is_asleep(pid_t tid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    FILE *file = tid > 0 ? fopen(path, "r") : NULL;
    if (!file)
        return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    const char *state = strrchr(text, ')');
    return state && state[1] == ' ' && state[2] == 'S';
}

/* Servers. */

/* What a server has beside its channel: a name or a path, or neither. */
struct place {
    const char *name, *path;
    unsigned path_flags;
};

static int make_channel(const struct place *place, unsigned flags)
{
    name_attach_t *attached = place->name ? name_attach(NULL, place->name, 0) : NULL;
    CHECK(attached || !place->name);
    int chid = attached ? attached->chid : ChannelCreate(flags);
    CHECK(chid > 0);
    if (place->path) {
        dispatch_t *dispatch = dispatch_create_channel(chid, 0);
        CHECK(dispatch && !resmgr_attach(dispatch, NULL, place->path, _FTYPE_ANY, place->path_flags, NULL, NULL, NULL));
    }
    return chid;
}

static struct server start_process(const struct place *place, void (*function)(int chid), unsigned flags)
{
    struct server server;
    int ends[2];
    CHECK(!pipe(ends));
    server.pid = fork();
    CHECK(server.pid >= 0);
    if (!server.pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(CASE_LIMIT);
        int chid = make_channel(place, flags);
        CHECK(write(ends[1], &chid, sizeof chid) == sizeof chid);
        function(chid);
        _exit(0);
    }
    close(ends[1]);
    CHECK(read(ends[0], &server.chid, sizeof server.chid) == sizeof server.chid);
    close(ends[0]);
    return server;
}

struct server start_server(void (*function)(int chid), unsigned flags)
{
    return start_process(&(struct place){0}, function, flags);
}

struct server start_named_server(const char *name, void (*function)(int chid))
{
    return start_process(&(struct place){.name = name}, function, 0);
}

struct server start_path_server(const char *path, unsigned flags, void (*function)(int chid))
{
    return start_process(&(struct place){.path = path, .path_flags = flags}, function, _NTO_CHF_DISCONNECT);
}

void kill_server(const struct server *server)
{
    int status;
    kill(server->pid, SIGKILL);
    CHECK(waitpid(server->pid, &status, 0) == server->pid);
}

/* Replies with a run of x, as long as was asked for. */
static void answer_read(int rcvid, uint32_t size)
{
    char *data = malloc(size);
    CHECK(data || !size);
    memset(data, 'x', size);
    MsgReply(rcvid, size, data, size);
    free(data);
}

static void answer(int rcvid, const void *message, const struct _msg_info64 *info)
{
    struct question question = {0};
    struct {
        uint16_t type, combine_len;
        int16_t whence;
        uint16_t zero;
        int64_t offset;
    } seek = {0};
    uint32_t size = 0;
    memcpy(&question, message, sizeof question);
    memcpy(&seek, message, sizeof seek);
    memcpy(&size, (const char *)message + 4, sizeof size);
    switch (question.type) {
    case QUESTION:
        MsgReply(rcvid, question.number, &question, sizeof question);
        break;
    case ASK_PID:
        MsgReply(rcvid, getpid(), NULL, 0);
        break;
    case ASK_SILENCE:
        break;
    case _IO_CONNECT:
    case _IO_DUP:
    case _IO_CLOSE:
        MsgReply(rcvid, EOK, NULL, 0);
        break;
    case _IO_READ:
        answer_read(rcvid, size);
        break;
    case _IO_WRITE:
        CHECK(info->srcmsglen == 16 + (ssize_t)size);
        MsgReply(rcvid, size, NULL, 0);
        break;
    case _IO_LSEEK:
        MsgReply(rcvid, EOK, &seek.offset, sizeof seek.offset);
        break;
    default:
        MsgError(rcvid, ENOSYS);
    }
}

void serve(int chid)
{
    union {
        struct _pulse pulse;
        char bytes[256];
    } message;
    struct _msg_info64 info;
    for (;;) {
        memset(&message, 0, sizeof message);
        int rcvid = MsgReceive(chid, &message, sizeof message, &info);
        if (rcvid > 0)
            answer(rcvid, &message, &info);
        else if (rcvid < 0)
            return;
        else if (message.pulse.code == _PULSE_CODE_UNBLOCK)
            MsgError(message.pulse.value.sival_int, -1);
        else if (message.pulse.code == _PULSE_CODE_DISCONNECT)
            ConnectDetach(message.pulse.scoid);
    }
}

void ask(int coid, int number)
{
    const struct question question = {QUESTION, 0, number};
    struct question reply = {0};
    CHECK(MsgSend(coid, &question, sizeof question, &reply, sizeof reply) == number);
    CHECK(!memcmp(&question, &reply, sizeof reply));
}

pid_t ask_pid(int coid)
{
    const struct question question = {ASK_PID, 0, 0};
    return (pid_t)MsgSend(coid, &question, sizeof question, NULL, 0);
}
