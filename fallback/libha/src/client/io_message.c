#include "client/io_message.h"

#include <fcntl.h>
#include <string.h>

#include "ha_posix.h"

#define FTYPE_ANY 0
#define FTYPE_NAME 12
#define SH_DENYNO 0x40

/* The host's open flags, and QNX's numbers for them. */
static const struct {
    int host;
    uint32_t number;
} open_flags[] = {
    {O_APPEND, 0x0008}, {O_DSYNC, 0x0010}, {O_NONBLOCK, 0x0080}, {O_CREAT, 0x0100},
    {O_TRUNC, 0x0200},  {O_EXCL, 0x0400},  {O_NOCTTY, 0x0800},
};

static void connect_message(struct io_connect *message, uint32_t file_type, int oflag, mode_t mode)
{
    memset(message, 0, sizeof *message);
    message->type = _IO_CONNECT;
    message->subtype = _IO_CONNECT_OPEN;
    message->file_type = file_type;
    message->ioflag = (uint32_t)(oflag & O_ACCMODE) + 1; /* B312 */
    for (size_t i = 0; i < sizeof open_flags / sizeof *open_flags; i++)
        if (oflag & open_flags[i].host)
            message->ioflag |= open_flags[i].number;
    message->mode = mode;
    message->sflag = SH_DENYNO;
    message->path_len = 1;
}

void io_name_open_message(struct io_connect *message)
{
    connect_message(message, FTYPE_NAME, O_RDWR, 0);
}

void io_open_message(struct io_connect *message, int oflag, mode_t mode)
{
    connect_message(message, FTYPE_ANY, oflag, mode);
}

void io_dup_message(struct io_dup *message, int pid, int chid, int scoid, int coid)
{
    memset(message, 0, sizeof *message);
    message->type = _IO_DUP;
    message->combine_len = sizeof *message;
    message->pid = pid;
    message->chid = chid;
    message->scoid = scoid;
    message->coid = coid;
}
