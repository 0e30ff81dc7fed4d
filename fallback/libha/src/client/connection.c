#include "client/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "client/lane.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/channel.h"
#include "wire.h"

/*
 * So many windows are kept for the next messages, the largest of them, since no more threads than that are likely to send
 * large messages at once, again and again: a connection that is not in use holds at most 112 MiB, what its messages have
 * written to.
 */
#define WINDOWS_KEPT 4

/*
 * Up to this size windows are kept in any case. A larger one is kept if its connection has needed such a one shortly before,
 * so that what is sent once leaves no memory behind, and if all larger ones of the process hold no more than so many bytes
 * together. Where they do, those go of connections that have needed none for long.
 */
#define WINDOW_SMALL (UINT64_C(1) << 20)
#define WINDOW_IDLE (10 * CLOCK_SECOND)
#define WINDOWS_SUM (UINT64_C(1) << 28)

/* Lanes that have been idle so long are closed, but for a few. */
#define LANES_KEPT 4
#define IDLE_LIMIT CLOCK_SECOND

/* How long a thread that detaches a connection waits at most for others to wake and leave it, and how often it looks. */
#define LEAVING (20 * CLOCK_MILLISECOND)
#define LEAVING_LOOK (CLOCK_MILLISECOND / 10)

static atomic_uint count;
/* What the large windows of this process hold. */
static atomic_uint_fast64_t large_bytes;

struct connection *connection_new(struct trunk *trunk, const struct address *address, unsigned flags)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct pulse *obituary = pulse_new();
    if (!connection || !obituary) {
        free(connection);
        free(obituary);
        return NULL;
    }
    connection->trunk = trunk;
    connection->address = *address;
    connection->flags = flags;
    connection->since = (uint64_t)clock_now();
    connection->obituary = obituary;
    return connection;
}

void connection_free(struct connection *connection)
{
    if (connection)
        free(connection->obituary);
    free(connection);
}

unsigned connection_count(void)
{
    return count;
}

struct connection *connection_put(struct number *number, struct connection *connection)
{
    struct connection *before = number->connection;
    number->connection = connection;
    if (connection && !before)
        count++;
    else if (!connection && before)
        count--;
    return before;
}

unsigned connection_flags(int coid, unsigned flags, off_t cookie)
{
    int of_host = cookie ? fcntl(coid, F_GETFD) : -1;
    if (of_host < 0)
        return flags;
    return (flags & ~(unsigned)_NTO_COF_CLOEXEC) | (of_host & FD_CLOEXEC ? _NTO_COF_CLOEXEC : 0);
}

/* What a message to a number fails with that is no connection of ours. */
static int nothing_here(int coid)
{
    return coid >= 0 && !(coid & _NTO_SIDE_CHANNEL) && descriptor_is_foreign(coid) ? ENOSYS : EBADF;
}

bool connection_has_its_number(const struct connection *connection)
{
    return !connection->cookie || placeholder_is(connection->coid, connection->cookie);
}

/* Using a connection. */

static struct lane *take_idle(struct connection *connection, uint64_t window)
{
    struct lane **link = window ? &connection->idle_windows : &connection->idle;
    while (*link && (*link)->window_size < window)
        link = &(*link)->next_idle;
    struct lane *lane = *link;
    if (lane) {
        *link = lane->next_idle;
        if (window)
            connection->idle_window_count--;
        else if (--connection->idle_count < connection->idle_least)
            connection->idle_least = connection->idle_count;
    }
    return lane;
}

/* A lane that was not needed for some time, as after many threads have sent at once; NULL if there is none. */
static struct lane *take_surplus(struct connection *connection)
{
    int64_t now = clock_now();
    struct lane **link = &connection->idle;
    if (now - connection->idle_counted > IDLE_LIMIT) {
        connection->idle_surplus = connection->idle_least > LANES_KEPT ? connection->idle_least - LANES_KEPT : 0;
        connection->idle_least = connection->idle_count;
        connection->idle_counted = now;
    }
    if (!connection->idle_surplus)
        return NULL;
    connection->idle_surplus--;
    connection->idle_count--;
    while ((*link)->next_idle)
        link = &(*link)->next_idle;
    struct lane *lane = *link;
    *link = NULL;
    return lane;
}

static uint64_t large_size(const struct lane *lane)
{
    return lane->window_size > WINDOW_SMALL ? lane->window_size : 0;
}

static void add_lane(struct connection *connection, struct lane *lane)
{
    lane->next = connection->lanes;
    connection->lanes = lane;
    large_bytes += large_size(lane);
}

static void unlink_lane(struct connection *connection, struct lane *lane)
{
    struct lane **link = &connection->lanes;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
    large_bytes -= large_size(lane);
}

/* Whether large windows are kept: messages that need one come often, and there is room. */
static bool keeps_large(struct connection *connection)
{
    int64_t before = connection->large_used;
    connection->large_used = clock_now();
    return before && connection->large_used - before <= WINDOW_IDLE && large_bytes <= WINDOWS_SUM;
}

/* Keeps a lane with a window, if that is worth it; the lane that is not kept then, this one or a smaller one, or NULL. */
static struct lane *keep_window(struct connection *connection, struct lane *lane)
{
    struct lane **smallest = NULL, *least = NULL;
    bool has_large = false;
    if (large_size(lane) && !keeps_large(connection))
        return lane;
    for (struct lane **link = &connection->idle_windows; *link; link = &(*link)->next_idle) {
        has_large |= (*link)->window_size > WINDOW_LARGE;
        if (!smallest || (*link)->window_size < (*smallest)->window_size)
            smallest = link;
    }
    if (lane->window_size > WINDOW_KEPT || (lane->window_size > WINDOW_LARGE && has_large))
        return lane;
    if (connection->idle_window_count == WINDOWS_KEPT) {
        least = *smallest;
        if (least->window_size >= lane->window_size)
            return lane;
        *smallest = least->next_idle;
        connection->idle_window_count--;
    }
    lane->next_idle = connection->idle_windows;
    connection->idle_windows = lane;
    connection->idle_window_count++;
    return least;
}

/* The lane that is not kept then, this one or another; NULL if all are. */
static struct lane *give_back(struct connection *connection, struct lane *lane)
{
    if (connection->detached || lane->is_spoilt)
        return lane;
    if (lane->window_size)
        return keep_window(connection, lane);
    lane->next_idle = connection->idle;
    connection->idle = lane;
    return ++connection->idle_count > LANES_KEPT ? take_surplus(connection) : NULL;
}

/* What is left of a connection, or of a use of one, to be ended without any lock. */
struct remains {
    struct lane *lanes;
    struct trunk *trunk;
    struct connection *connection;
};

/* Finds out what a connection needs no more, under its number's lock. */
static void settle(struct connection *connection, struct remains *remains)
{
    if (connection->detached && !connection->users) {
        remains->trunk = connection->trunk;
        connection->trunk = NULL;
        remains->connection = connection->in_table ? NULL : connection;
    }
}

static void dispose(struct remains *remains)
{
    for (struct lane *lane; (lane = remains->lanes);) {
        remains->lanes = lane->next;
        lane_close(lane);
    }
    if (remains->trunk)
        trunk_release(remains->trunk);
    connection_free(remains->connection);
}

static void move_lane(struct connection *connection, struct lane *lane, struct remains *remains)
{
    unlink_lane(connection, lane);
    lane->next = remains->lanes;
    remains->lanes = lane;
}

void connection_sever(struct connection *connection, bool keep_number)
{
    struct remains remains = {0};
    struct number *number = connection->number;
    pthread_mutex_lock(&number->lock);
    if (!keep_number)
        connection->in_table = false;
    if (!connection->detached) {
        struct lane *lane;
        connection->detached = true;
        while ((lane = take_idle(connection, 0)) || (lane = take_idle(connection, 1)))
            move_lane(connection, lane, &remains);
        for (lane = connection->lanes; lane; lane = lane->next)
            lane_poke(lane, FRAME_DETACHED);
    }
    settle(connection, &remains);
    pthread_mutex_unlock(&number->lock);
    dispose(&remains);
}

static bool has_lanes(struct connection *connection)
{
    pthread_mutex_lock(&connection->number->lock);
    bool has = connection->lanes;
    pthread_mutex_unlock(&connection->number->lock);
    return has;
}

void connection_leave(struct connection *connection)
{
    struct use use = {connection, NULL};
    struct trunk *trunk = connection->trunk;
    connection_sever(connection, false);
    if (trunk && has_lanes(connection) && !(trunk_channel_flags(trunk) & _NTO_CHF_UNBLOCK))
        for (int64_t end = clock_now() + LEAVING; has_lanes(connection) && clock_now() < end;)
            clock_sleep(LEAVING_LOOK);
    connection_end(&use);
}

int connection_begin_made(int coid, uint64_t window, struct use *use, struct ticket *ticket)
{
    struct number *number = number_find(coid);
    *ticket = (struct ticket){0};
    if (!number)
        return nothing_here(coid);
    pthread_mutex_lock(&number->lock);
    ticket_read_locked(ticket, number);
    struct connection *connection = number->connection;
    if (!connection) {
        bool is_inherited = number->inherited;
        pthread_mutex_unlock(&number->lock);
        return is_inherited ? CONNECTION_INHERITED : nothing_here(coid);
    }
    bool is_dead = connection->detached;
    connection->users++;
    use->connection = connection;
    use->lane = is_dead ? NULL : take_idle(connection, window);
    pthread_mutex_unlock(&number->lock);
    if (!connection_has_its_number(connection)) {
        /* It goes on saying so, and never writes to what has the number by now (D17). */
        connection_sever(connection, true);
        is_dead = true;
    }
    if (is_dead)
        connection_end(use);
    return is_dead ? EBADF : 0;
}

int connection_add_lane(struct use *use, uint64_t window, int64_t deadline)
{
    struct connection *connection = use->connection;
    struct lane *lane;
    int error = lane_open(connection->trunk, connection->coid, window, deadline, &lane);
    if (error)
        return error;
    pthread_mutex_lock(&connection->number->lock);
    bool detached = connection->detached;
    if (!detached)
        add_lane(connection, lane);
    pthread_mutex_unlock(&connection->number->lock);
    if (detached) {
        lane_close(lane);
        return EBADF;
    }
    use->lane = lane;
    return 0;
}

/* Under the number's lock: closed before it is seen to be gone (connection_leave). */
static void close_lane(struct connection *connection, struct lane *lane)
{
    unlink_lane(connection, lane);
    lane_close(lane);
}

void connection_drop_lane(struct use *use)
{
    struct connection *connection = use->connection;
    pthread_mutex_lock(&connection->number->lock);
    close_lane(connection, use->lane);
    pthread_mutex_unlock(&connection->number->lock);
    use->lane = NULL;
}

static void give_back_large(struct number *number, void *argument)
{
    struct remains *remains = argument;
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    struct lane **link = connection ? &connection->idle_windows : NULL;
    bool is_idle = connection && clock_now() - connection->large_used > WINDOW_IDLE;
    while (is_idle && *link) {
        struct lane *lane = *link;
        if (large_size(lane)) {
            *link = lane->next_idle;
            connection->idle_window_count--;
            move_lane(connection, lane, remains);
        } else {
            link = &lane->next_idle;
        }
    }
    pthread_mutex_unlock(&number->lock);
}

/* Closes the large windows of connections that have needed none for long, if all of them hold too much. */
static void make_room(void)
{
    struct remains remains = {0};
    if (large_bytes > WINDOWS_SUM) {
        number_each(give_back_large, &remains);
        dispose(&remains);
    }
}

void windows_after_fork_in_child(void)
{
    large_bytes = 0;
}

void connection_end(struct use *use)
{
    struct remains remains = {0};
    if (use->lane && large_size(use->lane))
        make_room();
    struct connection *connection = use->connection;
    struct number *number = connection->number;
    pthread_mutex_lock(&number->lock);
    struct lane *dropped = use->lane ? give_back(connection, use->lane) : NULL;
    if (dropped && connection->detached) {
        close_lane(connection, dropped);
    } else if (dropped) {
        move_lane(connection, dropped, &remains);
    }
    connection->users--;
    settle(connection, &remains);
    pthread_mutex_unlock(&number->lock);
    dispose(&remains);
}

bool connection_is_detached(struct connection *connection)
{
    pthread_mutex_lock(&connection->number->lock);
    bool detached = connection->detached;
    pthread_mutex_unlock(&connection->number->lock);
    return detached;
}

bool connection_way(int coid, struct way *way)
{
    struct number *number = number_find(coid);
    if (!number)
        return false;
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    bool found = connection && !connection->detached && connection_has_its_number(connection);
    if (found)
        *way = (struct way){connection->trunk->address, trunk_scoid(connection->trunk), connection->since};
    pthread_mutex_unlock(&number->lock);
    return found;
}
