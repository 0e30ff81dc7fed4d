/* MsgReply(), MsgError(), MsgRead(), MsgWrite(), MsgInfo() (B76 to B95, B127 to B154). */
#include <errno.h>

#include "calls/call.h"
#include "ha_posix.h"
#include "host/vector.h"
#include "server/server_lane.h"

/* Data that is no memory frees the client all the same: both sides hear of it (B107, B349). */
static int reply(int rcvid, long status, const struct vector *data, int fault)
{
    struct server_lane *lane = server_lane_to_answer(rcvid);
    if (!lane)
        return ESRCH;
    int error = fault ? server_lane_error(lane, ESRVRFAULT) : server_lane_reply(lane, status, data);
    server_lane_leave(lane);
    return fault && !error ? ESRVRFAULT : error;
}

static int reply_buffer(int rcvid, long status, const void *msg, size_t bytes)
{
    struct iovec part;
    struct vector data;
    int fault = vector_from_buffer(&data, &part, msg, bytes);
    return reply(rcvid, status, &data, fault);
}

static int reply_parts(int rcvid, long status, const iov_t *parts, size_t count)
{
    struct vector data;
    int fault = vector_from_parts(&data, parts, count);
    return reply(rcvid, status, &data, fault);
}

HA_EXPORT int MsgReply(int rcvid, long status, const void *msg, size_t bytes)
{
    struct call call = call_begin();
    return (int)call_end(&call, reply_buffer(rcvid, status, msg, bytes), 0);
}

HA_EXPORT int MsgReply_r(int rcvid, long status, const void *msg, size_t bytes)
{
    struct call call = call_begin();
    return (int)call_end_negative(&call, reply_buffer(rcvid, status, msg, bytes), 0);
}

HA_EXPORT int MsgReplyv(int rcvid, long status, const iov_t *riov, size_t rparts)
{
    struct call call = call_begin();
    return (int)call_end(&call, reply_parts(rcvid, status, riov, rparts), 0);
}

HA_EXPORT int MsgReplyv_r(int rcvid, long status, const iov_t *riov, size_t rparts)
{
    struct call call = call_begin();
    return (int)call_end_negative(&call, reply_parts(rcvid, status, riov, rparts), 0);
}

static int fail(int rcvid, int number)
{
    struct server_lane *lane = server_lane_to_answer(rcvid);
    if (!lane)
        return ESRCH;
    int error = server_lane_error(lane, number);
    server_lane_leave(lane);
    return error;
}

HA_EXPORT int MsgError(int rcvid, int error)
{
    struct call call = call_begin();
    return (int)call_end(&call, fail(rcvid, error), 0);
}

HA_EXPORT int MsgError_r(int rcvid, int error)
{
    struct call call = call_begin();
    return call_end_positive(&call, fail(rcvid, error));
}

typedef int transfer(struct server_lane *lane, const struct vector *data, size_t offset, size_t *done);

static int with_message(transfer *function, int rcvid, const struct vector *data, size_t offset, int fault,
                        size_t *done)
{
    struct server_lane *lane = server_lane_of(rcvid);
    if (!lane)
        return ESRCH;
    int error = fault == EFAULT ? ESRVRFAULT : fault; /* B151 */
    if (!error)
        error = function(lane, data, offset, done);
    if (!error)
        lane->msglen = lane->message.size; /* B154 */
    server_lane_leave(lane);
    return error;
}

static int transfer_buffer(transfer *function, int rcvid, const void *msg, size_t bytes, size_t offset, size_t *done)
{
    struct iovec part;
    struct vector data;
    int fault = vector_from_buffer(&data, &part, msg, bytes);
    return with_message(function, rcvid, &data, offset, fault, done);
}

static int transfer_parts(transfer *function, int rcvid, const iov_t *parts, size_t count, size_t offset, size_t *done)
{
    struct vector data;
    int fault = vector_from_parts(&data, parts, count);
    return with_message(function, rcvid, &data, offset, fault, done);
}

#define TRANSFER_CALLS(NAME, FUNCTION, BUFFER)                                            \
    HA_EXPORT ssize_t NAME(int rcvid, BUFFER msg, size_t bytes, size_t offset)            \
    {                                                                                     \
        struct call call = call_begin();                                                  \
        size_t done = 0;                                                                  \
        int error = transfer_buffer(FUNCTION, rcvid, msg, bytes, offset, &done);          \
        return call_end(&call, error, (long)done);                                        \
    }                                                                                     \
    HA_EXPORT ssize_t NAME##_r(int rcvid, BUFFER msg, size_t bytes, size_t offset)        \
    {                                                                                     \
        struct call call = call_begin();                                                  \
        size_t done = 0;                                                                  \
        int error = transfer_buffer(FUNCTION, rcvid, msg, bytes, offset, &done);          \
        return call_end_negative(&call, error, (long)done);                               \
    }                                                                                     \
    HA_EXPORT ssize_t NAME##v(int rcvid, const iov_t *iov, size_t parts, size_t offset)   \
    {                                                                                     \
        struct call call = call_begin();                                                  \
        size_t done = 0;                                                                  \
        int error = transfer_parts(FUNCTION, rcvid, iov, parts, offset, &done);           \
        return call_end(&call, error, (long)done);                                        \
    }                                                                                     \
    HA_EXPORT ssize_t NAME##v_r(int rcvid, const iov_t *iov, size_t parts, size_t offset) \
    {                                                                                     \
        struct call call = call_begin();                                                  \
        size_t done = 0;                                                                  \
        int error = transfer_parts(FUNCTION, rcvid, iov, parts, offset, &done);           \
        return call_end_negative(&call, error, (long)done);                               \
    }

TRANSFER_CALLS(MsgRead, server_lane_read, void *)
TRANSFER_CALLS(MsgWrite, server_lane_write, const void *)

static int info_of(int rcvid, struct _msg_info64 *info)
{
    struct server_lane *lane = server_lane_of(rcvid);
    if (!lane)
        return ESRCH;
    if (info)
        server_lane_info(lane, info);
    server_lane_leave(lane);
    return info ? 0 : EFAULT;
}

HA_EXPORT int MsgInfo(int rcvid, struct _msg_info64 *info)
{
    struct call call = call_begin();
    return (int)call_end(&call, info_of(rcvid, info), 0);
}

HA_EXPORT int MsgInfo_r(int rcvid, struct _msg_info64 *info)
{
    struct call call = call_begin();
    return call_end_positive(&call, info_of(rcvid, info));
}
