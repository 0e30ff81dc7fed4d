#include "server/deaths.h"

#include <stdatomic.h>
#include <sys/epoll.h>

#include "client/connection.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "number.h"
#include "server/channel.h"

/* 0: none. Changes under the table's lock. */
static atomic_int death_chid;

int deaths_reported_to(void)
{
    return atomic_load(&death_chid);
}

/* The channel with _NTO_CHF_COID_DISCONNECT, locked; NULL if there is none. */
static struct channel *enter_death_channel(void)
{
    struct channel *channel = channel_enter(atomic_load(&death_chid));
    if (channel && !(channel->flags & _NTO_CHF_COID_DISCONNECT)) {
        channel_unlock(channel);
        channel = NULL;
    }
    return channel;
}

void channel_watch_trunk(struct trunk *trunk)
{
    struct channel *channel = enter_death_channel();
    if (!channel)
        return;
    trunk->watch.kind = SOURCE_TRUNK;
    trunk->watched = channel_watch(channel, trunk->sock, &trunk->watch, EPOLLRDHUP);
    channel_unlock(channel);
}

void channel_forget_trunk(struct trunk *trunk)
{
    struct channel *channel = trunk->watched ? enter_death_channel() : NULL;
    trunk->watched = false;
    if (!channel)
        return;
    epoll_ctl(channel->epoll, EPOLL_CTL_DEL, trunk->sock, NULL);
    trunk->ended = false;
    channel_unlock(channel);
}

void channel_thread_ended(int tid)
{
    struct channel *channel = deaths_reported_to() ? channel_enter(atomic_load(&death_chid)) : NULL;
    if (!channel)
        return;
    if (channel->flags & _NTO_CHF_THREAD_DEATH) {
        channel_add_pulse(channel, _PULSE_CODE_THREADDEATH, tid, -1, DEFAULT_PRIORITY);
        channel_dispatch(channel, NULL);
    }
    channel_unlock(channel);
}

static void watch_if_alive(struct trunk *trunk, void *argument)
{
    (void)argument;
    if (trunk_is_alive(trunk))
        channel_watch_trunk(trunk);
}

static void forget(struct trunk *trunk, void *argument)
{
    (void)argument;
    channel_forget_trunk(trunk);
}

void deaths_report_to(int chid)
{
    if (!chid)
        trunk_each(forget, NULL);
    atomic_store(&death_chid, chid);
    if (chid)
        trunk_each(watch_if_alive, NULL);
}

/* One pulse for each connection to the server that has gone (B203, B204). */
static void report_connection(struct number *number, void *trunk)
{
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    bool is_hit = connection && connection->trunk == trunk && !connection->detached;
    pthread_mutex_unlock(&number->lock);
    struct channel *channel = is_hit ? enter_death_channel() : NULL;
    if (!channel)
        return;
    channel_add_pulse(channel, _PULSE_CODE_COIDDEATH, number->id, -1, DEFAULT_PRIORITY);
    channel_dispatch(channel, NULL);
    channel_unlock(channel);
}

static void report_trunk(struct trunk *trunk, void *argument)
{
    (void)argument;
    struct channel *channel = trunk->watched ? enter_death_channel() : NULL;
    bool has_ended = false;
    if (channel) {
        has_ended = trunk->ended;
        if (has_ended)
            trunk->watched = trunk->ended = false;
        channel_unlock(channel);
    }
    if (has_ended)
        number_each(report_connection, trunk);
}

void deaths_report(void)
{
    table_lock();
    trunk_each(report_trunk, NULL);
    table_unlock();
}

void deaths_after_fork_in_child(void)
{
    atomic_store(&death_chid, 0);
}
