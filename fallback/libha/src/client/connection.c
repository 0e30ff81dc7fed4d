#include "client/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/exchange.h"
#include "client/io_message.h"
#include "client/lane.h"
#include "client/successor.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/deaths.h"

/* How long a connection waits for room in a server's backlog. */
#define BACKLOG_LIMIT (5 * CLOCK_SECOND)
/* Windows that are kept for the next message: how large, and how many. */
#define WINDOW_KEPT (UINT64_C(1) << 24)
#define WINDOWS_KEPT 4

static atomic_uint connection_count;
static struct inherited *all_inherited;

static bool is_descriptor(int number)
{
    return number >= 0 && !(number & _NTO_SIDE_CHANNEL) && fcntl(number, F_GETFD) >= 0;
}

/* What a message to a number fails with that is no connection of ours. */
static int nothing_here(int coid)
{
    return coid >= 0 && !(coid & _NTO_SIDE_CHANNEL) && descriptor_is_foreign(coid) ? ENOSYS : EBADF;
}

static bool has_its_number(const struct connection *connection)
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
    }
    return lane;
}

static bool give_back(struct connection *connection, struct lane *lane)
{
    struct lane **list = &connection->idle;
    if (connection->detached || lane->is_spoilt)
        return false;
    if (lane->window_size) {
        if (lane->window_size > WINDOW_KEPT || connection->idle_window_count == WINDOWS_KEPT)
            return false;
        list = &connection->idle_windows;
        connection->idle_window_count++;
    }
    lane->next_idle = *list;
    *list = lane;
    return true;
}

static void unlink_lane(struct connection *connection, struct lane *lane)
{
    struct lane **link = &connection->lanes;
    while (*link != lane)
        link = &(*link)->next;
    *link = lane->next;
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
    free(remains->connection);
}

static void move_lane(struct connection *connection, struct lane *lane, struct remains *remains)
{
    unlink_lane(connection, lane);
    lane->next = remains->lanes;
    remains->lanes = lane;
}

/* Detaches a connection: no thread uses it any more but those that wait for a reply, and they are woken. */
static void sever(struct connection *connection, bool keep_number)
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
            lane_poke(lane);
    }
    settle(connection, &remains);
    pthread_mutex_unlock(&number->lock);
    dispose(&remains);
}

static int revive(struct number *number);

int connection_begin(int coid, uint64_t window, struct use *use, struct ticket *ticket)
{
    struct number *number = number_find(coid);
    struct connection *connection;
    *ticket = (struct ticket){0};
    if (!number)
        return nothing_here(coid);
    for (;;) {
        pthread_mutex_lock(&number->lock);
        ticket_read_locked(ticket, number);
        connection = number->connection;
        if (connection)
            break;
        bool is_inherited = number->inherited;
        pthread_mutex_unlock(&number->lock);
        int error = is_inherited ? revive(number) : nothing_here(coid);
        if (error)
            return error;
    }
    bool is_dead = connection->detached;
    connection->users++;
    use->connection = connection;
    use->lane = is_dead ? NULL : take_idle(connection, window);
    pthread_mutex_unlock(&number->lock);
    if (!has_its_number(connection)) {
        sever(connection, true); /* It goes on saying so, and never writes to what has the number by now (D17). */
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
    if (!detached) {
        lane->next = connection->lanes;
        connection->lanes = lane;
    }
    pthread_mutex_unlock(&connection->number->lock);
    if (detached) {
        lane_close(lane);
        return EBADF;
    }
    use->lane = lane;
    return 0;
}

void connection_drop_lane(struct use *use)
{
    struct connection *connection = use->connection;
    pthread_mutex_lock(&connection->number->lock);
    unlink_lane(connection, use->lane);
    pthread_mutex_unlock(&connection->number->lock);
    lane_close(use->lane);
    use->lane = NULL;
}

void connection_end(struct use *use)
{
    struct remains remains = {0};
    struct connection *connection = use->connection;
    struct number *number = connection->number;
    pthread_mutex_lock(&number->lock);
    if (use->lane && !give_back(connection, use->lane))
        move_lane(connection, use->lane, &remains);
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

/* Making connections. */

/* The number of a new connection, and its placeholder. 0 or an errno. Under the table's lock. */
static int take_number(int index, bool exactly, off_t *cookie, int *coid)
{
    if (index & _NTO_SIDE_CHANNEL) {
        int slot = index & ~_NTO_SIDE_CHANNEL;
        if (exactly && !slot_take_exactly(slot))
            return EBADF;
        if (!exactly && (slot = slot_take()) < 0)
            return EAGAIN;
        *coid = slot | _NTO_SIDE_CHANNEL;
        *cookie = 0;
        return 0;
    }
    *cookie = placeholder_cookie();
    *coid = placeholder_place(index, *cookie);
    if (*coid < 0)
        return errno;
    if (exactly && *coid != index) {
        placeholder_close(*coid);
        return EBADF;
    }
    return 0;
}

static void release_number(int coid)
{
    if (coid & _NTO_SIDE_CHANNEL)
        slot_release(coid & ~_NTO_SIDE_CHANNEL);
    else
        placeholder_close(coid);
}

/*
 * Enters a connection under a number from `index` on, or exactly there; or, if a dead one has kept the number `index`,
 * in place of that. *stale is what had the number before, to be severed. Under the table's lock.
 */
static int enter(struct connection *connection, int index, bool exactly, struct connection **stale)
{
    struct number *number = exactly ? number_make(index) : NULL;
    struct connection *kept = NULL;
    int error = 0;
    *stale = NULL;
    if (number) {
        pthread_mutex_lock(&number->lock);
        kept = number->connection;
        if (kept && !has_its_number(kept))
            kept = NULL; /* Its descriptor was closed behind our back. */
        bool alive = kept && !kept->detached;
        pthread_mutex_unlock(&number->lock);
        if (alive)
            return EBADF; /* Another thread has given it a new connection. */
    }
    if (kept) {
        connection->coid = kept->coid;
        connection->cookie = kept->cookie;
        /* It lies under the descriptor that is there, which keeps its close-on-exec flag. */
        connection->flags = (connection->flags & ~(unsigned)_NTO_COF_CLOEXEC) | (kept->flags & _NTO_COF_CLOEXEC);
    } else {
        error = take_number(index, exactly, &connection->cookie, &connection->coid);
        if (error)
            return error;
        number = number_make(connection->coid);
        if (!number) {
            release_number(connection->coid);
            return EMFILE;
        }
    }
    connection->number = number;
    connection->in_table = true;
    pthread_mutex_lock(&number->lock);
    *stale = number->connection;
    number->connection = connection;
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    if (!*stale)
        connection_count++;
    if (!(connection->flags & _NTO_COF_CLOEXEC))
        successor_tell();
    return 0;
}

static struct connection *new_connection(struct trunk *trunk, const struct address *address, unsigned flags)
{
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection) {
        connection->trunk = trunk;
        connection->address = *address;
        connection->flags = flags;
    }
    return connection;
}

/*
 * A trunk, and under the same lock what `use_it` makes of it. Tries again while the server's backlog is full. The
 * trunk's reference goes to `use_it`, which returns 0 or an errno; then it is released here.
 */
static int with_trunk(struct address *address, unsigned flags, int (*use_it)(struct trunk *, void *), void *argument)
{
    int64_t limit = clock_now() + BACKLOG_LIMIT;
    for (int64_t pause = CLOCK_MILLISECOND;; pause = pause < 32 * CLOCK_MILLISECOND ? 2 * pause : pause) {
        struct trunk *trunk;
        table_lock();
        int error = trunk_open(address, !(flags & _NTO_COF_NOSHARE), &trunk);
        bool busy = error == EAGAIN;
        int outcome = error ? error : use_it(trunk, argument);
        table_unlock();
        if (!error && outcome)
            trunk_release(trunk);
        if (!busy || clock_now() >= limit)
            return outcome;
        clock_sleep(pause);
    }
}

struct making {
    unsigned flags;
    int index;
    bool exactly;
    int coid; /* of the connection that was made: another thread may have ended it already */
    struct connection *stale;
};

static int make_connection(struct trunk *trunk, void *argument)
{
    struct making *making = argument;
    struct connection *connection = new_connection(trunk, &trunk->address, making->flags | _NTO_COF_CLOEXEC);
    if (!connection)
        return ENOMEM;
    int error = enter(connection, making->index, making->exactly, &making->stale);
    if (error)
        free(connection);
    else
        making->coid = connection->coid;
    return error;
}

int connection_make_room(int coid)
{
    struct number *number = number_find(coid);
    if (!number)
        return 0;
    table_lock();
    pthread_mutex_lock(&number->lock);
    struct connection *old = number->connection;
    struct inherited *inherited = number->inherited;
    off_t cookie = old ? old->cookie : inherited ? inherited->cookie : 0;
    bool foreign = cookie && !placeholder_is(coid, cookie) && is_descriptor(coid);
    if (inherited && !old && !foreign && (old = new_connection(NULL, &inherited->address, inherited->flags))) {
        old->number = number;
        old->coid = coid;
        old->cookie = inherited->cookie;
        old->in_table = old->detached = true;
        number->connection = old;
        connection_count++;
    }
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    table_unlock();
    if (foreign && old)
        sever(old, true);
    else
        connection_kill(coid);
    return foreign ? EBADF : 0;
}

int connection_attach(struct address *address, unsigned index, unsigned flags, int *coid)
{
    bool exactly = *coid >= 0;
    struct making making = {.flags = flags, .index = exactly ? *coid : (int)index, .exactly = exactly};
    if (exactly) {
        int error = connection_make_room(*coid);
        if (error)
            return error;
    } else {
        struct rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        if (!(index & _NTO_SIDE_CHANNEL) && index >= limit.rlim_cur)
            return EINVAL; /* B42 */
        if (connection_count >= limit.rlim_cur)
            return EMFILE; /* B43 */
    }
    int error = with_trunk(address, flags, make_connection, &making);
    if (making.stale)
        sever(making.stale, false);
    if (!error)
        *coid = making.coid;
    return error;
}

int connection_copy(int coid, int index, bool exactly, int *copy)
{
    struct ticket ticket;
    struct use use;
    int error = connection_begin(coid, 0, &use, &ticket);
    if (error)
        return error;
    struct connection *original = use.connection, *stale = NULL;
    pthread_mutex_lock(&original->number->lock);
    unsigned flags = original->flags | _NTO_COF_CLOEXEC;
    pthread_mutex_unlock(&original->number->lock);
    struct connection *connection = new_connection(original->trunk, &original->address, flags);
    if (connection) {
        table_lock();
        trunk_hold(original->trunk);
        error = enter(connection, index, exactly, &stale);
        if (!error)
            *copy = connection->coid; /* Another thread may end it as soon as the table is free. */
        table_unlock();
        if (error) {
            trunk_release(original->trunk);
            free(connection);
        }
    } else {
        error = ENOMEM;
    }
    if (stale)
        sever(stale, false);
    connection_end(&use);
    return error;
}

/* Ending connections. */

int connection_detach(int coid)
{
    struct number *number = number_find(coid);
    if (!number)
        return EBADF;
    table_lock();
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    struct inherited *inherited = number->inherited;
    off_t cookie = connection ? connection->cookie : inherited ? inherited->cookie : 0;
    bool found = connection || inherited;
    bool foreign = found && cookie && !placeholder_is(coid, cookie);
    number->connection = NULL;
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    if (connection)
        connection_count--;
    if (found && !foreign)
        release_number(coid);
    table_unlock();
    if (connection)
        sever(connection, false);
    return found && !foreign ? 0 : EBADF;
}

void connection_kill(int coid)
{
    struct number *number = number_find(coid);
    struct connection *connection = NULL;
    if (number) {
        pthread_mutex_lock(&number->lock);
        connection = number->connection;
        if (connection)
            connection->users++;
        pthread_mutex_unlock(&number->lock);
    }
    if (connection) {
        struct use use = {connection, NULL};
        sever(connection, true);
        connection_end(&use);
    }
}

void connection_give_way(int coid)
{
    if (connection_is_ours(coid) && !connection_is_open(coid))
        connection_detach(coid);
}

int connection_replace(int coid, int fd)
{
    struct number *number = number_find(coid);
    struct connection *old = NULL;
    int error = 0;
    if (coid < 0 || coid & _NTO_SIDE_CHANNEL)
        return EBADF;
    table_lock();
    if (number) {
        pthread_mutex_lock(&number->lock);
        old = number->connection;
        if (old)
            connection_count--;
        number->connection = NULL;
        number->inherited = NULL;
        pthread_mutex_unlock(&number->lock);
    }
    bool cloexec = fcntl(fd, F_GETFD) & FD_CLOEXEC, is_free = !is_descriptor(coid);
    if (is_free) { /* It was closed behind our back. */
        int placed = fcntl(fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, coid);
        error = placed < 0 ? errno : placed != coid ? EBADF : 0;
        if (placed >= 0 && placed != coid)
            close(placed);
    } else if (old && !has_its_number(old)) {
        error = EBADF;
    } else if (dup3(fd, coid, cloexec ? O_CLOEXEC : 0) < 0) {
        error = errno;
    }
    table_unlock();
    if (old)
        sever(old, false);
    return error;
}

/* Asking. */

bool connection_is_ours(int coid)
{
    struct number *number = number_find(coid);
    if (!number)
        return false;
    pthread_mutex_lock(&number->lock);
    bool ours = number->connection || number->inherited;
    pthread_mutex_unlock(&number->lock);
    return ours;
}

bool connection_is_open(int coid)
{
    struct number *number = number_find(coid);
    off_t cookie = 0;
    bool ours = false;
    if (number) {
        pthread_mutex_lock(&number->lock);
        ours = number->connection || number->inherited;
        if (ours)
            cookie = number->connection ? number->connection->cookie : number->inherited->cookie;
        pthread_mutex_unlock(&number->lock);
    }
    return ours ? !cookie || placeholder_is(coid, cookie) : is_descriptor(coid);
}

bool connection_is_alive(int coid)
{
    struct ticket ticket;
    struct use use;
    if (connection_begin(coid, 0, &use, &ticket))
        return false;
    bool alive = trunk_is_alive(use.connection->trunk);
    connection_end(&use);
    return alive;
}

int connection_describe(int coid, int *chid, int *scoid)
{
    struct ticket ticket;
    struct use use;
    int error = connection_begin(coid, 0, &use, &ticket);
    if (error)
        return error;
    *chid = use.connection->address.chid;
    *scoid = trunk_scoid(use.connection->trunk);
    connection_end(&use);
    return 0;
}

/* Reporting the deaths of servers. */

static void report_connection(struct number *number, void *trunk)
{
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    bool is_hit = connection && connection->trunk == trunk && !connection->detached;
    pthread_mutex_unlock(&number->lock);
    if (is_hit)
        deaths_of_connection(number->id);
}

static void report_trunk(struct trunk *trunk, void *argument)
{
    (void)argument;
    if (deaths_heard_of(&trunk->watch))
        number_each(report_connection, trunk);
}

void connection_report_deaths(void)
{
    table_lock();
    trunk_each(report_trunk, NULL);
    table_unlock();
}

/* Forks, and programs that another has become. */

struct reviving {
    struct number *number;
    struct inherited *inherited;
    struct use use;
};

static int make_revived(struct trunk *trunk, void *argument)
{
    struct reviving *reviving = argument;
    struct inherited *inherited = reviving->inherited;
    struct connection *connection = new_connection(trunk, &trunk->address, inherited->flags);
    if (!connection)
        return ENOMEM;
    connection->number = reviving->number;
    connection->coid = reviving->number->id;
    connection->cookie = inherited->cookie;
    connection->users = 1;
    reviving->use = (struct use){connection, NULL};
    return 0;
}

/* Tells the server that this connection stands for one of the parent's (B271, B272). */
static int announce(struct use *use, const struct inherited *inherited)
{
    struct io_dup message;
    io_dup_message(&message, inherited->pid, inherited->address.chid, inherited->scoid, inherited->coid);
    return exchange_bytes(use, &message, sizeof message);
}

static int revive_alone(struct number *number, struct inherited *inherited)
{
    struct reviving reviving = {.number = number, .inherited = inherited};
    struct address address = inherited->address;
    pthread_mutex_lock(&number->lock);
    bool current = number->inherited == inherited;
    bool foreign = current && !placeholder_is(number->id, inherited->cookie);
    if (foreign)
        number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    if (!current)
        return 0;
    if (foreign || with_trunk(&address, inherited->flags, make_revived, &reviving))
        return EBADF; /* Its server is gone. */
    int error = inherited->is_copy ? announce(&reviving.use, inherited) : 0;
    struct connection *connection = reviving.use.connection;
    table_lock();
    pthread_mutex_lock(&number->lock);
    if (!error && number->inherited == inherited) {
        number->inherited = NULL;
        number->connection = connection;
        connection->in_table = true;
        connection_count++;
    } else {
        connection->detached = true;
    }
    pthread_mutex_unlock(&number->lock);
    table_unlock();
    connection_end(&reviving.use);
    return error;
}

/* Makes a connection of the parent anew. 0 if there is one now, or if there is no inherited one any more. */
static int revive(struct number *number)
{
    pthread_mutex_lock(&number->lock);
    struct inherited *inherited = number->inherited;
    pthread_mutex_unlock(&number->lock);
    if (!inherited)
        return 0;
    pthread_mutex_lock(&inherited->reviving);
    int error = revive_alone(number, inherited);
    pthread_mutex_unlock(&inherited->reviving);
    return error;
}

int connection_revive(int coid)
{
    struct number *number = number_find(coid);
    return number ? revive(number) : 0;
}

static void leave_to_child(struct number *number, void *argument)
{
    pid_t parent = *(pid_t *)argument;
    struct connection *connection = number->connection;
    if (number->inherited)
        pthread_mutex_init(&number->inherited->reviving, NULL);
    number_put_aside(number->channel);
    number_put_aside(number->client);
    number->channel = NULL;
    number->client = NULL;
    if (!connection)
        return;
    number->connection = NULL;
    if (connection->cookie && connection->detached && placeholder_is(connection->coid, connection->cookie))
        close(connection->coid); /* Dead ones are left out (B276). */
    if (connection->cookie && !connection->detached) {
        struct inherited *inherited = calloc(1, sizeof *inherited);
        if (inherited) {
            *inherited = (struct inherited){
                .next = all_inherited,
                .address = connection->address,
                .flags = connection->flags,
                .cookie = connection->cookie,
                .is_copy = true,
                .pid = parent,
                .coid = connection->coid,
                .scoid = connection->trunk->scoid,
            };
            pthread_mutex_init(&inherited->reviving, NULL);
            all_inherited = inherited;
            number->inherited = inherited;
        }
    }
    number_put_aside(connection); /* Its threads may have been using it. */
}

void connection_inherit(int coid, const struct address *address, unsigned flags, off_t cookie)
{
    struct number *number = placeholder_is(coid, cookie) ? number_make(coid) : NULL;
    struct inherited *inherited = number ? calloc(1, sizeof *inherited) : NULL;
    if (!inherited)
        return;
    *inherited = (struct inherited){.next = all_inherited, .address = *address, .flags = flags, .cookie = cookie};
    pthread_mutex_init(&inherited->reviving, NULL);
    all_inherited = inherited;
    number->inherited = inherited;
}

void connection_after_fork_in_child(pid_t parent)
{
    connection_count = 0;
    number_each(leave_to_child, &parent);
}
