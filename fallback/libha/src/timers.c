#include "timers.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/connection.h"
#include "client/trunk.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/thread.h"
#include "server/channel.h"
#include "server/client.h"
#include "server/queue.h"
#include "wire.h"

enum { EVENT_NONE = 0, EVENT_SIGNAL = 1, EVENT_PULSE = 4, EVENT_UNBLOCK = 5, EVENT_INTR = 6, EVENT_MEMORY = 8 };

/* What timers wait by. The realtime clock is for an absolute time of it, until then: an interval is an interval. */
enum { BY_MONOTONIC, BY_REALTIME, WAYS_TO_WAIT };
static const clockid_t clocks[WAYS_TO_WAIT] = {CLOCK_MONOTONIC, CLOCK_REALTIME};

/* Where timers are seen to: those of one channel, or of the courier. */
struct home {
    struct home *next;
    struct address address; /* of the channel */
    bool is_couriers;
    struct queue due[WAYS_TO_WAIT];
    int alarms[WAYS_TO_WAIT]; /* timerfds, or -1 */
    bool is_set[WAYS_TO_WAIT];
    struct source source;
};

struct timer {
    struct timer *next;
    int id;
    clockid_t clock;
    struct ha_posix_sigevent event;
    int kind;
    int priority; /* of its pulses; 0 delivers nothing (B444) */
    bool is_absolute, has_expired;
    struct _itimer set_to;
    struct queued queued; /* at its home; `time` is when it is due next */
    int waits_by;
    bool is_armed;
    struct home *home; /* NULL: nothing ever happens to it */
};

/* The last lock that is taken but for those of numbers and trunks. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct timer *timers;
static struct home *homes;
static uint64_t order;

/* Held while the courier does what is due, by its thread or another one; taken before the other. */
static pthread_mutex_t courier_lock = PTHREAD_MUTEX_INITIALIZER;
static struct home *courier;

/* Homes. Under the lock. */

static void set_alarm(struct home *home, int by)
{
    struct queued *first = queue_first(&home->due[by]);
    const struct itimerspec time = {.it_value = clock_spec(first ? (int64_t)(first->time ? first->time : 1) : 0)};
    if (first || home->is_set[by])
        timerfd_settime(home->alarms[by], TFD_TIMER_ABSTIME, &time, NULL);
    home->is_set[by] = first;
}

static void free_home(struct home *home)
{
    for (int by = 0; by < WAYS_TO_WAIT; by++) {
        descriptor_close(home->alarms[by]);
    }
    free(home);
}

/* A home with its alarms; NULL and errno. */
static struct home *make_home(void)
{
    struct home *home = calloc(1, sizeof *home);
    if (!home)
        return NULL;
    home->source.kind = SOURCE_ALARM;
    home->alarms[BY_MONOTONIC] = descriptor_timerfd(clocks[BY_MONOTONIC]);
    home->alarms[BY_REALTIME] = home->alarms[BY_MONOTONIC] < 0 ? -1 : descriptor_timerfd(clocks[BY_REALTIME]);
    if (home->alarms[BY_REALTIME] >= 0)
        return home;
    int error = errno;
    free_home(home);
    errno = error;
    return NULL;
}

static struct home *find_home(const struct address *address)
{
    struct home *home = homes;
    while (home && !address_equal(&home->address, address))
        home = home->next;
    return home;
}

static void stop(struct timer *timer)
{
    if (timer->queued.is_queued) {
        queue_remove(&timer->home->due[timer->waits_by], &timer->queued);
        set_alarm(timer->home, timer->waits_by);
    }
    timer->is_armed = false;
    timer->home = NULL;
}

static void enter(struct timer *timer, struct home *home)
{
    timer->home = home;
    timer->queued.arrival = order++;
    queue_add(&home->due[timer->waits_by], &timer->queued);
}

static void move(struct timer *timer, struct home *home)
{
    enter(timer, home);
    set_alarm(home, timer->waits_by);
}

/* Lets it be due once; when that was, by CLOCK_MONOTONIC. It is not queued anywhere. */
static uint64_t expire(struct timer *timer)
{
    uint64_t at = timer->queued.time;
    if (timer->waits_by != BY_MONOTONIC)
        at = (uint64_t)clock_now();
    timer->waits_by = BY_MONOTONIC;
    timer->has_expired = true;
    timer->is_armed = timer->set_to.interval_nsec;
    timer->queued.time = (uint64_t)clock_after((int64_t)at, timer->set_to.interval_nsec);
    return at;
}

/* Lets all pass that it was due for until then. It is not queued anywhere. */
static void pass_over(struct timer *timer, uint64_t now)
{
    uint64_t at = expire(timer), interval = timer->set_to.interval_nsec;
    if (interval && at < now)
        timer->queued.time += (now - at) / interval * interval;
}

/* Where its pulse goes; false if nowhere. */
static bool way_of(const struct timer *timer, struct way *way)
{
    return timer->kind == EVENT_PULSE && connection_way(timer->event.sigev_coid, way);
}

static int start_courier(void);

/* Where it is to be seen to; NULL if nothing ever happens to it, or, with errno, if there is no courier to be had. */
static struct home *home_of(const struct timer *timer)
{
    struct way way;
    errno = 0;
    if (timer->kind != EVENT_PULSE && timer->kind != EVENT_SIGNAL)
        return NULL;
    struct home *home = way_of(timer, &way) && way.address.pid == getpid() ? find_home(&way.address) : NULL;
    if (home)
        return home;
    int error = courier ? 0 : start_courier();
    errno = error;
    return courier;
}

/* Takes out the timer that was due first, if one is. */
static struct timer *take_due(struct home *home, int by, uint64_t now)
{
    struct queued *first = queue_first(&home->due[by]);
    if (!first || first->time > now)
        return NULL;
    queue_remove(&home->due[by], first);
    return SOURCE_OF(first, struct timer, queued);
}

/* Channels. Their locks are held. */

/* The number of this process as a client of a channel of its own, which may not have heard of it yet. */
static int scoid_for(struct channel *channel, const struct timer *timer, struct way *way)
{
    for (struct client *client = channel->clients, *next; client && !way->scoid; client = next) {
        next = client->next;
        if (!client->scoid) {
            client_read(client);
            way_of(timer, way);
        }
    }
    return way->scoid;
}

static void queue_one(struct channel *channel, struct timer *timer, struct way *way)
{
    uint64_t now = (uint64_t)clock_now();
    bool is_silent = !timer->priority || (timer->waits_by == BY_MONOTONIC && timer->queued.time < way->since);
    if (is_silent) {
        pass_over(timer, timer->priority && way->since < now ? way->since : now);
    } else {
        int scoid = scoid_for(channel, timer, way);
        uint64_t at = expire(timer);
        channel_add_pulse_of(channel, timer->event.sigev_code, timer->event.sigev_value, scoid, timer->priority, at);
    }
}

static bool has_room(struct channel *channel)
{
    bool has_memory = channel_make_room(channel, 1);
    channel->is_short |= !has_memory;
    return has_memory && channel->pulses.count < PULSES_MAX;
}

/* Queues the pulses that are due by now, as long as there is room. */
static void queue_due(struct channel *channel)
{
    pthread_mutex_lock(&lock);
    struct home *home = find_home(&channel->address);
    for (int by = 0; home && by < WAYS_TO_WAIT; by++) {
        /* What becomes due meanwhile is for the next time: there may be more of it than can be done. */
        uint64_t now = (uint64_t)clock_read(clocks[by]);
        for (struct timer *timer; has_room(channel) && (timer = take_due(home, by, now));) {
            struct way way;
            struct home *rightful = home_of(timer);
            if (rightful == home && way_of(timer, &way))
                queue_one(channel, timer, &way);
            else if (!rightful)
                pass_over(timer, (uint64_t)clock_now()); /* It stays here, and looks for a courier the next time. */
            if (timer->is_armed && rightful && rightful != home)
                move(timer, rightful);
            else if (timer->is_armed)
                enter(timer, home);
        }
    }
    for (int by = 0; home && !channel->is_short && by < WAYS_TO_WAIT; by++)
        set_alarm(home, by);
    pthread_mutex_unlock(&lock);
}

/* The channel is destroyed: its timers go on, in silence unless their connections lead elsewhere by then. */
static void end_home(struct channel *channel)
{
    pthread_mutex_lock(&lock);
    struct home **link = &homes;
    while (*link && !address_equal(&(*link)->address, &channel->address))
        link = &(*link)->next;
    struct home *home = *link;
    if (home) {
        *link = home->next;
        for (int by = 0; by < WAYS_TO_WAIT; by++) {
            for (struct queued *first; (first = queue_first(&home->due[by]));) {
                queue_remove(&home->due[by], first);
                struct timer *timer = SOURCE_OF(first, struct timer, queued);
                timer->home = NULL;
                if (courier || !start_courier())
                    move(timer, courier);
                else
                    timer->is_armed = false;
            }
        }
        free_home(home);
    }
    pthread_mutex_unlock(&lock);
}

static int watch_alarms(struct channel *channel, struct home *home)
{
    for (int by = 0; by < WAYS_TO_WAIT; by++)
        if (!channel_watch(channel, home->alarms[by], &home->source, EPOLLIN))
            return errno;
    return 0;
}

/* Makes a home for a channel, unless it has one. 0 or an errno. */
static int settle_in(struct channel *channel)
{
    pthread_mutex_lock(&lock);
    bool has_one = find_home(&channel->address);
    struct home *home = has_one ? NULL : make_home();
    int error = has_one || home ? 0 : errno;
    if (home)
        error = watch_alarms(channel, home);
    if (home && !error) {
        home->address = channel->address;
        home->next = homes;
        homes = home;
        channel->queue_due = queue_due;
        channel->end_home = end_home;
    } else if (home) {
        free_home(home);
    }
    pthread_mutex_unlock(&lock);
    return error;
}

/* The channel of this process that a pulse goes to, entered; NULL if it goes elsewhere. */
static struct channel *enter_channel(const struct timer *timer)
{
    struct way way;
    if (!way_of(timer, &way) || way.address.pid != getpid())
        return NULL;
    struct channel *channel = channel_enter(way.address.chid);
    if (channel && !address_equal(&channel->address, &way.address)) {
        channel_unlock(channel);
        channel = NULL;
    }
    return channel;
}

/* The courier. */

struct errand {
    struct ha_posix_sigevent event;
    int kind, priority;
    uint64_t at;
};

static void do_errand(const struct errand *errand)
{
    struct use use;
    struct ticket ticket;
    struct pulse_frame pulse = {
        .kind = FRAME_PULSE,
        .priority = (uint16_t)errand->priority,
        .code = errand->event.sigev_code,
        .coid = errand->event.sigev_coid,
        .time = errand->at,
    };
    pulse_frame_carry(&pulse, errand->event.sigev_value);
    if (errand->kind == EVENT_SIGNAL) {
        kill(getpid(), errand->event.sigev_coid);
    } else if (!connection_begin_made(errand->event.sigev_coid, 0, &use, &ticket)) {
        trunk_pulse(use.connection->trunk, &pulse); /* Nobody is told of what becomes of it (B446). */
        connection_end(&use);
    }
}

/* Takes out what the courier is to do next. A timer of a channel goes there. */
static bool next_errand(int by, uint64_t now, struct errand *errand)
{
    struct way way;
    struct timer *timer = take_due(courier, by, now);
    if (!timer)
        return false;
    struct home *rightful = home_of(timer);
    *errand = (struct errand){.event = timer->event, .kind = timer->kind, .priority = timer->priority};
    if (rightful == courier) {
        bool has_way = way_of(timer, &way) && way.address.pid != getpid() && timer->priority;
        bool is_late = has_way && timer->waits_by == BY_MONOTONIC && timer->queued.time < way.since;
        if (timer->kind == EVENT_SIGNAL || (has_way && !is_late)) {
            errand->at = expire(timer);
        } else {
            errand->kind = EVENT_NONE;
            pass_over(timer, is_late ? way.since : (uint64_t)clock_now());
        }
    } else {
        errand->kind = EVENT_NONE;
    }
    if (timer->is_armed)
        move(timer, rightful ? rightful : courier);
    return true;
}

/* A channel may have none yet that a timer in silence has found again. */
static void find_homes(void)
{
    for (;;) {
        struct timer copy = {.id = 0};
        pthread_mutex_lock(&lock);
        for (struct timer *timer = timers; timer && !copy.id; timer = timer->next) {
            struct way way;
            if (timer->home == courier && way_of(timer, &way) && way.address.pid == getpid() &&
                channel_is_there(&way.address) && !find_home(&way.address))
                copy = *timer;
        }
        pthread_mutex_unlock(&lock);
        struct channel *channel = copy.id ? enter_channel(&copy) : NULL;
        int error = channel ? settle_in(channel) : 0;
        if (channel)
            channel_unlock(channel);
        if (!channel || error)
            return;
    }
}

static void deliver(void)
{
    pthread_mutex_lock(&courier_lock);
    find_homes();
    for (int by = 0; by < WAYS_TO_WAIT; by++) {
        uint64_t now = (uint64_t)clock_read(clocks[by]);
        for (bool has_more = true; has_more;) {
            struct errand errand;
            pthread_mutex_lock(&lock);
            has_more = next_errand(by, now, &errand);
            if (!has_more)
                set_alarm(courier, by);
            pthread_mutex_unlock(&lock);
            if (has_more && errand.kind != EVENT_NONE)
                do_errand(&errand);
        }
    }
    pthread_mutex_unlock(&courier_lock);
}

static void *run_courier(void *argument)
{
    const struct home *home = argument;
    struct pollfd alarms[WAYS_TO_WAIT];
    for (int by = 0; by < WAYS_TO_WAIT; by++)
        alarms[by] = (struct pollfd){.fd = home->alarms[by], .events = POLLIN};
    for (;;)
        if (poll(alarms, WAYS_TO_WAIT, -1) > 0)
            deliver();
    return NULL;
}

/* Under the lock. 0 or an errno. */
static int start_courier(void)
{
    sigset_t all, before;
    pthread_t thread;
    struct home *home = courier ? NULL : make_home();
    if (!home)
        return courier ? 0 : errno;
    home->is_couriers = true;
    sigfillset(&all); /* They are for the program's own threads. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, run_courier, home);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free_home(home);
        return error;
    }
    pthread_detach(thread);
    courier = home;
    return 0;
}

/* The calls. */

static struct timer *find(int id)
{
    struct timer *timer = timers;
    while (timer && timer->id != id)
        timer = timer->next;
    return timer;
}

/* Without any lock: does what a timer was due for by now. EINVAL if there is none. */
static int settle(int id)
{
    for (struct home *seen = NULL;;) {
        pthread_mutex_lock(&lock);
        struct timer *timer = find(id);
        struct home *home = timer ? timer->home : NULL;
        struct address address = home ? home->address : (struct address){0};
        bool is_couriers = home && home->is_couriers;
        if (timer && !home && timer->is_armed && timer->queued.time <= (uint64_t)clock_read(clocks[timer->waits_by]))
            pass_over(timer, (uint64_t)clock_now());
        pthread_mutex_unlock(&lock);
        if (!timer || !home || home == seen)
            return timer ? 0 : EINVAL; /* It may have moved once. */
        seen = home;
        if (is_couriers) {
            deliver();
        } else {
            struct channel *channel = channel_enter(address.chid);
            if (channel) {
                queue_due(channel);
                channel_dispatch(channel, NULL);
                channel_unlock(channel);
            }
        }
    }
}

static bool is_known(const struct ha_posix_sigevent *event)
{
    switch (event->sigev_notify & EVENT_TYPE) {
    case EVENT_SIGNAL:
        return event->sigev_coid > 0 && event->sigev_coid < NSIG;
    case EVENT_NONE:
    case EVENT_PULSE:
    case EVENT_UNBLOCK:
    case EVENT_INTR:
    case EVENT_MEMORY:
        return true;
    default:
        return false;
    }
}

int timers_create(clockid_t clock, const struct ha_posix_sigevent *event, int *id)
{
    const struct ha_posix_sigevent alarm = {.sigev_notify = EVENT_SIGNAL, .sigev_coid = SIGALRM};
    struct way way;
    if (!event)
        event = &alarm;
    if ((clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME) || !is_known(event))
        return EINVAL;
    int kind = event->sigev_notify & EVENT_TYPE;
    if (kind == EVENT_PULSE && !connection_way(event->sigev_coid, &way)) {
        int error = connection_revive(event->sigev_coid);
        if (error || !connection_way(event->sigev_coid, &way))
            return EBADF;
    }
    struct timer *timer = calloc(1, sizeof *timer);
    if (!timer)
        return ENOMEM;
    timer->clock = clock;
    timer->event = *event;
    timer->kind = kind;
    timer->priority = event->sigev_priority == -1 ? DEFAULT_PRIORITY : event->sigev_priority & 0xff;
    pthread_mutex_lock(&lock);
    struct timer **link = &timers;
    for (timer->id = 1; *link && (*link)->id == timer->id; link = &(*link)->next)
        timer->id++; /* The lowest that is free. */
    timer->next = *link;
    *link = timer;
    *id = timer->id;
    pthread_mutex_unlock(&lock);
    return 0;
}

static struct _itimer left(const struct timer *timer)
{
    struct _itimer left = {.nsec = 0, .interval_nsec = timer->set_to.interval_nsec};
    uint64_t now = (uint64_t)clock_read(clocks[timer->waits_by]);
    if (timer->is_armed)
        left.nsec = timer->queued.time > now ? timer->queued.time - now : 1;
    return left;
}

/* Under the lock: lets it begin to wait. 0 or an errno. */
static int start(struct timer *timer)
{
    uint64_t first = timer->set_to.nsec < INT64_MAX ? timer->set_to.nsec : INT64_MAX;
    timer->waits_by = timer->is_absolute && timer->clock == CLOCK_REALTIME ? BY_REALTIME : BY_MONOTONIC;
    timer->queued.time = timer->is_absolute ? first : (uint64_t)clock_after(clock_now(), first);
    timer->is_armed = true;
    if (timer->kind != EVENT_PULSE && timer->kind != EVENT_SIGNAL)
        return 0;
    struct home *home = home_of(timer);
    int error = home ? 0 : errno;
    if (home)
        move(timer, home);
    else
        timer->is_armed = false;
    return error;
}

/* Without any lock: sees to it that the channel of its pulses has a home for it. 0 or an errno. */
static int make_room(int id)
{
    pthread_mutex_lock(&lock);
    const struct timer *timer = find(id);
    struct timer copy = timer ? *timer : (struct timer){.id = 0};
    pthread_mutex_unlock(&lock);
    struct channel *channel = copy.id ? enter_channel(&copy) : NULL;
    int error = channel ? settle_in(channel) : 0;
    if (channel)
        channel_unlock(channel);
    return error;
}

/* Lets it do what it was about to do for a timer that is not to do that any more. */
static void outlast_courier(void)
{
    pthread_mutex_lock(&courier_lock);
    pthread_mutex_unlock(&courier_lock);
}

int timers_set(int id, bool absolute, const struct _itimer *times, struct _itimer *before)
{
    int error = settle(id);
    if (!error && times->nsec)
        error = make_room(id);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    struct timer *timer = find(id);
    if (timer) {
        *before = left(timer);
        stop(timer);
        timer->is_absolute = absolute;
        timer->has_expired = false;
        timer->set_to = *times;
        error = times->nsec ? start(timer) : 0;
    }
    pthread_mutex_unlock(&lock);
    outlast_courier();
    return timer ? error : EINVAL;
}

int timers_info(int id, struct _timer_info *info)
{
    int error = settle(id);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    const struct timer *timer = find(id);
    if (timer) {
        memset(info, 0, sizeof *info);
        info->itime = timer->set_to;
        info->otime = left(timer);
        info->flags = (timer->is_armed ? _NTO_TI_ACTIVE : 0) | (timer->is_absolute ? _NTO_TI_ABSOLUTE : 0) |
                      (timer->has_expired ? _NTO_TI_EXPIRED : 0) |
                      (timer->clock == CLOCK_REALTIME ? _NTO_TI_TOD_BASED : 0);
        info->tid = -1;
        info->notify = timer->event.sigev_notify;
        info->clockid = timer->clock;
        info->event = timer->event;
    }
    pthread_mutex_unlock(&lock);
    return timer ? 0 : EINVAL;
}

int timers_destroy(int id)
{
    int error = settle(id);
    if (error)
        return error;
    pthread_mutex_lock(&lock);
    struct timer **link = &timers;
    while (*link && (*link)->id != id)
        link = &(*link)->next;
    struct timer *timer = *link;
    if (timer) {
        stop(timer);
        *link = timer->next;
    }
    pthread_mutex_unlock(&lock);
    outlast_courier();
    free(timer);
    return timer ? 0 : EINVAL;
}

/* A connection is about to end: what is due by now is sent on it first. */
static void before_detach(int coid)
{
    for (int after = 0;;) {
        int id = 0;
        pthread_mutex_lock(&lock);
        for (const struct timer *timer = timers; timer && !id; timer = timer->next)
            if (timer->id > after && timer->is_armed && timer->kind == EVENT_PULSE && timer->event.sigev_coid == coid)
                id = timer->id;
        pthread_mutex_unlock(&lock);
        if (!id)
            return;
        settle(id);
        after = id;
    }
}

void timers_start(void)
{
    connection_before_detach(before_detach);
}

void timers_after_fork_in_child(void)
{
    /* Threads of the parent may have been changing them: they are not freed. Their alarms are closed with the rest. */
    static struct timer *of_parents;
    static struct home *homes_of_parents[2];
    of_parents = timers;
    homes_of_parents[0] = homes;
    homes_of_parents[1] = courier;
    (void)of_parents;
    (void)homes_of_parents;
    timers = NULL;
    homes = courier = NULL;
    pthread_mutex_init(&lock, NULL);
    pthread_mutex_init(&courier_lock, NULL);
}
