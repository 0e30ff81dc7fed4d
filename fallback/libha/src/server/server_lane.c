#include "server/server_lane.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/descriptor.h"
#include "host/thread.h"
#include "server/channel.h"
#include "server/client.h"
#include "server/rcvid.h"

/* How long an answer waits for a client that does not read, and whose pipe cannot be made larger. */
#define ANSWER_LIMIT 1000
/* A pipe of this size holds the pieces of any reply that goes through no window. */
#define ANSWER_PIPE (1 << 20)
/* An answer in more parts than that is put together before it is written. */
#define PARTS 16

/* What MsgWrite has put into a reply that goes through no window: sent with the answer, so that no client holds it up. */
struct written {
    bool is_empty;
    uint8_t mask[INLINE_ROOM]; /* 1: written */
    char image[INLINE_ROOM];
};

void server_lane_hold(struct server_lane *lane)
{
    atomic_fetch_add(&lane->references, 1);
}

void server_lane_drop(struct server_lane *lane)
{
    if (atomic_fetch_sub(&lane->references, 1) != 1)
        return;
    pthread_mutex_destroy(&lane->lock);
    free(lane->written);
    ranges_clear(&lane->placed);
    free(lane->unblock);
    free(lane);
}

/* Making. */

/* Maps a window, if it cannot be taken away from under us; else it is used like a file. */
static void map_window(struct server_lane *lane)
{
    struct stat status;
    int seals = fcntl(lane->window_fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(lane->window_fd, &status) ||
        (uint64_t)status.st_size < lane->window_size)
        return;
    void *window = mmap(NULL, lane->window_size, PROT_READ | PROT_WRITE, MAP_SHARED, lane->window_fd, 0);
    if (window == MAP_FAILED)
        return;
    lane->window = window;
    descriptor_close(lane->window_fd);
    lane->window_fd = -1;
}

int server_lane_add(struct client *client, const struct lane_frame *frame, const int *fds, size_t count)
{
    int error = EINVAL;
    struct server_lane *lane = NULL;
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    if (count != (frame->window ? 3 : 2) || frame->window > INT64_MAX || !descriptor_is_stream(fds[0], O_RDONLY) ||
        !descriptor_is_stream(fds[1], O_WRONLY) || (frame->window && !descriptor_is_file(fds[2])))
        goto refuse;
    lane = calloc(1, sizeof *lane);
    event.data.ptr = &lane->source;
    error = ENOMEM;
    if (!lane || epoll_ctl(client->channel->epoll, EPOLL_CTL_ADD, fds[0], &event))
        goto refuse;
    lane->source.kind = SOURCE_LANE;
    lane->in = fds[0];
    lane->out = fds[1];
    lane->window_fd = -1;
    lane->window_size = frame->window;
    if (frame->window) {
        lane->window_fd = fds[2];
        map_window(lane);
    }
    lane->channel = client->channel;
    lane->client = client;
    lane->coid = frame->coid;
    lane->scoid = client->scoid;
    lane->pid = client->who.pid;
    atomic_init(&lane->references, 1);
    atomic_init(&lane->state, LANE_IDLE);
    pthread_mutex_init(&lane->lock, NULL);
    lane->in_is_socket = descriptor_is_socket(lane->in);
    lane->out_is_socket = descriptor_is_socket(lane->out);
    client->descriptors += lane->window_fd >= 0 ? 3 : 2;
    lane->next = client->lanes;
    client->lanes = lane;
    return 0;
refuse:
    free(lane);
    return error;
}

/* Queueing, all under the channel's lock. */

static void add_fresh(struct server_lane *lane)
{
    struct channel *channel = lane->channel;
    if (lane->is_fresh || lane->queued.is_queued)
        return;
    lane->is_fresh = true;
    lane->next_fresh = channel->fresh;
    channel->fresh = lane;
    channel->fresh_count++;
}

void server_lane_unqueue(struct server_lane *lane)
{
    struct channel *channel = lane->channel;
    if (lane->queued.is_queued)
        queue_remove(&channel->messages, &lane->queued);
    if (lane->is_fresh) {
        struct server_lane **link = &channel->fresh;
        while (*link != lane)
            link = &(*link)->next_fresh;
        *link = lane->next_fresh;
        lane->is_fresh = false;
        channel->fresh_count--;
    }
}

static void touch(struct server_lane *lane)
{
    if (lane->is_touched)
        return;
    lane->is_touched = true;
    lane->next_touched = lane->channel->touched;
    lane->channel->touched = lane;
    server_lane_hold(lane);
}

/* A lane that will carry nothing more. */
static void give_up_on(struct server_lane *lane)
{
    lane->is_broken = true;
    server_lane_unqueue(lane);
    touch(lane);
}

/* Copies the first bytes of a lane without taking them out. Like read. */
static ssize_t look(const struct server_lane *lane, void *bytes, size_t size)
{
    const int *peek = lane->channel->peek;
    ssize_t length = tee(lane->in, peek[1], size, SPLICE_F_NONBLOCK);
    if (length < 0 && errno == EINVAL)
        return recv(lane->in, bytes, size, MSG_PEEK | MSG_DONTWAIT); /* A socket. */
    /* A pipe in packet mode (O_DIRECT) gives one packet at a time: nothing may stay behind for the next lane. */
    for (ssize_t done = 0, piece; done < length; done += piece)
        if ((piece = descriptor_read(peek[0], false, (char *)bytes + done, (size_t)(length - done))) <= 0)
            return piece;
    return length;
}

static bool is_message(const struct message_frame *frame)
{
    return (frame->kind == FRAME_MESSAGE || frame->kind == FRAME_MESSAGE_TELL ||
            frame->kind == FRAME_MESSAGE_EXPIRED) &&
           frame->priority >= 1 && frame->priority <= 255;
}

/* Whether the sizes of a message are within what its lane can carry. */
static bool fits(const struct server_lane *lane, const struct message_frame *frame)
{
    if (!lane->window_size)
        return frame->size <= INLINE_SIZE && frame->room <= INLINE_ROOM;
    return frame->size <= lane->window_size && reply_start(frame->size) <= lane->window_size &&
           frame->room <= lane->window_size - reply_start(frame->size);
}

/* How many bytes a message takes in its lane. */
static size_t frame_size(const struct server_lane *lane, const struct message_frame *frame)
{
    return sizeof *frame + (lane->window_size ? 0 : frame->size);
}

static void look_at(struct server_lane *lane)
{
    struct channel *channel = lane->channel;
    struct message_frame frame;
    server_lane_unqueue(lane);
    ssize_t length = look(lane, &frame, sizeof frame);
    if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (length == sizeof frame && frame.kind == FRAME_UNBLOCK) {
        /* Either it came after its answer, or another thread is just receiving the message that it is meant for. */
        lane->is_late = true;
        touch(lane);
        return;
    }
    if (length != sizeof frame || !is_message(&frame) || !fits(lane, &frame)) {
        give_up_on(lane);
        return;
    }
    lane->queued.priority = frame.priority;
    lane->queued.time = frame.time;
    lane->queued.arrival = channel->arrivals++;
    lane->queued_bytes = frame_size(lane, &frame);
    queue_add(&channel->messages, &lane->queued);
}

void server_lane_look_at_fresh(struct channel *channel)
{
    while (channel->fresh)
        look_at(channel->fresh);
}

void server_lane_event(struct server_lane *lane, uint32_t events)
{
    int unread = 0;
    if (atomic_load(&lane->state) == LANE_RECEIVED) {
        touch(lane);
    } else if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
        give_up_on(lane); /* Its client has given up: the message, if there is one, is dropped unseen. */
    } else if (lane->is_fresh || lane->queued.is_queued) {
        if (lane->is_fresh)
            look_at(lane);
        if (lane->queued.is_queued && !ioctl(lane->in, FIONREAD, &unread) && (size_t)unread > lane->queued_bytes) {
            lane->is_withdrawn = true;
            server_lane_unqueue(lane);
            touch(lane);
        }
    } else {
        add_fresh(lane);
    }
}

/* Answering, all under the lane's lock. */

/* Makes room for an answer that a client does not read, as one that is stopped. */
static bool enlarge(const struct server_lane *lane)
{
    return fcntl(lane->out, F_GETPIPE_SZ) < ANSWER_PIPE && fcntl(lane->out, F_SETPIPE_SZ, ANSWER_PIPE) >= ANSWER_PIPE;
}

/* Waits for room. One that does not read costs a thread this time once, and then loses its trunk. */
static bool wait_for_room(const struct server_lane *lane)
{
    struct pollfd entry = {.fd = lane->out, .events = POLLOUT};
    if (enlarge(lane) || poll(&entry, 1, ANSWER_LIMIT) > 0)
        return true;
    channel_lock(lane->channel);
    client_give_up(lane->client);
    channel_unlock(lane->channel);
    return false;
}

/*
 * Writes one frame. 0; ESRCH if the client has gone. A client that follows the rules has room for the first frame of an
 * answer.
 */
static int put(struct server_lane *lane, const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    if (lane->client_gone)
        return 0;
    for (;;) {
        ssize_t length = descriptor_put(lane->out, lane->out_is_socket, parts, count);
        if (length == (ssize_t)size)
            return 0;
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EFAULT)
            return ESRVRFAULT;
        if (length >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK) || !wait_for_room(lane))
            return ESRCH;
    }
}

static int put_frame(struct server_lane *lane, enum frame_kind kind, int error)
{
    struct answer_frame frame = {.kind = (uint16_t)kind, .error = error};
    struct iovec part = {&frame, sizeof frame};
    return put(lane, &part, 1);
}

/* Reply data that one frame does not hold. */
static int put_pieces(struct server_lane *lane, size_t offset, const struct vector *data, size_t length)
{
    char piece[INLINE_PIECE];
    int error = 0;
    for (size_t done = 0, size; done < length && !error; done += size) {
        size = vector_gather(data, done, piece, length - done < sizeof piece ? length - done : sizeof piece);
        struct answer_frame frame = {.kind = FRAME_WRITE, .status = (int64_t)(offset + done), .length = size};
        struct iovec parts[] = {{&frame, sizeof frame}, {piece, size}};
        error = put(lane, parts, 2);
    }
    return error;
}

/* Tells of what lies in the window. */
static int put_placed(struct server_lane *lane, uint64_t covered)
{
    int error = 0;
    for (size_t i = 0; i < lane->placed.count && !error; i++) {
        const struct range *range = &lane->placed.list[i];
        uint64_t start = range->start < covered ? covered : range->start;
        struct answer_frame frame = {.kind = FRAME_WRITE, .status = (int64_t)start, .length = range->end - start};
        struct iovec part = {&frame, sizeof frame};
        if (start < range->end)
            error = put(lane, &part, 1);
    }
    ranges_clear(&lane->placed);
    return error;
}

/* Sends what was written by MsgWrite, but for the first bytes, which the reply itself covers (B148). */
static int put_written(struct server_lane *lane, size_t covered)
{
    struct written *written = lane->written;
    int error = 0;
    if (lane->placed.count)
        return put_placed(lane, covered);
    if (!written || written->is_empty)
        return 0;
    for (size_t start = covered, end; start < lane->message.room && !error; start = end) {
        for (end = start + 1; end < lane->message.room && written->mask[end] == written->mask[start]; end++)
            ;
        if (written->mask[start]) {
            struct iovec part = {written->image + start, end - start};
            const struct vector data = {.parts = &part, .count = 1, .size = end - start};
            error = put_pieces(lane, start, &data, end - start);
        }
    }
    memset(written->mask, 0, sizeof written->mask);
    written->is_empty = true;
    return error;
}

static int put_reply(struct server_lane *lane, int64_t status, const struct vector *data, size_t length)
{
    struct answer_frame frame = {.kind = FRAME_REPLY, .status = status, .length = length};
    struct iovec parts[PARTS];
    char whole[FRAME_MAX];
    int count = 0;
    if (!lane->window_size && length > INLINE_PIECE) {
        int error = put_pieces(lane, 0, data, length);
        if (error)
            return error;
        frame.length = length = 0;
    }
    parts[0] = (struct iovec){&frame, sizeof frame};
    if (!lane->window_size && (count = vector_head(data, length, parts + 1, PARTS - 1)) < 0) {
        parts[1] = (struct iovec){whole, vector_gather(data, 0, whole, length)};
        count = 1;
    }
    return put(lane, parts, count + 1);
}

/* Copies between a window that is not mapped and a vector. False if the file does not do what a window does. */
static bool copy_file(const struct server_lane *lane, uint64_t position, const struct vector *vector, size_t offset,
                      size_t length, bool to_window)
{
    char piece[16384];
    for (size_t done = 0, size; done < length; done += size) {
        size = length - done < sizeof piece ? length - done : sizeof piece;
        off_t place = (off_t)(position + done);
        if (to_window) {
            vector_gather(vector, offset + done, piece, size);
            if (pwrite(lane->window_fd, piece, size, place) != (ssize_t)size)
                return false;
        } else {
            if (pread(lane->window_fd, piece, size, place) != (ssize_t)size)
                return false;
            vector_scatter(vector, offset + done, piece, size);
        }
    }
    return true;
}

/* Puts reply data into the window. */
static bool fill_window(struct server_lane *lane, uint64_t offset, const struct vector *data, size_t length)
{
    uint64_t position = reply_start(lane->message.size) + offset;
    if (!lane->window)
        return copy_file(lane, position, data, 0, length, true);
    vector_gather(data, 0, lane->window + position, length);
    return true;
}

/* Ends a lane: the client finds it at its end. */
static void close_lane(struct server_lane *lane)
{
    struct channel *channel = lane->channel;
    struct client *client = lane->client;
    int in = lane->in, out = lane->out;
    if (atomic_load(&lane->state) == LANE_CLOSED)
        return;
    if (lane->rcvid && rcvid_take(lane->rcvid))
        server_lane_drop(lane);
    lane->rcvid = 0;
    channel_lock(channel);
    lane->in = lane->out = -1;
    atomic_store(&lane->state, LANE_CLOSED);
    server_lane_unqueue(lane);
    if (in >= 0)
        epoll_ctl(channel->epoll, EPOLL_CTL_DEL, in, NULL);
    struct server_lane **link = &client->lanes;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    client->descriptors -= lane->window_fd >= 0 ? 3 : 2;
    rcvid_spare(&client->rcvids, lane->block);
    lane->block = NULL;
    client_lane_ended(client);
    channel_unlock(channel);
    descriptor_close(in);
    descriptor_close(out);
    descriptor_close(lane->window_fd);
    if (lane->window)
        munmap(lane->window, lane->window_size);
    server_lane_drop(lane);
}

/* The message of the lane is answered. */
static int finish(struct server_lane *lane, int error)
{
    if (lane->unblock_reason) {
        channel_lock(lane->channel);
        lane->unblock = channel_withdraw_unblock(lane->channel, lane->rcvid);
        channel_unlock(lane->channel);
    }
    lane->unblock_reason = 0;
    int rcvid = lane->rcvid;
    lane->rcvid = 0;
    if (rcvid && rcvid_take(rcvid)) /* If it was not taken by who answers. */
        server_lane_drop(lane);
    atomic_store(&lane->state, LANE_IDLE);
    /* On a channel with _NTO_CHF_UNBLOCK, the answer to a client that is gone goes nowhere (D26). */
    if (error == ESRCH && lane->channel->flags & _NTO_CHF_UNBLOCK)
        error = 0;
    if (error == ESRCH || lane->client_gone)
        close_lane(lane);
    return error;
}

int server_lane_reply(struct server_lane *lane, int64_t status, const struct vector *data)
{
    size_t length = data->size < lane->message.room ? data->size : lane->message.room;
    if (lane->window_size && !lane->client_gone && !fill_window(lane, 0, data, length))
        return finish(lane, ESRCH);
    int error = put_written(lane, length);
    if (!error)
        error = put_reply(lane, status, data, length);
    if (error == ESRVRFAULT) /* Both sides hear of it (B107). */
        put_frame(lane, FRAME_ERROR, ESRVRFAULT);
    return finish(lane, error);
}

int server_lane_error(struct server_lane *lane, int error)
{
    int lost = put_written(lane, 0);
    return finish(lane, lost ? lost : put_frame(lane, FRAME_ERROR, error));
}

/* What the client says while it waits for its answer. */

/* Once for each message, which was not received without memory for that. */
static void send_unblock(struct server_lane *lane, int reason)
{
    struct pulse *pulse = lane->unblock;
    lane->unblock = NULL;
    lane->unblock_reason = reason;
    channel_send_pulse(lane->channel, pulse, _PULSE_CODE_UNBLOCK, lane->rcvid, lane->scoid, lane->message.priority);
}

static void ask_to_unblock(struct server_lane *lane, int reason)
{
    if (!(lane->channel->flags & _NTO_CHF_UNBLOCK)) {
        server_lane_error(lane, reason);
    } else if (!lane->unblock_reason) {
        send_unblock(lane, reason ? reason : EINTR);
    }
}

void server_lane_unblock(struct server_lane *lane, int reason)
{
    ask_to_unblock(lane, reason);
}

/* The client has gone while its message was received (D26). */
static void lose_client(struct server_lane *lane)
{
    if (!(lane->channel->flags & _NTO_CHF_UNBLOCK)) {
        close_lane(lane);
        return;
    }
    if (lane->client_gone)
        return;
    lane->client_gone = true;
    if (!lane->unblock_reason)
        send_unblock(lane, EINTR);
    int in = lane->in, out = lane->out;
    channel_lock(lane->channel);
    epoll_ctl(lane->channel->epoll, EPOLL_CTL_DEL, in, NULL);
    lane->in = lane->out = -1;
    channel_unlock(lane->channel);
    descriptor_close(in);
    descriptor_close(out);
}

static void read_news(struct server_lane *lane)
{
    while (atomic_load(&lane->state) == LANE_RECEIVED && !lane->client_gone) {
        struct unblock_frame frame;
        ssize_t length = descriptor_read(lane->in, lane->in_is_socket, &frame, sizeof frame);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length <= 0)
            lose_client(lane);
        else if (length != sizeof frame || frame.kind != FRAME_UNBLOCK)
            close_lane(lane);
        else
            ask_to_unblock(lane, frame.reason);
    }
}

void server_lane_lose(struct server_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    if (atomic_load(&lane->state) == LANE_RECEIVED)
        lose_client(lane);
    else
        close_lane(lane);
    pthread_mutex_unlock(&lane->lock);
}

void server_lane_end(struct server_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    close_lane(lane);
    pthread_mutex_unlock(&lane->lock);
}

/* Receiving. */

/*
 * Takes the message out of the lane: 1, and it is in the lane's buffer, followed by an unblock frame if *withdrawn; 0
 * if there is none; -1 if the rules are broken or the client has gone.
 */
static int take_message(struct server_lane *lane, int *withdrawn)
{
    struct unblock_frame unblock;
    size_t start = 0, size;
    ssize_t length;
    *withdrawn = 0;
    do
        length = descriptor_read(lane->in, lane->in_is_socket, lane->buffer, sizeof lane->buffer);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    if (length == 0)
        return -1;
    size = (size_t)length;
    if (size >= sizeof unblock) {
        memcpy(&unblock, lane->buffer, sizeof unblock);
        if (unblock.kind == FRAME_UNBLOCK) /* It came after its answer. */
            start = sizeof unblock;
    }
    if (size == start)
        return 0;
    if (size - start < sizeof lane->message)
        return -1;
    memcpy(&lane->message, lane->buffer + start, sizeof lane->message);
    if (!is_message(&lane->message) || !fits(lane, &lane->message))
        return -1;
    lane->data = start + sizeof lane->message;
    size_t end = start + frame_size(lane, &lane->message);
    if (size == end)
        return 1;
    if (size != end + sizeof unblock)
        return -1;
    memcpy(&unblock, lane->buffer + end, sizeof unblock);
    if (unblock.kind != FRAME_UNBLOCK)
        return -1;
    *withdrawn = unblock.reason ? unblock.reason : EINTR;
    return 1;
}

int server_lane_read(struct server_lane *lane, const struct vector *sink, size_t offset, size_t *done)
{
    size_t size = lane->message.size;
    size_t length = offset < size ? size - offset : 0;
    if (length > sink->size)
        length = sink->size;
    *done = length;
    if (!lane->window_size)
        vector_scatter(sink, 0, lane->buffer + lane->data + offset, length);
    else if (lane->window)
        vector_scatter(sink, 0, lane->window + offset, length);
    else if (!copy_file(lane, offset, sink, 0, length, false))
        return ESRCH;
    return 0;
}

void server_lane_info(struct server_lane *lane, struct _msg_info64 *info)
{
    const struct message_frame *message = &lane->message;
    *info = (struct _msg_info64){
        .pid = lane->pid,
        .tid = message->tid,
        .chid = lane->channel->chid,
        .scoid = lane->scoid,
        .coid = lane->coid,
        .priority = (int16_t)message->priority,
        .flags = (int16_t)(lane->unblock_reason ? _NTO_MI_UNBLOCK_REQ : 0),
        .msglen = (ssize_t)lane->msglen,
        .srcmsglen = (ssize_t)message->size,
        .dstmsglen = (ssize_t)message->room,
    };
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    info->flags |= _NTO_MI_ENDIAN_BIG;
#endif
}

/* The client becomes REPLY-blocked. Its rcvid, 0 if there is nothing to receive after all, or -1. */
static int receive(struct server_lane *lane, const struct vector *sink, struct _msg_info64 *info)
{
    struct thread *thread = thread_self();
    int withdrawn, outcome = take_message(lane, &withdrawn);
    if (outcome <= 0) {
        if (outcome < 0)
            close_lane(lane);
        return 0;
    }
    lane->client_gone = false;
    if (withdrawn || lane->message.kind == FRAME_MESSAGE_EXPIRED) {
        server_lane_error(lane, withdrawn ? withdrawn : ETIMEDOUT); /* B217 */
        return 0;
    }
    if (server_lane_read(lane, sink, 0, &lane->msglen)) {
        close_lane(lane);
        return 0;
    }
    bool may_be_asked = lane->channel->flags & _NTO_CHF_UNBLOCK;
    if (may_be_asked && !lane->unblock)
        lane->unblock = pulse_new();
    lane->rcvid = may_be_asked && !lane->unblock ? 0 : rcvid_make(lane, &lane->block, &lane->client->rcvids);
    if (!lane->rcvid) {
        server_lane_error(lane, ENOMEM);
        return -1;
    }
    atomic_store(&lane->state, LANE_RECEIVED);
    if (lane->message.kind == FRAME_MESSAGE_TELL)
        put_frame(lane, FRAME_RECEIVED, 0);
    if (info)
        server_lane_info(lane, info);
    if (!(lane->channel->flags & _NTO_CHF_FIXED_PRIORITY))
        thread->priority = lane->message.priority; /* B30 */
    return lane->rcvid;
}

int server_lane_receive(struct server_lane *lane, const struct vector *sink, struct _msg_info64 *info)
{
    int rcvid = 0;
    pthread_mutex_lock(&lane->lock);
    if (atomic_load(&lane->state) == LANE_IDLE)
        rcvid = receive(lane, sink, info);
    else if (atomic_load(&lane->state) == LANE_RECEIVED)
        read_news(lane); /* The event was not a message. */
    pthread_mutex_unlock(&lane->lock);
    return rcvid;
}

/* What an event has left to do for an idle lane. */
static void see_to_idle(struct server_lane *lane)
{
    channel_lock(lane->channel);
    bool is_broken = lane->is_broken, is_withdrawn = lane->is_withdrawn, is_late = lane->is_late;
    lane->is_withdrawn = lane->is_late = false;
    if (is_late && !is_broken) {
        struct unblock_frame frame;
        /* Another thread may have taken it out with a message, which was answered meanwhile. */
        if (look(lane, &frame, sizeof frame) == sizeof frame && frame.kind == FRAME_UNBLOCK)
            is_broken = descriptor_read(lane->in, lane->in_is_socket, &frame, sizeof frame) != sizeof frame;
    }
    if (!is_broken && !is_withdrawn) {
        add_fresh(lane); /* It was answered meanwhile, and this may be the next message. */
        channel_dispatch(lane->channel, NULL);
    }
    channel_unlock(lane->channel);
    if (is_withdrawn) {
        int reason, outcome = take_message(lane, &reason);
        if (outcome > 0)
            server_lane_error(lane, reason ? reason : EINTR);
        is_broken = outcome < 0;
    }
    if (is_broken)
        close_lane(lane);
}

void server_lane_see_to(struct server_lane *lane)
{
    pthread_mutex_lock(&lane->lock);
    if (atomic_load(&lane->state) == LANE_RECEIVED)
        read_news(lane);
    else if (atomic_load(&lane->state) == LANE_IDLE)
        see_to_idle(lane);
    pthread_mutex_unlock(&lane->lock);
}

/* By rcvid. */

static struct server_lane *with_lock(struct server_lane *lane, int rcvid)
{
    if (!lane)
        return NULL;
    pthread_mutex_lock(&lane->lock);
    if (atomic_load(&lane->state) == LANE_RECEIVED && lane->rcvid == rcvid)
        return lane;
    server_lane_leave(lane);
    return NULL;
}

struct server_lane *server_lane_of(int rcvid)
{
    struct server_lane *lane = with_lock(rcvid_find(rcvid), rcvid);
    if (!lane)
        return NULL;
    read_news(lane); /* The client may have gone, or asked to be freed, since somebody last looked. */
    if (atomic_load(&lane->state) == LANE_RECEIVED)
        return lane;
    server_lane_leave(lane);
    return NULL;
}

struct server_lane *server_lane_to_answer(int rcvid)
{
    return with_lock(rcvid_take(rcvid), rcvid);
}

void server_lane_leave(struct server_lane *lane)
{
    pthread_mutex_unlock(&lane->lock);
    server_lane_drop(lane);
}

int server_lane_write(struct server_lane *lane, const struct vector *data, size_t offset, size_t *done)
{
    size_t room = lane->message.room;
    size_t length = offset < room ? room - offset : 0;
    if (length > data->size)
        length = data->size;
    *done = length;
    if (!length || lane->client_gone)
        return 0;
    if (!lane->window_size) {
        struct written *written = lane->written;
        if (!written && !(written = lane->written = calloc(1, sizeof *written)))
            return ENOMEM;
        vector_gather(data, 0, written->image + offset, length);
        memset(written->mask + offset, 1, length);
        written->is_empty = false;
        return 0;
    }
    if (!fill_window(lane, offset, data, length))
        return ESRCH;
    return ranges_add(&lane->placed, offset, offset + length) ? 0 : ENOMEM;
}
