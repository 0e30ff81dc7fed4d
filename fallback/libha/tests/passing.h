/* Passing descriptors over a socket, for those that speak the wire themselves. */
#ifndef PASSING_H
#define PASSING_H

#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* At most this many at once. */
#define PASSED_MAX 64

/* Sends bytes with descriptors; what sendmsg() returns. */
static inline ssize_t send_passing(int sock, const void *bytes, size_t size, const int *fds, size_t count, int flags)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(PASSED_MAX * sizeof(int))];
    } control;
    struct iovec part = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (count) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(int));
    }
    return sendmsg(sock, &message, flags);
}

#endif
