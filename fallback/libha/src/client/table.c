/* The connections of this process by number: making and ending them, and what can be asked about a number. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/connection.h"
#include "client/said.h"
#include "client/successor.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/descriptor.h"
#include "number.h"
#include "server/channel.h"
#include "server/deaths.h"

static bool is_descriptor(int number)
{
    return number >= 0 && !(number & _NTO_SIDE_CHANNEL) && fcntl(number, F_GETFD) >= 0;
}

/* Reporting the deaths of servers. */

static void report_connection(struct number *number, void *trunk)
{
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    bool is_hit = connection && connection->trunk == trunk && !connection->detached && connection->obituary;
    struct pulse *pulse = is_hit ? connection->obituary : NULL;
    if (is_hit)
        connection->obituary = NULL;
    pthread_mutex_unlock(&number->lock);
    if (is_hit)
        deaths_of_connection(number->id, pulse);
}

static void report_trunk(struct trunk *trunk, void *argument)
{
    (void)argument;
    if (deaths_heard_of(&trunk->watch, false))
        number_each(report_connection, trunk);
}

static void report_destroyed(struct trunk *trunk, void *address)
{
    if (address_equal(&trunk->address, address) && deaths_heard_of(&trunk->watch, true))
        number_each(report_connection, trunk);
}

void connection_report_deaths(void)
{
    table_lock();
    trunk_each(report_trunk, NULL);
    table_unlock();
}

/*
 * Before a connection gets another server, or ends: if its server has gone, the pulse for that is on its way already. Under
 * the table's lock.
 */
static void hear_of_death(struct number *number)
{
    pthread_mutex_lock(&number->lock);
    struct trunk *trunk = number->connection ? number->connection->trunk : NULL;
    pthread_mutex_unlock(&number->lock);
    if (trunk && deaths_heard_of(&trunk->watch, true))
        number_each(report_connection, trunk);
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
        if (kept && !connection_has_its_number(kept))
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
    *stale = connection_put(number, connection);
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    said_say(connection->coid, SAID_CONNECTION);
    if (!(connection->flags & _NTO_COF_CLOEXEC))
        successor_tell();
    return 0;
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
    struct connection *connection = connection_new(trunk, &trunk->address, making->flags | _NTO_COF_CLOEXEC);
    if (!connection)
        return ENOMEM;
    int error = enter(connection, making->index, making->exactly, &making->stale);
    if (error)
        connection_free(connection);
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
    if (inherited && !old && !foreign)
        connection_dies_unused(number);
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    table_unlock();
    if (foreign && old)
        connection_sever(old, true);
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
        if (connection_count() >= limit.rlim_cur)
            return EMFILE; /* B43 */
    }
    int error = trunk_use(address, !(flags & _NTO_COF_NOSHARE), make_connection, &making);
    if (making.stale)
        connection_sever(making.stale, false);
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
    struct connection *connection = connection_new(original->trunk, &original->address, flags);
    if (connection) {
        table_lock();
        hear_of_death(original->number);
        trunk_hold(original->trunk);
        error = enter(connection, index, exactly, &stale);
        if (!error)
            *copy = connection->coid; /* Another thread may end it as soon as the table is free. */
        table_unlock();
        if (error) {
            trunk_release(original->trunk);
            connection_free(connection);
        }
    } else {
        error = ENOMEM;
    }
    if (stale)
        connection_sever(stale, false);
    connection_end(&use);
    return error;
}

/* Ending connections. */

static void (*before_detach)(int coid);

void connection_before_detach(void (*function)(int coid))
{
    before_detach = function;
}

/*
 * Lets a channel of this process hear of its client before the number of that client's connection is free: else it would
 * give the number to the client itself, as its scoid, which ConnectDetach takes as well.
 */
static void introduce(int coid, struct number *number)
{
    struct address address;
    pthread_mutex_lock(&number->lock);
    struct connection *connection = coid & _NTO_SIDE_CHANNEL ? number->connection : NULL;
    struct trunk *trunk = connection ? connection->trunk : NULL; /* NULL once it is severed. */
    bool is_unheard = trunk && trunk->address.pid == getpid() && !trunk_scoid(trunk);
    if (is_unheard)
        address = trunk->address;
    pthread_mutex_unlock(&number->lock);
    if (is_unheard)
        channel_hear(&address);
}

int connection_detach(int coid)
{
    struct number *number = number_find(coid);
    if (!number)
        return EBADF;
    before_detach(coid);
    introduce(coid, number);
    table_lock();
    hear_of_death(number);
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    struct inherited *inherited = number->inherited;
    off_t cookie = connection ? connection->cookie : inherited ? inherited->cookie : 0;
    bool found = connection || inherited;
    bool foreign = found && cookie && !placeholder_is(coid, cookie);
    if (connection)
        connection->users++;
    connection_put(number, NULL);
    number->inherited = NULL;
    pthread_mutex_unlock(&number->lock);
    said_say(coid, SAID_NO_CONNECTION);
    if (found && !foreign)
        release_number(coid);
    table_unlock();
    if (connection)
        connection_leave(connection);
    return found && !foreign ? 0 : EBADF;
}

void connection_kill(int coid)
{
    struct number *number = number_find(coid);
    struct connection *connection = NULL;
    if (number) {
        table_lock();
        hear_of_death(number);
        table_unlock();
        pthread_mutex_lock(&number->lock);
        connection = number->connection;
        if (connection)
            connection->users++;
        pthread_mutex_unlock(&number->lock);
    }
    if (connection) {
        struct use use = {connection, NULL};
        connection_sever(connection, true);
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
        hear_of_death(number);
        pthread_mutex_lock(&number->lock);
        old = connection_put(number, NULL);
        number->inherited = NULL;
        pthread_mutex_unlock(&number->lock);
        said_say(coid, SAID_NO_CONNECTION);
    }
    bool cloexec = fcntl(fd, F_GETFD) & FD_CLOEXEC, is_free = !is_descriptor(coid);
    if (is_free) { /* It was closed behind our back. */
        int placed = fcntl(fd, cloexec ? F_DUPFD_CLOEXEC : F_DUPFD, coid);
        error = placed < 0 ? errno : placed != coid ? EBADF : 0;
        if (placed >= 0 && placed != coid)
            close(placed);
    } else if (old && !connection_has_its_number(old)) {
        error = EBADF;
    } else if (dup3(fd, coid, cloexec ? O_CLOEXEC : 0) < 0) {
        error = errno;
    }
    table_unlock();
    if (old)
        connection_sever(old, false);
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

int connection_check(int coid)
{
    struct ticket ticket;
    struct use use;
    struct number *number = number_find(coid);
    bool is_inherited = false;
    if (number) {
        pthread_mutex_lock(&number->lock);
        is_inherited = number->inherited;
        pthread_mutex_unlock(&number->lock);
    }
    int error = connection_begin(coid, 0, &use, &ticket);
    if (error)
        return is_inherited ? error : ESRCH;
    bool alive = trunk_is_alive(use.connection->trunk);
    connection_end(&use);
    return alive ? 0 : ESRCH;
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

/* Telling servers that a channel is no more. */

static void say_destroyed(struct number *number, void *address)
{
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    bool is_hit = connection && address_equal(&connection->address, address);
    pthread_mutex_unlock(&number->lock);
    if (is_hit)
        said_say(number->id, SAID_CHANNEL_GONE);
}

void connection_say_destroyed(struct address *address)
{
    number_each(say_destroyed, address);
    trunk_each(report_destroyed, address);
}
