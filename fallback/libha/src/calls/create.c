#include "calls/create.h"

#include <errno.h>
#include <sys/epoll.h>

#include "calls/call.h"
#include "client/connection.h"
#include "client/events.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "number.h"
#include "server/channel.h"
#include "server/deaths.h"
#include "server/keeper.h"

#define KNOWN_FLAGS                                                                                                   \
    (_NTO_CHF_FIXED_PRIORITY | _NTO_CHF_UNBLOCK | _NTO_CHF_THREAD_DEATH | _NTO_CHF_DISCONNECT | _NTO_CHF_SENDER_LEN | \
     _NTO_CHF_COID_DISCONNECT | _NTO_CHF_REPLY_LEN | _NTO_CHF_PRIVATE)
#define DEATH_FLAGS (_NTO_CHF_COID_DISCONNECT | _NTO_CHF_THREAD_DEATH)

/* Lets a new channel hear of what servers deliver. 0, or an errno, and there is no channel. */
static int watch_events(int chid)
{
    int epoll = events_epoll(), error = epoll < 0 ? errno : 0;
    struct channel *channel = error ? NULL : channel_enter(chid);
    if (channel) {
        channel->events = epoll;
        channel->take_events = events_take;
        channel->events_source.kind = SOURCE_EVENTS;
        if (!channel_watch(channel, epoll, &channel->events_source, EPOLLIN))
            error = errno;
        keeper_watch(channel);
        channel_unlock(channel);
    }
    if (error)
        channel_destroy(chid);
    return error;
}

int create_channel(unsigned flags, int *chid)
{
    if (flags & _NTO_CHF_NET_MSG)
        return EPERM; /* B26 */
    if (flags & ~(unsigned)KNOWN_FLAGS)
        return EINVAL;
    table_lock();
    int error = flags & DEATH_FLAGS && deaths_reported_to() ? EBUSY : channel_create(flags, chid);
    if (!error && flags & DEATH_FLAGS) {
        deaths_report_to(*chid, connection_report_deaths);
        trunk_watch_all();
    }
    if (!error)
        error = watch_events(*chid);
    table_unlock();
    return error;
}

int destroy_channel(int chid)
{
    table_lock();
    if (deaths_reported_to() == chid) {
        trunk_forget_all();
        deaths_report_to(0, NULL);
    }
    struct address address = {.chid = chid};
    bool is_there = channel_address(chid, &address);
    int error = channel_destroy(chid);
    if (is_there)
        connection_say_destroyed(&address);
    table_unlock();
    return error;
}

/* ChannelCreate(), B11 to B30. */
HA_EXPORT int ChannelCreate(unsigned flags)
{
    struct call call = call_begin();
    int chid = 0, error = create_channel(flags, &chid);
    return (int)call_end(&call, error, chid);
}

HA_EXPORT int ChannelCreate_r(unsigned flags)
{
    struct call call = call_begin();
    int chid = 0, error = create_channel(flags, &chid);
    return (int)call_end_negative(&call, error, chid);
}

/* ChannelDestroy(), B16 to B25. */
HA_EXPORT int ChannelDestroy(int chid)
{
    struct call call = call_begin();
    return (int)call_end(&call, destroy_channel(chid), 0);
}

HA_EXPORT int ChannelDestroy_r(int chid)
{
    struct call call = call_begin();
    return call_end_positive(&call, destroy_channel(chid));
}
