#include "server/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ha_posix.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/channel.h"
#include "server/heard.h"
#include "server/rcvid.h"
#include "server/server_lane.h"

/*
 * Pulses beyond PULSES_MAX are left in their pipes until half of them are received, and when the host holds no more, their
 * senders get EAGAIN (B250). They take 6 megabytes. Those that a client has left behind are taken in all the same, up to
 * twice as many. So are pulses left there for which there is no memory, and a client that has gone does not leave before.
 */
/*
 * Of the descriptors that are the program's own, which clients get when the library's are all taken, so many are left
 * alone, or a quarter if that is less.
 */
#define SPARE_DESCRIPTORS 32

/* A client that has gone already does not hear it, but what it sent before is still received (B261). */
static void answer(int sock, const void *frame)
{
    send(sock, frame, TRUNK_FRAME, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void refuse(int sock, int reason)
{
    const struct refused_frame frame = {.kind = FRAME_REFUSED, .version = WIRE_VERSION, .reason = reason};
    answer(sock, &frame);
}

/* How many descriptors a process has here. */
static unsigned descriptors_of(const struct channel *channel, pid_t pid)
{
    unsigned count = 0;
    for (const struct client *client = channel->clients; client; client = client->next)
        if (client->who.pid == pid)
            count += client->descriptors;
    return count;
}

/*
 * Whether a client can have these descriptors. Where those of the library are all taken, the program's own serve, but
 * neither the last of them, nor for a process that has many already.
 */
static bool has_room(const struct client *client, const int *fds, size_t count)
{
    int floor = descriptor_floor(), highest = -1;
    for (size_t i = 0; i < count; i++)
        if (fds[i] < floor && fds[i] > highest)
            highest = fds[i];
    if (!descriptor_has_reserve())
        return false;
    if (highest < 0)
        return true;
    int spare = floor / 4 < SPARE_DESCRIPTORS ? floor / 4 : SPARE_DESCRIPTORS;
    return highest < floor - spare && descriptors_of(client->channel, client->who.pid) < (unsigned)floor / 2;
}

void client_add(struct channel *channel, int sock)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    struct ucred who;
    socklen_t size = sizeof who;
    struct client *client = calloc(1, sizeof *client);
    struct pulse *farewell = pulse_new();
    if (!client || !farewell) {
        refuse(sock, EAGAIN);
        goto refuse;
    }
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &size))
        goto refuse;
    client->farewell = farewell;
    client->source.kind = SOURCE_CLIENT;
    client->channel = channel;
    client->sock = sock;
    client->rcvids = (struct rcvids){.client = client, .chid = channel->chid};
    client->who = (struct identity){.pid = who.pid, .uid = who.uid, .gid = who.gid};
    client->descriptors = 1;
    client->outlet = -1;
    event.data.ptr = &client->source;
    if (!has_room(client, &sock, 1)) {
        refuse(sock, EAGAIN);
        goto refuse;
    }
    if (epoll_ctl(channel->epoll, EPOLL_CTL_ADD, sock, &event))
        goto refuse;
    client->next = channel->clients;
    channel->clients = client;
    return;
refuse:
    descriptor_close(sock);
    free(farewell);
    free(client);
}

static void take_off(struct client *client)
{
    struct client **link = &client->channel->clients;
    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
}

static void close_pulse_lane(struct pulse_lane *lane)
{
    struct client *client = lane->client;
    struct pulse_lane **link = &client->pulse_lanes;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    if (lane->is_paused)
        client->channel->paused--;
    epoll_ctl(client->channel->epoll, EPOLL_CTL_DEL, lane->fd, NULL);
    descriptor_close(lane->fd);
    client->descriptors--;
    free(lane);
}

static void queue_leaving(struct client *client)
{
    client->is_ending = true;
    client->next_leaving = client->channel->leaving;
    client->channel->leaving = client;
}

/* The trunk has ended, or breaks the rules. */
static void start_leaving(struct client *client)
{
    if (client->is_leaving)
        return;
    client->is_leaving = true;
    epoll_ctl(client->channel->epoll, EPOLL_CTL_DEL, client->sock, NULL);
    queue_leaving(client);
}

static void close_fds(struct client *client)
{
    for (size_t i = 0; i < client->fd_count; i++)
        descriptor_close(client->fds[i]);
    client->fd_count = 0;
}

static void forget_events(struct client *client)
{
    rcvid_forget(&client->rcvids);
    heard_release(client->said);
    client->said = NULL;
    descriptor_close(client->outlet);
    client->outlet = -1;
}

/* Frees the client, but not its number. */
static void free_client(struct client *client)
{
    forget_events(client);
    close_fds(client);
    while (client->pulse_lanes)
        close_pulse_lane(client->pulse_lanes);
    descriptor_close(client->sock);
    free(client->farewell);
    free(client);
}

static void forget_number(int scoid)
{
    struct number *number = number_find(scoid);
    pthread_mutex_lock(&number->lock);
    number->client = NULL;
    pthread_mutex_unlock(&number->lock);
    slot_release(scoid & ~_NTO_SIDE_CHANNEL);
}

/* The client is gone for good: its pulse, if the channel wants one (B196 to B202). */
static void leave(struct client *client)
{
    struct channel *channel = client->channel;
    int scoid = client->scoid;
    take_off(client);
    if (!scoid) {
        free_client(client);
    } else if (!(channel->flags & _NTO_CHF_DISCONNECT)) {
        forget_number(scoid);
        free_client(client);
    } else {
        struct number *number = number_find(scoid);
        forget_events(client);
        close_fds(client);
        while (client->pulse_lanes)
            close_pulse_lane(client->pulse_lanes);
        descriptor_close(client->sock);
        client->sock = -1;
        pthread_mutex_lock(&number->lock);
        client->has_left = true; /* From now on, the number owns it. */
        struct pulse *farewell = client->farewell;
        client->farewell = NULL;
        pthread_mutex_unlock(&number->lock);
        channel_add_pulse(channel, farewell, _PULSE_CODE_DISCONNECT, 0, scoid, DEFAULT_PRIORITY);
    }
}

void client_give_up(struct client *client)
{
    start_leaving(client);
    channel_dispatch(client->channel, NULL);
}

void client_lane_ended(struct client *client)
{
    if (client->is_leaving && !client->is_ending && !client->lanes && !client->channel->destroyed)
        leave(client);
}

/* Frees the client of a channel that is destroyed. */
static void end(struct client *client)
{
    take_off(client);
    if (client->scoid)
        forget_number(client->scoid);
    free_client(client);
}

void client_leave(struct client *client)
{
    struct channel *channel = client->channel;
    struct server_lane *lane;
    channel_lock(channel);
    for (struct pulse_lane *pulses = client->pulse_lanes, *next; pulses; pulses = next) {
        next = pulses->next;
        pulse_lane_read(pulses, false); /* What it sent before it went is still received (B261). */
    }
    if (client->must_wait) {
        client->is_ending = false;
        if (channel->destroyed && !client->lanes)
            end(client);
        channel_unlock(channel);
        return;
    }
    for (;;) {
        for (lane = client->lanes; lane && lane->was_told; lane = lane->next)
            ;
        if (!lane)
            break;
        lane->was_told = true;
        server_lane_hold(lane);
        channel_unlock(channel);
        server_lane_lose(lane);
        server_lane_drop(lane);
        channel_lock(channel);
    }
    client->is_ending = false;
    if (channel->destroyed && !client->lanes)
        end(client);
    else
        client_lane_ended(client);
    channel_dispatch(channel, NULL);
    channel_unlock(channel);
}

/* A client that is to be ended, or one of its lanes; not one that a thread is seeing to. */
static struct client *next_to_end(struct channel *channel)
{
    struct client *client = channel->clients;
    while (client && client->is_ending && !client->lanes)
        client = client->next;
    return client;
}

void client_end_all(struct channel *channel)
{
    for (struct client *client; (client = channel->leaving);) {
        channel->leaving = client->next_leaving;
        client->is_ending = false;
    }
    for (struct client *client; (client = next_to_end(channel));) {
        struct server_lane *lane = client->lanes;
        if (!lane) {
            end(client);
            continue;
        }
        server_lane_hold(lane);
        channel_unlock(channel);
        server_lane_end(lane);
        server_lane_drop(lane);
        channel_lock(channel);
    }
}

/* What a client says. */

/* Each does what a frame asks: 0; EINVAL ends the client; ENOMEM: not now. */

/* Gives the client its number and welcomes it. */
static int welcome(struct client *client)
{
    struct hello_frame hello;
    memcpy(&hello, client->frame, sizeof hello);
    if (hello.kind != FRAME_HELLO || memcmp(hello.magic, WIRE_MAGIC, sizeof hello.magic) || client->fd_count > 1 ||
        client->fd_count != hello.passes)
        return EINVAL;
    if (hello.version != WIRE_VERSION) {
        refuse(client->sock, 0);
        return EINVAL;
    }
    int slot = slot_take();
    if (slot < 0) {
        refuse(client->sock, EAGAIN);
        return EINVAL;
    }
    struct number *number = number_make(slot | _NTO_SIDE_CHANNEL);
    int error = number ? client->fd_count ? heard_adopt(client->fds[0], &client->said) : 0 : ENOMEM;
    if (error) {
        slot_release(slot);
        return error;
    }
    client->fd_count = 0;
    client->scoid = slot | _NTO_SIDE_CHANNEL;
    pthread_mutex_lock(&number->lock);
    number->client = client;
    pthread_mutex_unlock(&number->lock);
    const struct welcome_frame frame = {
        .kind = FRAME_WELCOME, .version = WIRE_VERSION, .scoid = client->scoid, .flags = client->channel->flags};
    answer(client->sock, &frame);
    return 0;
}

static int add_pulse_lane(struct client *client)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET};
    if (client->fd_count != 1 || !descriptor_is_stream(client->fds[0], O_RDONLY))
        return EINVAL;
    struct pulse_lane *lane = calloc(1, sizeof *lane);
    event.data.ptr = lane ? &lane->source : NULL;
    if (!lane || epoll_ctl(client->channel->epoll, EPOLL_CTL_ADD, client->fds[0], &event)) {
        free(lane);
        return ENOMEM;
    }
    lane->source.kind = SOURCE_PULSES;
    lane->client = client;
    lane->fd = client->fds[0];
    lane->is_socket = descriptor_is_socket(lane->fd);
    client->fd_count = 0;
    client->descriptors++;
    lane->next = client->pulse_lanes;
    client->pulse_lanes = lane;
    return 0;
}

static int add_lane(struct client *client)
{
    struct lane_frame frame;
    memcpy(&frame, client->frame, sizeof frame);
    if (frame.kind != FRAME_LANE || frame.carries > LANE_PULSES)
        return EINVAL;
    if (!has_room(client, client->fds, client->fd_count)) {
        refuse(client->sock, EAGAIN);
        close_fds(client);
        return 0;
    }
    if (frame.carries == LANE_PULSES)
        return add_pulse_lane(client);
    int error = server_lane_add(client, &frame, client->fds, client->fd_count);
    if (!error)
        client->fd_count = 0; /* They are the lane's. */
    return error;
}

/* Does what the frame asks that is there; whether it is done. */
static bool understand(struct client *client)
{
    int error = client->scoid ? add_lane(client) : welcome(client);
    if (error == ENOMEM) {
        client->channel->is_short = true;
        return false;
    }
    client->frame_length = 0;
    if (error)
        start_leaving(client);
    return true;
}

void client_read(struct client *client)
{
    while (!client->is_leaving) {
        if (client->frame_length == TRUNK_FRAME) {
            if (!understand(client))
                return;
            continue;
        }
        enum lost lost;
        size_t room = sizeof client->fds / sizeof *client->fds - client->fd_count;
        ssize_t length = descriptor_receive(client->sock, client->frame + client->frame_length,
                                            TRUNK_FRAME - client->frame_length, client->fds + client->fd_count, &room,
                                            &lost);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length > 0) {
            client->frame_length += (size_t)length;
            client->fd_count += room;
        }
        bool is_split = client->fd_count && client->frame_length < TRUNK_FRAME; /* They come in one piece. */
        if (lost == LOST_NO_ROOM)
            refuse(client->sock, EAGAIN);
        if (length <= 0 || lost != LOST_NOTHING || is_split)
            start_leaving(client);
    }
}

/* Pulses. */

static bool queue_pulse(struct client *client, const struct pulse_frame *frame)
{
    if (frame->kind != FRAME_PULSE || frame->priority < 1 || frame->priority > 255)
        return false;
    channel_add_pulse_of(client->channel, (int8_t)(uint32_t)frame->code, pulse_frame_value(frame), client->scoid,
                         frame->priority, frame->time);
    return true;
}

static void pause_lane(struct pulse_lane *lane)
{
    if (!lane->is_paused)
        lane->client->channel->paused++;
    lane->is_paused = true;
}

void pulse_lane_read(struct pulse_lane *lane, bool bounded)
{
    struct channel *channel = lane->client->channel;
    struct pulse_frame frames[PULSES_AT_ONCE];
    bool is_fine = true;
    int unread = INT_MAX;
    if (!bounded && ioctl(lane->fd, FIONREAD, &unread))
        unread = 0; /* What comes after the end of the client's trunk is no pulse of its. */
    while (bounded || unread > 0) {
        if (bounded && channel->pulses.count >= PULSES_MAX) {
            pause_lane(lane);
            return;
        }
        if (channel->pulses.count >= 2 * PULSES_MAX)
            break;
        size_t room = channel_make_room(channel, PULSES_AT_ONCE);
        if (!room) {
            channel->is_short = true;
            lane->client->must_wait = !bounded;
            pause_lane(lane);
            return;
        }
        ssize_t length = descriptor_read(lane->fd, lane->is_socket, frames, room * sizeof *frames);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        unread -= bounded ? 0 : (int)length;
        is_fine = length > 0 && length % (ssize_t)sizeof *frames == 0;
        for (ssize_t i = 0; is_fine && i < length / (ssize_t)sizeof *frames; i++)
            is_fine = queue_pulse(lane->client, &frames[i]);
        if (!is_fine)
            break;
    }
    if (lane->is_paused)
        channel->paused--;
    lane->is_paused = false;
    if (!is_fine)
        close_pulse_lane(lane);
}

static void read_paused(struct channel *channel)
{
    for (struct client *client = channel->clients; client; client = client->next) {
        for (struct pulse_lane *lane = client->pulse_lanes, *next; lane; lane = next) {
            next = lane->next;
            if (lane->is_paused && !client->must_wait)
                pulse_lane_read(lane, true);
        }
    }
}

void client_resume_pulses(struct channel *channel)
{
    if (channel->paused && channel->pulses.count <= PULSES_MAX / 2)
        read_paused(channel);
}

void client_try_again(struct channel *channel)
{
    for (struct client *client = channel->clients; client; client = client->next) {
        if (client->must_wait)
            queue_leaving(client);
        client->must_wait = false;
        if (client->frame_length == TRUNK_FRAME)
            client_read(client);
    }
    read_paused(channel);
}

/* By scoid. */

/* Whether the client's end of its trunk is closed, be it taken note of or not. */
static bool has_gone(const struct client *client)
{
    return client->is_leaving || descriptor_has_ended(client->sock);
}

/* All its groups but the one that its credentials have. */
static void find_groups(const struct client *client, struct identity *who)
{
    socklen_t size = 0;
    getsockopt(client->sock, SOL_SOCKET, SO_PEERGROUPS, NULL, &size); /* How much room it takes. */
    gid_t *groups = size ? malloc(size) : NULL;
    if (!groups || getsockopt(client->sock, SOL_SOCKET, SO_PEERGROUPS, groups, &size))
        size = 0;
    who->group_count = size / sizeof *groups;
    for (size_t i = 0; i < who->group_count && i < IDENTITY_GROUPS; i++)
        who->groups[i] = groups[i];
    free(groups);
}

int client_identify(int scoid, struct identity *who)
{
    struct number *number = scoid & _NTO_SIDE_CHANNEL ? number_find(scoid) : NULL;
    if (!number)
        return EINVAL;
    pthread_mutex_lock(&number->lock);
    struct client *client = number->client;
    bool has_left = client && client->has_left;
    int chid = client && !has_left ? client->channel->chid : 0;
    pthread_mutex_unlock(&number->lock);
    if (has_left)
        return EFAULT;
    struct channel *channel = channel_enter(chid);
    if (!channel)
        return EINVAL;
    int gone = channel->flags & _NTO_CHF_DISCONNECT ? EFAULT : EINVAL, error = EINVAL;
    pthread_mutex_lock(&number->lock);
    client = number->client;
    if (client && client->channel == channel)
        error = client->has_left || has_gone(client) ? gone : 0;
    if (!error) {
        *who = client->who;
        find_groups(client, who);
    }
    pthread_mutex_unlock(&number->lock);
    channel_unlock(channel);
    return error;
}

int client_release(int scoid)
{
    struct number *number = number_find(scoid);
    int error = EBADF;
    if (!number || !(scoid & _NTO_SIDE_CHANNEL))
        return error;
    pthread_mutex_lock(&number->lock);
    struct client *client = number->client;
    if (client)
        error = client->has_left ? 0 : EINVAL; /* B60 */
    if (!error)
        number->client = NULL;
    pthread_mutex_unlock(&number->lock);
    if (!error) {
        free(client);
        slot_release(scoid & ~_NTO_SIDE_CHANNEL);
    }
    return error;
}

static void release_one(struct number *number, void *channel)
{
    pthread_mutex_lock(&number->lock);
    struct client *client = number->client;
    bool release = client && client->has_left && client->channel == channel;
    if (release)
        number->client = NULL;
    pthread_mutex_unlock(&number->lock);
    if (release) {
        free(client);
        slot_release(number->id & ~_NTO_SIDE_CHANNEL);
    }
}

void client_release_all(struct channel *channel)
{
    number_each(release_one, channel);
}
