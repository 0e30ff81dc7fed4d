/* libha: HA-aware connections. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

#define NAME "thermostat"
#define PATH "/dev/" NAME

/* What recovery functions are given. */
struct remedy {
    struct server server; /* to connect to */
    atomic_int calls;
    int result; /* -2: reconnect */
    long plain; /* what a message inside the recovery function returned */
};

static int reconnect(int coid, void *handle)
{
    struct remedy *remedy = handle;
    atomic_fetch_add(&remedy->calls, 1);
    remedy->plain = MsgSend_r(coid, "inside", 6, NULL, 0);
    if (remedy->result != -2)
        return remedy->result;
    return ha_ReConnectAttach(coid, 0, remedy->server.pid, remedy->server.chid, 0, 0);
}

static void a_raw_connection(unsigned index)
{
    struct server first = start_server(serve, 0);
    struct remedy remedy = {.server = start_server(serve, 0), .result = -2};
    int coid = ha_ConnectAttach(0, first.pid, first.chid, index, 0, reconnect, &remedy, 0);
    CHECK(coid >= 0 && ask_pid(coid) == first.pid);
    kill_server(&first);
    CHECK(ask_pid(coid) == remedy.server.pid && remedy.calls == 1 && remedy.plain == -EBADF);
    ask(coid, 7);
    CHECK(remedy.calls == 1);
    CHECK_FAILS(ha_attach(coid, reconnect, &remedy, 0), EEXIST);
    CHECK(!ha_attach(coid, reconnect, &remedy, HAREPLACERECOVERYFN));
    CHECK(!ha_ConnectDetach(coid));
    CHECK_FAILS(ha_ConnectDetach(coid), EBADF);
    CHECK(ha_ConnectDetach_r(coid) == -EBADF);
}

static void a_descriptor(void)
{
    a_raw_connection(0);
}

static void a_side_channel(void)
{
    a_raw_connection(_NTO_SIDE_CHANNEL);
}

static void no_recovery(void)
{
    struct server server = start_server(serve, 0);
    struct remedy remedy = {.result = -1};
    int coid = ConnectAttach(0, server.pid, server.chid, 0, 0);
    CHECK_FAILS(ha_attach(9999, reconnect, &remedy, 0), EBADF);
    CHECK_FAILS(ha_attach(coid, reconnect, &remedy, 77), EINVAL);
    CHECK_FAILS(ha_detach(coid), EBADF);
    CHECK_FAILS(ha_ConnectDetach(coid), EBADF);
    CHECK_FAILS(ha_dup(coid), EBADF);
    CHECK_FAILS(ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND, NULL), EBADF);
    CHECK_FAILS(ha_ConnectAttach(0, 0, 9999, 0, 0, reconnect, &remedy, 0), ESRCH);
    CHECK(ha_ConnectAttach_r(0, 0, 9999, 0, 0, reconnect, &remedy, 0) == -ESRCH);
    CHECK(!ha_attach(coid, reconnect, &remedy, 0));
    kill_server(&server);
    CHECK_FAILS(ask_pid(coid), EBADF);
    remedy.result = coid + 1;
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 2);
    CHECK(!ha_detach(coid));
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 2);
}

static void limits(void)
{
    struct server server = start_server(serve, 0);
    struct remedy remedy = {.result = -1};
    int coid = ha_ConnectAttach(0, server.pid, server.chid, 0, 0, reconnect, &remedy, 0);
    remedy.result = coid; /* It says that it has recovered, and has not. */
    kill_server(&server);
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, (void *)(intptr_t)3));
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 3);
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 3);
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_RESET_ICOUNT, NULL));
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_ACOUNT, (void *)(intptr_t)5));
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 5);
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_RESET_ICOUNT, NULL));
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_RESET_ACOUNT, NULL));
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND, NULL));
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 5);
    CHECK(!ha_connection_ctrl(coid, HA_RECOVERY_ENABLE, NULL));
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 8);
    CHECK_FAILS(ha_connection_ctrl(coid, 99, NULL), EINVAL);
}

static int reopen(int coid, void *handle)
{
    atomic_fetch_add((atomic_int *)handle, 1);
    return ha_reopen(coid, PATH, O_RDWR);
}

static void an_open_file(void)
{
    atomic_int calls = 0;
    char data[8] = "";
    struct server first = start_path_server(PATH, 0, serve);
    int fd = ha_open(PATH, O_RDWR, reopen, &calls, 0);
    CHECK(fd >= 0 && ha_posix_write(fd, "22.5", 4) == 4);
    kill_server(&first);
    struct server second = start_path_server(PATH, 0, serve);
    CHECK(ha_posix_write(fd, "22.5", 4) == 4 && calls == 1);
    kill_server(&second);
    struct server third = start_path_server(PATH, 0, serve);
    CHECK(ha_posix_read(fd, data, 4) == 4 && !strcmp(data, "xxxx") && calls == 2);
    int copy = ha_dup(fd);
    CHECK(copy > fd && ask_pid(copy) == third.pid);
    kill_server(&third);
    struct server fourth = start_path_server(PATH, 0, serve);
    CHECK(ha_posix_lseek(fd, 1234567, SEEK_SET) == 1234567 && calls == 3);
    CHECK(ask_pid(copy) == fourth.pid && calls == 4);
    CHECK(!MsgSendPulse(fd, 10, 1, 1) && calls == 4);
    kill_server(&fourth);
    start_path_server(PATH, 0, serve);
    CHECK(!MsgSendPulse(fd, 10, 1, 1) && calls == 5);
    CHECK(!ha_close(fd));
    CHECK_FAILS(ha_close(fd), EBADF);
    CHECK_FAILS(ha_close(copy), EBADF); /* Nobody has used it since. Its number is free all the same. */
    CHECK_FAILS(ha_close(copy), EBADF);
    CHECK(fcntl(copy, F_GETFD) < 0);
    CHECK_FAILS(ha_open("/dev/nobody", O_RDWR, reopen, &calls, 0), ENOENT);
    fd = ha_open64(PATH, O_RDWR, reopen, &calls, 0);
    CHECK(fd >= 0 && !ha_close(fd));
    fd = ha_creat(PATH, 0600, reopen, &calls, 0);
    CHECK(fd >= 0 && !ha_close(fd));
    fd = ha_creat64(PATH, 0600, reopen, &calls, 0);
    CHECK(fd >= 0 && !ha_close(fd));
}

static atomic_int coid_of_all;

static void *ask_some(void *argument)
{
    (void)argument;
    for (int i = 1; i <= 20; i++)
        ask(coid_of_all, i);
    return NULL;
}

/* However many threads meet the failure, one of them recovers. */
static void several_threads(void)
{
    pthread_t threads[4];
    struct server first = start_server(serve, 0);
    struct remedy remedy = {.server = start_server(serve, 0), .result = -2};
    coid_of_all = ha_ConnectAttach(0, first.pid, first.chid, 0, 0, reconnect, &remedy, 0);
    kill_server(&first);
    for (int i = 0; i < 4; i++)
        threads[i] = start_thread(ask_some, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(remedy.calls == 1);
}

/* The number of an HA-aware descriptor that was closed elsewhere is somebody else's: it is left alone. */
static void a_number_that_is_somebody_elses(void)
{
    int ends[2];
    struct server server = start_server(serve, 0);
    struct remedy remedy = {.server = start_server(serve, 0), .result = -2};
    int coid = ha_ConnectAttach(0, server.pid, server.chid, 0, 0, reconnect, &remedy, 0);
    CHECK(!close(coid) && !pipe(ends) && ends[0] == coid);
    CHECK_FAILS(ask_pid(coid), EBADF);
    CHECK(remedy.calls == 1);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK_FAILS(ha_close(coid), EBADF);
    CHECK(ha_posix_read(coid, ends, 1) == 1);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"a_descriptor", a_descriptor},
        {"a_side_channel", a_side_channel},
        {"no_recovery", no_recovery},
        {"limits", limits},
        {"an_open_file", an_open_file},
        {"several_threads", several_threads},
        {"a_number_that_is_somebody_elses", a_number_that_is_somebody_elses},
    };
    return RUN_CASES(cases, argc, argv);
}
