#include "host/paths.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/door.h"
#include "host/held.h"

#define ROOM "paths"
/* Each try but the first means that somebody has cleaned up just then. */
#define ATTACH_TRIES 100
/* Behind the last piece: what is attached to a path, and what continues a long one, are told apart. */
#define END "="
/* TIME.PID.ID */
#define TIME_DIGITS 20
#define ENTRY_SIZE (TIME_DIGITS + 2 * 12 + 1)

static int find_directory(char path[PATH_MAX], const char *served, size_t length, bool make)
{
    return held_path(path, ROOM, served, length, END, make);
}

/* Entering. */

/* A file with a dot before its name is an attachment that is not whole yet, or was left so by a process that is gone. */
static bool remove_if_left(const char *entry, void *directory)
{
    char path[PATH_MAX + NAME_MAX + 2];
    long pid;
    if (sscanf(entry, ".%*[0-9].%ld.", &pid) == 1 && process_is_gone((pid_t)pid)) {
        snprintf(path, sizeof path, "%s/%s", (const char *)directory, entry);
        unlink(path);
    }
    return true;
}

/* A file of a server that is gone. */
static bool remove_if_dead(const char *entry, void *directory)
{
    char path[PATH_MAX + NAME_MAX + 2];
    snprintf(path, sizeof path, "%s/%s", (const char *)directory, entry);
    if (*entry != '.' && !strchr(entry, *END))
        held_by_the_living(path, true);
    return true;
}

/* The directory of a path is its first server's; what dead ones of another user have left, root removes. */
static int make_directory(char *directory)
{
    int error = held_make_directories(directory);
    if (!error)
        error = door_make_own(directory, runtime_is_shared());
    if (error != EACCES || runtime_each(directory, remove_if_dead, directory) || rmdir(directory))
        return error;
    return door_make_own(directory, runtime_is_shared());
}

/* One try; EAGAIN if the directory was removed meanwhile, or the file by who took it for left. */
static int attach_once(char *directory, struct served *served, int *claim)
{
    char entry[ENTRY_SIZE], hidden[PATH_MAX + ENTRY_SIZE], file[PATH_MAX + ENTRY_SIZE], text[ADDRESS_SIZE + 24];
    if (!served->time)
        served->time = (uint64_t)clock_now();
    snprintf(entry, sizeof entry, "%0*" PRIu64 ".%ld.%d", TIME_DIGITS, served->time, (long)served->address.pid,
             served->id);
    if (snprintf(hidden, sizeof hidden, "%s/.%s", directory, entry) >= PATH_MAX)
        return ENAMETOOLONG;
    snprintf(file, sizeof file, "%s/%s", directory, entry);
    int error = make_directory(directory);
    if (!error)
        error = held_take(hidden, claim);
    if (error)
        return error == ENOENT || error == EEXIST ? EAGAIN : error;
    address_format(text, &served->address);
    snprintf(text + strlen(text), sizeof text - strlen(text), " %d %u", served->file_type, served->flags);
    error = held_write(*claim, text);
    if (!error && rename(hidden, file))
        error = errno == ENOENT ? EAGAIN : errno;
    if (!error)
        error = held_show(file, text);
    if (!error && !(served->file = strdup(file)))
        error = ENOMEM;
    if (error) {
        unlink(hidden);
        held_remove(file);
        descriptor_close(*claim);
        rmdir(directory);
    }
    return error;
}

int paths_attach(const char *path, struct served *served, int *claim)
{
    char directory[PATH_MAX];
    int error = find_directory(directory, path, strlen(path), true);
    served->length = strlen(path);
    if (error)
        return error;
    runtime_keep();
    runtime_each(directory, remove_if_left, directory);
    error = EAGAIN;
    for (int i = 0; i < ATTACH_TRIES && error == EAGAIN; i++)
        error = attach_once(directory, served, claim);
    return error == EACCES ? EPERM : error; /* As on QNX: not everybody may attach a path. */
}

static void remove_directory_of(const char *file)
{
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(file, '/') - file), file);
    rmdir(directory); /* Unless there is another one. */
}

bool paths_has(const struct served *served, int claim)
{
    return runtime_has_file(served->file, claim);
}

void paths_detach(const struct served *served, int claim)
{
    held_remove(served->file);
    descriptor_close(claim);
    remove_directory_of(served->file);
}

bool paths_is_left(const struct served *served)
{
    if (held_by_the_living(served->file, true))
        return process_is_ending(served->address.pid); /* Then it lets go of the file by itself. */
    remove_directory_of(served->file);
    return true;
}

/* Finding. */

/* Where an attachment stands among those of its path: BEFORE, neither, AFTER. */
static int rank(const struct served *served)
{
    return served->flags & _RESMGR_FLAG_BEFORE ? 0 : served->flags & _RESMGR_FLAG_AFTER ? 2 : 1;
}

static bool is_newer(const struct served *one, const struct served *other)
{
    if (one->time != other->time)
        return one->time > other->time;
    return one->address.pid != other->address.pid ? one->address.pid > other->address.pid : one->id > other->id;
}

/* Whether one is asked before another on the same path. */
static bool is_asked_before(const struct served *one, const struct served *other)
{
    if (rank(one) != rank(other))
        return rank(one) < rank(other);
    return rank(one) == 0 ? is_newer(other, one) : is_newer(one, other);
}

static void insert(struct served **list, struct served *served)
{
    while (*list && is_asked_before(*list, served))
        list = &(*list)->next;
    served->next = *list;
    *list = served;
}

/* "TIME.PID.ID", and nothing else. */
static bool parse_entry(const char *entry, struct served *served, pid_t *pid)
{
    long number;
    int end = 0;
    if (strspn(entry, "0123456789") != TIME_DIGITS || entry[TIME_DIGITS] != '.')
        return false;
    served->time = strtoull(entry, NULL, 10);
    if (!isdigit((unsigned char)entry[TIME_DIGITS + 1]) ||
        sscanf(entry + TIME_DIGITS + 1, "%ld.%d%n", &number, &served->id, &end) != 2)
        return false;
    *pid = (pid_t)number;
    return !entry[TIME_DIGITS + 1 + end] && served->id >= 0;
}

/* "PID.CHID.TOKEN FILE_TYPE FLAGS" */
static bool parse_text(char *text, struct served *served, pid_t pid)
{
    char *space = strchr(text, ' ');
    if (!space || sscanf(space, "%d %u", &served->file_type, &served->flags) != 2)
        return false;
    *space = '\0';
    return address_parse(&served->address, text) && served->address.pid == pid;
}

struct finding {
    const char *directory;
    size_t length;
    bool directories_only;
    struct served *list; /* in order */
    int error;
};

static bool add(const char *entry, void *argument)
{
    struct finding *finding = argument;
    char text[256];
    struct served found = {.length = finding->length}, *served;
    pid_t pid;
    uid_t owner;
    if (!parse_entry(entry, &found, &pid))
        return true;
    char file[PATH_MAX + NAME_MAX + 2];
    snprintf(file, sizeof file, "%s/%s", finding->directory, entry);
    if (held_read(file, text, sizeof text, &owner) || !parse_text(text, &found, pid) ||
        !runtime_is_of(owner, &found.address))
        return true; /* It was detached meanwhile. */
    if (finding->directories_only && !(found.flags & _RESMGR_FLAG_DIR))
        return true;
    served = malloc(sizeof *served);
    if (served)
        *served = found;
    if (!served || !(served->file = strdup(file))) {
        free(served);
        finding->error = ENOMEM;
        return false;
    }
    insert(&finding->list, served);
    return true;
}

int paths_find(const char *path, struct served **list)
{
    size_t length = strlen(path);
    bool is_itself = true;
    struct served **end = list;
    *list = NULL;
    for (;; is_itself = false) {
        char directory[PATH_MAX];
        struct finding finding = {.directory = directory, .length = length, .directories_only = !is_itself};
        int error = find_directory(directory, path, length, false);
        if (!error)
            error = runtime_each(directory, add, &finding);
        *end = finding.list;
        while (*end)
            end = &(*end)->next;
        /* A path that is too long for the host to keep has nobody attached. */
        if (finding.error || (error && error != ENOENT && error != ENAMETOOLONG)) {
            paths_forget(*list);
            *list = NULL;
            return finding.error ? finding.error : error;
        }
        if (length == 1)
            return 0;
        while (length > 1 && path[--length] != '/')
            ;
    }
}

void paths_forget(struct served *list)
{
    for (struct served *served; (served = list);) {
        list = served->next;
        free(served->file);
        free(served);
    }
}
