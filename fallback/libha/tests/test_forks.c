/* What a child has of its parent's connections, and what another program has. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static char own_path[4096];

static void check_child(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
}

static void connections_of_a_child(void)
{
    struct server server = start_server(serve, _NTO_CHF_DISCONNECT);
    int fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
    int side = ConnectAttach(0, server.pid, server.chid, _NTO_SIDE_CHANNEL, 0);
    int chid = ChannelCreate(0);
    ask(fd, 1);
    ask(side, 2);
    pid_t child = fork();
    if (!child) {
        ask(fd, 3);
        CHECK_FAILS(ask_pid(side), EBADF);
        CHECK_FAILS(ChannelDestroy(chid), EINVAL);
        CHECK(!ha_posix_close(fd));
        exit(0);
    }
    check_child(child);
    ask(fd, 4);
    ask(side, 5);
}

static int reconnect(int coid, void *handle)
{
    struct server *server = handle;
    return ha_ReConnectAttach(coid, 0, server->pid, server->chid, 0, 0);
}

static void recovery_in_a_child(void)
{
    struct server first = start_server(serve, 0), second = start_server(serve, 0);
    int fd = ha_ConnectAttach(0, first.pid, first.chid, 0, 0, reconnect, &second, 0);
    CHECK(ask_pid(fd) == first.pid);
    kill_server(&first);
    pid_t child = fork();
    if (!child) {
        CHECK(ask_pid(fd) == second.pid);
        exit(0);
    }
    check_child(child);
    CHECK(ask_pid(fd) == second.pid);
}

#ifndef __SANITIZE_THREAD__ /* Its own allocator does not survive forks of several threads. */
static void *ask_for_ever(void *argument)
{
    for (int i = 1;; i = i % 1000 + 1)
        ask(*(int *)argument, i);
    return NULL;
}

/* Forks find the library in one piece, whatever its threads are doing. */
static void forks_under_load(void)
{
    struct server server = start_server(serve, 0);
    int fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
    start_thread(ask_for_ever, &fd);
    start_thread(ask_for_ever, &fd);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (!child) {
            alarm(60);
            ask(fd, 2);
            int chid = ChannelCreate(0);
            _exit(chid > 0 && ConnectAttach(0, 0, chid, 0, 0) >= 0 ? 0 : 1);
        }
        check_child(child);
    }
    _exit(0); /* The threads are still at it. */
}
#endif

/* A connection that is not close-on-exec has the same number in the program that its process becomes. */
static void a_connection_of_another_program(void)
{
    char kept[16], closed[16];
    struct server server = start_server(serve, 0);
    int fd = ConnectAttach(0, server.pid, server.chid, 0, 0), other = ConnectAttach(0, server.pid, server.chid, 0, 0);
    CHECK(ConnectFlags(0, fd, _NTO_COF_CLOEXEC, 0) == _NTO_COF_CLOEXEC);
    snprintf(kept, sizeof kept, "%d", fd);
    snprintf(closed, sizeof closed, "%d", other);
    pid_t child = fork();
    if (!child) {
        execl(own_path, own_path, "--after-exec", kept, closed, (char *)NULL);
        _exit(2);
    }
    check_child(child);
}

static void after_exec(const char *kept, const char *closed)
{
    ask(atoi(kept), 6);
    CHECK_FAILS(ask_pid(atoi(closed)), EBADF);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"connections_of_a_child", connections_of_a_child},
        {"recovery_in_a_child", recovery_in_a_child},
#ifndef __SANITIZE_THREAD__
        {"forks_under_load", forks_under_load},
#endif
        {"a_connection_of_another_program", a_connection_of_another_program},
    };
    if (argc == 4 && !strcmp(argv[1], "--after-exec")) {
        after_exec(argv[2], argv[3]);
        return 0;
    }
    CHECK(realpath(argv[0], own_path));
    return RUN_CASES(cases, argc, argv);
}
