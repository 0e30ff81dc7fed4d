/* The I/O messages that the library sends on its own account (B310 to B341). */
#ifndef IO_MESSAGE_H
#define IO_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ha_posix.h"

/* As libc sends it; the path behind what is attached follows, with its NUL (B311). */
struct io_connect {
    uint16_t type;
    uint16_t subtype;
    uint32_t file_type;
    uint16_t reply_max;
    uint16_t entry_max;
    uint32_t key;
    uint32_t handle;
    uint32_t ioflag;
    uint32_t mode;
    uint16_t sflag;
    uint16_t access;
    uint16_t zero;
    uint16_t path_len;
    uint8_t eflag;
    uint8_t extra_type;
    uint16_t extra_len;
};
_Static_assert(sizeof(struct io_connect) == 40, "layout");
/* The room for the reply, of which nothing is used. */
#define IO_CONNECT_ROOM 2456

/* With the _msg_info of 6.x (D27). */
struct io_dup {
    uint16_t type;
    uint16_t combine_len;
    uint32_t nd, srcnd;
    int32_t pid, tid, chid, scoid, coid, msglen, srcmsglen, dstmsglen;
    int16_t priority, flags;
    uint32_t reserved[2];
    uint32_t key;
};
_Static_assert(sizeof(struct io_dup) == 60, "layout");

struct io_close {
    uint16_t type;
    uint16_t combine_len;
};

/* _IO_READ and _IO_WRITE; what is written follows. */
struct io_transfer {
    uint16_t type;
    uint16_t combine_len;
    uint32_t nbytes;
    uint32_t xtype;
    uint32_t zero;
};

/* What goes to the server follows. */
struct io_devctl {
    uint16_t type;
    uint16_t combine_len;
    uint32_t dcmd;
    uint32_t nbytes;
    int32_t zero;
};

/* What comes from it follows. */
struct io_devctl_reply {
    uint32_t zero;
    int32_t ret_val;
    uint32_t nbytes;
    uint32_t zero2;
};

/* As of 7.x on 64 bits: there, the event stands behind the rest, and what was its place is empty. */
struct io_notify {
    uint16_t type;
    uint16_t combine_len;
    int32_t action;
    int32_t flags;
    int32_t old_event[4];
    int32_t mgr[2];
    int32_t flags_extra_mask;
    int32_t flags_exten;
    int32_t nfds;
    int32_t fd_first;
    int32_t nfds_ready;
    int64_t timo;
    struct ha_posix_sigevent event;
};

struct io_notify_reply {
    uint32_t zero;
    int32_t flags;
};

struct io_lseek {
    uint16_t type;
    uint16_t combine_len;
    int16_t whence;
    uint16_t zero;
    uint64_t offset;
};

/* For open of a path of this length, its NUL included. What hangs on the attachment is left 0. */
void io_open_message(struct io_connect *message, int oflag, mode_t mode, size_t path_size);
/* For name_open, where it sends one. */
void io_name_open_message(struct io_connect *message);
void io_dup_message(struct io_dup *message, int pid, int chid, int scoid, int coid);

#endif
