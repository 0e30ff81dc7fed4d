/* Paths that servers attach, and what opening them sends to whom. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define PATH "/dev/door"

/* An _IO_CONNECT message, as the server sees it. */
struct connect {
    uint16_t type, subtype;
    uint32_t file_type;
    uint16_t reply_max, entry_max;
    uint32_t key, handle, ioflag, mode;
    uint16_t sflag, access, zero, path_len;
    uint8_t eflag, extra_type;
    uint16_t extra_len;
    char path[1200];
};

/* What a server does and has seen, for all processes to see. */
struct seen {
    int connects;
    struct connect first, last;
    struct _msg_info64 info;
    int error;     /* what it answers by MsgError; 0: it does not */
    int status;    /* what it answers by MsgReply */
    bool keeps;    /* it does not answer */
    bool ends;     /* it ends at the message */
    bool destroys; /* it destroys its channel at the next message that is none of these */
    atomic_int received;
};

static struct seen *seen; /* of several servers */
static int own_number;

static void share(void)
{
    seen = mmap(NULL, 8 * sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(seen != MAP_FAILED);
}

static void serve_noting(int chid)
{
    struct seen *own = &seen[own_number];
    struct connect message;
    struct _msg_info64 info;
    for (;;) {
        memset(&message, 0, sizeof message);
        int rcvid = MsgReceive(chid, &message, sizeof message, &info);
        if (rcvid < 0)
            for (;;)
                pause(); /* Its channel is gone; it lives on. */
        if (rcvid == 0)
            continue;
        if (message.type != _IO_CONNECT) {
            bool destroys = own->destroys;
            MsgReply(rcvid, own_number, NULL, 0);
            if (destroys)
                ChannelDestroy(chid);
            continue;
        }
        if (!own->connects++)
            own->first = message;
        own->last = message;
        own->info = info;
        atomic_fetch_add(&own->received, 1);
        if (own->ends)
            _exit(0);
        if (own->keeps)
            continue;
        if (own->error)
            MsgError(rcvid, own->error);
        else
            MsgReply(rcvid, own->status, NULL, 0);
    }
}

/* Starts server `number` of those that note what they see. */
static struct server start(int number, const char *path, unsigned flags)
{
    memset(&seen[number], 0, sizeof *seen);
    own_number = number;
    return start_path_server(path, flags, serve_noting);
}

/* Opens, and says who is reached; -1 and errno if nobody is. */
static int reach(const char *path)
{
    int fd = ha_posix_open(path, O_RDWR);
    if (fd < 0)
        return -1;
    int number = (int)MsgSend(fd, NULL, 0, NULL, 0);
    CHECK(!fcntl(fd, F_GETFD) || fcntl(fd, F_GETFD) == FD_CLOEXEC);
    int error = errno;
    ha_posix_close(fd);
    errno = error;
    return number;
}

static void the_message(void)
{
    static const unsigned char expected[] = {0x00, 0x01, 0x02, 0x00, 0, 0, 0, 0, 0x98, 0x09, 0x0f, 0x00, 0, 0,
                                             0,    0,    0,    0,    0, 0, 3, 0, 0,    0,    0,    0,    0, 0,
                                             0x40, 0,    3,    0,    0, 0, 1, 0, 0,    0,    0,    0,    0};
    share();
    start(0, PATH, 0);
    CHECK(reach(PATH) == 0 && seen->connects == 1);
    CHECK(seen->info.srcmsglen == 41 && seen->info.dstmsglen == 2456 && !memcmp(&seen->last, expected, 41));
    int fd = ha_posix_open(PATH, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC, 0640);
    CHECK(fd >= 0 && seen->last.mode == 0640);
    CHECK(seen->last.ioflag == (2u | O_CREAT | O_TRUNC | O_NONBLOCK));
    CHECK(!ha_posix_close(fd));
    CHECK((fd = ha_posix_open(PATH, O_RDONLY | O_APPEND)) >= 0 && seen->last.mode == 0);
    CHECK(seen->last.ioflag == (1u | O_APPEND));
    CHECK(!ha_posix_close(fd) && (fd = ha_posix_open(PATH, O_ACCMODE)) >= 0 && seen->last.ioflag == 0);
}

static void answers(void)
{
    share();
    start(0, PATH, 0);
    int lowest = dup(0);
    CHECK(lowest > 0 && !close(lowest));
    for (int status = 1; status < 0x10000; status = 2 * status + 3) {
        seen->status = status;
        int fd = ha_posix_open(PATH, O_RDWR);
        CHECK(fd == lowest && !ha_posix_close(fd));
    }
    seen->status = -1;
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    static const int passed_through[] = {EACCES, EBUSY,     EPERM,  EAGAIN, EINTR, ENOTDIR, ELOOP,
                                         EXDEV,  ETIMEDOUT, ENOENT, ESRCH,  ENXIO, EROFS,   EBADF};
    for (size_t i = 0; i < sizeof passed_through / sizeof *passed_through; i++) {
        seen->error = passed_through[i];
        seen->connects = 0;
        CHECK_FAILS(ha_posix_open(PATH, O_RDWR), passed_through[i]);
        CHECK(seen->connects == 1);
    }
    seen->error = ENOSYS;
    seen->connects = 0;
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    CHECK(seen->connects == 2 && seen->first.subtype == 2 && seen->last.subtype == 1 && seen->last.ioflag == 0);
    seen->error = 0;
    seen->status = 0;
    CHECK(ha_posix_open(PATH, O_RDWR) == lowest); /* No number is lost by those that were refused. */
}

struct question_of {
    const char *path, *rest;
    int eflag, error;
};

static void below_a_path(void)
{
    static const struct question_of plain[] = {
        {PATH, "", 0, 0},
        {PATH "/", NULL, 0, ENOTDIR},
        {PATH "/.", NULL, 0, ENOTDIR},
        {PATH "/a", NULL, 0, ENOENT},
        {"/dev/../dev/door", "", 0, 0},
        {"/dev/doorway", NULL, 0, ENOENT},
        {"//dev//door", "", 0, 0},
        {"/dev/./door", "", 0, 0},
        {PATH "/a/../b", NULL, 0, ENOENT},
    };
    static const struct question_of directory[] = {
        {PATH, "", 0, 0},
        {PATH "/", "", 1, 0},
        {PATH "/.", "", 3, 0},
        {PATH "/a", "a", 0, 0},
        {PATH "/a/b/", "a/b", 1, 0},
        {PATH "/a/.", "a", 3, 0},
        {PATH "//a", "a", 0, 0},
        {PATH "/a/../b", "b", 0, 0},
        {PATH "/a b", "a b", 0, 0},
        {PATH "/a/..", "", 7, 0},
        {"/dev/doorway", NULL, 0, ENOENT},
    };
    const struct question_of *tables[] = {plain, directory};
    size_t counts[] = {sizeof plain / sizeof *plain, sizeof directory / sizeof *directory};
    share();
    for (int i = 0; i < 2; i++) {
        struct server server = start(0, PATH, i ? _RESMGR_FLAG_DIR : 0);
        for (size_t j = 0; j < counts[i]; j++) {
            const struct question_of *question = &tables[i][j];
            memset(&seen->last, 0, sizeof seen->last);
            if (question->error) {
                CHECK_FAILS(ha_posix_open(question->path, O_RDWR), question->error);
                continue;
            }
            CHECK(reach(question->path) == 0 && !strcmp(seen->last.path, question->rest));
            CHECK(seen->last.eflag == question->eflag && seen->last.path_len == strlen(question->rest) + 1);
        }
        kill_server(&server);
    }
    /* What else the root has is asked for there, too, if the host has no such file. */
    start(0, "/", _RESMGR_FLAG_DIR);
    CHECK(reach("/dev/nothingness") == 0 && !strcmp(seen->last.path, "dev/nothingness"));
    CHECK(reach("/") == 0 && !strcmp(seen->last.path, "") && seen->last.eflag == 1);
}

static void long_paths(void)
{
    char path[1300] = PATH "/";
    share();
    start(0, PATH, _RESMGR_FLAG_DIR);
    memset(path + strlen(path), '%', 1090);
    CHECK(reach(path) == 0 && !strcmp(seen->last.path, path + strlen(PATH) + 1));
    start(1, path, 0);
    CHECK(reach(path) == 1);
    strcat(path, "/x");
    CHECK(reach(path) == 0);
}

/* Flags of the first and the second, and what number is asked first. */
struct order {
    unsigned flags[3];
    const char *asked;
};

static void several_servers(void)
{
    enum { BEFORE = _RESMGR_FLAG_BEFORE, AFTER = _RESMGR_FLAG_AFTER };
    static const struct order orders[] = {
        {{0, 0, 0}, "210"},
        {{0, BEFORE, BEFORE}, "120"},
        {{BEFORE, 0, BEFORE}, "021"},
        {{AFTER, AFTER, 0}, "210"},
        {{AFTER, 0, AFTER}, "120"},
        {{0, AFTER, BEFORE}, "201"},
        {{BEFORE, BEFORE, BEFORE}, "012"},
        {{BEFORE | AFTER, 0, BEFORE}, "021"},
    };
    share();
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        struct server servers[3];
        for (int j = 0; j < 3; j++)
            servers[j] = start(j, PATH, orders[i].flags[j]);
        for (int j = 0; j < 3; j++) {
            int next = orders[i].asked[j] - '0';
            CHECK(reach(PATH) == next);
            seen[next].error = j == 1 ? ENOENT : ENOSYS;
        }
        CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
        for (int j = 0; j < 3; j++)
            kill_server(&servers[j]);
        CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    }
}

/* What one of two servers does, the other makes up for. */
static void lost_servers(void)
{
    struct server first, second;
    share();
    first = start(0, PATH, 0);
    second = start(1, PATH, 0);
    CHECK(reach(PATH) == 1);
    kill(second.pid, SIGKILL);
    CHECK(reach(PATH) == 0);
    kill_server(&second);
    CHECK(reach(PATH) == 0);
    second = start(1, PATH, 0);
    seen[1].ends = true;
    CHECK(reach(PATH) == 0 && seen[1].connects == 1);
    kill_server(&second);
    second = start(1, PATH, 0);
    int fd = ha_posix_open(PATH, O_RDWR);
    seen[1].destroys = true;
    CHECK(MsgSend(fd, NULL, 0, NULL, 0) == 1);
    CHECK_EVENTUALLY(reach(PATH) == 0);
    CHECK_FAILS(MsgSend(fd, NULL, 0, NULL, 0), EBADF);
    kill_server(&first);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ESRCH); /* The other one lives, without its channel. */
    kill_server(&second);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
}

static atomic_int opened;

static void *open_it(void *argument)
{
    (void)argument;
    int fd = ha_posix_open(PATH, O_RDWR);
    atomic_store(&opened, fd < 0 ? -errno : fd);
    return NULL;
}

static void a_server_that_is_killed_with_the_open(void)
{
    share();
    struct server first = start(0, PATH, 0);
    seen[0].keeps = true;
    pthread_t thread = start_thread(open_it, NULL);
    CHECK_EVENTUALLY(atomic_load(&seen[0].received));
    kill_server(&first);
    pthread_join(thread, NULL);
    CHECK(opened == -ESRCH);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    first = start(0, PATH, 0);
    struct server second = start(1, PATH, 0);
    seen[1].keeps = true;
    thread = start_thread(open_it, NULL);
    CHECK_EVENTUALLY(atomic_load(&seen[1].received));
    kill_server(&second);
    pthread_join(thread, NULL);
    CHECK(opened >= 0 && MsgSend(opened, NULL, 0, NULL, 0) == 0);
    kill_server(&first);
}

static void deeper_paths(void)
{
    share();
    start(0, PATH, _RESMGR_FLAG_DIR);
    struct server deep = start(1, PATH "/deep", 0);
    CHECK(reach(PATH "/deep") == 1);
    seen[1].error = ENOENT;
    CHECK(reach(PATH "/deep") == 0 && !strcmp(seen->last.path, "deep"));
    kill_server(&deep);
    start(1, PATH "/deep", _RESMGR_FLAG_OPAQUE);
    CHECK(reach(PATH "/deep") == 1);
    seen[1].error = ENOENT;
    seen[0].connects = 0;
    CHECK_FAILS(ha_posix_open(PATH "/deep", O_RDWR), ENOENT);
    CHECK(seen[0].connects == 0);
}

static void files_of_the_host(void)
{
    char path[64], below[80], data[8] = "";
    share();
    snprintf(path, sizeof path, "%s/file", getenv("HA_QNX_RUNTIME"));
    int fd = ha_posix_open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ha_posix_write(fd, "host's", 6) == 6 && !ha_posix_close(fd));
    struct server server = start(0, path, 0);
    CHECK(reach(path) == 0); /* Before the host's file. */
    seen->error = ENOENT;
    CHECK((fd = ha_posix_open(path, O_RDONLY)) >= 0 && ha_posix_read(fd, data, 8) == 6 && !strcmp(data, "host's"));
    CHECK(!ha_posix_close(fd) && !unlink(path));
    CHECK_FAILS(ha_posix_open(path, O_RDWR | O_CREAT, 0600), ENOENT); /* Whose it is, is not made by the host. */
    snprintf(below, sizeof below, "%s/x", path);
    CHECK_FAILS(ha_posix_open(below, O_RDWR), ENOENT);
    kill_server(&server);
    CHECK((fd = ha_posix_open(path, O_RDWR | O_CREAT, 0600)) >= 0 && !ha_posix_close(fd));
}

static void the_own_process(void)
{
    share();
    int chid = ChannelCreate(0);
    dispatch_t *dispatch = dispatch_create_channel(chid, 0);
    CHECK(dispatch && resmgr_attach(dispatch, NULL, PATH, 0, 0, NULL, NULL, NULL) == 0);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR | O_CREAT, 0600), ENOENT);
    CHECK(resmgr_attach(dispatch, NULL, PATH, 0, _RESMGR_FLAG_SELF, NULL, NULL, NULL) == 1);
    pthread_t thread = start_thread(open_it, NULL);
    struct connect message;
    int rcvid = MsgReceive(chid, &message, sizeof message, NULL);
    CHECK(rcvid > 0 && message.type == _IO_CONNECT && message.handle == 1 && !MsgReply(rcvid, 0, NULL, 0));
    pthread_join(thread, NULL);
    CHECK(opened >= 0);
    CHECK(!dispatch_destroy(dispatch)); /* And its channel, and its paths. */
    CHECK_FAILS(ChannelDestroy(chid), EINVAL);
    CHECK_FAILS(resmgr_detach(dispatch, 0, 0), ENOENT);
    CHECK_FAILS(dispatch_destroy(dispatch), EINVAL);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
}

static void the_calls(void)
{
    int chid = ChannelCreate(0);
    int table = 0;
    dispatch_t *dispatch = dispatch_create_channel(chid, DISPATCH_FLAG_NOLOCK), *other = dispatch_create_channel(99, 0);
    CHECK(dispatch && other);
    errno = 0;
    CHECK(!dispatch_create_channel(chid, 0x80) && errno == EINVAL);
#define ATTACH(PATH, FILE_TYPE, FLAGS) resmgr_attach(dispatch, NULL, PATH, FILE_TYPE, FLAGS, NULL, NULL, NULL)
    CHECK(ATTACH("/dev/x", 0, 0) == 0 && ATTACH("/dev/x", 5, 0) == 1 && ATTACH("dev/y", 0, 0x300) == 2);
    CHECK(!resmgr_detach(dispatch, 1, 0));
    CHECK_FAILS(resmgr_detach(dispatch, 1, 0), ENOENT);
    CHECK_FAILS(resmgr_detach(dispatch, 99, 0), ENOENT);
    CHECK_FAILS(resmgr_detach(dispatch, -1, 0), ENOENT);
    CHECK_FAILS(resmgr_detach(dispatch, 0, 0x80), EINVAL);
    CHECK(ATTACH("/dev/z", 0, 3) == 1 && ATTACH(NULL, 0, 0) == 0 && ATTACH("", 0, 0) == 3);
    CHECK_FAILS(ATTACH("/dev/x", -1, 0), EINVAL);
    CHECK_FAILS(ATTACH("/dev/x", -2, 0), EINVAL);
    CHECK(ATTACH("/dev/x", -2, _RESMGR_FLAG_FTYPEALL) == 4);
    CHECK_FAILS(ATTACH("/dev/x", 0, 0x8000), EINVAL);
    CHECK_FAILS(ATTACH("/dev/x", 0, 0x1f), EINVAL);
    CHECK_FAILS(ATTACH("/dev/name/local/x", 0, 0), EINVAL);
    CHECK_FAILS(ATTACH("/dev/name", 0, 0), EINVAL);
    CHECK(ATTACH("/dev/names", 0, 0) == 5);
    CHECK_FAILS(resmgr_attach(other, NULL, "/dev/x", 0, 0, NULL, NULL, NULL), EINVAL);
    CHECK_FAILS(resmgr_attach(dispatch, NULL, "/dev/x", 0, 0, (void *)&table, NULL, NULL), ENOSYS);
    CHECK_FAILS(resmgr_attach(dispatch, NULL, "/dev/x", 0, 0, NULL, (void *)&table, NULL), ENOSYS);
    CHECK_FAILS(ha_posix_open("/dev/name/local/x", O_RDWR), EINVAL);
    CHECK_FAILS(ha_posix_open("/dev/x/../name/", O_RDWR), EINVAL);
    CHECK_FAILS(ha_posix_open("/dev/x", O_RDWR), ENOENT);
#undef ATTACH
}

/* A server that has detached its path serves those who have it open. */
static void detaching(void)
{
    char data[4];
    int ends[2];
    CHECK(!pipe(ends));
    pid_t child = fork();
    if (!child) {
        int chid = ChannelCreate(0);
        dispatch_t *dispatch = dispatch_create_channel(chid, 0);
        CHECK(!resmgr_attach(dispatch, NULL, PATH, 0, 0, NULL, NULL, NULL));
        CHECK(write(ends[1], "x", 1) == 1);
        struct connect message;
        int rcvid = MsgReceive(chid, &message, sizeof message, NULL);
        CHECK(!MsgReply(rcvid, 0, NULL, 0) && !resmgr_detach(dispatch, 0, 0));
        CHECK(write(ends[1], "x", 1) == 1);
        serve(chid);
        _exit(0);
    }
    CHECK(read(ends[0], data, 1) == 1);
    int fd = ha_posix_open(PATH, O_RDWR);
    CHECK(fd >= 0 && read(ends[0], data, 1) == 1);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    CHECK(ha_posix_read(fd, data, 3) == 3 && !ha_posix_close(fd));
    kill(child, SIGKILL);
}

static void *refuse_all(void *chid)
{
    for (int rcvid; (rcvid = MsgReceive(*(int *)chid, NULL, 0, NULL)) >= 0;)
        if (rcvid)
            MsgError(rcvid, ENOENT);
    return NULL;
}

/*
 * Many processes attach and detach one path, and are killed, while another opens it: each attachment is there whole, or
 * not at all, and the one that stands by is always reached.
 */
static void attaching_under_load(void)
{
    enum { SERVERS = 4, ROUNDS = 60 };
    pid_t children[SERVERS];
    share();
    struct server standby = start(7, PATH, _RESMGR_FLAG_AFTER);
    for (int i = 0; i < SERVERS; i++) {
        children[i] = fork();
        if (children[i])
            continue;
        int chid = ChannelCreate(0);
        dispatch_t *dispatch = dispatch_create_channel(chid, 0);
        start_thread(refuse_all, &chid);
        for (int round = 0; round < ROUNDS; round++) {
            int id = resmgr_attach(dispatch, NULL, PATH, 0, round % 3 ? _RESMGR_FLAG_BEFORE : 0, NULL, NULL, NULL);
            CHECK(id == 0 && !resmgr_detach(dispatch, id, 0));
        }
        if (i % 2) {
            CHECK(!resmgr_attach(dispatch, NULL, PATH, 0, 0, NULL, NULL, NULL));
            kill(getpid(), SIGKILL);
        }
        _exit(0);
    }
    for (int left = SERVERS; left;) {
        int status;
        CHECK(reach(PATH) == 7);
        left -= waitpid(-1, &status, WNOHANG) > 0;
    }
    CHECK(reach(PATH) == 7);
    kill_server(&standby);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
    char directory[256];
    snprintf(directory, sizeof directory, "%s/wire-3/paths/%%2Fdev%%2Fdoor=", getenv("HA_QNX_RUNTIME"));
    CHECK(access(directory, F_OK) < 0); /* Who opens has cleaned up. */
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"the_message", the_message},
        {"answers", answers},
        {"below_a_path", below_a_path},
        {"long_paths", long_paths},
        {"several_servers", several_servers},
        {"lost_servers", lost_servers},
        {"a_server_that_is_killed_with_the_open", a_server_that_is_killed_with_the_open},
        {"deeper_paths", deeper_paths},
        {"files_of_the_host", files_of_the_host},
        {"the_own_process", the_own_process},
        {"the_calls", the_calls},
        {"detaching", detaching},
        {"attaching_under_load", attaching_under_load},
    };
    return RUN_CASES(cases, argc, argv);
}
