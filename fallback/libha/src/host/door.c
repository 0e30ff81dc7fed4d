#include "host/door.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHERS_ENTER (S_IXGRP | S_IXOTH)
#define OTHERS_WRITE (S_IWGRP | S_IWOTH)
/* Behind the name of an entry: the symbolic link that other users read. */
#define SHOWN "="

int door_is_shared(const char *root, const char *own, bool *shared)
{
    struct stat gate, status;
    const char *chosen = getenv("HA_QNX_RUNTIME");
    *shared = false;
    if (!chosen || !*chosen)
        return 0; /* One that nobody has named on purpose. */
    if (!lstat(own, &status))
        *shared = status.st_mode & OTHERS_ENTER && !lstat(root, &gate) && gate.st_mode & OTHERS_ENTER;
    else if (errno == EACCES)
        return EACCES;
    return 0;
}

int door_check_private(const char *path)
{
    struct stat status;
    if (lstat(path, &status))
        return errno;
    if (!S_ISDIR(status.st_mode))
        return ENOTDIR;
    return status.st_uid != geteuid() || status.st_mode & OTHERS_WRITE ? EPERM : 0;
}

int door_check_shared(const char *root)
{
    char path[PATH_MAX];
    struct stat status, above;
    if (lstat(root, &status))
        return errno;
    if (!realpath(root, path))
        return errno;
    for (char *slash; (slash = strrchr(path, '/')) && path[1];) {
        slash[slash == path] = '\0';
        if (stat(path, &above))
            return errno;
        if ((above.st_uid && above.st_uid != status.st_uid && above.st_uid != geteuid()) ||
            (above.st_mode & OTHERS_WRITE && !(above.st_mode & S_ISVTX)))
            return EPERM;
    }
    return door_check_part(root, root, false);
}

int door_check_part(const char *root, const char *path, bool is_room)
{
    struct stat whole, part;
    if (lstat(root, &whole) || lstat(path, &part))
        return errno;
    if (!S_ISDIR(part.st_mode))
        return ENOTDIR;
    bool is_kept = is_room && part.st_mode & S_ISVTX;
    return (part.st_uid && part.st_uid != whole.st_uid) || (part.st_mode & OTHERS_WRITE && !is_kept) ? EPERM : 0;
}

int door_make_own(const char *path, bool shared)
{
    struct stat status;
    if (!mkdir(path, 0700))
        return shared && chmod(path, 0755) ? errno : 0;
    if (errno != EEXIST)
        return errno;
    if (lstat(path, &status))
        return errno;
    return status.st_uid == geteuid() ? 0 : EACCES;
}

static void link_of(char link[PATH_MAX + sizeof SHOWN], const char *file)
{
    snprintf(link, PATH_MAX + sizeof SHOWN, "%s" SHOWN, file);
}

int door_show(const char *file, const char *text)
{
    char link[PATH_MAX + sizeof SHOWN];
    link_of(link, file);
    if (unlink(link) && errno != ENOENT)
        return errno;
    return symlink(text, link) ? errno : 0;
}

void door_hide(const char *file)
{
    char link[PATH_MAX + sizeof SHOWN];
    link_of(link, file);
    unlink(link);
}

int door_read_shown(const char *file, char *text, size_t size, uid_t *owner)
{
    char link[PATH_MAX + sizeof SHOWN];
    struct stat status;
    link_of(link, file);
    ssize_t length = readlink(link, text, size - 1);
    text[length < 0 ? 0 : length] = '\0';
    if (length < 0 || lstat(link, &status))
        return errno;
    *owner = status.st_uid;
    return 0;
}

bool door_shows(const char *file)
{
    char link[PATH_MAX + sizeof SHOWN];
    struct stat status;
    link_of(link, file);
    return !lstat(link, &status);
}

bool door_is_who_it_should_be(int sock, pid_t pid)
{
    struct ucred who;
    socklen_t size = sizeof who;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &who, &size))
        return false;
    return !who.uid || who.uid == geteuid() || who.pid == pid;
}
