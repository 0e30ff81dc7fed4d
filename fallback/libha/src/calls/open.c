/* open(): of the server that has attached a path, else of the host (B310 to B316). */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "calls/call.h"
#include "calls/connect.h"
#include "calls/open_mode.h"
#include "calls/send.h"
#include "client/connection.h"
#include "client/io_message.h"
#include "client/recovery.h"
#include "ha_posix.h"
#include "host/paths.h"
#include "host/plain_path.h"

/* Not an errno: the next server is asked. */
#define NEXT (-1)

/* An open, on its way from one server to the next. */
struct opening {
    const struct plain_path *plain;
    int oflag;
    mode_t mode;
    int *fd;            /* in place of this number, if it is not negative */
    int refusal;        /* the first that counts; 0: none yet */
    size_t lower_limit; /* how long a path still asked must be: nothing above an OPAQUE one is */
    bool has_servers;   /* somebody serves it, be it this process itself */
};

/* Opens a path of the host, under the number *fd if that is not negative. */
static int open_host(const char *path, int oflag, mode_t mode, int *fd)
{
    thread_disarm(thread_self()); /* On QNX, this sends a message (B212). */
    int opened = open(path, oflag, mode);
    if (opened < 0)
        return errno;
    if (*fd < 0 || opened == *fd) {
        *fd = opened;
        connection_give_way(opened);
        return 0;
    }
    int error = connection_replace(*fd, opened);
    close(opened);
    return error;
}

/* Whether others are asked after a server that says this (B314). */
static bool is_passed_on(int error)
{
    return error == ENOENT || error == ENOSYS || error == ESRCH || error == ENXIO || error == EROFS ||
           error == EBADFSYS;
}

/* Gives up a connection that was made to ask. */
static void withdraw(int fd, bool in_place)
{
    if (in_place)
        connection_kill(fd);
    else
        connection_detach(fd);
}

/* 0, NEXT, or the errno that ends the open. `fd` is connected to the server. */
static int ask(struct opening *opening, const struct served *served, int fd)
{
    const char *rest = opening->plain->text + served->length;
    struct io_connect message;
    bool answered;
    long status = 0;
    rest += *rest == '/';
    io_open_message(&message, opening->oflag, opening->mode, strlen(rest) + 1);
    message.handle = (uint32_t)served->id;
    message.eflag = (uint8_t)opening->plain->ending;
    int error = send_connect(fd, &message, rest, &answered, &status);
    if (!answered && error == EBADF)
        return NEXT; /* It went before it was asked. */
    opening->has_servers = true;
    if (!error && status == -1)
        error = ENOENT;
    if (!error)
        return 0;
    if (error == ENOSYS && answered) {
        /* Perhaps it is a link: the server may say so in the answer to a lesser question. */
        message.subtype = _IO_CONNECT_COMBINE_CLOSE;
        message.ioflag = 0;
        send_connect(fd, &message, rest, &answered, &status);
        return NEXT;
    }
    if (!is_passed_on(error))
        return error;
    if (!opening->refusal)
        opening->refusal = error;
    return NEXT;
}

/* The same for one that is to be asked next. */
static int try_server(struct opening *opening, const struct served *served)
{
    struct address address = served->address;
    bool in_place = *opening->fd >= 0, has_no_directory = opening->plain->ending && !(served->flags & _RESMGR_FLAG_DIR);
    int fd = *opening->fd;
    if (has_no_directory)
        return paths_is_left(served) ? NEXT : ENOTDIR;
    int error = connection_attach(&address, 0, 0, &fd);
    if (error == ESRCH) {
        if (paths_is_left(served))
            return NEXT;
        opening->has_servers = true; /* It lives, and has destroyed its channel. */
        if (!opening->refusal)
            opening->refusal = ESRCH;
        error = NEXT;
    } else if (!error) {
        error = ask(opening, served, fd);
        if (error)
            withdraw(fd, in_place);
    }
    if (served->flags & _RESMGR_FLAG_OPAQUE)
        opening->lower_limit = served->length;
    if (!error)
        *opening->fd = fd;
    return error;
}

/* Whether open asks an attachment: it wants any type of file but a name, of another process unless that one says so. */
static bool is_asked(struct opening *opening, const struct served *served)
{
    bool is_own = served->address.pid == getpid() && !(served->flags & _RESMGR_FLAG_SELF);
    bool is_of_type = served->file_type != _FTYPE_NAME &&
                      (!(served->flags & _RESMGR_FLAG_FTYPEONLY) || served->file_type == _FTYPE_ANY);
    opening->has_servers |= is_own && is_of_type;
    return !is_own && is_of_type && served->length >= opening->lower_limit;
}

/* 0, NEXT if all have passed it on, or the errno that ends the open. */
static int open_servers(struct opening *opening)
{
    struct served *list;
    int error = paths_find(opening->plain->text, &list), result = error ? error : NEXT;
    for (struct served *served = list; served && result == NEXT; served = served->next)
        if (is_asked(opening, served))
            result = try_server(opening, served);
    paths_forget(list);
    return result;
}

static int open_plain(struct opening *opening, const char *path)
{
    int result = open_servers(opening);
    if (result != NEXT)
        return result;
    if (!opening->has_servers)
        return open_host(path, opening->oflag, opening->mode, opening->fd);
    /* On a host, its file system is what holds the root. */
    int error = opening->lower_limit ? ENOENT : open_host(path, opening->oflag & ~(O_CREAT | O_EXCL), 0, opening->fd);
    if (error == ENOENT || error == ENOTDIR)
        error = opening->refusal ? opening->refusal : ENOENT;
    return error;
}

int file_open(const char *path, int oflag, mode_t mode, int *fd)
{
    struct plain_path plain;
    bool in_place = *fd >= 0;
    if (!path)
        return EFAULT;
    int error = plain_path(&plain, path);
    if (!error && plain_path_is_of_names(&plain))
        return EINVAL; /* Names are for name_open. */
    struct opening opening = {.plain = &plain, .oflag = oflag, .mode = mode, .fd = fd};
    int foreign = in_place && connection_is_ours(*fd) ? connection_make_room(*fd) : 0;
    if (foreign)
        return foreign;
    error = error || !*path ? open_host(path, oflag, mode, fd) : open_plain(&opening, path);
    if (!error && !in_place)
        attachment_drop(attachment_take(*fd));
    return error;
}

HA_EXPORT int ha_posix_open(const char *path, int oflag, ...)
{
    struct call call = call_begin();
    mode_t mode;
    GET_OPEN_MODE(mode, oflag);
    int fd = -1, error = file_open(path, oflag, mode, &fd);
    return (int)call_end(&call, error, fd);
}
