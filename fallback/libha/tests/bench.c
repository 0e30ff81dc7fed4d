/*
 * How long a message takes there and back, client and server being processes of this library, against the floor: the
 * same bytes through a stream socket pair with blocking calls. All processes run on one CPU, and the two take turns, so
 * that whatever else the machine does meets both.
 *
 *     bench [-j] [ROUNDS [MESSAGES [BYTES]]]
 *
 * -j prints one line of JSON. The exit status is 0 whatever was measured.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ha_posix.h"

/* The first messages of each round are not counted. */
#define WARM_UP 500

static int rounds = 10;
static int messages = 10000;
static size_t size = 64;
static char *message, *answer;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void check(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void read_all(int fd, char *buffer)
{
    for (size_t done = 0; done < size;) {
        ssize_t length = read(fd, buffer + done, size - done);
        if (length <= 0)
            _exit(0);
        done += (size_t)length;
    }
}

static void write_all(int fd, const char *buffer)
{
    for (size_t done = 0; done < size;) {
        ssize_t length = write(fd, buffer + done, size - done);
        check(length > 0, "write");
        done += (size_t)length;
    }
}

static void serve_socket(int sock)
{
    for (;;) {
        read_all(sock, message);
        write_all(sock, message);
    }
}

static void serve_channel(int ready)
{
    int chid = ChannelCreate(0);
    check(chid > 0 && write(ready, &chid, sizeof chid) == sizeof chid, "ChannelCreate");
    for (;;) {
        int rcvid = MsgReceive(chid, message, size, NULL);
        check(rcvid > 0, "MsgReceive");
        check(!MsgReply(rcvid, 0, message, size), "MsgReply");
    }
}

/* Runs a function in another process, which ends with this one. */
static pid_t start(void (*function)(int), int argument)
{
    pid_t child = fork();
    check(child >= 0, "fork");
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        function(argument);
        _exit(0);
    }
    return child;
}

static void exchange_socket(int sock)
{
    write_all(sock, message);
    read_all(sock, answer);
}

static void exchange_channel(int coid)
{
    check(!MsgSend(coid, message, size, answer, size), "MsgSend");
}

struct way {
    const char *name;
    void (*exchange)(int number);
    int number;
    double *times; /* of all rounds */
    double p50, p99;
};

static void measure(struct way *way, int round)
{
    for (int i = -WARM_UP; i < messages; i++) {
        double before = now();
        way->exchange(way->number);
        if (i >= 0)
            way->times[round * messages + i] = now() - before;
    }
}

static void sum_up(struct way *way)
{
    size_t count = (size_t)rounds * (size_t)messages;
    qsort(way->times, count, sizeof *way->times, compare);
    way->p50 = way->times[count / 2];
    way->p99 = way->times[count * 99 / 100];
}

int main(int argc, char **argv)
{
    int as_json = argc > 1 && !strcmp(argv[1], "-j"), sockets[2], ready[2], chid;
    cpu_set_t cpus;
    argv += as_json;
    argc -= as_json;
    rounds = argc > 1 ? atoi(argv[1]) : rounds;
    messages = argc > 2 ? atoi(argv[2]) : messages;
    size = argc > 3 ? (size_t)atol(argv[3]) : size;
    check(rounds > 0 && messages > 0 && size > 0, "usage: bench [-j] [ROUNDS [MESSAGES [BYTES]]]");
    message = calloc(1, size);
    answer = calloc(1, size);
    check(message && answer, "memory");
    check(!sched_getaffinity(0, sizeof cpus, &cpus), "sched_getaffinity");
    for (int cpu = 0, found = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &cpus) && found++)
            CPU_CLR(cpu, &cpus);
    }
    check(!sched_setaffinity(0, sizeof cpus, &cpus), "sched_setaffinity");

    check(!socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) && !pipe(ready), "socketpair");
    start(serve_socket, sockets[1]);
    pid_t server = start(serve_channel, ready[1]);
    check(read(ready[0], &chid, sizeof chid) == sizeof chid, "read");
    struct way ways[] = {
        {"blocking socket pair (the floor)", exchange_socket, sockets[0], NULL, 0, 0},
        {"MsgSend, side channel", exchange_channel, ConnectAttach(0, server, chid, _NTO_SIDE_CHANNEL, 0), NULL, 0, 0},
        {"MsgSend, descriptor", exchange_channel, ConnectAttach(0, server, chid, 0, 0), NULL, 0, 0},
    };
    const int count = sizeof ways / sizeof *ways;
    for (int i = 0; i < count; i++) {
        check(ways[i].number >= 0, ways[i].name);
        ways[i].times = calloc((size_t)rounds * (size_t)messages, sizeof *ways[i].times);
        check(ways[i].times != NULL, "memory");
    }
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < count; i++)
            measure(&ways[i], round);
    for (int i = 0; i < count; i++)
        sum_up(&ways[i]);
    if (as_json) {
        printf("{\"bytes\": %zu, \"messages\": %d, ", size, rounds * messages);
        printf("\"floor_us\": %.3f, \"side_channel_us\": %.3f, \"descriptor_us\": %.3f}\n", ways[0].p50, ways[1].p50,
               ways[2].p50);
        return 0;
    }
    printf("%zu bytes there and back, %d times each, on one CPU\n", size, rounds * messages);
    for (int i = 0; i < count; i++)
        printf("%-34s p50 %7.2f us   p99 %7.2f us   %.2f of the floor\n", ways[i].name, ways[i].p50, ways[i].p99,
               ways[i].p50 / ways[0].p50);
    return 0;
}
