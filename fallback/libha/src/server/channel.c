#include "server/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/client.h"
#include "server/server_lane.h"

/* What disconnect pulses are queued by (B200): more than any priority, which ends at 255. */
#define BEFORE_EVERYTHING (1 << 16)

/* Finding. */

void channel_lock(struct channel *channel)
{
    pthread_mutex_lock(&channel->number->channel_lock);
}

void channel_unlock(struct channel *channel)
{
    pthread_mutex_unlock(&channel->number->channel_lock);
}

struct channel *channel_enter(int chid)
{
    struct number *number = chid > 0 && !(chid & _NTO_SIDE_CHANNEL) ? number_find(chid | _NTO_SIDE_CHANNEL) : NULL;
    if (!number)
        return NULL;
    pthread_mutex_lock(&number->channel_lock);
    if (!number->channel)
        pthread_mutex_unlock(&number->channel_lock);
    return number->channel;
}

/* Pulses. */

struct pulse *pulse_new(void)
{
    return calloc(1, sizeof(struct pulse));
}

static void add_spare(struct channel *channel, struct pulse *pulse)
{
    pulse->queued.next = channel->spares ? &channel->spares->queued : NULL;
    channel->spares = pulse;
    channel->spare_count++;
}

static struct pulse *take_spare(struct channel *channel)
{
    struct pulse *pulse = channel->spares;
    channel->spares = pulse->queued.next ? SOURCE_OF(pulse->queued.next, struct pulse, queued) : NULL;
    channel->spare_count--;
    return pulse;
}

void channel_free_pulse(struct channel *channel, struct pulse *pulse)
{
    if (channel->spare_count < PULSES_AT_ONCE)
        add_spare(channel, pulse);
    else
        free(pulse);
}

size_t channel_make_room(struct channel *channel, size_t wanted)
{
    for (struct pulse *pulse; channel->spare_count < wanted && (pulse = pulse_new());)
        add_spare(channel, pulse);
    return channel->spare_count;
}

static void add_pulse(struct channel *channel, struct pulse *pulse, int code, union sigval value, int scoid,
                      int priority, int rank, uint64_t time)
{
    pulse->queued = (struct queued){.priority = rank, .time = time, .arrival = channel->arrivals++};
    pulse->priority = priority;
    pulse->code = (int8_t)code;
    pulse->value = value;
    pulse->scoid = scoid;
    queue_add(&channel->pulses, &pulse->queued);
}

void channel_add_pulse_of(struct channel *channel, int code, union sigval value, int scoid, int priority, uint64_t time)
{
    add_pulse(channel, take_spare(channel), code, value, scoid, priority, priority, time);
}

void channel_add_pulse(struct channel *channel, struct pulse *pulse, int code, int value, int scoid, int priority)
{
    int rank = code == _PULSE_CODE_DISCONNECT ? BEFORE_EVERYTHING : priority;
    if (channel->destroyed)
        free(pulse);
    else
        add_pulse(channel, pulse, code, pulse_number(value), scoid, priority, rank, (uint64_t)clock_now());
}

void channel_send_pulse(struct channel *channel, struct pulse *pulse, int code, int value, int scoid, int priority)
{
    channel_lock(channel);
    channel_add_pulse(channel, pulse, code, value, scoid, priority);
    channel_dispatch(channel, NULL);
    channel_unlock(channel);
}

struct pulse *channel_withdraw_unblock(struct channel *channel, int rcvid)
{
    for (struct queued *item = queue_first(&channel->pulses); item; item = queue_next(item)) {
        struct pulse *pulse = SOURCE_OF(item, struct pulse, queued);
        if (pulse->code == _PULSE_CODE_UNBLOCK && pulse->value.sival_int == rcvid) {
            queue_remove(&channel->pulses, item);
            return pulse;
        }
    }
    return NULL;
}

/* Making and ending. */

static void free_channel(struct channel *channel)
{
    for (struct server_lane *lane; (lane = channel->touched);) {
        channel->touched = lane->next_touched;
        server_lane_drop(lane);
    }
    for (struct queued *first; (first = queue_first(&channel->pulses));) {
        queue_remove(&channel->pulses, first);
        free(SOURCE_OF(first, struct pulse, queued));
    }
    while (channel->spares)
        free(take_spare(channel));
    descriptor_close(channel->epoll);
    descriptor_close(channel->bell);
    descriptor_close(channel->listener);
    descriptor_close(channel->peek[0]);
    descriptor_close(channel->peek[1]);
    free(channel);
}

void channel_leave(struct channel *channel)
{
    struct number *number = channel->number;
    bool last = --channel->users == 0;
    pthread_mutex_unlock(&number->channel_lock);
    if (last)
        free_channel(channel);
}

bool channel_watch(struct channel *channel, int fd, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events | EPOLLET, .data.ptr = source};
    return !epoll_ctl(channel->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* Descriptors of a new channel. 0 or an errno. */
static int open_channel(struct channel *channel)
{
    channel->bell_source.kind = SOURCE_BELL;
    channel->listener_source.kind = SOURCE_LISTENER;
    if ((channel->epoll = descriptor_epoll()) < 0 || (channel->bell = descriptor_eventfd()) < 0 ||
        descriptor_pipe(channel->peek, O_NONBLOCK))
        return errno;
    if (!channel_watch(channel, channel->bell, &channel->bell_source, EPOLLIN))
        return errno;
    if (channel->flags & _NTO_CHF_PRIVATE)
        return 0;
    int error = runtime_listen(&channel->address, &channel->listener, &channel->entry);
    if (!error && !channel_watch(channel, channel->listener, &channel->listener_source, EPOLLIN))
        error = errno;
    return error;
}

int channel_create(unsigned flags, int *chid)
{
    int error = 0, slot = slot_take();
    struct number *number = slot < 0 ? NULL : number_make(slot | _NTO_SIDE_CHANNEL);
    struct channel *channel = number ? calloc(1, sizeof *channel) : NULL;
    if (!channel) {
        error = slot < 0 ? EAGAIN : ENOMEM; /* B27 */
        goto fail;
    }
    channel->epoll = channel->bell = channel->listener = channel->peek[0] = channel->peek[1] = -1;
    channel->number = number;
    channel->chid = slot;
    channel->flags = flags;
    channel->users = 1;
    address_make(&channel->address, slot);
    error = open_channel(channel);
    if (error)
        goto fail;
    pthread_mutex_lock(&number->channel_lock);
    number->channel = channel;
    pthread_mutex_unlock(&number->channel_lock);
    *chid = slot;
    return 0;
fail:
    if (channel) {
        if (channel->listener >= 0)
            runtime_remove_channel(&channel->address);
        free_channel(channel);
    }
    if (slot >= 0)
        slot_release(slot);
    return error;
}

int channel_destroy(int chid)
{
    struct channel *channel = channel_enter(chid);
    if (!channel)
        return EINVAL;
    channel->number->channel = NULL;
    channel->destroyed = true;
    if (channel->listener >= 0)
        runtime_remove_channel(&channel->address);
    descriptor_close(channel->listener);
    channel->listener = -1;
    client_end_all(channel);
    channel_dispatch(channel, NULL);
    client_release_all(channel);
    if (channel->end_home)
        channel->end_home(channel);
    channel_leave(channel);
    slot_release(chid);
    return 0;
}

void channel_keep(struct channel *channel)
{
    int listener;
    struct entry entry;
    char what[32];
    if (channel->listener < 0 || runtime_has_channel(&channel->address, &channel->entry))
        return;
    int error = runtime_listen(&channel->address, &listener, &entry);
    snprintf(what, sizeof what, "channel %d", channel->chid);
    if (!error) {
        channel_accept(channel); /* Those that have found the one before. */
        descriptor_close(channel->listener);
        channel->listener = listener;
        channel->entry = entry;
        if (!channel_watch(channel, listener, &channel->listener_source, EPOLLIN))
            error = errno;
        channel_accept(channel);
        channel_dispatch(channel, NULL);
    }
    runtime_tell(what, error, &channel->is_lost);
}

/* Connections of this process. */

bool channel_address(int chid, struct address *address)
{
    struct channel *channel = channel_enter(chid);
    if (!channel)
        return false;
    bool same = !*address->token || !strcmp(address->token, channel->address.token);
    if (same)
        *address = channel->address;
    channel_unlock(channel);
    return same;
}

bool channel_is_there(const struct address *address)
{
    struct number *number = number_find(address->chid | _NTO_SIDE_CHANNEL);
    return number && number->channel;
}

bool channel_adopt(const struct address *address, int sock)
{
    struct channel *channel = channel_enter(address->chid);
    bool same = channel && address_equal(&channel->address, address);
    if (same)
        client_add(channel, sock);
    else
        descriptor_close(sock);
    if (channel)
        channel_unlock(channel);
    return same;
}

/* The end of the process, and forks. */

static void remove_socket(struct number *number, void *argument)
{
    (void)argument;
    if (pthread_mutex_trylock(&number->channel_lock))
        return; /* Some thread is in it; whoever finds the socket finds nobody behind it. */
    if (number->channel && number->channel->listener >= 0)
        runtime_remove_channel(&number->channel->address);
    pthread_mutex_unlock(&number->channel_lock);
}

void channel_at_exit(void)
{
    number_each(remove_socket, NULL);
}
