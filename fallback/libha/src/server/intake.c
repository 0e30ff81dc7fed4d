/* What arrives at a channel. */
#include <errno.h>
#include <sys/epoll.h>

#include "host/descriptor.h"
#include "server/channel.h"
#include "server/client.h"
#include "server/server_lane.h"

#define EVENTS 64

void channel_accept(struct channel *channel)
{
    channel->must_accept = false;
    for (;;) {
        int sock = descriptor_accept(channel->listener);
        if (sock >= 0) {
            client_add(channel, sock);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            /* Without descriptors for now; epoll will not speak of those that wait again. */
            channel->must_accept = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
    }
}

/* Takes note of an event. Whether it may have brought new sources of events with it. */
static bool take_note(struct channel *channel, struct source *source, uint32_t events)
{
    struct watch *watch;
    switch (source->kind) {
    case SOURCE_BELL:
        return false;
    case SOURCE_LISTENER:
        channel_accept(channel);
        return true;
    case SOURCE_CLIENT:
        client_read(SOURCE_OF(source, struct client, source));
        return true;
    case SOURCE_LANE:
        server_lane_event(SOURCE_OF(source, struct server_lane, source), events);
        return false;
    case SOURCE_PULSES:
        pulse_lane_read(SOURCE_OF(source, struct pulse_lane, source), true);
        return false;
    case SOURCE_WATCH:
        watch = SOURCE_OF(source, struct watch, source);
        watch->has_ended = channel->has_deaths = true;
        return false;
    case SOURCE_EVENTS:
        channel->has_events = true;
        return false;
    case SOURCE_TICKER:
        channel->must_look = true;
        return false;
    case SOURCE_ALARM:
        channel->has_due = true;
        return false;
    }
    return false;
}

void channel_take_in(struct channel *channel)
{
    struct epoll_event events[EVENTS];
    bool has_more = true;
    if (channel->must_accept)
        channel_accept(channel);
    if (channel->is_short) {
        channel->is_short = false;
        channel->has_due |= channel->queue_due != NULL;
        client_try_again(channel);
    }
    while (has_more) {
        int count = epoll_wait(channel->epoll, events, EVENTS, 0);
        has_more = count == EVENTS;
        for (int i = 0; i < count; i++)
            has_more |= take_note(channel, events[i].data.ptr, events[i].events);
    }
    if (channel->has_due) {
        channel->has_due = false;
        channel->queue_due(channel); /* Now this process is known as its own client. */
    }
}
