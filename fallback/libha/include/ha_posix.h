/*
 * libha for POSIX: QNX's client recovery library and its kernel calls for message passing, on a host.
 *
 * Names, prototypes, layouts and numbers are those of QNX on 64-bit targets of SDP 7.x. What differs on a host:
 *
 * - errno values and open flags are the host's. Numbers that QNX has and the host lacks are defined below.
 * - The covers of open(), read() and so on have names of their own, ha_posix_open() and so on: a library must not take
 *   the place of the host's functions in every program that it is linked to.
 * - <time.h> has a TIMER_ABSTIME of its own; the one for TimerTimeout() is HA_POSIX_TIMER_ABSTIME.
 * - What makes no sense on a host is not there: MsgVerifyEvent(), for nothing has to be registered; MsgReadiov(),
 *   MsgCurrent(); ha_fopen() and ha_fclose(), for a host's streams do not read by messages; lseek64(), for all offsets
 *   have 64 bits.
 * - An address that is no memory of the program is not EFAULT but, as elsewhere on a host, a fault of the program.
 *   (NULL with a size is answered as QNX answers an address that is none: EFAULT, or ESRVRFAULT for a server's.)
 * - struct sigevent is the host's; TimerTimeout() takes one of QNX's layout, struct ha_posix_sigevent.
 * - Clocks are the host's CLOCK_MONOTONIC and CLOCK_REALTIME.
 * - The library knows of the threads that have called it: the end of no others makes a _PULSE_CODE_THREADDEATH.
 *
 * It takes the host's declarations of POSIX.1-2008: cc -std=gnu11, or _POSIX_C_SOURCE.
 */
#ifndef HA_POSIX_H
#define HA_POSIX_H

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Structures. */

typedef struct iovec iov_t;

#define SETIOV(_iov, _address, _length) ((_iov)->iov_base = (void *)(_address), (_iov)->iov_len = (size_t)(_length))

/* What MsgReceive() stores for a pulse. */
struct _pulse {
    uint16_t type;
    uint16_t subtype;
    int8_t code;
    uint8_t zero[3];
    union sigval value;
    int32_t scoid;
};

/* What is known about a message and its sender. */
struct _msg_info64 {
    uint32_t nd;
    uint32_t srcnd;
    int32_t pid;
    int32_t tid;
    int32_t chid;
    int32_t scoid;
    int32_t coid;
    int16_t priority;
    int16_t flags;
    ssize_t msglen;
    ssize_t srcmsglen;
    ssize_t dstmsglen;
    uint32_t type_id;
    uint32_t reserved;
};
#define _msg_info _msg_info64
#define _server_info _msg_info64

struct _cred_info {
    int32_t ruid;
    int32_t euid;
    int32_t suid;
    int32_t rgid;
    int32_t egid;
    int32_t sgid;
    uint32_t ngroups;
    int32_t grouplist[8];
};

struct _client_info {
    uint32_t nd;
    int32_t pid;
    int32_t sid;
    uint32_t flags;
    struct _cred_info cred;
};

/* What name_attach() returns. */
typedef struct _name_attach {
    void *dpp;
    int chid;
    int mntid;
    int zero[2];
} name_attach_t;

/* struct sigevent as QNX lays it out. */
struct ha_posix_sigevent {
    int sigev_notify;
    int sigev_zero1;
    int sigev_coid;
    int sigev_zero2;
    union sigval sigev_value;
    int16_t sigev_code;
    int16_t sigev_priority;
    int sigev_zero3;
};
#define HA_POSIX_SIGEV_NONE 0
#define HA_POSIX_SIGEV_SIGNAL 129
#define HA_POSIX_SIGEV_PULSE 132
#define HA_POSIX_SIGEV_UNBLOCK 133
#define HA_POSIX_SIGEV_INTR 134
#define SIGEV_PULSE_PRIO_INHERIT (-1)
#define HA_POSIX_SIGEV_PULSE_INIT(_event, _coid, _priority, _code, _value)                     \
    ((_event)->sigev_notify = HA_POSIX_SIGEV_PULSE, (_event)->sigev_coid = (_coid),            \
     (_event)->sigev_priority = (int16_t)(_priority), (_event)->sigev_code = (int16_t)(_code), \
     (_event)->sigev_value.sival_ptr = NULL, (_event)->sigev_value.sival_int = (int)(_value))
#define HA_POSIX_SIGEV_SIGNAL_INIT(_event, _signo) \
    ((_event)->sigev_notify = HA_POSIX_SIGEV_SIGNAL, (_event)->sigev_coid = (_signo))
#define HA_POSIX_SIGEV_UNBLOCK_INIT(_event) ((_event)->sigev_notify = HA_POSIX_SIGEV_UNBLOCK)

/* When a timer expires: the first time, and at what intervals then. */
struct _itimer {
    uint64_t nsec;
    uint64_t interval_nsec;
};

/* What is known about a timer. */
struct _timer_info {
    struct _itimer itime;
    struct _itimer otime;
    uint32_t flags;
    int32_t tid;
    int32_t notify;
    int clockid;
    uint32_t overruns;
    struct ha_posix_sigevent event;
};
#define _NTO_TI_ACTIVE 0x0001
#define _NTO_TI_ABSOLUTE 0x0002
#define _NTO_TI_EXPIRED 0x0004
#define _NTO_TI_TOD_BASED 0x0008

/* Numbers. */

#define _NTO_SIDE_CHANNEL 0x40000000
#define SYSMGR_PID 1
#define SYSMGR_CHID 1
#define SYSMGR_COID _NTO_SIDE_CHANNEL
#define ND_LOCAL_NODE 0

/* ChannelCreate() */
#define _NTO_CHF_FIXED_PRIORITY 0x0001
#define _NTO_CHF_UNBLOCK 0x0002
#define _NTO_CHF_THREAD_DEATH 0x0004
#define _NTO_CHF_DISCONNECT 0x0008
#define _NTO_CHF_NET_MSG 0x0010
#define _NTO_CHF_SENDER_LEN 0x0020
#define _NTO_CHF_COID_DISCONNECT 0x0040
#define _NTO_CHF_REPLY_LEN 0x0080
#define _NTO_CHF_PRIVATE 0x1000

/* ConnectAttach() */
#define _NTO_COF_CLOEXEC 0x0001
#define _NTO_COF_DEAD 0x0002
#define _NTO_COF_NOSHARE 0x0040

/* Pulses. */
#define _PULSE_TYPE 0
#define _PULSE_SUBTYPE 0
#define _PULSE_CODE_UNBLOCK (-32)
#define _PULSE_CODE_DISCONNECT (-33)
#define _PULSE_CODE_THREADDEATH (-34)
#define _PULSE_CODE_COIDDEATH (-35)
#define _PULSE_CODE_MINAVAIL 0
#define _PULSE_CODE_MAXAVAIL 127

/* The flags of struct _msg_info. */
#define _NTO_MI_ENDIAN_BIG 0x0001
#define _NTO_MI_ENDIAN_DIFF 0x0002
#define _NTO_MI_UNBLOCK_REQ 0x0100

/* TimerTimeout() */
#define _NTO_TIMEOUT_SEND 0x0010
#define _NTO_TIMEOUT_RECEIVE 0x0020
#define _NTO_TIMEOUT_REPLY 0x0040
#define HA_POSIX_TIMER_ABSTIME ((int)0x80000000)

/* Names. */
#define NAME_FLAG_DETACH_SAVEDPP 0x0001
#define NAME_FLAG_ATTACH_GLOBAL 0x0002

/* Paths. */
#define DISPATCH_FLAG_NOLOCK 0x0001
#define _RESMGR_FLAG_BEFORE 0x0001
#define _RESMGR_FLAG_AFTER 0x0002
#define _RESMGR_FLAG_OPAQUE 0x0004
#define _RESMGR_FLAG_FTYPEONLY 0x0008
#define _RESMGR_FLAG_FTYPEALL 0x0010
#define _RESMGR_FLAG_DIR 0x0100
#define _RESMGR_FLAG_SELF 0x0200
enum _file_type { _FTYPE_ALL = -1, _FTYPE_ANY = 0, _FTYPE_NAME = 12 };

/* I/O messages. */
#define _IO_BASE 0x0100
#define _IO_CONNECT 0x0100
#define _IO_READ 0x0101
#define _IO_WRITE 0x0102
#define _IO_STAT 0x0104
#define _IO_NOTIFY 0x0105
#define _IO_DEVCTL 0x0106
#define _IO_LSEEK 0x0109
#define _IO_DUP 0x0115
#define _IO_CLOSE 0x0116
#define _IO_NOTIFY64 0x0120
#define _IO_MAX 0x01ff
#define _IO_CONNECT_COMBINE_CLOSE 1
#define _IO_CONNECT_OPEN 2

/* libha. */
#define HAREPLACERECOVERYFN 1
#define HA_RECOVERY_ACOUNT 1
#define HA_RECOVERY_ICOUNT 2
#define HA_RECOVERY_SUSPEND 3
#define HA_RECOVERY_ENABLE 4
#define HA_RECOVERY_RESET_ICOUNT 5
#define HA_RECOVERY_RESET_ACOUNT 6

/* Errors. */
#ifndef EOK
#define EOK 0
#endif
#ifndef ERESTART
#define ERESTART 91
#endif
#ifndef ENOREMOTE
#define ENOREMOTE 300
#endif
#ifndef EBADFSYS
#define EBADFSYS 302
#endif
#ifndef ESRVRFAULT
#define ESRVRFAULT 312
#endif

/*
 * Calls. They return -1 and set errno if they fail. The forms with _r leave errno alone: they return the errno,
 * negative or (where the comment says so) positive.
 */

/* Channels. */
int ChannelCreate(unsigned flags);
int ChannelCreate_r(unsigned flags);
int ChannelDestroy(int chid);
int ChannelDestroy_r(int chid); /* positive */

/* Connections. */
int ConnectAttach(uint32_t nd, int32_t pid, int chid, unsigned index, int flags);
int ConnectAttach_r(uint32_t nd, int32_t pid, int chid, unsigned index, int flags);
int ConnectDetach(int coid);
int ConnectDetach_r(int coid); /* positive */
int ConnectServerInfo(int32_t pid, int coid, struct _msg_info64 *info);
int ConnectServerInfo_r(int32_t pid, int coid, struct _msg_info64 *info);
int ConnectFlags(int32_t pid, int coid, unsigned mask, unsigned bits);
int ConnectFlags_r(int32_t pid, int coid, unsigned mask, unsigned bits);
int ConnectClientInfo(int scoid, struct _client_info *info, int ngroups);
int ConnectClientInfo_r(int scoid, struct _client_info *info, int ngroups); /* positive */

/* Sending. These are covers: on an HA-aware connection, they recover. "nc" is no cancellation point. */
long MsgSend(int coid, const void *smsg, size_t sbytes, void *rmsg, size_t rbytes);
long MsgSend_r(int coid, const void *smsg, size_t sbytes, void *rmsg, size_t rbytes);
long MsgSendnc(int coid, const void *smsg, size_t sbytes, void *rmsg, size_t rbytes);
long MsgSendnc_r(int coid, const void *smsg, size_t sbytes, void *rmsg, size_t rbytes);
long MsgSendsv(int coid, const void *smsg, size_t sbytes, const iov_t *riov, size_t rparts);
long MsgSendsv_r(int coid, const void *smsg, size_t sbytes, const iov_t *riov, size_t rparts);
long MsgSendsvnc(int coid, const void *smsg, size_t sbytes, const iov_t *riov, size_t rparts);
long MsgSendsvnc_r(int coid, const void *smsg, size_t sbytes, const iov_t *riov, size_t rparts);
long MsgSendvs(int coid, const iov_t *siov, size_t sparts, void *rmsg, size_t rbytes);
long MsgSendvs_r(int coid, const iov_t *siov, size_t sparts, void *rmsg, size_t rbytes);
long MsgSendvsnc(int coid, const iov_t *siov, size_t sparts, void *rmsg, size_t rbytes);
long MsgSendvsnc_r(int coid, const iov_t *siov, size_t sparts, void *rmsg, size_t rbytes);
long MsgSendv(int coid, const iov_t *siov, size_t sparts, const iov_t *riov, size_t rparts);
long MsgSendv_r(int coid, const iov_t *siov, size_t sparts, const iov_t *riov, size_t rparts);
long MsgSendvnc(int coid, const iov_t *siov, size_t sparts, const iov_t *riov, size_t rparts);
long MsgSendvnc_r(int coid, const iov_t *siov, size_t sparts, const iov_t *riov, size_t rparts);
int MsgSendPulse(int coid, int priority, int code, int value);
int MsgSendPulsePtr(int coid, int priority, int code, void *value);
int MsgSendPulse_r(int coid, int priority, int code, int value);      /* positive */
int MsgSendPulsePtr_r(int coid, int priority, int code, void *value); /* positive */

/* Events that a server delivers to its clients. */
int MsgDeliverEvent(int rcvid, const struct ha_posix_sigevent *event);
int MsgDeliverEvent_r(int rcvid, const struct ha_posix_sigevent *event); /* positive */
int MsgRegisterEvent(struct ha_posix_sigevent *event, int coid);
int MsgUnregisterEvent(const struct ha_posix_sigevent *event);

/* Receiving and answering. */
int MsgReceive(int chid, void *msg, size_t bytes, struct _msg_info64 *info);
int MsgReceive_r(int chid, void *msg, size_t bytes, struct _msg_info64 *info);
int MsgReceivev(int chid, const iov_t *riov, size_t rparts, struct _msg_info64 *info);
int MsgReceivev_r(int chid, const iov_t *riov, size_t rparts, struct _msg_info64 *info);
int MsgReceivePulse(int chid, void *pulse, size_t bytes, struct _msg_info64 *info);
int MsgReceivePulse_r(int chid, void *pulse, size_t bytes, struct _msg_info64 *info);
int MsgReceivePulsev(int chid, const iov_t *piov, size_t parts, struct _msg_info64 *info);
int MsgReceivePulsev_r(int chid, const iov_t *piov, size_t parts, struct _msg_info64 *info);
int MsgReply(int rcvid, long status, const void *msg, size_t bytes);
int MsgReply_r(int rcvid, long status, const void *msg, size_t bytes);
int MsgReplyv(int rcvid, long status, const iov_t *riov, size_t rparts);
int MsgReplyv_r(int rcvid, long status, const iov_t *riov, size_t rparts);
int MsgError(int rcvid, int error);
int MsgError_r(int rcvid, int error); /* positive */
ssize_t MsgRead(int rcvid, void *msg, size_t bytes, size_t offset);
ssize_t MsgRead_r(int rcvid, void *msg, size_t bytes, size_t offset);
ssize_t MsgReadv(int rcvid, const iov_t *iov, size_t parts, size_t offset);
ssize_t MsgReadv_r(int rcvid, const iov_t *iov, size_t parts, size_t offset);
ssize_t MsgWrite(int rcvid, const void *msg, size_t bytes, size_t offset);
ssize_t MsgWrite_r(int rcvid, const void *msg, size_t bytes, size_t offset);
ssize_t MsgWritev(int rcvid, const iov_t *iov, size_t parts, size_t offset);
ssize_t MsgWritev_r(int rcvid, const iov_t *iov, size_t parts, size_t offset);
int MsgInfo(int rcvid, struct _msg_info64 *info);
int MsgInfo_r(int rcvid, struct _msg_info64 *info); /* positive */

/*
 * Timers. A pulse of one is queued at each expiry, whether somebody receives or not. Under the host's names of POSIX are
 * the host's own timers: those of QNX's layout are ha_posix_timer_create() and so on, whose absolute times are asked for
 * by the host's TIMER_ABSTIME or by HA_POSIX_TIMER_ABSTIME.
 */
struct itimerspec;
int TimerCreate(clockid_t id, const struct ha_posix_sigevent *notify);
int TimerCreate_r(clockid_t id, const struct ha_posix_sigevent *notify);
int TimerSettime(int id, int flags, const struct _itimer *itime, struct _itimer *oitime);
int TimerSettime_r(int id, int flags, const struct _itimer *itime, struct _itimer *oitime); /* positive */
int TimerInfo(int32_t pid, int id, int flags, struct _timer_info *info);
int TimerInfo_r(int32_t pid, int id, int flags, struct _timer_info *info);
int TimerDestroy(int id);
int TimerDestroy_r(int id); /* positive */
int ha_posix_timer_create(clockid_t clock, const struct ha_posix_sigevent *event, int *id);
int ha_posix_timer_settime(int id, int flags, const struct itimerspec *value, struct itimerspec *before);
int ha_posix_timer_gettime(int id, struct itimerspec *value);
int ha_posix_timer_getoverrun(int id);
int ha_posix_timer_delete(int id);

/* Timeouts. */
int TimerTimeout(clockid_t id, int flags, const struct ha_posix_sigevent *notify, const uint64_t *ntime,
                 uint64_t *otime);
int TimerTimeout_r(clockid_t id, int flags, const struct ha_posix_sigevent *notify, const uint64_t *ntime,
                   uint64_t *otime);

/* Names. */
name_attach_t *name_attach(void *dpp, const char *path, unsigned flags);
int name_detach(name_attach_t *attach, unsigned flags);
int name_open(const char *name, int flags);
int name_close(int coid);

/*
 * Paths. The server receives the I/O messages itself, with MsgReceive() on its channel: tables of functions other than
 * NULL are refused (ENOSYS), and a handle has to be made for a channel that exists. What `attr` holds makes no difference
 * to that.
 */
typedef struct _dispatch dispatch_t;
typedef struct _resmgr_attr resmgr_attr_t;
typedef struct _resmgr_connect_funcs resmgr_connect_funcs_t;
typedef struct _resmgr_io_funcs resmgr_io_funcs_t;

dispatch_t *dispatch_create_channel(int chid, unsigned flags);
int dispatch_destroy(dispatch_t *dpp); /* and the channel, and the paths that were attached with it */
int resmgr_attach(dispatch_t *dpp, resmgr_attr_t *attr, const char *path, enum _file_type file_type, unsigned flags,
                  const resmgr_connect_funcs_t *connect_funcs, const resmgr_io_funcs_t *io_funcs, void *handle);
int resmgr_detach(dispatch_t *dpp, int id, unsigned flags);

/* Descriptors: of connections as of ordinary files. Reading, writing and seeking recover on HA-aware ones. */
int ha_posix_open(const char *path, int oflag, ...); /* mode_t mode with O_CREAT */
int ha_posix_close(int fd);
int ha_posix_dup(int fd);
int ha_posix_dup2(int fd, int fd2);
ssize_t ha_posix_read(int fd, void *buffer, size_t bytes);
ssize_t ha_posix_write(int fd, const void *buffer, size_t bytes);
int64_t ha_posix_lseek(int fd, int64_t offset, int whence);

/*
 * Device commands, which recover, too. devctl() returns 0 or an errno, and leaves errno alone. A command is made by
 * __DION(), __DIOF(), __DIOT() or __DIOTF().
 */
int devctl(int fd, int dcmd, void *data, size_t bytes, int *info);

#define _POSIX_DEVDIR_NONE 0
#define _POSIX_DEVDIR_FROM 0x40000000
#define _POSIX_DEVDIR_TO 0x80000000
#define _POSIX_DEVDIR_TOFROM 0xc0000000
#define __DION(_class, _cmd) ((int)(((unsigned)(_class) << 8) + (_cmd) + _POSIX_DEVDIR_NONE))
#define __DIOF(_class, _cmd, _data) ((int)((sizeof(_data) << 16) + ((_class) << 8) + (_cmd) + _POSIX_DEVDIR_FROM))
#define __DIOT(_class, _cmd, _data) ((int)((sizeof(_data) << 16) + ((_class) << 8) + (_cmd) + _POSIX_DEVDIR_TO))
#define __DIOTF(_class, _cmd, _data) ((int)((sizeof(_data) << 16) + ((_class) << 8) + (_cmd) + _POSIX_DEVDIR_TOFROM))
#define _DCMD_ALL 1
#define _DCMD_CHR 3
#define _DCMD_MISC 5
#define DCMD_ALL_GETFLAGS 0x40040101
#define DCMD_ALL_SETFLAGS 0x80040102
#define DCMD_CHR_ISATTY 0x0318

/*
 * Readiness, which recovers, too: which of the conditions in flags hold, and an event when one of the others does. On 64
 * bits it sends an _IO_NOTIFY64. A server delivers the event by MsgDeliverEvent(), once.
 */
int ionotify(int fd, int action, int flags, const struct ha_posix_sigevent *event);

#define _NOTIFY_ACTION_TRANARM 0
#define _NOTIFY_ACTION_CONDARM 1
#define _NOTIFY_ACTION_POLL 2
#define _NOTIFY_ACTION_POLLARM 3
#define _NOTIFY_COND_INPUT 0x10000000
#define _NOTIFY_COND_OUTPUT 0x20000000
#define _NOTIFY_COND_OBAND 0x40000000
#define _NOTIFY_COND_EXTEN 0x80000000
#define _NOTIFY_COND_MASK 0xf0000000
#define _NOTIFY_CONDE_RDNORM 0x0001
#define _NOTIFY_CONDE_WRNORM 0x0002
#define _NOTIFY_CONDE_RDBAND 0x0004

/* libha. A recovery function returns the number that it was called with if it has recovered the connection. */
typedef int (*RFp)(int coid, void *handle);

int ha_attach(int coid, RFp rfn, void *rhdl, unsigned flags);
int ha_detach(int coid);
int ha_connection_ctrl(int coid, int command, void *args);
int ha_open(const char *path, int oflag, RFp rfn, void *rhdl, unsigned haflags, ...); /* mode_t mode with O_CREAT */
int ha_open64(const char *path, int oflag, RFp rfn, void *rhdl, unsigned haflags, ...);
int ha_creat(const char *path, mode_t mode, RFp rfn, void *rhdl, unsigned haflags);
int ha_creat64(const char *path, mode_t mode, RFp rfn, void *rhdl, unsigned haflags);
int ha_reopen(int oldfd, const char *path, int oflag, ...); /* mode_t mode with O_CREAT */
int ha_ConnectAttach(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, RFp rfn, void *rhdl,
                     unsigned haflags);
int ha_ConnectAttach_r(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, RFp rfn, void *rhdl,
                       unsigned haflags);
int ha_ConnectDetach(int coid);
int ha_ConnectDetach_r(int coid); /* negative here; which it is on QNX is not known */
int ha_ReConnectAttach(int oldcoid, uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags);
int ha_close(int fd);
int ha_dup(int oldfd);

/*
 * Whether only calls of the main thread fail with EINTR when a signal handler has run, while those of other threads go
 * on; at first, those of all threads fail. For interpreters that run handlers in the main thread only. Returns what was
 * set before.
 */
int ha_posix_interrupt_main_only(int main_only);

/*
 * Has a message that another thread waits with end with EINTR, as a signal to that thread ends it, but without a signal: a
 * message that nobody has received is taken back; on a channel with _NTO_CHF_UNBLOCK the server gets an unblock pulse
 * otherwise, and decides. A thread that sends no message goes on. It never blocks, and returns 0. The thread must not have
 * been joined.
 */
int ha_posix_unblock(pthread_t thread);

/* What this library is: "libha for POSIX VERSION, wire 3". */
const char *ha_posix_version(void);

#ifdef __cplusplus
}
#endif

#endif
