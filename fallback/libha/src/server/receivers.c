/*
 * The threads that receive on a channel.
 *
 * One of them, the leader, waits in poll for something to arrive, and takes it in. The others wait to be called by it,
 * or to take its place when it leaves with a message. So a server with one thread pays for none of this, and with
 * several the one that began to wait last is served first (B263). A thread in MsgReceive takes the place of one in
 * MsgReceivePulse.
 *
 * Where only threads in MsgReceivePulse are left when the leader leaves with a message, one of them is called to lead. As
 * long as messages come one upon the other, that would cost more than all the rest of a message. So after the first of
 * them, one of those threads watches: it looks by itself, again and again, whether no thread has been in MsgReceive all
 * the while, and sleeps when no more messages come.
 */
#include <errno.h>
#include <sys/epoll.h>

#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/wait.h"
#include "server/channel.h"
#include "server/client.h"
#include "server/server_lane.h"

#define PARKED_LOOK (2 * CLOCK_MILLISECOND)
/* How long a server that has no descriptor or no memory left does not look whether it has. */
#define ACCEPT_PAUSE (50 * CLOCK_MILLISECOND)

static void append(struct receivers *list, struct receiver *receiver)
{
    receiver->older = list->newest;
    receiver->newer = NULL;
    *(list->newest ? &list->newest->newer : &list->oldest) = receiver;
    list->newest = receiver;
    receiver->is_waiting = true;
}

static void take_out(struct receivers *list, struct receiver *receiver)
{
    *(receiver->newer ? &receiver->newer->older : &list->newest) = receiver->older;
    *(receiver->older ? &receiver->older->newer : &list->oldest) = receiver->newer;
    receiver->is_waiting = false;
}

static struct receivers *list_of(struct channel *channel, const struct receiver *receiver)
{
    return receiver->pulses_only ? &channel->pulse_receivers : &channel->receivers;
}

static void wake(struct receivers *list, struct receiver *receiver)
{
    take_out(list, receiver);
    sem_post(&receiver->wake);
}

static void ring(struct channel *channel)
{
    const uint64_t one = 1;
    descriptor_write(channel->bell, &one, sizeof one);
}

/* The channel is no more: all have to hear of it. */
static void wake_all(struct channel *channel)
{
    while (channel->receivers.oldest)
        wake(&channel->receivers, channel->receivers.oldest);
    while (channel->pulse_receivers.oldest)
        wake(&channel->pulse_receivers, channel->pulse_receivers.oldest);
    if (channel->leader)
        ring(channel);
}

/* Messages and pulses that no thread was called for. */
static size_t uncalled(const struct channel *channel, bool pulses_only)
{
    size_t items = channel->pulses.count + (pulses_only ? 0 : channel->messages.count + channel->fresh_count);
    return items > channel->called ? items - channel->called : 0;
}

static void call(struct channel *channel, struct receivers *list, struct receiver *receiver)
{
    receiver->is_called = true;
    channel->called++;
    wake(list, receiver);
}

/* Whether pulses are for threads in MsgReceivePulse: those in MsgReceive are served first (B259). */
static bool pulses_are_left(const struct channel *channel)
{
    return uncalled(channel, true) && !(channel->leader && !channel->leader->pulses_only);
}

void channel_dispatch(struct channel *channel, const struct receiver *self)
{
    struct receivers *all = &channel->receivers, *pulses_only = &channel->pulse_receivers;
    if (channel->destroyed) {
        wake_all(channel);
        return;
    }
    while (all->newest && uncalled(channel, false))
        call(channel, all, all->newest); /* B263 */
    while (pulses_only->newest && pulses_are_left(channel))
        call(channel, pulses_only, pulses_only->newest);
    if (channel->leader && channel->leader != self && uncalled(channel, channel->leader->pulses_only))
        ring(channel);
    if (!channel->leader && (all->oldest || pulses_only->oldest)) {
        struct receivers *list = all->oldest ? all : pulses_only;
        if (list == pulses_only && channel->watcher)
            return;
        channel->leader = list->oldest;
        wake(list, list->oldest);
    }
}

/* What is to be received first, if anything is there for the caller. */
static bool choose(struct channel *channel, bool pulses_only, struct arrival *arrival)
{
    struct queued *pulse = queue_first(&channel->pulses), *message = NULL;
    *arrival = (struct arrival){.takes_priority = !(channel->flags & _NTO_CHF_FIXED_PRIORITY)};
    if (!pulses_only) {
        if (channel->fresh_count == 1 && !channel->messages.count && !pulse) {
            arrival->lane = channel->fresh; /* There is no choice, so no need to look. */
        } else {
            server_lane_look_at_fresh(channel);
            message = queue_first(&channel->messages);
        }
    }
    if (message && !(pulse && queued_before(pulse, message)))
        arrival->lane = SOURCE_OF(message, struct server_lane, queued);
    if (arrival->lane) {
        server_lane_unqueue(arrival->lane);
        server_lane_hold(arrival->lane);
    } else if (pulse) {
        queue_remove(&channel->pulses, pulse);
        arrival->is_pulse = true;
        arrival->pulse = *SOURCE_OF(pulse, struct pulse, queued);
        channel_free_pulse(channel, SOURCE_OF(pulse, struct pulse, queued));
        client_resume_pulses(channel);
    }
    return arrival->lane || arrival->is_pulse;
}

struct rescued {
    struct channel *channel;
    struct receiver *receiver;
};

/* Ends a thread's wait, under the lock. */
static void stop_waiting(struct channel *channel, struct receiver *receiver)
{
    if (channel->leader == receiver)
        channel->leader = NULL;
    if (channel->watcher == receiver)
        channel->watcher = NULL;
    if (receiver->is_waiting)
        take_out(list_of(channel, receiver), receiver);
    channel->called -= receiver->is_called;
    receiver->is_called = false;
}

static void rescue_receiver(void *argument)
{
    struct rescued *rescued = argument;
    channel_lock(rescued->channel);
    stop_waiting(rescued->channel, rescued->receiver);
    channel_dispatch(rescued->channel, NULL);
    channel_leave(rescued->channel);
}

static bool rather_watches(const struct channel *channel, const struct receiver *receiver)
{
    return receiver->pulses_only && channel->was_left && !channel->watcher;
}

/* Has the thread lead, if none does yet, or one that is served after it (B259). */
static void see_to_leader(struct channel *channel, struct receiver *receiver)
{
    if (!channel->leader) {
        if (!rather_watches(channel, receiver))
            channel->leader = receiver;
    } else if (channel->leader->pulses_only && !receiver->pulses_only) {
        channel->leader = receiver;
        ring(channel);
    }
}

/* Waits, without the lock in between, until there may be something. 0, EINTR or ETIMEDOUT. */
static int wait_once(struct channel *channel, struct receiver *receiver, int64_t deadline, bool cancellable)
{
    struct rescued rescued = {channel, receiver};
    const struct rescue rescue = {cancellable, rescue_receiver, &rescued};
    bool leads = channel->leader == receiver, watches = !leads && rather_watches(channel, receiver);
    int epoll = channel->epoll;
    int64_t look = watches ? clock_after(clock_now(), PARKED_LOOK) : deadline, end = look < deadline ? look : deadline;
    if (watches) {
        channel->watcher = receiver;
        channel->was_left = false;
    }
    if (!leads)
        append(list_of(channel, receiver), receiver);
    channel_unlock(channel);
    if (!leads)
        signals_release(&receiver->held); /* Nothing lets them through at a semaphore. */
    int error = leads && !receiver->held.are_held ? spin_on(&channel->spinner, epoll, end) : 0;
    if (!error && leads)
        error = wait_readable(epoll, end, &receiver->held, &rescue);
    else if (!error)
        error = wait_semaphore(&receiver->wake, end, &rescue);
    channel_lock(channel);
    if (watches)
        channel->watcher = NULL;
    if (receiver->is_waiting)
        take_out(list_of(channel, receiver), receiver);
    return error == ETIMEDOUT && end < deadline ? 0 : error;
}

/*
 * Under the lock, which it lets go of in between: does what the intake has left to be done without it. What is no lane's
 * takes a while, and brings nothing to receive: no handler shall run unnoticed before the thread waits again.
 */
static void see_to_rest(struct channel *channel, struct held_signals *held)
{
    struct server_lane *lane = channel->touched;
    struct client *client = channel->leaving;
    if (!lane)
        signals_hold_all(held);
    if (lane) {
        channel->touched = lane->next_touched;
        lane->is_touched = false;
        channel_unlock(channel);
        server_lane_see_to(lane);
        server_lane_drop(lane);
    } else if (client) {
        channel->leaving = client->next_leaving;
        channel_unlock(channel);
        client_leave(client);
    } else if (channel->has_events) {
        struct epoll_event again = {.events = EPOLLIN | EPOLLET, .data.ptr = &channel->events_source};
        channel->has_events = false;
        channel_unlock(channel);
        bool has_more = channel->take_events();
        channel_lock(channel);
        if (has_more)
            epoll_ctl(channel->epoll, EPOLL_CTL_MOD, channel->events, &again);
        if (!channel->destroyed)
            channel_take_in(channel); /* Some may be for this channel. */
        return;
    } else if (channel->has_deaths) {
        channel->has_deaths = false;
        channel_unlock(channel);
        channel->report_deaths();
    } else {
        channel->must_look = false;
        channel_unlock(channel);
        channel->look();
    }
    channel_lock(channel);
}

static bool has_rest(const struct channel *channel)
{
    return !channel->destroyed &&
           (channel->touched || channel->leaving || channel->has_events || channel->has_deaths || channel->must_look);
}

void channel_hear(const struct address *address)
{
    struct channel *channel = channel_enter(address->chid);
    if (!channel)
        return;
    struct held_signals held = {.are_held = false};
    channel->users++;
    if (address_equal(&channel->address, address)) {
        channel_take_in(channel);
        while (has_rest(channel))
            see_to_rest(channel, &held);
        channel_dispatch(channel, NULL);
    }
    channel_leave(channel);
    signals_release(&held);
}

static bool has_anything(const struct channel *channel)
{
    return channel->messages.count || channel->fresh_count || channel->pulses.count || has_rest(channel);
}

/* Under the lock: what is to be received, taken; false if nothing is there for this thread. */
static bool take(struct channel *channel, struct receiver *receiver, bool is_called, struct arrival *arrival)
{
    if (!is_called) {
        channel_dispatch(channel, receiver); /* Others wait already. */
        if (!uncalled(channel, receiver->pulses_only))
            return false;
        if (receiver->pulses_only && channel->leader != receiver && !pulses_are_left(channel))
            return false;
    }
    return choose(channel, receiver->pulses_only, arrival);
}

/* Under the lock. */
static int wait_in(struct channel *channel, struct receiver *receiver, const struct timeout *timeout, bool cancellable,
                   struct arrival *arrival)
{
    /* What is queued may not be all that has arrived, and not the most urgent. */
    bool must_take_in = timeout->immediate || has_anything(channel), is_called = false;
    for (;;) {
        see_to_leader(channel, receiver);
        if (must_take_in && !channel->destroyed)
            channel_take_in(channel);
        while (has_rest(channel))
            see_to_rest(channel, &receiver->held);
        if (channel->destroyed)
            return ESRCH;
        if (take(channel, receiver, is_called, arrival))
            return 0;
        must_take_in = false;
        if (has_rest(channel))
            continue; /* Lanes that break the rules, as it turned out. */
        if (timeout->immediate)
            return ETIMEDOUT;
        bool lacks = channel->must_accept || channel->is_short;
        int64_t soon = lacks ? clock_now() + ACCEPT_PAUSE : CLOCK_NEVER;
        bool looks_soon = soon < timeout->deadline;
        int error = wait_once(channel, receiver, looks_soon ? soon : timeout->deadline, cancellable);
        is_called = receiver->is_called;
        if (is_called)
            channel->called--;
        receiver->is_called = false;
        if (error && !is_called && !(error == ETIMEDOUT && looks_soon))
            return channel->destroyed ? ESRCH : error;
        must_take_in = is_called || channel->leader == receiver;
    }
}

int channel_wait(int chid, bool pulses_only, const struct timeout *timeout, bool cancellable, struct arrival *arrival)
{
    struct receiver receiver = {.pulses_only = pulses_only};
    struct channel *channel = channel_enter(chid);
    if (!channel)
        return ESRCH;
    sem_init(&receiver.wake, 0, 0);
    channel->users++;
    int error = wait_in(channel, &receiver, timeout, cancellable, arrival);
    stop_waiting(channel, &receiver);
    channel->was_left |= !pulses_only;
    channel_dispatch(channel, NULL);
    channel_leave(channel);
    signals_release(&receiver.held);
    sem_destroy(&receiver.wake);
    return error;
}

bool channel_is_waited_on(const struct address *address)
{
    struct channel *channel = channel_enter(address->chid);
    if (!channel)
        return false;
    bool leads = channel->leader && !channel->leader->pulses_only;
    bool waits = address_equal(&channel->address, address) && (leads || channel->receivers.oldest);
    channel_unlock(channel);
    return waits;
}
