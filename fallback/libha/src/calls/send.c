#include "calls/send.h"

#include <errno.h>

#include "calls/call.h"
#include "client/connection.h"
#include "client/exchange.h"
#include "client/io_message.h"
#include "client/lane.h"
#include "client/trunk.h"
#include "host/clock.h"
#include "host/thread.h"
#include "number.h"

int send_plain(int coid, const struct request *request, struct ticket *ticket, long *status)
{
    struct use use;
    struct thread *thread = thread_self();
    struct exchange exchange = {
        .use = &use,
        .thread = thread,
        .message = &request->message,
        .reply = &request->reply,
        .timeout = thread_take_timeout(thread, _NTO_TIMEOUT_SEND | _NTO_TIMEOUT_REPLY),
        .cancellable = request->cancellable,
    };
    uint64_t window = lane_window_needed(request->message.size, request->reply.size);
    int error = connection_begin(coid, window, &use, ticket);
    if (error)
        return error;
    error = exchange_run(&exchange);
    connection_end(&use);
    ticket->answered = exchange.answered;
    *status = exchange.status;
    return error;
}

int send_covered(int coid, const struct request *request, long *status)
{
    for (;;) {
        struct ticket ticket;
        int error = send_plain(coid, request, &ticket, status);
        if (recover(coid, &ticket, error))
            continue;
        if (ticket.answered && error != EBADF && error != ESRCH)
            recovery_got_through(coid, &ticket);
        return error;
    }
}

int send_bytes(int coid, const void *message, size_t size, long *status)
{
    struct iovec part;
    struct request request = {0};
    struct ticket ticket;
    vector_from_buffer(&request.message, &part, message, size);
    return send_plain(coid, &request, &ticket, status);
}

int send_connect(int coid, const struct io_connect *message, const char *path, bool *answered, long *status)
{
    char reply[IO_CONNECT_ROOM];
    struct iovec out[2] = {{(void *)(uintptr_t)message, sizeof *message}, {(void *)(uintptr_t)path, message->path_len}};
    struct iovec in;
    struct request request = {.cancellable = false};
    struct ticket ticket = {0};
    vector_from_parts(&request.message, out, 2);
    vector_from_buffer(&request.reply, &in, reply, sizeof reply);
    int error = send_plain(coid, &request, &ticket, status);
    *answered = ticket.answered;
    return error;
}

/* The message, or the reply, of the eight calls: a buffer and its size, or parts and their number. */
struct given {
    const void *pointer;
    size_t count;
    bool is_parts;
};

static int to_vector(struct vector *vector, struct iovec *part, const struct given *given)
{
    return given->is_parts ? vector_from_parts(vector, given->pointer, given->count)
                           : vector_from_buffer(vector, part, given->pointer, given->count);
}

static int send_given(int coid, struct given out, struct given in, bool cancellable, long *status)
{
    struct request request = {.cancellable = cancellable};
    struct iovec parts[2];
    int error = to_vector(&request.message, &parts[0], &out);
    if (!error)
        error = vector_untouched(to_vector(&request.reply, &parts[1], &in), &request.reply); /* B108 */
    return error ? error : send_covered(coid, &request, status);
}

static long send_call(int coid, struct given out, struct given in, bool can_be_cancelled, bool returns_errors)
{
    struct call call = call_begin();
    long status = 0;
    int error = send_given(coid, out, in, can_be_cancelled && call_cancellable(&call), &status);
    return returns_errors ? call_end_negative(&call, error, status) : call_end(&call, error, status);
}

/*
 * MsgSend() and its variants (B73 to B97): plain or _r, a cancellation point or not ("nc"), with buffers or parts (the
 * first letter, or the only one, is the message, the second the reply).
 */
#define SEND_CALL(NAME, OUT, OUT_PARTS, IN, IN_PARTS, CANCELLABLE, RETURNS_ERRORS)                                \
    HA_EXPORT long NAME(int coid, OUT out, size_t out_count, IN in, size_t in_count)                              \
    {                                                                                                             \
        return send_call(coid, (struct given){out, out_count, OUT_PARTS}, (struct given){in, in_count, IN_PARTS}, \
                         CANCELLABLE, RETURNS_ERRORS);                                                            \
    }
#define SEND_CALLS(NAME, OUT, OUT_PARTS, IN, IN_PARTS)              \
    SEND_CALL(NAME, OUT, OUT_PARTS, IN, IN_PARTS, true, false)      \
    SEND_CALL(NAME##_r, OUT, OUT_PARTS, IN, IN_PARTS, true, true)   \
    SEND_CALL(NAME##nc, OUT, OUT_PARTS, IN, IN_PARTS, false, false) \
    SEND_CALL(NAME##nc_r, OUT, OUT_PARTS, IN, IN_PARTS, false, true)

SEND_CALLS(MsgSend, const void *, false, void *, false)
SEND_CALLS(MsgSendsv, const void *, false, const iov_t *, true)
SEND_CALLS(MsgSendvs, const iov_t *, true, void *, false)
SEND_CALLS(MsgSendv, const iov_t *, true, const iov_t *, true)

static int pulse_plain(int coid, int priority, struct pulse_frame *pulse, struct ticket *ticket)
{
    struct use use;
    int error = connection_begin(coid, 0, &use, ticket);
    if (error)
        return error == ENOSYS ? EBADF : error;
    pulse->priority = (uint16_t)priority;
    error = priority < 1 || priority > 255 ? EINVAL : trunk_pulse(use.connection->trunk, pulse); /* D30 */
    connection_end(&use);
    return error;
}

/* D11: covered, like a message. */
static int pulse_covered(int coid, int priority, int code, union sigval value)
{
    struct thread *thread = thread_self();
    int64_t now = clock_now();
    if (priority == -1)
        priority = thread_priority(thread, now);
    else if (!priority)
        priority = 1; /* D30 */
    struct pulse_frame pulse = {
        .kind = FRAME_PULSE,
        .code = code,
        .coid = coid,
        .time = (uint64_t)now,
    };
    pulse_frame_carry(&pulse, value);
    for (;;) {
        struct ticket ticket;
        int error = pulse_plain(coid, priority, &pulse, &ticket);
        if (recover(coid, &ticket, error))
            continue;
        if (!error)
            recovery_got_through(coid, &ticket);
        return error;
    }
}

/* MsgSendPulse(), B233 to B261. */
HA_EXPORT int MsgSendPulse(int coid, int priority, int code, int value)
{
    struct call call = call_begin();
    return (int)call_end(&call, pulse_covered(coid, priority, code, pulse_number(value)), 0);
}

/* MsgSendPulsePtr(), B243. */
HA_EXPORT int MsgSendPulsePtr(int coid, int priority, int code, void *value)
{
    struct call call = call_begin();
    return (int)call_end(&call, pulse_covered(coid, priority, code, (union sigval){.sival_ptr = value}), 0);
}

HA_EXPORT int MsgSendPulsePtr_r(int coid, int priority, int code, void *value)
{
    struct call call = call_begin();
    return call_end_positive(&call, pulse_covered(coid, priority, code, (union sigval){.sival_ptr = value}));
}

HA_EXPORT int MsgSendPulse_r(int coid, int priority, int code, int value)
{
    struct call call = call_begin();
    return call_end_positive(&call, pulse_covered(coid, priority, code, pulse_number(value)));
}
