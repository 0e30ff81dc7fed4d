/* Names (B286 to B309). */
#include "calls/name.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
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
#include "host/descriptor.h"
#include "host/names.h"
#include "server/channel.h"
#include "server/deaths.h"

/* A name that this process has. */
struct claim {
    struct claim *next;
    int fd; /* holds it */
    struct address address;
    bool is_lost; /* its entry was removed, and could not be made again */
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
    char name[PATH_MAX];
    int chid, error = names_tidy(path, name);
    if (!error && (names_climbs(path) || flags & ~(unsigned)NAME_FLAG_ATTACH_GLOBAL))
        error = EINVAL;
    if (error)
        return error;
    if (flags)
        return ENOENT; /* There is no global name service (B292). */
    if (dpp)
        return ENOTSUP; /* The channel is made here. */
    struct claim *claim = calloc(1, sizeof *claim + strlen(name) + 1);
    if (!claim)
        return ENOMEM;
    error = channel_for_name(&chid);
    if (!error) {
        error = channel_address(chid, &claim->address) ? names_claim(name, &claim->address, &claim->fd) : ESRCH;
        if (error)
            destroy_channel(chid); /* B294 */
    }
    if (error) {
        free(claim);
        return error;
    }
    strcpy(claim->name, name);
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
    names_release(claim->name, claim->fd);
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

/* Where a global name service runs, the server is told of a new connection, and has to agree (B300 to B303). */
static int announce(int coid)
{
    struct io_connect message;
    bool answered;
    long status = 0;
    io_name_open_message(&message);
    int error = send_connect(coid, &message, "", &answered, &status);
    if (error == EBADF && !answered)
        return ESRCH; /* It went before it could be told. */
    return !error && status ? EBADFSYS : error;
}

static bool is_announced(void)
{
    const char *gns = getenv("HA_QNX_GNS");
    return gns && !strcmp(gns, "1");
}

static int name_connect(const char *path, unsigned flags, int *coid)
{
    struct address address;
    char name[PATH_MAX];
    int error = names_tidy(path, name);
    if (!error && flags & ~(unsigned)NAME_FLAG_ATTACH_GLOBAL)
        error = EINVAL;
    if (error)
        return error;
    if (flags || names_climbs(path))
        return ENOENT; /* There is no global name service (B292). */
    error = names_find(name, &address);
    if (error)
        return error;
    *coid = -1;
    error = connection_attach(&address, _NTO_SIDE_CHANNEL, 0, coid);
    if (error == ESRCH)
        error = names_without_channel(name, &address); /* B305 */
    if (error)
        return error;
    attachment_drop(attachment_take(*coid));
    error = is_announced() ? announce(*coid) : 0;
    if (error)
        connection_detach(*coid);
    return error;
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

static void keep(struct claim *claim)
{
    char what[PATH_MAX + 16];
    int fd;
    if (names_has(claim->name, claim->fd))
        return;
    int error = names_claim(claim->name, &claim->address, &fd);
    if (!error) {
        descriptor_close(claim->fd);
        claim->fd = fd;
    }
    snprintf(what, sizeof what, "the name '%s'", claim->name);
    runtime_tell(what, error, &claim->is_lost);
}

void name_keep(void)
{
    pthread_mutex_lock(&lock);
    for (struct claim *claim = claims; claim; claim = claim->next)
        keep(claim);
    pthread_mutex_unlock(&lock);
}

void name_at_exit(void)
{
    if (pthread_mutex_trylock(&lock))
        return;
    for (struct claim *claim = claims; claim; claim = claim->next)
        names_release(claim->name, claim->fd);
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
