#include "server/keeper.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/channel.h"

/* How often to look. */
#define LOOK_AGAIN (1 * CLOCK_SECOND)

static void (*look_after_names)(void);
static void (*look_after_paths)(void);
static int ticker = -1; /* of all channels, each of which sees to all; set under the table's lock */
static pthread_mutex_t looking = PTHREAD_MUTEX_INITIALIZER;

void keeper_looks_after(void (*names)(void), void (*paths)(void))
{
    look_after_names = names;
    look_after_paths = paths;
}

static void look_after_channel(struct number *number, void *argument)
{
    (void)argument;
    if (!number->channel)
        return; /* So are most, and no lock is needed to see it. */
    pthread_mutex_lock(&number->channel_lock);
    if (number->channel)
        channel_keep(number->channel);
    pthread_mutex_unlock(&number->channel_lock);
}

static void look(void)
{
    uint64_t ticks;
    (void)!read(ticker, &ticks, sizeof ticks); /* Or it would not tick again. */
    if (!runtime_is_where_it_was() || pthread_mutex_trylock(&looking))
        return; /* Nothing of ours is there, or another thread looks. */
    number_each(look_after_channel, NULL);
    look_after_names();
    look_after_paths();
    pthread_mutex_unlock(&looking);
}

void keeper_watch(struct channel *channel)
{
    const struct itimerspec often = {clock_spec(LOOK_AGAIN), clock_spec(LOOK_AGAIN)};
    if (channel->listener < 0)
        return;
    if (ticker < 0 && (ticker = descriptor_timerfd(CLOCK_MONOTONIC)) >= 0)
        timerfd_settime(ticker, 0, &often, NULL);
    channel->look = look;
    channel->ticker_source.kind = SOURCE_TICKER;
    if (ticker >= 0) /* Else nobody looks. */
        channel_watch(channel, ticker, &channel->ticker_source, EPOLLIN);
}

void keeper_after_fork_in_child(void)
{
    pthread_mutex_init(&looking, NULL);
    ticker = -1;
}
