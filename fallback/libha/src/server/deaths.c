#include "server/deaths.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "ha_posix.h"
#include "host/descriptor.h"
#include "host/thread.h"
#include "server/channel.h"

/* 0: none. Changes under the table's lock. */
static atomic_int death_chid;

void deaths_report_to(int chid, void (*report)(void))
{
    struct channel *channel = channel_enter(chid);
    if (channel) {
        channel->report_deaths = report;
        channel_unlock(channel);
    }
    atomic_store(&death_chid, chid);
}

int deaths_reported_to(void)
{
    return atomic_load(&death_chid);
}

/* The channel, locked, if it wants to hear of what this flag says; NULL if there is none. */
static struct channel *enter_death_channel(unsigned flag)
{
    struct channel *channel = channel_enter(atomic_load(&death_chid));
    if (channel && !(channel->flags & flag)) {
        channel_unlock(channel);
        channel = NULL;
    }
    return channel;
}

void deaths_watch(struct watch *watch, int sock)
{
    struct channel *channel = enter_death_channel(_NTO_CHF_COID_DISCONNECT);
    if (!channel)
        return;
    watch->source.kind = SOURCE_WATCH;
    watch->sock = sock;
    watch->is_on = channel_watch(channel, sock, &watch->source, EPOLLRDHUP);
    channel_unlock(channel);
}

void deaths_forget(struct watch *watch)
{
    struct channel *channel = watch->is_on ? enter_death_channel(_NTO_CHF_COID_DISCONNECT) : NULL;
    watch->is_on = false;
    if (!channel)
        return;
    epoll_ctl(channel->epoll, EPOLL_CTL_DEL, watch->sock, NULL);
    watch->has_ended = false;
    channel_unlock(channel);
}

static bool has_ended(const struct watch *watch)
{
    return descriptor_has_ended(watch->sock) && descriptor_is_still(watch->sock);
}

bool deaths_heard_of(struct watch *watch, bool looks)
{
    struct channel *channel = watch->is_on ? enter_death_channel(_NTO_CHF_COID_DISCONNECT) : NULL;
    if (!channel)
        return false;
    bool heard = watch->has_ended || (looks && has_ended(watch));
    if (heard) {
        epoll_ctl(channel->epoll, EPOLL_CTL_DEL, watch->sock, NULL);
        watch->is_on = watch->has_ended = false;
    }
    channel_unlock(channel);
    return heard;
}

static void report(unsigned flag, struct pulse *pulse, int code, int value)
{
    struct channel *channel = enter_death_channel(flag);
    if (!channel || !pulse) {
        free(pulse);
    } else {
        channel_add_pulse(channel, pulse, code, value, -1, DEFAULT_PRIORITY);
        channel_dispatch(channel, NULL);
    }
    if (channel)
        channel_unlock(channel);
}

void deaths_of_connection(int coid, struct pulse *pulse)
{
    report(_NTO_CHF_COID_DISCONNECT, pulse, _PULSE_CODE_COIDDEATH, coid);
}

void deaths_of_thread(int tid)
{
    if (atomic_load(&death_chid))
        report(_NTO_CHF_THREAD_DEATH, pulse_new(), _PULSE_CODE_THREADDEATH, tid);
}

void deaths_after_fork_in_child(void)
{
    atomic_store(&death_chid, 0);
}
