#include "host/names.h"

#include <errno.h>
#include <string.h>

#include "host/clock.h"
#include "host/descriptor.h"
#include "host/held.h"

#define ROOM "names"
/* Each try but the first means that an owner has ended just then. */
#define CLAIM_TRIES 100

int names_tidy(const char *name, char tidy[PATH_MAX])
{
    size_t used = 0;
    if (!name || !*name || *name == '/')
        return EINVAL;
    while (*name) {
        size_t length = strcspn(name, "/");
        bool is_left_out = !length || (length == 1 && *name == '.');
        if (!is_left_out && used + length + 2 > PATH_MAX)
            return ENAMETOOLONG;
        if (!is_left_out) {
            if (used)
                tidy[used++] = '/';
            memcpy(tidy + used, name, length);
            used += length;
        }
        name += length + (name[length] == '/');
    }
    tidy[used] = '\0';
    return used ? 0 : EINVAL;
}

bool names_climbs(const char *name)
{
    for (const char *dots = strstr(name, ".."); dots; dots = strstr(dots + 1, ".."))
        if (dots[2] == '/' || !dots[2])
            return true;
    return false;
}

static int find_file(char path[PATH_MAX], const char *name)
{
    return held_path(path, ROOM, name, strlen(name), "", true);
}

/* Whether the file of a name that could not be had is gone, or about to be: that of a dead server. */
static bool is_left_over(const char *path)
{
    char text[256];
    struct address owner;
    uid_t user;
    int error = held_read(path, text, sizeof text, &user);
    if (error)
        return error == ENOENT;
    if (!address_parse(&owner, text) || !process_is_ending(owner.pid))
        return false;
    clock_sleep(CLOCK_MILLISECOND); /* Somebody is about to remove it, or to take it. */
    return true;
}

/* Whether another user, who lets nobody try the lock, has a server that lives. */
static bool is_of_the_living(const char *path)
{
    char text[256];
    struct address owner;
    uid_t user;
    return !held_read(path, text, sizeof text, &user) && address_parse(&owner, text) && !process_is_ending(owner.pid);
}

int names_claim(const char *name, const struct address *address, int *claim)
{
    char path[PATH_MAX], text[ADDRESS_SIZE];
    int error = find_file(path, name);
    if (error)
        return error;
    runtime_keep();
    error = held_make_directories(path);
    if (error)
        return error == EACCES ? EPERM : error;
    address_format(text, address);
    error = EAGAIN;
    for (int i = 0; i < CLAIM_TRIES && error == EAGAIN; i++) {
        error = held_take(path, claim);
        if (error == EEXIST && is_left_over(path))
            error = EAGAIN;
    }
    if (error)
        return error == EAGAIN || (error == EACCES && is_of_the_living(path)) ? EEXIST
               : error == EACCES                                              ? EPERM
                                                                              : error;
    error = held_write(*claim, text);
    if (!error)
        error = held_show(path, text);
    if (error)
        names_release(name, *claim);
    return error;
}

void names_release(const char *name, int claim)
{
    char path[PATH_MAX];
    /* It may have been removed, and be another server's by now. */
    if (!find_file(path, name) && runtime_has_file(path, claim))
        held_remove(path);
    descriptor_close(claim);
}

bool names_has(const char *name, int claim)
{
    char path[PATH_MAX];
    return !find_file(path, name) && runtime_has_file(path, claim);
}

/* What looking for the file of a name says if there is something else in its place. */
static bool is_no_entry(int error)
{
    return error == ENOTDIR || error == EISDIR || error == ELOOP || error == EAGAIN;
}

int names_find(const char *name, struct address *address)
{
    char path[PATH_MAX], text[256];
    uid_t owner;
    int error = find_file(path, name);
    if (!error)
        error = held_read(path, text, sizeof text, &owner);
    if (error)
        return is_no_entry(error) ? ENOENT : error;
    return address_parse(address, text) && runtime_is_of(owner, address) ? 0 : ENOENT;
}

int names_without_channel(const char *name, const struct address *address)
{
    char path[PATH_MAX], text[ADDRESS_SIZE];
    if (find_file(path, name))
        return ENOENT;
    /* In this order, so that who takes the name of a dead server does not meet our lock. */
    if (process_is_ending(address->pid)) {
        address_format(text, address);
        held_remove_left(path, text);
        return ENOENT;
    }
    return held_by_the_living(path, false) ? ESRCH : ENOENT;
}
