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
#include "host/door.h"

/* A longer path to a socket goes by /proc/self/fd, as PROTOCOL.md says. */
#define SOCKET_PATH_LIMIT 100
#define CHANNELS "channels"
/* What is here is for processes that speak this version of the wire (wire.h). */
#define VERSION_ROOM "wire-3"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];    /* empty until it was found */
static bool shared;            /* it was set up for several users */
static char entered[PATH_MAX]; /* where the first channel was entered */
static bool swept;
static int keeping = -1; /* has the directory locked */

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

/* Sees to a directory of a private runtime directory. Under the lock. */
static int find_directory(const char *path, bool make)
{
    if (make && mkdir(path, 0700) && errno != EEXIST)
        return errno;
    int error = door_check_private(path);
    return error == ENOENT && !make ? 0 : error;
}

/* The same for the runtime directory, what lies in it for this version, and a room; ENOENT if it is not there. */
static int find_private(const char *own, const char *room, bool make)
{
    int error = make ? make_directory(root) : 0;
    if (!error)
        error = door_check_private(root);
    if (!error)
        error = find_directory(own, make);
    return error ? error : find_directory(room, make);
}

/* One for several users is there, or somebody has yet to set it up. */
static int find_shared(const char *own, const char *room)
{
    int error = shared ? 0 : door_check_shared(root); /* What is above it, once. */
    if (!error)
        error = door_check_part(root, own, false);
    return error ? error : door_check_part(root, room, true);
}

/* Finds the runtime directory, and a room in it. Under the lock. */
static int find_room(const char *room, bool make)
{
    char own[PATH_MAX + 32], path[PATH_MAX + 64];
    bool is_shared;
    int error = *root ? 0 : find_root(root, sizeof root);
    snprintf(own, sizeof own, "%s/" VERSION_ROOM, root);
    snprintf(path, sizeof path, "%s/%s", own, room);
    if (!error)
        error = door_is_shared(root, own, &is_shared);
    if (!error)
        error = is_shared ? find_shared(own, path) : find_private(own, path, make);
    shared = !error && is_shared;
    if (error)
        *root = '\0';
    return error;
}

int runtime_entry(char path[PATH_MAX], const char *room, const char *entry, bool make)
{
    pthread_mutex_lock(&lock);
    int error = find_room(room, make);
    if (!error && snprintf(path, PATH_MAX, "%s/" VERSION_ROOM "/%s/%s", root, room, entry) >= PATH_MAX)
        error = ENAMETOOLONG;
    pthread_mutex_unlock(&lock);
    return error;
}

size_t runtime_length(void)
{
    pthread_mutex_lock(&lock);
    size_t length = strlen(root);
    pthread_mutex_unlock(&lock);
    return length;
}

bool runtime_is_shared(void)
{
    pthread_mutex_lock(&lock);
    bool is_shared = shared;
    pthread_mutex_unlock(&lock);
    return is_shared;
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
    int error = runtime_entry(path, CHANNELS, text, true);
    if (!error && strlen(path) > SOCKET_PATH_LIMIT) {
        error = runtime_entry(room, CHANNELS, ".", true);
        if (!error && (socket->room = descriptor_open(AT_FDCWD, room, O_RDONLY | O_DIRECTORY, 0)) < 0)
            error = errno;
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", socket->room, text);
    }
    if (!error)
        memcpy(socket->name.sun_path, path, strlen(path) + 1);
    return error;
}

bool process_is_gone(pid_t pid)
{
    return kill(pid, 0) && errno == ESRCH;
}

int process_check_own(pid_t pid)
{
    if (!pid || pid == getpid())
        return 0;
    return pid > 0 && !process_is_gone(pid) ? EPERM : ESRCH;
}

/* Of the fields of /proc/PID/stat, which begin to count behind the program's name. */
enum { STATE = 3, FLAGS = 9, THREADS = 20, PENDING_SIGNALS = 31, EXIT_CODE = 52 };
#define EXITING 0x4 /* in FLAGS */

/*
 * Whether SIGKILL waits for a process as a whole: between the moment at which a thread takes it and the thread's exit,
 * nothing else shows that.
 */
static bool was_killed(pid_t pid)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    descriptor_close(fd);
    if (length < 0)
        return process_is_gone(pid);
    text[length] = '\0';
    char *pending = strstr(text, "\nShdPnd:");
    return pending && strtoull(pending + strlen("\nShdPnd:"), NULL, 16) & 1ull << (SIGKILL - 1);
}

/* What the host says of a process or a thread: its state, 0 if it is gone, and the numbers that follow. */
static char read_stat(const char *path, unsigned long fields[EXIT_CODE + 1])
{
    char text[1024];
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY, 0);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    descriptor_close(fd);
    if (length < 0)
        return 0;
    text[length] = '\0';
    char *place = strrchr(text, ')'); /* The program's name may hold anything. */
    if (!place || place[1] != ' ')
        return 0;
    char state = place[2];
    place += 3;
    for (int i = STATE + 1; i <= EXIT_CODE; i++)
        fields[i] = strtoul(place, &place, 10);
    return state;
}

struct threads {
    char directory[64];
    bool all_end, any_runs;
};

static bool with_thread(const char *entry, void *argument)
{
    struct threads *threads = argument;
    char path[PATH_MAX];
    unsigned long fields[EXIT_CODE + 1] = {0};
    snprintf(path, sizeof path, "%s/%s/stat", threads->directory, entry);
    char state = *entry == '.' ? 0 : read_stat(path, fields);
    if (state && !(fields[FLAGS] & EXITING))
        threads->all_end = false;
    if (state == 'R')
        threads->any_runs = true;
    return true;
}

static struct threads look_at_threads(pid_t pid)
{
    struct threads threads = {.all_end = true};
    snprintf(threads.directory, sizeof threads.directory, "/proc/%ld/task", (long)pid);
    if (runtime_each(threads.directory, with_thread, &threads))
        threads.all_end = false;
    return threads;
}

bool process_is_busy(pid_t pid)
{
    return look_at_threads(pid).any_runs;
}

bool process_is_ending(pid_t pid)
{
    char path[64];
    unsigned long fields[EXIT_CODE + 1] = {0};
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    char state = read_stat(path, fields);
    if (!state)
        return process_is_gone(pid);
    /* From the moment on that it is killed; of one that is stopped, the last one says by what. */
    if (fields[PENDING_SIGNALS] & 1ul << (SIGKILL - 1) || (fields[EXIT_CODE] && state != 'T' && state != 't'))
        return true;
    /* A first thread that has ended by itself leaves the others at work. */
    return (fields[FLAGS] & EXITING && (fields[THREADS] <= 1 || look_at_threads(pid).all_end)) || was_killed(pid);
}

int runtime_each(const char *path, bool (*function)(const char *entry, void *argument), void *argument)
{
    int fd = descriptor_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return errno;
    DIR *directory = fdopendir(fd);
    if (!directory) {
        int error = errno;
        descriptor_close(fd);
        return error;
    }
    descriptor_surrender(fd); /* closedir closes it. */
    bool more = true;
    for (struct dirent *entry; more && (entry = readdir(directory));)
        more = function(entry->d_name, argument);
    closedir(directory);
    return 0;
}

struct each_channel {
    bool (*function)(struct address *address, void *argument);
    void *argument;
};

static bool with_address(const char *entry, void *argument)
{
    const struct each_channel *each = argument;
    struct address address;
    return !address_parse(&address, entry) || each->function(&address, each->argument);
}

/* Calls a function with the address of every socket, until it returns false. */
static int each_channel(bool (*function)(struct address *address, void *argument), void *argument)
{
    struct each_channel each = {function, argument};
    char path[PATH_MAX];
    int error = runtime_entry(path, CHANNELS, ".", true);
    return error ? error : runtime_each(path, with_address, &each);
}

/* Removes the socket of a process that is gone; one of another PID namespace has no number here, but listens. */
static bool sweep_one(struct address *address, void *argument)
{
    struct address listening = *address;
    int sock;
    (void)argument;
    if (!process_is_gone(address->pid))
        return true;
    if (runtime_connect(&listening, &sock) == ESRCH)
        runtime_remove_channel(address);
    descriptor_close(sock);
    return true;
}

static int entry_of(const char *path, struct entry *entry)
{
    struct stat status;
    if (lstat(path, &status))
        return errno;
    *entry = (struct entry){status.st_dev, status.st_ino};
    return 0;
}

int runtime_listen(const struct address *address, int *listener, struct entry *entry)
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
    if (!error && (bind(*listener, (struct sockaddr *)&socket.name, sizeof socket.name) ||
                   /* Who cannot enter the directory cannot connect. */
                   (runtime_is_shared() && chmod(socket.name.sun_path, 0666)) || listen(*listener, INT_MAX)))
        error = errno;
    if (!error)
        error = entry_of(socket.name.sun_path, entry);
    pthread_mutex_lock(&lock);
    if (!error && !*entered)
        strcpy(entered, root);
    pthread_mutex_unlock(&lock);
    if (error && *listener >= 0) {
        descriptor_close(*listener);
        *listener = -1;
        runtime_remove_channel(address);
    }
    descriptor_close(socket.room);
    return error;
}

bool runtime_is_where_it_was(void)
{
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    bool is_there = !find_root(path, sizeof path) && !strcmp(path, entered);
    pthread_mutex_unlock(&lock);
    return is_there;
}

bool runtime_has_channel(const struct address *address, const struct entry *entry)
{
    char text[ADDRESS_SIZE], path[PATH_MAX];
    struct entry there = {0};
    address_format(text, address);
    return !runtime_entry(path, CHANNELS, text, false) && !entry_of(path, &there) && there.device == entry->device &&
           there.number == entry->number;
}

bool runtime_has_file(const char *path, int fd)
{
    struct stat own, there;
    return !fstat(fd, &own) && !lstat(path, &there) && own.st_ino == there.st_ino && own.st_dev == there.st_dev;
}

void runtime_keep(void)
{
    pthread_mutex_lock(&lock);
    if (*root && !(keeping >= 0 && runtime_has_file(root, keeping))) {
        descriptor_close(keeping);
        keeping = descriptor_open(AT_FDCWD, root, O_RDONLY | O_DIRECTORY, 0);
        if (keeping >= 0)
            flock(keeping, LOCK_SH | LOCK_NB);
    }
    pthread_mutex_unlock(&lock);
}

void runtime_tell(const char *what, int error, bool *is_lost)
{
    char directory[PATH_MAX] = "";
    bool is_known = error && *is_lost;
    *is_lost = error;
    if (is_known)
        return;
    find_root(directory, sizeof directory);
    if (error)
        dprintf(STDERR_FILENO, "%s was removed from %s, and cannot be found: %s\n", what, directory, strerror(error));
    else
        dprintf(STDERR_FILENO, "%s was removed from %s, and is there again\n", what, directory);
}

void runtime_remove_channel(const struct address *address)
{
    char text[ADDRESS_SIZE], path[PATH_MAX];
    address_format(text, address);
    if (!runtime_entry(path, CHANNELS, text, true))
        unlink(path);
}

bool runtime_is_of(uid_t owner, const struct address *address)
{
    char text[ADDRESS_SIZE], path[PATH_MAX];
    struct stat status;
    address_format(text, address);
    return runtime_entry(path, CHANNELS, text, false) || lstat(path, &status) || status.st_uid == owner;
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
    if (!error && runtime_is_shared() && !door_is_who_it_should_be(sock, found->pid))
        error = ECONNREFUSED;
    if (!error) {
        attempt->error = 0;
        *attempt->wanted = *found;
        attempt->sock = sock;
        return false;
    }
    descriptor_close(sock);
    if (error == ENOENT || error == ECONNREFUSED)
        return true;
    attempt->error = error;
    return error == EAGAIN; /* Of a socket that somebody else may have made under these numbers. */
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
        error = ESRCH;
    *sock = attempt.sock;
    return error;
}

void runtime_before_fork(void)
{
    pthread_mutex_lock(&lock);
}

void runtime_after_fork_in_child(void)
{
    keeping = -1;
}

void runtime_after_fork(void)
{
    pthread_mutex_unlock(&lock);
}
