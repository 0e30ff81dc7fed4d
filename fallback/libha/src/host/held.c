#include "host/held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/descriptor.h"
#include "host/door.h"
#include "host/runtime.h"

/* A longer name is cut into pieces, as PROTOCOL.md says. */
#define PIECE 200

/* Whether a byte stands for itself in a file's name, in whatever locale the program has chosen. */
static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_.-~", c));
}

int held_path(char path[PATH_MAX], const char *room, const char *name, size_t length, const char *end, bool make)
{
    char file[PATH_MAX];
    size_t used = 0, piece = 0;
    for (size_t i = 0; i < length; i++) {
        char encoded[4];
        snprintf(encoded, sizeof encoded, is_plain(name[i]) ? "%c" : "%%%02X", (unsigned char)name[i]);
        for (const char *c = encoded; *c; c++, piece++) {
            if (used + sizeof "+/c" + strlen(end) > sizeof file)
                return ENAMETOOLONG;
            if (piece == PIECE) {
                file[used++] = '+';
                file[used++] = '/';
                piece = 0;
            }
            file[used++] = *c;
        }
    }
    if (piece == 1 && used > 1 && file[used - 1] == '.' && !*end)
        strcpy(file + used - 1, "%2E"); /* Or it would be the directory itself. */
    else
        strcpy(file + used, end);
    return runtime_entry(path, room, file, make);
}

int held_make_directories(char *path)
{
    bool shared = runtime_is_shared();
    for (char *end = strstr(path + runtime_length(), "+/"); end; end = strstr(end + 2, "+/")) {
        end[1] = '\0';
        int error = door_make_own(path, shared);
        end[1] = '/';
        if (error)
            return error;
    }
    return 0;
}

/* Nothing that somebody has put in the place of a file makes its opening wait, or leads elsewhere. */
#define PLAINLY (O_NOFOLLOW | O_NONBLOCK)

/* Not made at once: where several may make files, hosts refuse that to root, too. */
static int open_or_make(const char *path)
{
    int fd = descriptor_open(AT_FDCWD, path, O_RDWR | PLAINLY, 0);
    return fd < 0 && errno == ENOENT ? descriptor_open(AT_FDCWD, path, O_RDWR | O_CREAT | PLAINLY, 0600) : fd;
}

int held_take(const char *path, int *fd)
{
    struct stat status, there;
    *fd = open_or_make(path);
    if (*fd < 0)
        return errno;
    int error = flock(*fd, LOCK_EX | LOCK_NB) ? errno : 0;
    if (!error && fstat(*fd, &status))
        error = errno;
    bool is_there = !error && !lstat(path, &there) && there.st_ino == status.st_ino && there.st_dev == status.st_dev;
    if (is_there && status.st_uid == geteuid() && status.st_nlink == 1)
        return 0;
    if (is_there && unlink(path)) /* Left by another user, or linked here from elsewhere. */
        error = EACCES;
    descriptor_close(*fd);
    *fd = -1;
    return error == EWOULDBLOCK ? EEXIST : error ? error : EAGAIN;
}

int held_write(int fd, const char *text)
{
    size_t length = strlen(text);
    errno = 0;
    if (!ftruncate(fd, 0) && pwrite(fd, text, length, 0) == (ssize_t)length)
        return 0;
    return errno ? errno : ENOSPC;
}

int held_show(const char *path, const char *text)
{
    return runtime_is_shared() ? door_show(path, text) : 0;
}

void held_remove(const char *path)
{
    door_hide(path);
    unlink(path);
}

static bool says(int fd, const char *text)
{
    char there[256];
    ssize_t length = pread(fd, there, sizeof there, 0);
    return length == (ssize_t)strlen(text) && !memcmp(there, text, (size_t)length);
}

void held_remove_left(const char *path, const char *text)
{
    struct stat status;
    int fd = descriptor_open(AT_FDCWD, path, O_RDWR | PLAINLY, 0);
    /* Locked only if it is the dead one's: whoever is refused because of our lock can see that. */
    if (fd >= 0 && says(fd, text) && !flock(fd, LOCK_EX | LOCK_NB) && !fstat(fd, &status) && status.st_nlink &&
        says(fd, text))
        held_remove(path);
    descriptor_close(fd);
}

int held_read(const char *path, char *text, size_t size, uid_t *owner)
{
    struct stat status;
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY | PLAINLY, 0);
    if (fd < 0)
        return errno == EACCES ? door_read_shown(path, text, size, owner) : errno;
    ssize_t length = read(fd, text, size - 1);
    int error = length < 0 || fstat(fd, &status) ? errno : 0;
    descriptor_close(fd);
    text[length < 0 ? 0 : length] = '\0';
    if (!error)
        *owner = status.st_uid;
    return error;
}

bool held_by_the_living(const char *path, bool remove)
{
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY | PLAINLY, 0);
    if (fd < 0)
        return errno == EACCES && door_shows(path); /* Another user's, whose lock cannot be tried. */
    bool living = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (!living && remove)
        held_remove(path);
    descriptor_close(fd);
    return living;
}
