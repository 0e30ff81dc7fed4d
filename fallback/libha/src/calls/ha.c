/* libha: HA-aware connections (B358 to B405, D1 to D11). */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>

#include "calls/call.h"
#include "calls/connect.h"
#include "calls/open_mode.h"
#include "client/connection.h"
#include "client/recovery.h"
#include "ha_posix.h"
#include "wire.h"

#define STRING(X) #X
#define VERSION_STRING(X) STRING(X)

HA_EXPORT const char *ha_posix_version(void)
{
    _Static_assert(WIRE_VERSION == 3, "the string below");
    return "libha for POSIX " VERSION_STRING(HA_VERSION) ", wire 3";
}

static int attach(int coid, RFp rfn, void *rhdl, unsigned flags)
{
    int error = attachment_check(rfn, flags);
    if (!error && !connection_is_open(coid))
        error = EBADF; /* D2 */
    return error ? error : attachment_attach(coid, rfn, rhdl, flags);
}

HA_EXPORT int ha_attach(int coid, RFp rfn, void *rhdl, unsigned flags)
{
    struct call call = call_begin();
    return (int)call_end(&call, attach(coid, rfn, rhdl, flags), 0);
}

HA_EXPORT int ha_detach(int coid)
{
    struct call call = call_begin();
    return (int)call_end(&call, attachment_detach(coid), 0);
}

/* ha_connection_ctrl(): the limit is the pointer itself (D7). */
HA_EXPORT int ha_connection_ctrl(int coid, int command, void *args)
{
    struct call call = call_begin();
    return (int)call_end(&call, attachment_control(coid, command, (int)(intptr_t)args), 0);
}

/* Makes a new descriptor HA-aware, or closes it again (D4). */
static int open_attached(const char *path, int oflag, mode_t mode, RFp rfn, void *rhdl, unsigned haflags, int *fd)
{
    int error = attachment_check(rfn, haflags);
    *fd = -1;
    if (!error)
        error = file_open(path, oflag, mode, fd);
    if (error)
        return error;
    error = attach(*fd, rfn, rhdl, haflags);
    if (error)
        file_close(*fd);
    return error;
}

HA_EXPORT int ha_open(const char *path, int oflag, RFp rfn, void *rhdl, unsigned haflags, ...)
{
    struct call call = call_begin();
    mode_t mode;
    GET_OPEN_MODE_AFTER(mode, oflag, haflags);
    int fd, error = open_attached(path, oflag, mode, rfn, rhdl, haflags, &fd);
    return (int)call_end(&call, error, fd);
}

HA_EXPORT int ha_open64(const char *path, int oflag, RFp rfn, void *rhdl, unsigned haflags, ...)
{
    struct call call = call_begin();
    mode_t mode;
    GET_OPEN_MODE_AFTER(mode, oflag, haflags);
    int fd, error = open_attached(path, oflag, mode, rfn, rhdl, haflags, &fd);
    return (int)call_end(&call, error, fd);
}

HA_EXPORT int ha_creat(const char *path, mode_t mode, RFp rfn, void *rhdl, unsigned haflags)
{
    struct call call = call_begin();
    int fd, error = open_attached(path, O_WRONLY | O_CREAT | O_TRUNC, mode, rfn, rhdl, haflags, &fd);
    return (int)call_end(&call, error, fd);
}

HA_EXPORT int ha_creat64(const char *path, mode_t mode, RFp rfn, void *rhdl, unsigned haflags)
{
    return ha_creat(path, mode, rfn, rhdl, haflags);
}

/* ha_reopen(): ends on the old number, or fails (D6). */
HA_EXPORT int ha_reopen(int oldfd, const char *path, int oflag, ...)
{
    struct call call = call_begin();
    mode_t mode;
    GET_OPEN_MODE(mode, oflag);
    /* open() gives descriptors, so what is no descriptor cannot be had again by it. */
    int fd = oldfd, error = oldfd < 0 || oldfd & _NTO_SIDE_CHANNEL ? EBADF : file_open(path, oflag, mode, &fd);
    return (int)call_end(&call, error, fd);
}

static int attach_attached(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, RFp rfn, void *rhdl,
                           unsigned haflags, int *coid)
{
    int error = attachment_check(rfn, haflags);
    *coid = -1;
    if (!error)
        error = connect_attach(nd, pid, chid, index, flags, coid);
    if (error)
        return error;
    error = attach(*coid, rfn, rhdl, haflags);
    if (error)
        connect_detach(*coid);
    return error;
}

HA_EXPORT int ha_ConnectAttach(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, RFp rfn, void *rhdl,
                               unsigned haflags)
{
    struct call call = call_begin();
    int coid, error = attach_attached(nd, pid, chid, index, flags, rfn, rhdl, haflags, &coid);
    return (int)call_end(&call, error, coid);
}

HA_EXPORT int ha_ConnectAttach_r(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, RFp rfn,
                                 void *rhdl, unsigned haflags)
{
    struct call call = call_begin();
    int coid, error = attach_attached(nd, pid, chid, index, flags, rfn, rhdl, haflags, &coid);
    return (int)call_end_negative(&call, error, coid);
}

/* Only an HA-aware connection can be ended so (D3). */
static int detach_attached(int coid)
{
    return attachment_exists(coid) ? connect_detach(coid) : EBADF;
}

HA_EXPORT int ha_ConnectDetach(int coid)
{
    struct call call = call_begin();
    return (int)call_end(&call, detach_attached(coid), 0);
}

/* The sign of its error on QNX is not known: here it is negative. */
HA_EXPORT int ha_ConnectDetach_r(int coid)
{
    struct call call = call_begin();
    return (int)call_end_negative(&call, detach_attached(coid), 0);
}

/* ha_ReConnectAttach(): ends on the old number, whatever the index (D6). */
HA_EXPORT int ha_ReConnectAttach(int oldcoid, uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags)
{
    struct call call = call_begin();
    (void)index;
    return (int)call_end(&call, connect_attach_at(oldcoid, nd, pid, chid, flags), oldcoid);
}

HA_EXPORT int ha_close(int fd)
{
    struct call call = call_begin();
    return (int)call_end(&call, attachment_exists(fd) ? file_close(fd) : EBADF, 0);
}

/* ha_dup(): both share the attachment (B380 to B382). */
HA_EXPORT int ha_dup(int oldfd)
{
    struct call call = call_begin();
    int copy = -1, error = attachment_exists(oldfd) ? file_dup(oldfd, &copy) : EBADF;
    if (!error && (error = attachment_share(oldfd, copy)))
        file_close(copy);
    return (int)call_end(&call, error, copy);
}
