/* Names (B286 to B309). */
#include "calls/name.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "calls/call.h"
#include "calls/connect.h"
#include "calls/create.h"
#include "calls/send.h"
#include "client/connection.h"
#include "client/io_message.h"
#include "client/recovery.h"
#include "ha_posix.h"
#include "host/runtime.h"
#include "server/channel.h"
#include "server/deaths.h"

/* A name that this process has. */
struct claim {
    struct claim *next;
    int fd; /* holds it */
    name_attach_t record;
    char name[];
};

static struct claim *claims;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A channel for a name: it hears of deaths, unless another one of this process does already (B287, B288). */
static int channel_for_name(int *chid)
{
    const unsigned flags = _NTO_CHF_DISCONNECT | _NTO_CHF_UNBLOCK;
    int error = deaths_reported_to() ? EBUSY : create_channel(flags | _NTO_CHF_COID_DISCONNECT, chid);
    return error == EBUSY ? create_channel(flags, chid) : error;
}

static int attach(const void *dpp, const char *path, unsigned flags, struct claim **result)
{
    struct address address = {0};
    int chid;
    if (!name_is_valid(path) || flags & ~(unsigned)NAME_FLAG_ATTACH_GLOBAL)
        return EINVAL;
    if (flags || dpp)
        return ENOTSUP; /* There is no global name service, and no dispatch library. */
    struct claim *claim = calloc(1, sizeof *claim + strlen(path) + 1);
    if (!claim)
        return ENOMEM;
    int error = channel_for_name(&chid);
    if (!error) {
        error = channel_address(chid, &address) ? runtime_claim_name(path, &address, &claim->fd) : ESRCH;
        if (error)
            destroy_channel(chid); /* B294 */
    }
    if (error) {
        free(claim);
        return error;
    }
    strcpy(claim->name, path);
    claim->record.chid = chid;
    pthread_mutex_lock(&lock);
    claim->next = claims;
    claims = claim;
    pthread_mutex_unlock(&lock);
    *result = claim;
    return 0;
}

static int detach(const name_attach_t *record, unsigned flags)
{
    if (flags & ~(unsigned)NAME_FLAG_DETACH_SAVEDPP)
        return EINVAL;
    pthread_mutex_lock(&lock);
    struct claim **link = &claims;
    while (*link && &(*link)->record != record)
        link = &(*link)->next;
    struct claim *claim = *link;
    if (claim)
        *link = claim->next;
    pthread_mutex_unlock(&lock);
    if (!claim)
        return EINVAL;
    runtime_release_name(claim->name, claim->fd);
    if (!(flags & NAME_FLAG_DETACH_SAVEDPP))
        destroy_channel(claim->record.chid);
    free(claim);
    return 0;
}

/* name_attach() */
HA_EXPORT name_attach_t *name_attach(void *dpp, const char *path, unsigned flags)
{
    struct call call = call_begin();
    struct claim *claim = NULL;
    int error = attach(dpp, path, flags, &claim);
    call_end(&call, error, 0);
    return error ? NULL : &claim->record;
}

/* name_detach() */
HA_EXPORT int name_detach(name_attach_t *attach, unsigned flags)
{
    struct call call = call_begin();
    return (int)call_end(&call, detach(attach, flags), 0);
}

/* Connects to the server of a name, which has to agree (D25); in place of *coid, if that is not negative. */
static int open_name(const char *name, unsigned index, const struct io_connect *message, int *coid)
{
    struct address address;
    bool in_place = *coid >= 0;
    long status = 0;
    int error = in_place ? connection_make_room(*coid) : 0;
    if (!error)
        error = runtime_find_name(name, &address);
    if (!error) {
        error = connection_attach(&address, index, 0, coid);
        if (error == ESRCH || error == ENXIO)
            error = ENOENT; /* The name is that of a dead server. */
    }
    if (error)
        return error;
    if (!in_place)
        attachment_drop(attachment_take(*coid));
    error = send_bytes(*coid, message, IO_CONNECT_SIZE, &status);
    if (!error && status)
        error = EBADFSYS;
    if (error && in_place)
        connection_kill(*coid);
    else if (error)
        connection_detach(*coid);
    return error;
}

static int name_connect(const char *name, unsigned flags, int *coid)
{
    struct io_connect message;
    if (!name_is_valid(name) || flags & ~(unsigned)NAME_FLAG_ATTACH_GLOBAL)
        return EINVAL;
    if (flags)
        return ENOTSUP;
    io_name_open_message(&message);
    *coid = -1;
    return open_name(name, _NTO_SIDE_CHANNEL, &message, coid);
}

int name_open_path(const char *name, int oflag, mode_t mode, int *fd)
{
    struct io_connect message;
    if (!name_is_valid(name))
        return ENOENT;
    io_open_message(&message, oflag, mode);
    return open_name(name, 0, &message, fd);
}

/* name_open() */
HA_EXPORT int name_open(const char *name, int flags)
{
    struct call call = call_begin();
    int coid, error = name_connect(name, (unsigned)flags, &coid);
    return (int)call_end(&call, error, coid);
}

/* name_close(): the same as ConnectDetach() (B307). */
HA_EXPORT int name_close(int coid)
{
    struct call call = call_begin();
    return (int)call_end(&call, connect_detach(coid), 0);
}

void name_at_exit(void)
{
    if (pthread_mutex_trylock(&lock))
        return;
    for (struct claim *claim = claims; claim; claim = claim->next)
        runtime_release_name(claim->name, -1);
    pthread_mutex_unlock(&lock);
}

void name_after_fork_in_child(void)
{
    static struct claim *of_parents;
    pthread_mutex_init(&lock, NULL);
    of_parents = claims; /* The parent keeps its names; its threads may have been changing the list. */
    claims = NULL;
    (void)of_parents;
}
