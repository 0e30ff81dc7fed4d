#include "host/runtime.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/descriptor.h"

/* A longer path to a socket goes by /proc/self/fd, and a longer name is cut, as PROTOCOL.md says. */
#define SOCKET_PATH_LIMIT 100
#define NAME_PIECE 200
/* Each try but the first means that an owner has ended just then. */
#define CLAIM_TRIES 100
#define CHANNELS "channels"
#define NAMES "names"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX]; /* empty until it was found */
static bool swept;

/* $HA_QNX_RUNTIME, $XDG_RUNTIME_DIR/ha_qnx, or ha_qnx-UID in the temporary directory; absolute. */
static int find_root(char *path, size_t size)
{
    char given[PATH_MAX], here[PATH_MAX];
    const char *chosen = getenv("HA_QNX_RUNTIME"), *session = getenv("XDG_RUNTIME_DIR"), *temporary = getenv("TMPDIR");
    int length;
    if (chosen && *chosen) {
        length = snprintf(given, sizeof given, "%s", chosen);
    } else if (session && *session) {
        length = snprintf(given, sizeof given, "%s/ha_qnx", session);
    } else {
        struct stat status;
        if (!temporary || stat(temporary, &status) || !S_ISDIR(status.st_mode) || access(temporary, W_OK | X_OK))
            temporary = "/tmp";
        length = snprintf(given, sizeof given, "%s/ha_qnx-%lu", temporary, (unsigned long)getuid());
    }
    if (length >= (int)sizeof given)
        return ENAMETOOLONG;
    if (*given == '/')
        length = snprintf(path, size, "%s", given);
    else if (getcwd(here, sizeof here))
        length = snprintf(path, size, "%s/%s", here, given);
    else
        return errno;
    return length >= (int)size ? ENAMETOOLONG : 0;
}

/* Makes a directory, and those above it. */
static int make_directory(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int failed = mkdir(path, 0777) && errno != EEXIST && errno != EROFS && errno != EACCES;
        *slash = '/';
        if (failed)
            return errno;
    }
    return mkdir(path, 0700) && errno != EEXIST ? errno : 0;
}

static int check_root(const char *path)
{
    struct stat status;
    if (lstat(path, &status))
        return errno;
    if (!S_ISDIR(status.st_mode))
        return ENOTDIR;
    if (status.st_uid != geteuid() || status.st_mode & (S_IWGRP | S_IWOTH))
        return EPERM;
    return 0;
}

/* Makes a room of the runtime directory, and that, if they are not there. Under the lock. */
static int make_room(const char *room)
{
    char path[PATH_MAX + 16];
    int error = *root ? 0 : find_root(root, sizeof root);
    if (!error)
        error = make_directory(root);
    if (!error)
        error = check_root(root);
    if (error) {
        *root = '\0';
        return error;
    }
    snprintf(path, sizeof path, "%s/%s", root, room);
    return mkdir(path, 0700) && errno != EEXIST ? errno : 0;
}

/* The path of an entry in a room. */
static int find_entry(char path[PATH_MAX], const char *room, const char *entry)
{
    pthread_mutex_lock(&lock);
    int error = make_room(room);
    if (!error && snprintf(path, PATH_MAX, "%s/%s/%s", root, room, entry) >= PATH_MAX)
        error = ENAMETOOLONG;
    pthread_mutex_unlock(&lock);
    return error;
}

void address_format(char text[ADDRESS_SIZE], const struct address *address)
{
    snprintf(text, ADDRESS_SIZE, "%ld.%d.%s", (long)address->pid, address->chid, address->token);
}

bool address_parse(struct address *address, const char *text)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    long pid = strtol(text, &end, 10);
    if (errno || pid <= 0 || pid > INT_MAX || *end != '.' || !isdigit((unsigned char)end[1]))
        return false;
    long chid = strtol(end + 1, &end, 10);
    if (errno || chid <= 0 || chid > INT_MAX || *end != '.')
        return false;
    size_t length = strlen(++end);
    if (length != TOKEN_SIZE || strspn(end, "0123456789abcdef") != length)
        return false;
    address->pid = (pid_t)pid;
    address->chid = (int)chid;
    memcpy(address->token, end, TOKEN_SIZE + 1);
    return true;
}

void address_make(struct address *address, int chid)
{
    unsigned char bytes[TOKEN_SIZE / 2];
    random_bytes(bytes, sizeof bytes);
    address->pid = getpid();
    address->chid = chid;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(address->token + 2 * i, 3, "%02x", bytes[i]);
}

bool address_equal(const struct address *one, const struct address *other)
{
    return one->pid == other->pid && one->chid == other->chid && !strcmp(one->token, other->token);
}

/* The name of a channel's socket. */
struct socket_name {
    struct sockaddr_un name;
    int room; /* a descriptor that it needs; -1: none */
};

static int socket_name(struct socket_name *socket, const struct address *address)
{
    char text[ADDRESS_SIZE], path[PATH_MAX], room[PATH_MAX];
    address_format(text, address);
    *socket = (struct socket_name){.name.sun_family = AF_UNIX, .room = -1};
    int error = find_entry(path, CHANNELS, text);
    if (!error && strlen(path) > SOCKET_PATH_LIMIT) {
        error = find_entry(room, CHANNELS, ".");
        if (!error && (socket->room = descriptor_open(AT_FDCWD, room, O_RDONLY | O_DIRECTORY, 0)) < 0)
            error = errno;
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", socket->room, text);
    }
    if (!error)
        memcpy(socket->name.sun_path, path, strlen(path) + 1);
    return error;
}

static bool is_gone(pid_t pid)
{
    return kill(pid, 0) && errno == ESRCH;
}

/* Calls a function with the address of every socket, until it returns false. */
static int each_channel(bool (*function)(struct address *address, void *argument), void *argument)
{
    char path[PATH_MAX];
    int error = find_entry(path, CHANNELS, ".");
    int fd = error ? -1 : descriptor_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return error ? error : errno;
    DIR *directory = fdopendir(fd);
    if (!directory) {
        error = errno;
        descriptor_close(fd);
        return error;
    }
    descriptor_surrender(fd); /* closedir closes it. */
    bool more = true;
    for (struct dirent *entry; more && (entry = readdir(directory));) {
        struct address address;
        if (address_parse(&address, entry->d_name))
            more = function(&address, argument);
    }
    closedir(directory);
    return 0;
}

static bool sweep_one(struct address *address, void *argument)
{
    (void)argument;
    if (is_gone(address->pid))
        runtime_remove_channel(address);
    return true;
}

int runtime_listen(const struct address *address, int *listener)
{
    struct socket_name socket;
    int error = socket_name(&socket, address);
    pthread_mutex_lock(&lock);
    bool first = !swept;
    swept = true;
    pthread_mutex_unlock(&lock);
    if (!error && first)
        error = each_channel(sweep_one, NULL);
    *listener = error ? -1 : descriptor_socket(SOCK_STREAM | SOCK_NONBLOCK);
    if (!error && *listener < 0)
        error = errno;
    if (!error &&
        (bind(*listener, (struct sockaddr *)&socket.name, sizeof socket.name) || listen(*listener, INT_MAX))) {
        error = errno;
        descriptor_close(*listener);
        *listener = -1;
        runtime_remove_channel(address);
    }
    descriptor_close(socket.room);
    return error;
}

void runtime_remove_channel(const struct address *address)
{
    char text[ADDRESS_SIZE], path[PATH_MAX];
    address_format(text, address);
    if (!find_entry(path, CHANNELS, text))
        unlink(path);
}

static bool is_zombie(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    descriptor_close(fd);
    if (length < 0)
        return false;
    text[length] = '\0';
    const char *state = strrchr(text, ')'); /* The program's name may hold anything. */
    return state && state[1] == ' ' && (state[2] == 'Z' || state[2] == 'X');
}

struct attempt {
    struct address *wanted;
    int sock; /* -1: not connected */
    int error;
};

/* Tries one socket; false ends the search. */
static bool try_connect(struct address *found, void *argument)
{
    struct attempt *attempt = argument;
    struct socket_name socket;
    if (found->pid != attempt->wanted->pid || found->chid != attempt->wanted->chid)
        return true;
    int error = socket_name(&socket, found);
    int sock = error ? -1 : descriptor_socket(SOCK_STREAM | SOCK_NONBLOCK);
    if (!error && (sock < 0 || connect(sock, (struct sockaddr *)&socket.name, sizeof socket.name)))
        error = errno;
    descriptor_close(socket.room);
    if (!error) {
        *attempt->wanted = *found;
        attempt->sock = sock;
        return false;
    }
    descriptor_close(sock);
    if (error == ENOENT || error == ECONNREFUSED)
        return true;
    attempt->error = error;
    return false;
}

int runtime_connect(struct address *address, int *sock)
{
    struct attempt attempt = {.wanted = address, .sock = -1};
    struct address wanted = *address;
    int error = 0;
    if (*address->token)
        try_connect(&wanted, &attempt);
    else
        error = each_channel(try_connect, &attempt);
    if (!error)
        error = attempt.error;
    if (!error && attempt.sock < 0)
        error = is_zombie(address->pid) ? ENXIO : ESRCH;
    *sock = attempt.sock;
    return error;
}

bool name_is_valid(const char *name)
{
    if (!name || !*name)
        return false;
    for (;;) {
        size_t length = strcspn(name, "/");
        if (length == 0 || (length == 2 && !memcmp(name, "..", 2)))
            return false;
        name += length;
        if (!*name)
            return true;
        name++;
    }
}

/* Whether a byte stands for itself in the file of a name, in whatever locale the program has chosen. */
static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_.-~", c));
}

/*
 * The file of a name: the name, percent-encoded, in pieces that are not longer than what a host allows for a file. All
 * but the last are directories.
 */
static int find_name(char path[PATH_MAX], const char *name)
{
    char file[PATH_MAX];
    size_t used = 0, piece = 0;
    for (; *name; name++) {
        char encoded[4];
        snprintf(encoded, sizeof encoded, is_plain(*name) ? "%c" : "%%%02X", (unsigned char)*name);
        for (const char *c = encoded; *c; c++, piece++) {
            if (used + sizeof "+/c" > sizeof file)
                return ENAMETOOLONG;
            if (piece == NAME_PIECE) {
                file[used++] = '+';
                file[used++] = '/';
                piece = 0;
            }
            file[used++] = *c;
        }
    }
    file[used] = '\0';
    return find_entry(path, NAMES, file);
}

/* The directories of a name of several pieces. */
static int make_name_directories(char *path)
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

int runtime_claim_name(const char *name, const struct address *address, int *claim)
{
    char path[PATH_MAX], text[ADDRESS_SIZE];
    int error = find_name(path, name);
    if (!error)
        error = make_name_directories(path);
    if (error)
        return error;
    address_format(text, address);
    for (int i = 0; i < CLAIM_TRIES; i++) {
        struct stat status;
        int fd = descriptor_open(AT_FDCWD, path, O_RDWR | O_CREAT, 0600);
        if (fd < 0)
            return errno;
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            error = errno == EWOULDBLOCK ? EEXIST : errno;
            descriptor_close(fd);
            return error;
        }
        if (!fstat(fd, &status) && status.st_nlink > 0) {
            ssize_t length = (ssize_t)strlen(text);
            errno = 0;
            if (!ftruncate(fd, 0) && pwrite(fd, text, (size_t)length, 0) == length) {
                *claim = fd;
                return 0;
            }
            error = errno ? errno : ENOSPC;
            runtime_release_name(name, fd);
            return error;
        }
        descriptor_close(fd); /* Its last owner removed it between our open and our lock. */
    }
    return EEXIST;
}

void runtime_release_name(const char *name, int claim)
{
    char path[PATH_MAX];
    if (!find_name(path, name))
        unlink(path);
    descriptor_close(claim);
}

int runtime_find_name(const char *name, struct address *address)
{
    char path[PATH_MAX], text[256];
    int error = find_name(path, name);
    if (error)
        return error;
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return errno;
    ssize_t length = read(fd, text, sizeof text - 1);
    error = length < 0 ? errno : 0;
    descriptor_close(fd);
    if (error)
        return error == EISDIR ? ENOENT : error;
    text[length] = '\0';
    return address_parse(address, text) ? 0 : ENOENT;
}

void runtime_before_fork(void)
{
    pthread_mutex_lock(&lock);
}

void runtime_after_fork(void)
{
    pthread_mutex_unlock(&lock);
}
