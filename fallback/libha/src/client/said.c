#include "client/said.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "ha_posix.h"
#include "host/descriptor.h"

static int file = -1;
static int epoll = -1;

long said_place(int coid)
{
    return 2L * (coid & ~_NTO_SIDE_CHANNEL) + (coid & _NTO_SIDE_CHANNEL ? 1 : 0);
}

int said_file(void)
{
    if (file < 0 || !descriptor_is_still(file))
        file = descriptor_memory();
    return file;
}

void said_say(int coid, enum said state)
{
    const unsigned char byte = (unsigned char)state;
    if (file >= 0 && descriptor_is_still(file) && pwrite(file, &byte, 1, said_place(coid)) != 1)
        errno = 0; /* There is no memory: servers take it for no connection. */
}

int said_epoll(int *is_new)
{
    *is_new = epoll < 0;
    if (*is_new)
        epoll = descriptor_epoll();
    return epoll;
}

void said_watch(void *trunk, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = trunk};
    if (epoll >= 0)
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

void said_forget(int fd)
{
    if (epoll >= 0 && fd >= 0)
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}

void *said_ready(void)
{
    struct epoll_event event;
    return epoll >= 0 && epoll_wait(epoll, &event, 1, 0) > 0 ? event.data.ptr : NULL;
}

void said_after_fork_in_child(void)
{
    file = epoll = -1; /* They are closed already. */
}
