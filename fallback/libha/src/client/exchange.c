#include "client/exchange.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/lane.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/runtime.h"
#include "host/wait.h"
#include "server/channel.h"

/*
 * A thread that may not wait to be received (B216) gives a server that waits already some time to be scheduled: so much if
 * it is known to wait, so much if it may.
 */
#define RECEIVER_GRACE (200 * CLOCK_MILLISECOND)
#define POSSIBLE_RECEIVER_GRACE (20 * CLOCK_MILLISECOND)
/* A message in more parts than that is put together before it is written. */
#define PARTS 16
/* Not an errno: the exchange goes on. */
#define GO_ON (-1)

/*
 * Another thread may interrupt an exchange (ha_posix_unblock), from show_lane to hide_lane: it writes to the lane while it
 * has put this in the lane's place, and the lane stays as long.
 */
static char being_interrupted;

/* Puts a lane in the place of another one; returns which it was. */
static struct lane *swap_lane(struct thread *thread, struct lane *lane)
{
    void *before = atomic_load(&thread->sends_on);
    while (before == &being_interrupted || !atomic_compare_exchange_weak(&thread->sends_on, &before, lane)) {
        if (before == &being_interrupted) {
            sched_yield();
            before = atomic_load(&thread->sends_on);
        }
    }
    return before;
}

static void show_lane(struct exchange *exchange)
{
    exchange->outer = swap_lane(exchange->thread, exchange->use->lane);
}

static void hide_lane(struct exchange *exchange)
{
    swap_lane(exchange->thread, exchange->outer);
    /* What was written to wake us may lie there still. */
    if (atomic_load(&exchange->use->lane->is_interrupted))
        exchange->use->lane->is_spoilt = true;
}

void exchange_interrupt(struct thread *thread)
{
    atomic_store(&thread->is_wanted_back, true);
    void *lane = atomic_load(&thread->sends_on);
    if (!lane || !atomic_compare_exchange_strong(&thread->sends_on, &lane, &being_interrupted))
        return;
    if (!atomic_exchange(&((struct lane *)lane)->is_interrupted, true))
        lane_poke(lane, FRAME_INTERRUPTED);
    atomic_store(&thread->sends_on, lane);
}

/* A thread that is cancelled gives up by closing the lane (B267). */
static void abandon(void *argument)
{
    struct exchange *exchange = argument;
    hide_lane(exchange);
    exchange->use->lane->is_spoilt = true;
    connection_end(exchange->use);
    signals_release(&exchange->held);
}

static bool server_is_gone(struct exchange *exchange)
{
    return atomic_load(&exchange->use->connection->trunk->dead);
}

/* The lane has ended: what the message fails with. */
static int lose_server(struct exchange *exchange, int error)
{
    struct trunk *trunk = exchange->use->connection->trunk;
    int reason = trunk_refusal(trunk);
    exchange->use->lane->is_spoilt = true;
    if (!reason)
        atomic_store(&trunk->dead, true);
    return reason ? reason : error;
}

/* Which kind of message the timeout asks for. ETIMEDOUT if it leaves no time to send anything (B213 to B216). */
static int choose_kind(struct exchange *exchange, enum frame_kind *kind)
{
    const struct timeout *timeout = &exchange->timeout;
    *kind = FRAME_MESSAGE;
    exchange->deadline = CLOCK_NEVER;
    if (timeout->flags == _NTO_TIMEOUT_REPLY) {
        *kind = timeout->immediate ? FRAME_MESSAGE_EXPIRED : FRAME_MESSAGE_TELL;
    } else if (timeout->immediate && timeout->flags & _NTO_TIMEOUT_REPLY) {
        return trunk_is_alive(exchange->use->connection->trunk) ? ETIMEDOUT : EBADF;
    } else if (timeout->immediate) {
        const struct trunk *trunk = exchange->use->connection->trunk;
        bool is_own = trunk->address.pid == getpid();
        if (is_own && !channel_is_waited_on(&trunk->address))
            return trunk_is_alive(exchange->use->connection->trunk) ? ETIMEDOUT : EBADF;
        exchange->latest = clock_now() + RECEIVER_GRACE;
        exchange->deadline = is_own ? exchange->latest : clock_now() + POSSIBLE_RECEIVER_GRACE;
    } else if (timeout->flags) {
        exchange->deadline = timeout->deadline;
    }
    return 0;
}

static int write_message(struct exchange *exchange, struct message_frame *frame)
{
    struct lane *lane = exchange->use->lane;
    const struct vector *message = exchange->message;
    struct iovec parts[PARTS];
    int count = 0;
    parts[0] = (struct iovec){frame, sizeof *frame};
    if (lane->window_size) {
        vector_gather(message, 0, lane->window, message->size);
    } else if ((count = vector_head(message, message->size, parts + 1, PARTS - 1)) < 0) {
        parts[1] = (struct iovec){lane->buffer, vector_gather(message, 0, lane->buffer, message->size)};
        count = 1;
    }
    ssize_t length;
    signals_hold(&exchange->held, (int64_t)frame->time);
    do
        length = descriptor_writev(lane->out, parts, count + 1);
    while (length < 0 && errno == EINTR); /* The lane is empty, so this does not wait. */
    if (length >= 0)
        return 0;
    int error = errno;
    lane->is_spoilt = true;
    if (error != EPIPE)
        return error;
    return lose_server(exchange, EBADF);
}

static int post(struct exchange *exchange, enum frame_kind kind)
{
    int64_t now = clock_now();
    struct message_frame frame = {
        .kind = (uint16_t)kind,
        .priority = (uint16_t)thread_priority(exchange->thread, now),
        .tid = exchange->thread->tid,
        .size = exchange->message->size,
        .room = exchange->reply->size,
        .time = (uint64_t)now,
    };
    exchange->use->lane->have = 0;
    exchange->unblock_reason = 0;
    exchange->has_faulted = false;
    return write_message(exchange, &frame);
}

/* Whether the server has already answered: then it is too late to give up. */
static bool has_answer(const struct lane *lane)
{
    int unread = 0;
    return !ioctl(lane->in, FIONREAD, &unread) && unread > 0;
}

/*
 * A signal, the timeout or another thread's ConnectDetach wants the client to be free. Returns the reason if it is, or
 * GO_ON if it has to wait for the server's answer (B180 to B183, B57, B58).
 */
static int give_up(struct exchange *exchange, int reason)
{
    struct lane *lane = exchange->use->lane;
    struct trunk *trunk = exchange->use->connection->trunk;
    if (exchange->unblock_reason) {
        exchange->deadline = CLOCK_NEVER;
        return GO_ON;
    }
    if (reason == ETIMEDOUT && exchange->timeout.immediate && clock_now() < exchange->latest &&
        process_is_busy(trunk->address.pid)) {
        exchange->deadline = clock_now() + POSSIBLE_RECEIVER_GRACE;
        return GO_ON;
    }
    if (lane_take_back(lane)) {
        lane->is_spoilt = true;
        return reason;
    }
    if (reason == ETIMEDOUT && exchange->timeout.flags == _NTO_TIMEOUT_SEND) {
        exchange->deadline = CLOCK_NEVER; /* The wait for the reply is not limited (B209). */
        return GO_ON;
    }
    if (trunk_channel_flags(trunk) & _NTO_CHF_UNBLOCK) {
        /* A server that frees the client by MsgError(rcvid, -1) gives it this reason. */
        const struct unblock_frame frame = {.kind = FRAME_UNBLOCK, .reason = reason == ETIMEDOUT ? ETIMEDOUT : EINTR};
        exchange->unblock_reason = frame.reason;
        exchange->deadline = CLOCK_NEVER;
        descriptor_write(lane->out, &frame, sizeof frame);
        return GO_ON;
    }
    if (has_answer(lane))
        return GO_ON;
    lane->is_spoilt = true;
    return reason;
}

/* Reads more of what the server says. 0, GO_ON if nothing came, or an errno. */
static int read_more(struct exchange *exchange)
{
    struct lane *lane = exchange->use->lane;
    const struct rescue rescue = {exchange->cancellable, abandon, exchange};
    size_t length;
    int error = spin_on(&lane->spinner, lane->in, exchange->deadline);
    if (!error)
        error = wait_and_read(lane->in, lane->buffer + lane->have, sizeof lane->buffer - lane->have, exchange->deadline,
                              &exchange->held, &rescue, &length);
    if (error)
        return give_up(exchange, error);
    if (length) {
        lane->have += length;
        return 0;
    }
    error = lose_server(exchange, ESRCH);
    return connection_is_detached(exchange->use->connection) ? EBADF : error;
}

/* Copies reply data to where the caller wants it. False if it breaks the rules. */
static bool store(struct exchange *exchange, uint64_t offset, uint64_t length, const unsigned char *data)
{
    struct lane *lane = exchange->use->lane;
    const struct vector *reply = exchange->reply;
    if (offset > reply->size || length > reply->size - offset)
        return false;
    if (lane->window_size)
        data = lane->window + reply_start(exchange->message->size) + offset;
    if (vector_has_memory(reply, offset, length))
        vector_scatter(reply, offset, data, length);
    else
        exchange->has_faulted = true;
    return true;
}

/* The error that the server gave. */
static int error_of(struct exchange *exchange, int error)
{
    exchange->answered = true;
    exchange->status = 0;
    if (error == -1)
        return exchange->unblock_reason ? exchange->unblock_reason : EINTR;
    return error;
}

/* Takes one frame out of the lane's buffer. *done: it was the last, and the result is that of the exchange. */
static int take_frame(struct exchange *exchange, bool *done)
{
    struct lane *lane = exchange->use->lane;
    struct answer_frame frame;
    size_t size = sizeof frame;
    if (lane->have < size)
        return read_more(exchange);
    memcpy(&frame, lane->buffer, sizeof frame);
    bool has_data = !lane->window_size && (frame.kind == FRAME_REPLY || frame.kind == FRAME_WRITE);
    if (has_data) {
        if (frame.length > INLINE_PIECE)
            goto broken;
        size += frame.length;
        if (lane->have < size)
            return read_more(exchange);
    }
    switch (frame.kind) {
    case FRAME_REPLY:
        if (!store(exchange, 0, frame.length, lane->buffer + sizeof frame))
            goto broken;
        exchange->status = frame.status;
        exchange->answered = *done = true;
        break;
    case FRAME_WRITE:
        if (frame.status < 0 || !store(exchange, (uint64_t)frame.status, frame.length, lane->buffer + sizeof frame))
            goto broken;
        break;
    case FRAME_ERROR:
        *done = true;
        break;
    case FRAME_RECEIVED:
        if (exchange->timeout.flags == _NTO_TIMEOUT_REPLY && !exchange->unblock_reason)
            exchange->deadline = exchange->timeout.is_absolute
                                     ? exchange->timeout.deadline
                                     : clock_after(clock_now(), exchange->timeout.nanoseconds);
        break;
    case FRAME_INTERRUPTED:
        if (!atomic_load(&lane->is_interrupted))
            goto broken;
        break;
    case FRAME_DETACHED:
        if (!connection_is_detached(exchange->use->connection))
            goto broken;
        break;
    default:
        goto broken;
    }
    lane->have -= size;
    if (lane->have)
        memmove(lane->buffer, lane->buffer + size, lane->have);
    if (frame.kind == FRAME_ERROR)
        return error_of(exchange, frame.error);
    if (frame.kind == FRAME_INTERRUPTED)
        return give_up(exchange, EINTR);
    return frame.kind == FRAME_DETACHED ? give_up(exchange, EBADF) : 0;
broken:
    lane->is_spoilt = true;
    return ESRCH;
}

/* One message, one answer. */
static int run_once(struct exchange *exchange, enum frame_kind kind)
{
    struct lane *lane = exchange->use->lane;
    bool done = false;
    show_lane(exchange);
    int error = post(exchange, kind);
    while (!error && !done) {
        error = take_frame(exchange, &done);
        if (error == GO_ON && !done)
            error = 0;
    }
    hide_lane(exchange);
    signals_release(&exchange->held);
    /* What is left over, or what the server has yet to ignore, must not meet the next message. */
    if (lane->have || exchange->unblock_reason)
        lane->is_spoilt = true;
    return !error && exchange->has_faulted ? EFAULT : error;
}

int exchange_run(struct exchange *exchange)
{
    uint64_t window = lane_window_needed(exchange->message->size, exchange->reply->size);
    for (;;) {
        enum frame_kind kind;
        int error = server_is_gone(exchange) ? EBADF : choose_kind(exchange, &kind);
        if (!error && !exchange->use->lane)
            error = connection_add_lane(exchange->use, window, exchange->deadline);
        if (!error)
            error = run_once(exchange, kind);
        if (!exchange->answered || error != ERESTART)
            return error;
        exchange->answered = false; /* The server wants to have it again (B129). */
        if (exchange->use->lane->is_spoilt)
            connection_drop_lane(exchange->use);
    }
}

int exchange_bytes(struct use *use, const void *bytes, size_t size)
{
    struct iovec part;
    struct vector message, reply = {0};
    vector_from_buffer(&message, &part, bytes, size);
    struct exchange exchange = {.use = use, .thread = thread_self(), .message = &message, .reply = &reply};
    return exchange_run(&exchange);
}
