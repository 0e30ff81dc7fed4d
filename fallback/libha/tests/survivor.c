/*
 * A client that outlives its server:
 *
 *     survivor PATH COUNT
 *
 * It opens a path, sends COUNT messages "0", "1" and so on, and prints each reply. When the server dies, with a message
 * or between two, the library calls recover(), which waits for the next server of that path; then the message is sent
 * again, and main() has noticed nothing.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ha_posix.h"

/* How long a new server may take: tries, one every 10 ms. */
#define TRIES 3000

struct target {
    const char *path;
    int recoveries;
};

static int recover(int coid, void *handle)
{
    struct target *target = handle;
    const struct timespec pause = {0, 10000000};
    for (int i = 0; i < TRIES; i++) {
        if (ha_reopen(coid, target->path, O_RDWR) == coid) {
            target->recoveries++;
            return coid;
        }
        nanosleep(&pause, NULL);
    }
    return -1;
}

int main(int argc, char **argv)
{
    static struct target target;
    if (argc != 3) {
        fprintf(stderr, "usage: %s PATH COUNT\n", argv[0]);
        return 2;
    }
    target.path = argv[1];
    int count = atoi(argv[2]);
    int fd = ha_open(target.path, O_RDWR, recover, &target, 0);
    if (fd < 0) {
        fprintf(stderr, "%s: %s: %s\n", argv[0], target.path, strerror(errno));
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < count; i++) {
        char question[32], reply[256] = "";
        int length = snprintf(question, sizeof question, "%d", i);
        long status = MsgSend(fd, question, (size_t)length, reply, sizeof reply - 1);
        if (status == -1) {
            fprintf(stderr, "%s: message %d: %s\n", argv[0], i, strerror(errno));
            return 1;
        }
        printf("%d: status %ld, reply %s\n", i, status, reply);
    }
    fprintf(stderr, "%d messages, %d recoveries\n", count, target.recoveries);
    return ha_close(fd) ? 1 : 0;
}
