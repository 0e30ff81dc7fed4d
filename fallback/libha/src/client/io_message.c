#include "client/io_message.h"

#include <fcntl.h>
#include <string.h>

#include "ha_posix.h"

#define ENTRY_MAX 15
#define SH_DENYNO 0x40
#define READ_AND_WRITE 3

static void connect_message(struct io_connect *message, uint32_t file_type, int oflag, mode_t mode, size_t path_size)
{
    *message = (struct io_connect){
        .type = _IO_CONNECT,
        .subtype = _IO_CONNECT_OPEN,
        .file_type = file_type,
        .reply_max = IO_CONNECT_ROOM,
        .entry_max = ENTRY_MAX,
        /* The host's flags, the access mode plus one (B312). */
        .ioflag = (uint32_t)((oflag & ~(O_CLOEXEC | O_ACCMODE)) | ((oflag + 1) & O_ACCMODE)),
        .mode = mode,
        .sflag = SH_DENYNO,
        .access = READ_AND_WRITE,
        .path_len = (uint16_t)path_size,
    };
}

void io_open_message(struct io_connect *message, int oflag, mode_t mode, size_t path_size)
{
    connect_message(message, _FTYPE_ANY, oflag, oflag & O_CREAT ? mode : 0, path_size);
}

void io_name_open_message(struct io_connect *message)
{
    connect_message(message, _FTYPE_NAME, O_RDWR, 0, 1);
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
