/* Connections that a fork or an exec has left to this process (D13, B278): each is made anew at its first use. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/connection.h"
#include "client/exchange.h"
#include "client/io_message.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/descriptor.h"
#include "number.h"

static struct inherited *all_inherited;

struct reviving {
    struct number *number;
    struct inherited *inherited;
    struct use use;
};

static int make_revived(struct trunk *trunk, void *argument)
{
    struct reviving *reviving = argument;
    struct inherited *inherited = reviving->inherited;
    struct connection *connection = connection_new(trunk, &trunk->address, inherited->flags);
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

bool connection_dies_unused(struct number *number)
{
    struct inherited *inherited = number->inherited;
    struct connection *dead = connection_new(NULL, &inherited->address, inherited->flags);
    if (!dead)
        return false;
    dead->number = number;
    dead->coid = number->id;
    dead->cookie = inherited->cookie;
    dead->in_table = dead->detached = true;
    connection_put(number, dead);
    number->inherited = NULL;
    return true;
}

/* Its server is gone. */
static void lose(struct number *number, struct inherited *inherited)
{
    table_lock();
    pthread_mutex_lock(&number->lock);
    if (number->inherited == inherited)
        connection_dies_unused(number);
    pthread_mutex_unlock(&number->lock);
    table_unlock();
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
    if (foreign)
        return EBADF;
    int error = trunk_use(&address, !(inherited->flags & _NTO_COF_NOSHARE), make_revived, &reviving);
    if (error == ESRCH)
        lose(number, inherited);
    if (error)
        return EBADF;
    error = inherited->is_copy ? announce(&reviving.use, inherited) : 0;
    struct connection *connection = reviving.use.connection;
    table_lock();
    pthread_mutex_lock(&number->lock);
    if (!error && number->inherited == inherited) {
        number->inherited = NULL;
        connection->in_table = true;
        connection_put(number, connection);
    } else {
        connection->detached = true;
    }
    pthread_mutex_unlock(&number->lock);
    table_unlock();
    connection_end(&reviving.use);
    return error;
}

int connection_revive(int coid)
{
    struct number *number = number_find(coid);
    struct inherited *inherited = NULL;
    if (number) {
        pthread_mutex_lock(&number->lock);
        inherited = number->inherited;
        pthread_mutex_unlock(&number->lock);
    }
    if (!inherited)
        return 0;
    pthread_mutex_lock(&inherited->reviving);
    int error = revive_alone(number, inherited);
    pthread_mutex_unlock(&inherited->reviving);
    return error;
}

int connection_begin(int coid, uint64_t window, struct use *use, struct ticket *ticket)
{
    int error;
    while ((error = connection_begin_made(coid, window, use, ticket)) == CONNECTION_INHERITED)
        if ((error = connection_revive(coid)))
            break;
    return error;
}

static bool is_dead(const struct connection *connection)
{
    return connection->detached || atomic_load(&connection->trunk->dead);
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
    connection_put(number, NULL);
    if (connection->cookie && is_dead(connection)) {
        if (placeholder_is(connection->coid, connection->cookie))
            close(connection->coid); /* It is left out (B276): the number is free. */
    } else if (connection->cookie) {
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
    windows_after_fork_in_child();
    number_each(leave_to_child, &parent);
}
