/* The floor: a blocking ping-pong of 64 bytes between two processes over a stream socket pair. Prints each round trip's
 * time in nanoseconds, one a line. Affinity is the caller's business, but for that of the server if a CPU is named for it:
 * floor COUNT [CPU]. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64 };

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void serve(int fd, const char *cpu)
{
    if (cpu) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(atoi(cpu), &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0)
            _exit(1);
    }
    char message[SIZE];
    while (read(fd, message, SIZE) == SIZE)
        if (write(fd, message, SIZE) != SIZE)
            break;
    _exit(0);
}

int main(int argc, char **argv)
{
    int ends[2], count = argc > 1 ? atoi(argv[1]) : 0;
    if (count < 1 || socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0)
        return 2;
    long *times = malloc(sizeof *times * (size_t)count);
    pid_t server = times ? fork() : -1;
    if (server == 0) {
        close(ends[0]);
        serve(ends[1], argc > 2 ? argv[2] : NULL);
    }
    close(ends[1]);
    if (server < 0)
        return 2;
    char message[SIZE] = {0};
    for (int i = 0; i < count; i++) {
        long start = now();
        if (write(ends[0], message, SIZE) != SIZE || read(ends[0], message, SIZE) != SIZE)
            return 1;
        times[i] = now() - start;
    }
    close(ends[0]);
    waitpid(server, NULL, 0);
    for (int i = 0; i < count; i++)
        printf("%ld\n", times[i]);
    free(times);
    return 0;
}
