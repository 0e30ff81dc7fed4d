/* Descriptors, of connections as of ordinary files (B310 to B345). */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "calls/call.h"
#include "calls/connect.h"
#include "calls/send.h"
#include "client/connection.h"
#include "client/io_message.h"
#include "client/recovery.h"
#include "client/trunk.h"
#include "ha_posix.h"

/* The most that one call reads or writes, as on Linux. */
#define TRANSFER_MAX 0x7ffff000

/* close(): an _IO_CLOSE message, then the number is free whatever the answer, unless a signal came between (B328). */
static int close_ours(int fd)
{
    const struct io_close message = {_IO_CLOSE, sizeof message};
    long status = 0;
    int error = send_bytes(fd, &message, sizeof message, &status);
    if (error != EINTR)
        connection_detach(fd);
    return error;
}

/* On QNX, each of these sends a message, and so takes an armed timeout with it (B212). */
static int close_host(int fd)
{
    thread_disarm(thread_self());
    return close(fd) ? errno : 0;
}

int file_close(int fd)
{
    struct attachment *attachment = attachment_take(fd);
    bool is_ours = connection_is_ours(fd);
    int error = is_ours ? close_ours(fd) : close_host(fd);
    if (is_ours && error == EINTR)
        attachment_give_back(fd, attachment);
    else
        attachment_drop(attachment);
    return error;
}

/* A copy of a connection; the server gets an _IO_DUP message on it (B333). */
static int copy_connection(int fd, int index, bool exactly, int *copy)
{
    struct io_dup message;
    long status = 0;
    int chid, scoid, error = connection_describe(fd, &chid, &scoid);
    if (!error)
        error = connection_copy(fd, index, exactly, copy);
    if (error)
        return error;
    attachment_drop(attachment_take(*copy));
    io_dup_message(&message, getpid(), chid, scoid, fd);
    error = send_bytes(*copy, &message, sizeof message, &status);
    if (error)
        connection_detach(*copy);
    return error;
}

int file_dup(int fd, int *copy)
{
    if (fd < 0 || fd & _NTO_SIDE_CHANNEL)
        return EBADF;
    if (connection_is_ours(fd)) {
        int error = connection_is_open(fd) ? connection_check(fd) : EBADF; /* B336 */
        return error ? error : copy_connection(fd, 0, false, copy);
    }
    thread_disarm(thread_self());
    *copy = dup(fd);
    if (*copy < 0)
        return errno;
    connection_give_way(*copy);
    attachment_drop(attachment_take(*copy)); /* D5 */
    return 0;
}

/* What is under a number is closed before another descriptor comes there (B337). */
static void make_way(int fd)
{
    if (connection_is_ours(fd))
        close_ours(fd);
    else
        close_host(fd);
}

static int dup_to(int fd, int fd2)
{
    if (fd < 0 || fd & _NTO_SIDE_CHANNEL || fd2 < 0 || fd2 & _NTO_SIDE_CHANNEL)
        return EBADF;
    if (!connection_is_open(fd) || (connection_is_ours(fd) && connection_check(fd)))
        return EBADF;
    if (fd == fd2)
        return 0;
    struct attachment *attachment = attachment_take(fd2);
    int error = 0, copy;
    if (connection_is_ours(fd)) {
        if (connection_is_open(fd2))
            make_way(fd2);
        error = copy_connection(fd, fd2, true, &copy);
        if (error && error != EINTR && error != ETIMEDOUT)
            error = EBADF; /* Whatever the server says (B439). */
    } else {
        if (connection_is_ours(fd2))
            close_ours(fd2);
        thread_disarm(thread_self());
        error = dup2(fd, fd2) < 0 ? errno : 0;
    }
    if (error && connection_is_open(fd2))
        attachment_give_back(fd2, attachment);
    else
        attachment_drop(attachment);
    return error;
}

/* The covers. */

/* A call of the host's on an ordinary descriptor, recovered like a message. */
struct host_call {
    enum { HOST_READ, HOST_WRITE, HOST_LSEEK } kind;
    int fd;
    void *buffer;
    size_t bytes;
    int64_t offset;
    int whence;
};

static int call_host(const struct host_call *host, int64_t *result)
{
    thread_disarm(thread_self());
    *result = host->kind == HOST_READ    ? read(host->fd, host->buffer, host->bytes)
              : host->kind == HOST_WRITE ? write(host->fd, host->buffer, host->bytes)
                                         : lseek(host->fd, host->offset, host->whence);
    return *result < 0 ? errno : 0;
}

/* One message, one answer. 0 and the status, or an errno. */
static int exchange_io(int fd, void *header, size_t header_size, const void *data, size_t size, void *sink, size_t room,
                       bool cancellable, struct ticket *ticket, long *status)
{
    struct iovec out[2] = {{header, header_size}, {(void *)(uintptr_t)data, size}}, in;
    struct request request = {.cancellable = cancellable};
    int error = vector_from_parts(&request.message, out, data ? 2 : 1);
    if (!error)
        error = vector_untouched(vector_from_buffer(&request.reply, &in, sink, room), &request.reply); /* B108 */
    return error ? error : send_plain(fd, &request, ticket, status);
}

static int call_server(const struct host_call *host, bool cancellable, struct ticket *ticket, int64_t *result)
{
    uint64_t position = 0;
    long status = 0;
    int error;
    struct io_transfer transfer = {.combine_len = sizeof transfer, .nbytes = (uint32_t)host->bytes};
    struct io_lseek seek = {_IO_LSEEK, sizeof seek, (int16_t)host->whence, 0, (uint64_t)host->offset};
    switch (host->kind) {
    case HOST_READ:
        transfer.type = _IO_READ;
        error = exchange_io(host->fd, &transfer, sizeof transfer, NULL, 0, host->buffer, host->bytes, cancellable,
                            ticket, &status);
        break;
    case HOST_WRITE:
        transfer.type = _IO_WRITE;
        error = exchange_io(host->fd, &transfer, sizeof transfer, host->buffer, host->bytes, NULL, 0, cancellable,
                            ticket, &status);
        break;
    default:
        error = exchange_io(host->fd, &seek, sizeof seek, NULL, 0, &position, sizeof position, cancellable, ticket,
                            &status);
        if (status != -1)
            status = (long)position; /* B326 */
    }
    *result = host->kind == HOST_READ && status > (long)host->bytes ? (long)host->bytes : status; /* D31 */
    return error;
}

/* read(), write() and lseek() on whatever is under the number, with recovery. */
static int covered(const struct host_call *host, bool cancellable, int64_t *result)
{
    for (;;) {
        struct ticket ticket = {0};
        bool is_ours = connection_is_ours(host->fd);
        int error;
        if (is_ours) {
            error = call_server(host, cancellable, &ticket, result);
        } else {
            ticket_read(&ticket, host->fd);
            error = call_host(host, result);
            ticket.answered = true;
        }
        if (recover(host->fd, &ticket, error))
            continue;
        if (ticket.answered && error != EBADF && error != ESRCH)
            recovery_got_through(host->fd, &ticket);
        return error;
    }
}

HA_EXPORT ssize_t ha_posix_read(int fd, void *buffer, size_t bytes)
{
    struct call call = call_begin();
    const struct host_call host = {HOST_READ, fd, buffer, bytes < TRANSFER_MAX ? bytes : TRANSFER_MAX, 0, 0};
    int64_t result = 0;
    int error = covered(&host, call_cancellable(&call), &result);
    return call_end(&call, error, (long)result);
}

HA_EXPORT ssize_t ha_posix_write(int fd, const void *buffer, size_t bytes)
{
    struct call call = call_begin();
    const struct host_call host = {
        HOST_WRITE, fd, (void *)(uintptr_t)buffer, bytes < TRANSFER_MAX ? bytes : TRANSFER_MAX, 0, 0};
    int64_t result = 0;
    int error = covered(&host, call_cancellable(&call), &result);
    return call_end(&call, error, (long)result);
}

HA_EXPORT int64_t ha_posix_lseek(int fd, int64_t offset, int whence)
{
    struct call call = call_begin();
    const struct host_call host = {HOST_LSEEK, fd, NULL, 0, offset, whence};
    int64_t result = 0;
    int error = covered(&host, call_cancellable(&call), &result);
    return call_end(&call, error, (long)result);
}

HA_EXPORT int ha_posix_close(int fd)
{
    struct call call = call_begin();
    return (int)call_end(&call, file_close(fd), 0);
}

HA_EXPORT int ha_posix_dup(int fd)
{
    struct call call = call_begin();
    int copy = -1, error = file_dup(fd, &copy);
    return (int)call_end(&call, error, copy);
}

HA_EXPORT int ha_posix_dup2(int fd, int fd2)
{
    struct call call = call_begin();
    return (int)call_end(&call, dup_to(fd, fd2), fd2);
}
