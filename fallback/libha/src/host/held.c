#include "host/held.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/descriptor.h"
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
    for (char *end = strstr(path, "+/"); end; end = strstr(end + 2, "+/")) {
        end[1] = '\0';
        int error = mkdir(path, 0700) && errno != EEXIST ? errno : 0;
        end[1] = '/';
        if (error)
            return error;
    }
    return 0;
}

int held_take(const char *path, int *fd)
{
    struct stat status;
    *fd = descriptor_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600);
    if (*fd < 0)
        return errno;
    int error = flock(*fd, LOCK_EX | LOCK_NB) ? errno : 0;
    if (!error && !fstat(*fd, &status) && status.st_nlink > 0)
        return 0;
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

int held_read(const char *path, char *text, size_t size)
{
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return errno;
    ssize_t length = read(fd, text, size - 1);
    int error = length < 0 ? errno : 0;
    descriptor_close(fd);
    text[length < 0 ? 0 : length] = '\0';
    return error;
}

bool held_by_the_living(const char *path, bool remove)
{
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return false;
    bool living = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (!living && remove)
        unlink(path);
    descriptor_close(fd);
    return living;
}
