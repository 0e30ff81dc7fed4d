/* Names, and descriptors of connections and of ordinary files. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

#define NAME "door"
#define PATH "/dev/" NAME

static void names(void)
{
    char long_name[700];
    memset(long_name, ' ', sizeof long_name - 1); /* Three bytes each, in its file. */
    long_name[sizeof long_name - 1] = '\0';
    name_attach_t *attached = name_attach(NULL, "a/b", 0);
    CHECK(attached && attached->chid > 0);
    errno = 0;
    CHECK(!name_attach(NULL, "a/b", 0) && errno == EEXIST);
    CHECK(!name_attach(NULL, "/a", 0) && errno == EINVAL);
    /* The same name, written otherwise. */
    CHECK(!name_attach(NULL, "a//b", 0) && errno == EEXIST);
    CHECK(!name_attach(NULL, "./a/b/", 0) && errno == EEXIST);
    CHECK(name_open("a/./b/", 0) > _NTO_SIDE_CHANNEL);
    CHECK(!name_attach(NULL, "a/../b", 0) && errno == EINVAL);
    CHECK(!name_attach(NULL, "a..", 0) && errno == EINVAL);
    CHECK(!name_attach(NULL, ".", 0) && errno == EINVAL);
    CHECK(!name_attach(NULL, NULL, 0) && errno == EINVAL);
    CHECK(!name_attach(NULL, "global", NAME_FLAG_ATTACH_GLOBAL) && errno == ENOENT);
    CHECK_FAILS(name_open("nobody", 0), ENOENT);
    CHECK_FAILS(name_open("nobody", NAME_FLAG_ATTACH_GLOBAL), ENOENT);
    CHECK_FAILS(name_open("a", 0), ENOENT); /* On QNX, a number that leads to nothing. */
    CHECK_FAILS(name_open("c/../a/b", 0), ENOENT);
    CHECK_FAILS(name_open("", 0), EINVAL);
    CHECK(!name_detach(attached, 0));
    CHECK_FAILS(name_detach(attached, 0), EINVAL);
    attached = name_attach(NULL, long_name, 0);
    CHECK(attached && !name_detach(attached, 0));
    const char *odd[] = {"..a", "a/..b", "a b", "*", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        attached = name_attach(NULL, odd[i], 0);
        CHECK(attached && name_open(odd[i], 0) > _NTO_SIDE_CHANNEL && !name_detach(attached, 0));
    }
    attached = name_attach(NULL, "without a channel", 0);
    CHECK(attached && !ChannelDestroy(attached->chid));
    CHECK_FAILS(name_open("without a channel", 0), ESRCH);
    errno = 0;
    CHECK(!name_attach(NULL, "without a channel", 0) && errno == EEXIST);
    CHECK(!name_detach(attached, 0));
    struct server server = start_named_server(NAME, serve);
    int coid = name_open(NAME, 0);
    CHECK(coid > _NTO_SIDE_CHANNEL && ask_pid(coid) == server.pid && !name_close(coid));
    CHECK_FAILS(name_close(coid), EINVAL);
    errno = 0;
    CHECK(!name_attach(NULL, NAME, 0) && errno == EEXIST);
    kill_server(&server);
    CHECK_FAILS(name_open(NAME, 0), ENOENT);
    attached = name_attach(NULL, NAME, 0);
    CHECK(attached && !name_detach(attached, 0));
}

/* It answers every _IO_CONNECT by the error EPERM, and everything else by the number of those. */
static void serve_strictly(int chid)
{
    uint16_t type = 0;
    int connects = 0;
    for (int rcvid; (rcvid = MsgReceive(chid, &type, sizeof type, NULL)) >= 0; type = 0) {
        if (rcvid && type == _IO_CONNECT && ++connects)
            MsgError(rcvid, EPERM);
        else if (rcvid)
            MsgReply(rcvid, connects, NULL, 0);
    }
}

/* name_open tells the server nothing, unless a global name service is said to run. */
static void opening_a_name(void)
{
    start_named_server(NAME, serve_strictly);
    int coid = name_open(NAME, 0);
    CHECK(coid > _NTO_SIDE_CHANNEL && MsgSend(coid, NULL, 0, NULL, 0) == 0);
    CHECK(!setenv("HA_QNX_GNS", "1", 1));
    CHECK_FAILS(name_open(NAME, 0), EPERM);
    CHECK(MsgSend(coid, NULL, 0, NULL, 0) == 1);
    CHECK(!unsetenv("HA_QNX_GNS"));
    coid = name_open(NAME, 0);
    CHECK(coid > _NTO_SIDE_CHANNEL && MsgSend(coid, NULL, 0, NULL, 0) == 1);
}

static void a_server_behind_a_path(void)
{
    char data[16] = "";
    struct server server = start_path_server(PATH, 0, serve);
    int fd = ha_posix_open(PATH, O_RDWR);
    CHECK(fd >= 0 && fd < 512);
    CHECK(ha_posix_read(fd, data, 5) == 5 && !strcmp(data, "xxxxx"));
    CHECK(ha_posix_write(fd, "0123456789", 10) == 10);
    CHECK(ha_posix_lseek(fd, INT64_C(1) << 40, SEEK_SET) == INT64_C(1) << 40);
    int copy = ha_posix_dup(fd);
    CHECK(copy > fd && ha_posix_read(copy, data, 3) == 3);
    CHECK(ha_posix_dup2(fd, 99) == 99 && ha_posix_read(99, data, 3) == 3);
    CHECK(ha_posix_dup2(fd, 99) == 99 && ha_posix_dup2(99, 99) == 99);
    CHECK_FAILS(ha_posix_dup2(fd, -1), EBADF);
    CHECK_FAILS(ha_posix_dup(9999), EBADF);
    CHECK(!ha_posix_close(copy) && !ha_posix_close(99));
    CHECK_FAILS(ha_posix_read(copy, data, 3), EBADF);
    kill_server(&server);
    CHECK_FAILS(ha_posix_write(fd, "1", 1), EBADF);
    CHECK_FAILS(ha_posix_dup(fd), ESRCH);
    CHECK_FAILS(ha_posix_close(fd), EBADF);
    CHECK(fcntl(fd, F_GETFD) < 0);
    CHECK_FAILS(ha_posix_open(PATH, O_RDWR), ENOENT);
}

static void an_ordinary_file(void)
{
    char path[64], data[8] = "";
    snprintf(path, sizeof path, "%s/file", getenv("HA_QNX_RUNTIME"));
    int fd = ha_posix_open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && ha_posix_write(fd, "content", 7) == 7 && ha_posix_lseek(fd, 3, SEEK_SET) == 3);
    CHECK(ha_posix_read(fd, data, sizeof data) == 4 && !strcmp(data, "tent"));
    CHECK_FAILS(MsgSend(fd, NULL, 0, NULL, 0), ENOSYS);
    CHECK_FAILS(ConnectDetach(fd), EINVAL);
    int copy = ha_posix_dup(fd);
    CHECK(copy > fd && ha_posix_dup2(fd, copy) == copy && !ha_posix_close(copy) && !ha_posix_close(fd));
    CHECK_FAILS(ha_posix_close(fd), EBADF);
}

#define GET __DIOF(_DCMD_MISC, 1, int)
#define CHANGE __DIOTF(_DCMD_MISC, 2, int)
#define SET __DIOT(_DCMD_MISC, 3, int)

/* It answers device commands by their data, and refuses those without any. */
static void serve_commands(int chid)
{
    struct {
        uint16_t type, combine_len;
        int32_t dcmd;
        uint32_t nbytes, zero;
        int data;
    } message;
    for (int rcvid; (rcvid = MsgReceive(chid, &message, sizeof message, NULL)) >= 0;) {
        struct {
            int32_t zero, ret_val;
            uint32_t nbytes, zero2;
            int data;
        } reply = {0, message.dcmd & 0xff, 99, 0, message.data + 1};
        if (message.type != _IO_DEVCTL)
            MsgReply(rcvid, 0, NULL, 0);
        else if (message.dcmd & _POSIX_DEVDIR_TOFROM)
            MsgReply(rcvid, 0, &reply, sizeof reply);
        else
            MsgError(rcvid, message.nbytes ? EPERM : ENOSYS);
        message.data = 41;
    }
}

static void device_commands(void)
{
    int data = 7, info = 99;
    struct server server = start_path_server(PATH, 0, serve_commands);
    int fd = ha_posix_open(PATH, O_RDWR);
    CHECK(GET == 0x40040501 && SET == (int)0x80040503 && CHANGE == (int)0xc0040502 && __DION(_DCMD_MISC, 4) == 0x504);
    errno = EAGAIN;
    CHECK(!devctl(fd, CHANGE, &data, sizeof data, &info) && data == 8 && info == 2);
    CHECK(!devctl(fd, SET, &data, sizeof data, &info) && data == 8 && info == 3);
    CHECK(!devctl(fd, GET, &data, sizeof data, NULL) && data == 42);
    CHECK(devctl(fd, __DION(_DCMD_MISC, 4), NULL, 0, &info) == ENOTTY && info == 3);
    CHECK(devctl(fd, __DION(_DCMD_MISC, 4), &data, 1, &info) == EPERM && errno == EAGAIN);
    CHECK(devctl(0, GET, &data, sizeof data, &info) == ENOTTY && devctl(9999, GET, &data, sizeof data, &info) == EBADF);
    CHECK(!devctl(fd, CHANGE, NULL, 0, NULL) && devctl(fd, CHANGE, NULL, 4, NULL) == EFAULT);
    kill_server(&server);
    CHECK(devctl(fd, GET, &data, sizeof data, &info) == EBADF && data == 42 && errno == EAGAIN);
}

/* It tells what is in the action's and the flags' place, and delivers the event at once. */
static void serve_readiness(int chid)
{
    struct {
        uint16_t type, combine_len;
        int32_t action, flags, rest[13];
        struct ha_posix_sigevent event;
    } message;
    for (int rcvid; (rcvid = MsgReceive(chid, &message, sizeof message, NULL)) >= 0;) {
        int32_t reply[2] = {0, message.type == _IO_NOTIFY64 && message.combine_len == 96 ? message.flags : 0};
        if (message.action == _NOTIFY_ACTION_CONDARM)
            MsgError(rcvid, EAGAIN);
        else
            MsgReply(rcvid, 0, reply, message.action == _NOTIFY_ACTION_POLL ? 0 : sizeof reply);
        if (message.event.sigev_notify)
            MsgDeliverEvent(rcvid, &message.event);
    }
}

static void readiness(void)
{
    struct _pulse pulse;
    struct ha_posix_sigevent event = {0};
    struct server server = start_path_server(PATH, 0, serve_readiness);
    int fd = ha_posix_open(PATH, O_RDWR), chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    HA_POSIX_SIGEV_PULSE_INIT(&event, coid, SIGEV_PULSE_PRIO_INHERIT, 5, 77);
    CHECK(ionotify(fd, _NOTIFY_ACTION_POLLARM, _NOTIFY_COND_OUTPUT, NULL) == _NOTIFY_COND_OUTPUT);
    CHECK(!ionotify(fd, _NOTIFY_ACTION_TRANARM, 0, &event));
    CHECK(!MsgReceivePulse(chid, &pulse, sizeof pulse, NULL) && pulse.code == 5 && pulse.value.sival_int == 77);
    CHECK(ionotify(fd, _NOTIFY_ACTION_POLL, _NOTIFY_COND_INPUT, NULL) == _NOTIFY_ACTION_POLL); /* No reply. */
    CHECK_FAILS(ionotify(fd, _NOTIFY_ACTION_CONDARM, _NOTIFY_COND_INPUT, NULL), EAGAIN);
    CHECK_FAILS(ionotify(0, _NOTIFY_ACTION_POLL, _NOTIFY_COND_INPUT, NULL), ENOSYS);
    CHECK_FAILS(ionotify(9999, _NOTIFY_ACTION_POLL, _NOTIFY_COND_INPUT, NULL), EBADF);
    kill_server(&server);
    CHECK_FAILS(ionotify(fd, _NOTIFY_ACTION_POLLARM, _NOTIFY_COND_INPUT, &event), EBADF);
}

/* Descriptors that are closed behind the library's back. */
static void a_stolen_number(void)
{
    int ends[2];
    struct server server = start_server(serve, 0);
    int other = ConnectAttach(0, server.pid, server.chid, 0, 0), fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
    CHECK(!close(fd) && ConnectAttach(0, server.pid, server.chid, 0, 0) == fd && ask_pid(fd) == server.pid);
    CHECK(!close(fd) && ha_posix_dup2(other, fd) == fd && ask_pid(fd) == server.pid);
    CHECK(!close(fd));
    CHECK_FAILS(ask_pid(fd), EBADF);
    CHECK(ConnectAttach(0, server.pid, server.chid, 0, 0) == fd);
    CHECK(!close(fd) && !pipe(ends) && ends[0] == fd);
    for (int use = 0; use < 3; use++)
        CHECK_FAILS(ask_pid(fd), EBADF);
    CHECK_FAILS(ha_posix_close(fd), EBADF); /* The connection is gone by now; the pipe is not. */
    CHECK(!ha_posix_close(fd) && ask_pid(other) == server.pid);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"names", names},
        {"opening_a_name", opening_a_name},
        {"a_server_behind_a_path", a_server_behind_a_path},
        {"an_ordinary_file", an_ordinary_file},
        {"device_commands", device_commands},
        {"readiness", readiness},
        {"a_stolen_number", a_stolen_number},
    };
    return RUN_CASES(cases, argc, argv);
}
