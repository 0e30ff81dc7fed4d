#include "calls/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "calls/call.h"
#include "client/connection.h"
#include "client/recovery.h"
#include "client/successor.h"
#include "client/trunk.h"
#include "ha_posix.h"
#include "host/descriptor.h"
#include "host/runtime.h"
#include "number.h"
#include "server/client.h"

#define KNOWN_FLAGS (_NTO_COF_CLOEXEC | _NTO_COF_NOSHARE)

static int check(struct address *address, uint32_t nd, int32_t pid, int chid, unsigned flags)
{
    if (nd != ND_LOCAL_NODE)
        return ENOREMOTE; /* D21 */
    if (flags & ~(unsigned)KNOWN_FLAGS)
        return EINVAL;
    *address = (struct address){.pid = pid ? pid : getpid(), .chid = chid};
    return 0;
}

int connect_attach(uint32_t nd, int32_t pid, int chid, unsigned index, unsigned flags, int *coid)
{
    struct address address;
    int error = check(&address, nd, pid, chid, flags);
    *coid = -1;
    if (!error)
        error = connection_attach(&address, index, flags, coid);
    if (!error)
        attachment_drop(attachment_take(*coid));
    return error;
}

int connect_attach_at(int coid, uint32_t nd, int32_t pid, int chid, unsigned flags)
{
    struct address address;
    int error = check(&address, nd, pid, chid, flags);
    if (!error && coid < 0)
        error = EBADF;
    return error ? error : connection_attach(&address, 0, flags, &coid);
}

int connect_detach(int coid)
{
    if (coid == SYSMGR_COID)
        return EPERM; /* B62, D46 */
    int error = client_release(coid);
    if (error != EBADF)
        return error;
    struct attachment *attachment = attachment_take(coid); /* First, for the number may be another's at once. */
    bool stays = !connection_is_ours(coid) && connection_is_open(coid); /* It is of an ordinary file. */
    error = connection_detach(coid) ? EINVAL : 0;
    if (stays)
        attachment_give_back(coid, attachment);
    else
        attachment_drop(attachment);
    return error;
}

struct search {
    int from;
    bool with_dead;
    bool is_dead;
    bool has_found;
    struct _msg_info64 found;
};

static void describe(struct search *search, const struct address *address, int coid, int scoid, unsigned flags)
{
    search->has_found = true;
    search->found = (struct _msg_info64){
        .pid = address->pid,
        .chid = address->chid,
        .scoid = scoid,
        .coid = coid,
        .flags = (int16_t)(flags | (search->is_dead ? _NTO_COF_DEAD : 0)),
    };
}

static void look_at(struct number *number, void *argument)
{
    struct search *search = argument;
    if (search->has_found || number->id < search->from)
        return;
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    struct inherited *inherited = number->inherited;
    off_t cookie = connection ? connection->cookie : inherited ? inherited->cookie : 0;
    bool is_ours = (connection || inherited) && (!cookie || placeholder_is(number->id, cookie));
    if (is_ours && connection) {
        search->is_dead = connection->detached || !trunk_is_alive(connection->trunk);
        if (!search->is_dead || search->with_dead)
            describe(search, &connection->address, number->id, search->is_dead ? 0 : trunk_scoid(connection->trunk),
                     connection_flags(number->id, connection->flags, cookie));
    } else if (is_ours) {
        search->is_dead = false; /* It is not known before its first use. */
        describe(search, &inherited->address, number->id, 0, connection_flags(number->id, inherited->flags, cookie));
    }
    pthread_mutex_unlock(&number->lock);
}

static int server_info(int32_t pid, int coid, struct _msg_info64 *info, int *found)
{
    struct search search = {.from = coid, .with_dead = info};
    int error = process_check_own(pid);
    if (error)
        return error;
    number_each(look_at, &search); /* Side channels come after all others (B66). */
    if (!search.has_found)
        return EINVAL;
    *found = search.found.coid;
    if (info)
        *info = search.found;
    return 0;
}

static int change_flags(int32_t pid, int coid, unsigned mask, unsigned bits, unsigned *before)
{
    struct number *number = number_find(coid);
    int error = process_check_own(pid);
    if (error)
        return error;
    if (!number || !connection_is_ours(coid) || !connection_is_open(coid))
        return EBADF;         /* B70 */
    mask &= _NTO_COF_CLOEXEC; /* B71 */
    error = connection_revive(coid);
    if (error)
        return error;
    pthread_mutex_lock(&number->lock);
    struct connection *connection = number->connection;
    struct inherited *inherited = number->inherited;
    unsigned *flags = connection ? &connection->flags : inherited ? &inherited->flags : NULL;
    off_t cookie = connection ? connection->cookie : inherited ? inherited->cookie : 0;
    if (flags) {
        *before = *flags = connection_flags(coid, *flags, cookie);
        *flags = (*before & ~mask) | (bits & mask);
        if (mask && cookie)
            fcntl(coid, F_SETFD, *flags & _NTO_COF_CLOEXEC ? FD_CLOEXEC : 0);
    }
    pthread_mutex_unlock(&number->lock);
    if (flags && mask) {
        table_lock();
        successor_tell();
        table_unlock();
    }
    return flags ? 0 : EBADF;
}

/* What this process is, where nobody else vouches for it. */
static void describe_self(struct _client_info *info, int ngroups)
{
    uid_t user[3];
    gid_t group[3];
    getresuid(&user[0], &user[1], &user[2]);
    getresgid(&group[0], &group[1], &group[2]);
    int count = getgroups(0, NULL);
    gid_t *groups = count > 0 ? calloc((size_t)count, sizeof *groups) : NULL;
    int listed = groups ? getgroups(count, groups) : 0;
    *info = (struct _client_info){
        .pid = getpid(),
        .cred = {.ruid = (int32_t)user[0],
                 .euid = (int32_t)user[1],
                 .suid = (int32_t)user[2],
                 .rgid = (int32_t)group[0],
                 .egid = (int32_t)group[1],
                 .sgid = (int32_t)group[2],
                 .ngroups = count > 0 ? (uint32_t)count : 0},
    };
    int room = sizeof info->cred.grouplist / sizeof *info->cred.grouplist;
    for (int i = 0; i < listed && i < ngroups && i < room; i++)
        info->cred.grouplist[i] = (int32_t)groups[i];
    free(groups);
}

static int client_info(int scoid, struct _client_info *info, int ngroups)
{
    struct identity who;
    int error = scoid == -1 || !info ? 0 : client_identify(scoid, &who);
    if (!info)
        return EFAULT;
    if (error)
        return error;
    if (scoid == -1) {
        describe_self(info, ngroups);
    } else {
        int32_t uid = (int32_t)who.uid, gid = (int32_t)who.gid;
        *info = (struct _client_info){
            .pid = who.pid,
            .cred = {.ruid = uid, .euid = uid, .suid = uid, .rgid = gid, .egid = gid, .sgid = gid},
        };
        info->cred.ngroups = (uint32_t)who.group_count;
        for (int i = 0; i < ngroups && (size_t)i < who.group_count && i < IDENTITY_GROUPS; i++)
            info->cred.grouplist[i] = (int32_t)who.groups[i];
    }
    pid_t session = getsid(info->pid);
    info->sid = session > 0 ? session : 0;
    return 0;
}

/* ConnectAttach(), B31 to B52. */
HA_EXPORT int ConnectAttach(uint32_t nd, int32_t pid, int chid, unsigned index, int flags)
{
    struct call call = call_begin();
    int coid, error = connect_attach(nd, pid, chid, index, (unsigned)flags, &coid);
    return (int)call_end(&call, error, coid);
}

HA_EXPORT int ConnectAttach_r(uint32_t nd, int32_t pid, int chid, unsigned index, int flags)
{
    struct call call = call_begin();
    int coid, error = connect_attach(nd, pid, chid, index, (unsigned)flags, &coid);
    return (int)call_end_negative(&call, error, coid);
}

/* ConnectDetach(), B53 to B62. */
HA_EXPORT int ConnectDetach(int coid)
{
    struct call call = call_begin();
    return (int)call_end(&call, connect_detach(coid), 0);
}

HA_EXPORT int ConnectDetach_r(int coid)
{
    struct call call = call_begin();
    return call_end_positive(&call, connect_detach(coid));
}

/* ConnectServerInfo(), B63 to B69. */
HA_EXPORT int ConnectServerInfo(int32_t pid, int coid, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int found = 0, error = server_info(pid, coid, info, &found);
    return (int)call_end(&call, error, found);
}

HA_EXPORT int ConnectServerInfo_r(int32_t pid, int coid, struct _msg_info64 *info)
{
    struct call call = call_begin();
    int found = 0, error = server_info(pid, coid, info, &found);
    return (int)call_end_negative(&call, error, found);
}

/* ConnectFlags(), B69 to B71. */
HA_EXPORT int ConnectFlags(int32_t pid, int coid, unsigned mask, unsigned bits)
{
    struct call call = call_begin();
    unsigned before = 0;
    int error = change_flags(pid, coid, mask, bits, &before);
    return (int)call_end(&call, error, before);
}

HA_EXPORT int ConnectFlags_r(int32_t pid, int coid, unsigned mask, unsigned bits)
{
    struct call call = call_begin();
    unsigned before = 0;
    int error = change_flags(pid, coid, mask, bits, &before);
    return (int)call_end_negative(&call, error, before);
}

/* ConnectClientInfo(), B72. */
HA_EXPORT int ConnectClientInfo(int scoid, struct _client_info *info, int ngroups)
{
    struct call call = call_begin();
    return (int)call_end(&call, client_info(scoid, info, ngroups), 0);
}

HA_EXPORT int ConnectClientInfo_r(int scoid, struct _client_info *info, int ngroups)
{
    struct call call = call_begin();
    return call_end_positive(&call, client_info(scoid, info, ngroups));
}
