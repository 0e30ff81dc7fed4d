/* Serving paths: resmgr_attach() and what it needs. */
#include "calls/resmgr.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls/call.h"
#include "calls/create.h"
#include "ha_posix.h"
#include "host/descriptor.h"
#include "host/paths.h"
#include "host/plain_path.h"
#include "server/channel.h"

#define KNOWN_FLAGS                                                                                                    \
    (_RESMGR_FLAG_BEFORE | _RESMGR_FLAG_AFTER | _RESMGR_FLAG_OPAQUE | _RESMGR_FLAG_FTYPEONLY | _RESMGR_FLAG_FTYPEALL | \
     _RESMGR_FLAG_DIR | _RESMGR_FLAG_SELF)

/* What stands for a channel. QNX's is a loop that receives and calls functions; here it is only the channel's number. */
struct _dispatch {
    struct _dispatch *next;
    int chid;
};

/* A path that this process serves, or is about to. */
struct own {
    struct own *next;
    const struct _dispatch *dispatch;
    struct served served;
    int claim;    /* -1: not yet */
    bool is_lost; /* its entry was removed, and could not be made again */
    char path[];
};

static struct _dispatch *dispatches;
static struct own *owns; /* in the order of their ids */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Handles. */

static int create(int chid, unsigned flags, struct _dispatch **result)
{
    if (flags & ~(unsigned)DISPATCH_FLAG_NOLOCK)
        return EINVAL;
    if (chid == -1)
        return ENOSYS; /* Who receives has to know the channel. */
    struct _dispatch *dispatch = malloc(sizeof *dispatch);
    if (!dispatch)
        return ENOMEM;
    dispatch->chid = chid;
    pthread_mutex_lock(&lock);
    dispatch->next = dispatches;
    dispatches = dispatch;
    pthread_mutex_unlock(&lock);
    *result = dispatch;
    return 0;
}

/* Where the list leads to a handle; to NULL if it is none. Under the lock. */
static struct _dispatch **link_to(const struct _dispatch *dispatch)
{
    struct _dispatch **link = &dispatches;
    while (*link && *link != dispatch)
        link = &(*link)->next;
    return link;
}

/* Attaching. */

/* Takes the lowest free id. Under the lock. */
static void enter(struct own *own)
{
    struct own **link = &owns;
    int id = 0;
    for (; *link && (*link)->served.id == id; id++)
        link = &(*link)->next;
    own->served.id = id;
    own->next = *link;
    *link = own;
}

/* Under the lock. */
static void take_out(struct own *own)
{
    struct own **link = &owns;
    while (*link != own)
        link = &(*link)->next;
    *link = own->next;
}

static int check(const char *path, enum _file_type file_type, unsigned flags, const void *connect_funcs,
                 const void *io_funcs)
{
    if (connect_funcs || io_funcs)
        return ENOSYS;
    if (flags & ~(unsigned)KNOWN_FLAGS || ((int)file_type < 0 && !(flags & _RESMGR_FLAG_FTYPEALL)))
        return EINVAL;
    return *path && flags & _RESMGR_FLAG_FTYPEONLY ? EINVAL : 0;
}

static int attach_plain(const struct plain_path *plain, const struct _dispatch *dispatch, const struct served *served,
                        int *id)
{
    struct own *own = calloc(1, sizeof *own + strlen(plain->text) + 1);
    int claim;
    if (!own)
        return ENOMEM;
    strcpy(own->path, plain->text);
    own->served = *served;
    own->dispatch = dispatch;
    own->claim = -1;
    pthread_mutex_lock(&lock);
    enter(own);
    *id = own->served.id;
    pthread_mutex_unlock(&lock);
    int error = paths_attach(own->path, &own->served, &claim);
    pthread_mutex_lock(&lock);
    if (error)
        take_out(own);
    else
        own->claim = claim;
    pthread_mutex_unlock(&lock);
    if (error)
        free(own);
    return error;
}

static int attach(const struct _dispatch *dispatch, const char *path, enum _file_type file_type, unsigned flags,
                  int *id)
{
    struct plain_path plain;
    struct served served = {.file_type = flags & _RESMGR_FLAG_FTYPEALL ? _FTYPE_ALL : (int)file_type, .flags = flags};
    pthread_mutex_lock(&lock);
    bool is_known = *link_to(dispatch);
    int chid = is_known ? dispatch->chid : 0;
    pthread_mutex_unlock(&lock);
    if (!is_known || !channel_address(chid, &served.address))
        return EINVAL;
    if (!*path)
        served.flags |= _RESMGR_FLAG_FTYPEONLY; /* All of a type, wherever they are. */
    int error = plain_path(&plain, *path ? path : "/");
    if (!error && plain_path_is_of_names(&plain))
        error = EINVAL; /* Nobody could open it. */
    return error ? error : attach_plain(&plain, dispatch, &served, id);
}

/* Takes an attachment out of the list: the one with an id, or any that was made with a handle. */
static struct own *take(int id, const struct _dispatch *dispatch)
{
    pthread_mutex_lock(&lock);
    struct own *own = owns;
    while (own && (own->claim < 0 || (dispatch ? own->dispatch != dispatch : own->served.id != id)))
        own = own->next;
    if (own)
        take_out(own);
    pthread_mutex_unlock(&lock);
    return own;
}

static void end(struct own *own)
{
    paths_detach(&own->served, own->claim);
    free(own->served.file);
    free(own);
}

static int detach(int id, unsigned flags)
{
    if (flags)
        return EINVAL;
    struct own *own = take(id, NULL);
    if (!own)
        return ENOENT;
    end(own);
    return 0;
}

static int destroy(struct _dispatch *dispatch)
{
    pthread_mutex_lock(&lock);
    struct _dispatch **link = link_to(dispatch);
    bool is_known = *link;
    if (is_known)
        *link = dispatch->next;
    pthread_mutex_unlock(&lock);
    if (!is_known)
        return EINVAL;
    for (struct own *own; (own = take(-1, dispatch));)
        end(own);
    destroy_channel(dispatch->chid);
    free(dispatch);
    return 0;
}

/* dispatch_create_channel(): the channel need not be there yet. */
HA_EXPORT dispatch_t *dispatch_create_channel(int chid, unsigned flags)
{
    struct call call = call_begin();
    struct _dispatch *dispatch = NULL;
    int error = create(chid, flags, &dispatch);
    call_end(&call, error, 0);
    return dispatch;
}

/* dispatch_destroy() */
HA_EXPORT int dispatch_destroy(dispatch_t *dpp)
{
    struct call call = call_begin();
    return (int)call_end(&call, destroy(dpp), 0);
}

/* resmgr_attach(). Without a path, there is nothing to be served. */
HA_EXPORT int resmgr_attach(dispatch_t *dpp, resmgr_attr_t *attr, const char *path, enum _file_type file_type,
                            unsigned flags, const resmgr_connect_funcs_t *connect_funcs,
                            const resmgr_io_funcs_t *io_funcs, void *handle)
{
    struct call call = call_begin();
    int id = 0;
    (void)attr;
    (void)handle;
    int error = check(path ? path : "", file_type, flags, connect_funcs, io_funcs);
    if (!error && path)
        error = attach(dpp, path, file_type, flags, &id);
    return (int)call_end(&call, error, id);
}

/* resmgr_detach(): ids are the process's, not the handle's. */
HA_EXPORT int resmgr_detach(dispatch_t *dpp, int id, unsigned flags)
{
    struct call call = call_begin();
    (void)dpp;
    return (int)call_end(&call, detach(id, flags), 0);
}

static void keep(struct own *own)
{
    struct served served = own->served;
    char what[PATH_MAX + 16];
    int claim;
    if (own->claim < 0 || paths_has(&own->served, own->claim))
        return;
    int error = paths_attach(own->path, &served, &claim);
    if (!error) {
        descriptor_close(own->claim);
        own->claim = claim;
        free(own->served.file);
        own->served.file = served.file;
    }
    snprintf(what, sizeof what, "the path '%s'", own->path);
    runtime_tell(what, error, &own->is_lost);
}

void resmgr_keep(void)
{
    pthread_mutex_lock(&lock);
    for (struct own *own = owns; own; own = own->next)
        keep(own);
    pthread_mutex_unlock(&lock);
}

void resmgr_at_exit(void)
{
    if (pthread_mutex_trylock(&lock))
        return;
    for (struct own *own = owns; own; own = own->next)
        if (own->claim >= 0)
            paths_detach(&own->served, -1);
    pthread_mutex_unlock(&lock);
}

void resmgr_after_fork_in_child(void)
{
    static struct own *of_parents;
    pthread_mutex_init(&lock, NULL);
    of_parents = owns; /* The parent goes on serving them; its threads may have been changing the list. */
    owns = NULL;
    (void)of_parents;
}
