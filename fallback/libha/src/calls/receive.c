/* MsgReceive() and its kind (B73 to B126, B252 to B259). */
#include <errno.h>
#include <string.h>

#include "calls/call.h"
#include "ha_posix.h"
#include "host/thread.h"
#include "host/vector.h"
#include "server/channel.h"
#include "server/server_lane.h"

/* Hands a pulse over. 0, or EFAULT if there is no room, and it is lost (B252). Only the first part counts (B254). */
static int deliver(const struct pulse *pulse, const struct vector *sink)
{
    struct _pulse record = {
        .type = _PULSE_TYPE,
        .subtype = _PULSE_SUBTYPE,
        .code = pulse->code,
        .value = pulse->value,
        .scoid = pulse->scoid,
    };
    bool fits = sink->count && sink->parts[0].iov_len >= sizeof record;
    if (fits)
        memcpy(sink->parts[0].iov_base, &record, sizeof record);
    return fits ? 0 : EFAULT;
}

/* 0 and a rcvid (0 for a pulse), or an errno. */
static int receive(int chid, const struct vector *sink, struct _msg_info64 *info, bool pulses_only, bool cancellable,
                   int *rcvid)
{
    struct thread *thread = thread_self();
    struct timeout timeout = thread_take_timeout(thread, _NTO_TIMEOUT_RECEIVE);
    for (;;) {
        struct arrival arrival;
        int error = channel_wait(chid, pulses_only, &timeout, cancellable, &arrival);
        *rcvid = 0;
        if (error)
            return error;
        if (arrival.is_pulse) {
            if (arrival.takes_priority)
                thread->priority = arrival.pulse.priority; /* B30 */
            return deliver(&arrival.pulse, sink);
        }
        *rcvid = server_lane_receive(arrival.lane, sink, info);
        server_lane_drop(arrival.lane);
        if (*rcvid > 0)
            return 0;
        if (*rcvid < 0)
            return ENOMEM;
    }
}

static int receive_buffer(struct call *call, int chid, void *msg, size_t bytes, struct _msg_info64 *info,
                          bool pulses_only, int *rcvid)
{
    struct iovec part;
    struct vector sink;
    int error = vector_from_buffer(&sink, &part, msg, bytes);
    return error ? error : receive(chid, &sink, info, pulses_only, call_cancellable(call), rcvid);
}

static int receive_parts(struct call *call, int chid, const iov_t *parts, size_t count, struct _msg_info64 *info,
                         bool pulses_only, int *rcvid)
{
    struct vector sink;
    int error = vector_from_parts(&sink, parts, count);
    return error ? error : receive(chid, &sink, info, pulses_only, call_cancellable(call), rcvid);
}

HA_EXPORT int MsgReceive(int chid, void *msg, size_t bytes, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_buffer(&call, chid, msg, bytes, info, false, &rcvid);
    return (int)call_end(&call, error, rcvid);
}

HA_EXPORT int MsgReceive_r(int chid, void *msg, size_t bytes, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_buffer(&call, chid, msg, bytes, info, false, &rcvid);
    return (int)call_end_negative(&call, error, rcvid);
}

HA_EXPORT int MsgReceivev(int chid, const iov_t *riov, size_t rparts, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_parts(&call, chid, riov, rparts, info, false, &rcvid);
    return (int)call_end(&call, error, rcvid);
}

HA_EXPORT int MsgReceivev_r(int chid, const iov_t *riov, size_t rparts, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_parts(&call, chid, riov, rparts, info, false, &rcvid);
    return (int)call_end_negative(&call, error, rcvid);
}

HA_EXPORT int MsgReceivePulse(int chid, void *pulse, size_t bytes, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_buffer(&call, chid, pulse, bytes, info, true, &rcvid);
    return (int)call_end(&call, error, rcvid);
}

HA_EXPORT int MsgReceivePulse_r(int chid, void *pulse, size_t bytes, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_buffer(&call, chid, pulse, bytes, info, true, &rcvid);
    return (int)call_end_negative(&call, error, rcvid);
}

HA_EXPORT int MsgReceivePulsev(int chid, const iov_t *piov, size_t parts, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_parts(&call, chid, piov, parts, info, true, &rcvid);
    return (int)call_end(&call, error, rcvid);
}

HA_EXPORT int MsgReceivePulsev_r(int chid, const iov_t *piov, size_t parts, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int rcvid = 0, error = receive_parts(&call, chid, piov, parts, info, true, &rcvid);
    return (int)call_end_negative(&call, error, rcvid);
}
