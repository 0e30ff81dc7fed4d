#include "client/trunk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/said.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/signals.h"
#include "host/thread.h"
#include "host/wait.h"
#include "number.h"
#include "server/channel.h"
#include "server/deaths.h"

/* How often a connection looks for room in the backlog of a server that does not take its clients in, at last. */
#define BACKLOG_PAUSE (32 * CLOCK_MILLISECOND)
/* How long a lane is offered to a server that does not read. */
#define PASSING_LIMIT (30 * CLOCK_SECOND)
#define PASSING_PAUSE (2 * CLOCK_MILLISECOND)
#define PULSE_PIPE (1 << 20)
/* Not an errno: EAGAIN that is not to be tried again. */
#define REFUSED (-1)

static struct trunk *trunks;

/* A stream to a channel: handed over inside this process, else through the channel's socket. */
static int reach(struct address *address, int *sock)
{
    if (address->pid != getpid() || !channel_address(address->chid, address))
        return runtime_connect(address, sock);
    int ends[2];
    if (descriptor_socketpair(ends, SOCK_STREAM | SOCK_NONBLOCK))
        return errno;
    if (!channel_adopt(address, ends[1])) {
        descriptor_close(ends[0]);
        return ESRCH;
    }
    *sock = ends[0];
    return 0;
}

static bool serves(struct trunk *trunk, const struct address *address)
{
    return trunk->address.pid == address->pid && trunk->address.chid == address->chid &&
           (!*address->token || !strcmp(trunk->address.token, address->token)) && trunk_is_alive(trunk);
}

/* One that was made to be shared, if there is any; else that of a connection which wanted its own (B47). */
static struct trunk *find_trunk(const struct address *address)
{
    struct trunk *found = NULL;
    for (struct trunk *trunk = trunks; trunk && !(found && found->shared); trunk = trunk->next)
        if ((!found || trunk->shared) && serves(trunk, address))
            found = trunk;
    return found;
}

/* With what says which connections this process has; without, if the host passes no more: there are no events then. */
static bool say_hello(struct trunk *trunk)
{
    struct hello_frame hello = {.kind = FRAME_HELLO, .version = WIRE_VERSION, .magic = WIRE_MAGIC};
    int file = said_file();
    hello.passes = file >= 0;
    int error = descriptor_pass(trunk->sock, &hello, sizeof hello, &file, hello.passes);
    if (error == ETOOMANYREFS) {
        hello.passes = 0;
        error = descriptor_pass(trunk->sock, &hello, sizeof hello, NULL, 0);
    }
    return !error;
}

/* Nobody wants what came with a frame. */
static void drop_passed(struct trunk *trunk)
{
    if (trunk->passed > 0)
        descriptor_close(trunk->passed);
    trunk->passed = 0;
}

/* Closes what it has. Under the table's lock, what is watched of it is forgotten before. */
static void dispose(struct trunk *trunk)
{
    drop_passed(trunk);
    descriptor_close(trunk->inlet);
    descriptor_close(atomic_load(&trunk->pulses));
    descriptor_close(trunk->sock);
    pthread_mutex_destroy(&trunk->lock);
    free(trunk);
}

/*
 * Under the table's lock: a trunk to a channel, an existing one if `shared`. 0, or an errno; EAGAIN if the server's
 * backlog is full; REFUSED if it has no room.
 */
static int open_trunk(const struct address *address, bool shared, struct trunk **result)
{
    struct trunk *trunk = shared ? find_trunk(address) : NULL;
    if (trunk) {
        trunk_hold(trunk);
        *result = trunk;
        return 0;
    }
    trunk = calloc(1, sizeof *trunk);
    if (!trunk)
        return ENOMEM;
    trunk->address = *address;
    int error = reach(&trunk->address, &trunk->sock);
    if (error) {
        free(trunk);
        return error;
    }
    pthread_mutex_init(&trunk->lock, NULL);
    trunk->inlet = -1;
    atomic_init(&trunk->pulses, -1);
    if (!say_hello(trunk)) {
        error = trunk_refusal(trunk) ? REFUSED : ESRCH; /* Or the channel went between. */
        said_forget(trunk->inlet);
        dispose(trunk);
        return error;
    }
    said_watch(trunk, trunk->sock);
    trunk->shared = shared;
    trunk->references = 1;
    trunk->next = trunks;
    trunks = trunk;
    deaths_watch(&trunk->watch, trunk->sock);
    *result = trunk;
    return 0;
}

/* Looked at once a server was reached, so that it cannot have been ending before without being seen. */
static bool is_ending(const struct trunk *trunk)
{
    return trunk->address.pid != getpid() && process_is_ending(trunk->address.pid);
}

/* One try: 0, what the function returns, or an errno; *busy tells whether another one may find room. */
static int use_once(struct address *address, bool shared, int (*use_it)(struct trunk *, void *), void *argument,
                    bool *busy)
{
    struct trunk *trunk;
    table_lock();
    int error = open_trunk(address, shared, &trunk);
    *busy = error == EAGAIN;
    error = error == REFUSED ? EAGAIN : error;
    int outcome = error ? error : is_ending(trunk) ? ESRCH : use_it(trunk, argument);
    table_unlock();
    if (!error && outcome)
        trunk_release(trunk);
    return outcome;
}

int trunk_use(struct address *address, bool shared, int (*use_it)(struct trunk *, void *), void *argument)
{
    bool busy;
    int outcome = use_once(address, shared, use_it, argument, &busy);
    if (!busy)
        return outcome;
    struct timeout timeout = thread_armed_timeout(thread_self(), _NTO_TIMEOUT_SEND);
    struct held_signals held = {0};
    signals_hold_all(&held); /* So that none comes between two pauses, and is not noticed. */
    for (int64_t pause = CLOCK_MILLISECOND; busy; pause = pause < BACKLOG_PAUSE ? 2 * pause : pause) {
        int error = clock_now() >= timeout.deadline ? ETIMEDOUT : wait_a_while(pause, &held);
        outcome = error ? error : use_once(address, shared, use_it, argument, &busy);
        busy = busy && !error;
    }
    signals_release(&held);
    return outcome;
}

void trunk_hold(struct trunk *trunk)
{
    trunk->references++;
}

void trunk_release(struct trunk *trunk)
{
    table_lock();
    bool last = --trunk->references == 0;
    if (last) {
        struct trunk **link = &trunks;
        while (*link != trunk)
            link = &(*link)->next;
        *link = trunk->next;
        deaths_forget(&trunk->watch);
        said_forget(trunk->sock);
        said_forget(trunk->inlet);
    }
    table_unlock();
    if (!last)
        return;
    const struct address address = trunk->address;
    dispose(trunk);
    if (address.pid == getpid())
        channel_hear(&address); /* Perhaps nobody receives there, to notice it. */
}

static void close_inlet(struct trunk *trunk)
{
    said_forget(trunk->inlet);
    descriptor_close(trunk->inlet);
    trunk->inlet = -1;
}

/* Takes note of a pipe by which events come, or that it did not arrive for want of descriptors. */
static void take_inlet(struct trunk *trunk)
{
    int fd = trunk->passed;
    trunk->passed = 0;
    if (fd <= 0)
        return;
    if (!descriptor_is_stream(fd, O_RDONLY)) {
        descriptor_close(fd);
        return;
    }
    close_inlet(trunk);
    trunk->inlet = fd;
    said_watch(trunk, fd);
}

/* Takes note of a frame of the server's. Anything that is not expected ends the trunk. */
static void understand(struct trunk *trunk)
{
    struct welcome_frame welcome;
    struct refused_frame refused;
    memcpy(&welcome, trunk->news, sizeof welcome);
    memcpy(&refused, trunk->news, sizeof refused);
    trunk->news_length = 0;
    if (refused.kind == FRAME_REFUSED && refused.version == WIRE_VERSION && refused.reason > 0) {
        trunk->refusals++;
        trunk->refusal = refused.reason;
        return;
    }
    if (trunk->is_welcome && welcome.kind == FRAME_EVENTS) {
        take_inlet(trunk);
        return;
    }
    if (trunk->is_welcome || welcome.kind != FRAME_WELCOME || welcome.version != WIRE_VERSION) {
        atomic_store(&trunk->dead, true);
        return;
    }
    trunk->is_welcome = true;
    trunk->scoid = welcome.scoid;
    trunk->channel_flags = welcome.flags;
}

/* Under the trunk's lock; also of a server that is found to be gone: it may have said why before. */
static void read_news(struct trunk *trunk)
{
    for (;;) {
        int fd = 0;
        size_t count = 1;
        enum lost lost;
        ssize_t length = descriptor_receive(trunk->sock, trunk->news + trunk->news_length,
                                            TRUNK_FRAME - trunk->news_length, &fd, &count, &lost);
        if (length >= 0 && count) {
            drop_passed(trunk);
            trunk->passed = fd;
        }
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (length <= 0) {
            atomic_store(&trunk->dead, true);
            return;
        }
        trunk->news_length += (size_t)length;
        if (trunk->news_length == TRUNK_FRAME) {
            understand(trunk);
            drop_passed(trunk);
        }
    }
}

bool trunk_is_alive(struct trunk *trunk)
{
    pthread_mutex_lock(&trunk->lock);
    read_news(trunk);
    pthread_mutex_unlock(&trunk->lock);
    return !atomic_load(&trunk->dead);
}

int trunk_refusal(struct trunk *trunk)
{
    int reason = 0;
    pthread_mutex_lock(&trunk->lock);
    read_news(trunk);
    if (trunk->refusals && (!trunk->is_welcome || !atomic_load(&trunk->dead))) {
        reason = trunk->refusal;
        trunk->refusals -= trunk->is_welcome; /* One that was never welcome was refused all that it has asked for. */
    }
    pthread_mutex_unlock(&trunk->lock);
    return reason;
}

uint32_t trunk_channel_flags(struct trunk *trunk)
{
    pthread_mutex_lock(&trunk->lock);
    if (!trunk->is_welcome)
        read_news(trunk);
    uint32_t flags = trunk->channel_flags;
    pthread_mutex_unlock(&trunk->lock);
    return flags;
}

int trunk_scoid(struct trunk *trunk)
{
    pthread_mutex_lock(&trunk->lock);
    if (!trunk->is_welcome)
        read_news(trunk);
    int scoid = trunk->scoid;
    pthread_mutex_unlock(&trunk->lock);
    return scoid;
}

int trunk_pass(struct trunk *trunk, const struct lane_frame *frame, const int *ends, int count, int64_t deadline)
{
    int64_t limit = clock_now() + PASSING_LIMIT;
    struct thread *thread = thread_self();
    atomic_store(&thread->is_wanted_back, false);
    for (int i = 0; i < count; i++)
        fchmod(ends[i], 0666); /* A server of another user opens its pipes anew, which belong to who has made them. */
    for (;;) {
        if (atomic_load(&trunk->dead))
            return EBADF;
        int error = descriptor_pass(trunk->sock, frame, sizeof *frame, ends, (size_t)count);
        if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) {
            atomic_store(&trunk->dead, true);
            return EBADF;
        }
        if (error != EAGAIN && error != EWOULDBLOCK && error != ETOOMANYREFS && error != EINTR)
            return error;
        int64_t now = clock_now();
        if (atomic_load(&thread->is_wanted_back))
            return EINTR;
        if (now >= deadline)
            return ETIMEDOUT;
        if (now >= limit)
            return EAGAIN;
        /* A socket that is writable again does not tell that the host takes descriptors again: so look often. */
        struct timespec pause = clock_spec(PASSING_PAUSE < deadline - now ? PASSING_PAUSE : deadline - now);
        if (nanosleep(&pause, NULL) && errno == EINTR && !thread_goes_on())
            return EINTR;
    }
}

static bool has_pulses(struct trunk *trunk)
{
    return atomic_load(&trunk->pulses) >= 0 && !atomic_load(&trunk->pulses_refused);
}

/* Opens the lane that carries this client's pulses, unless there is one. Under the trunk's lock. */
static int open_pulses(struct trunk *trunk)
{
    const struct lane_frame frame = {.kind = FRAME_LANE, .carries = LANE_PULSES};
    int ends[2], refused = atomic_load(&trunk->pulses);
    if (has_pulses(trunk))
        return 0;
    if (descriptor_pipe(ends, O_NONBLOCK))
        return errno;
    /* A pulse waits for nobody: EAGAIN if the host takes no more. */
    int error = trunk_pass(trunk, &frame, &ends[0], 1, 0);
    descriptor_close(ends[0]);
    if (!error && (refused < 0 || !descriptor_is_still(refused))) {
        atomic_store(&trunk->pulses, ends[1]);
        atomic_store(&trunk->pulses_refused, false);
        return 0;
    }
    if (!error && dup3(ends[1], refused, O_CLOEXEC) < 0) /* Other threads may be about to use it. */
        error = errno;
    if (!error)
        descriptor_renew(refused);
    if (!error)
        atomic_store(&trunk->pulses_refused, false);
    descriptor_close(ends[1]);
    return error == ETIMEDOUT ? EAGAIN : error;
}

/* Makes the pipe that a thread has found full as large as it gets, unless another thread has. */
static void enlarge(struct trunk *trunk)
{
    pthread_mutex_lock(&trunk->lock);
    if (!trunk->pulses_enlarged)
        fcntl(atomic_load(&trunk->pulses), F_SETPIPE_SZ, PULSE_PIPE);
    trunk->pulses_enlarged = true;
    pthread_mutex_unlock(&trunk->lock);
}

/* What a pulse fails with that nobody reads. */
static int pulse_lost(struct trunk *trunk)
{
    int reason = trunk_refusal(trunk);
    if (reason)
        atomic_store(&trunk->pulses_refused, true);
    else
        atomic_store(&trunk->dead, true);
    return reason ? reason : EBADF;
}

int trunk_pulse(struct trunk *trunk, const struct pulse_frame *pulse)
{
    if (!has_pulses(trunk)) {
        pthread_mutex_lock(&trunk->lock);
        int error = open_pulses(trunk);
        pthread_mutex_unlock(&trunk->lock);
        if (error)
            return error == EBADF ? pulse_lost(trunk) : error;
    }
    for (bool is_large = false;;) {
        if (atomic_load(&trunk->dead))
            return EBADF;
        if (descriptor_write(atomic_load(&trunk->pulses), pulse, sizeof *pulse) == sizeof *pulse)
            return 0;
        if (errno == EPIPE)
            return pulse_lost(trunk);
        if (errno != EINTR && (errno != EAGAIN || is_large))
            return errno;
        if (errno == EAGAIN) {
            enlarge(trunk);
            is_large = true;
        }
    }
}

void trunk_watch_events(struct trunk *trunk)
{
    pthread_mutex_lock(&trunk->lock);
    if (!atomic_load(&trunk->dead))
        said_watch(trunk, trunk->sock);
    if (trunk->inlet >= 0)
        said_watch(trunk, trunk->inlet);
    pthread_mutex_unlock(&trunk->lock);
}

size_t trunk_take_events(struct trunk *trunk, struct pulse_frame *frames, size_t most)
{
    ssize_t length = 0;
    pthread_mutex_lock(&trunk->lock);
    read_news(trunk);
    if (trunk->inlet >= 0) {
        do
            length = descriptor_read(trunk->inlet, descriptor_is_socket(trunk->inlet), frames, most * sizeof *frames);
        while (length < 0 && errno == EINTR);
        if (!length || (length < 0 && errno != EAGAIN && errno != EWOULDBLOCK))
            close_inlet(trunk);
    }
    if (atomic_load(&trunk->dead))
        said_forget(trunk->sock);
    pthread_mutex_unlock(&trunk->lock);
    return length > 0 ? (size_t)length / sizeof *frames : 0;
}

void trunk_each(void (*function)(struct trunk *, void *), void *argument)
{
    for (struct trunk *trunk = trunks; trunk; trunk = trunk->next)
        function(trunk, argument);
}

void trunk_watch_all(void)
{
    for (struct trunk *trunk = trunks; trunk; trunk = trunk->next)
        if (trunk_is_alive(trunk))
            deaths_watch(&trunk->watch, trunk->sock);
}

void trunk_forget_all(void)
{
    for (struct trunk *trunk = trunks; trunk; trunk = trunk->next)
        deaths_forget(&trunk->watch);
}

void trunk_hear_all(void)
{
    for (struct trunk *trunk = trunks; trunk; trunk = trunk->next)
        trunk_is_alive(trunk);
}

void trunk_after_fork_in_child(void)
{
    static struct trunk *of_parents;
    /* What the parent's threads may have been using is only put aside. */
    for (struct trunk *trunk = trunks; trunk; trunk = trunks) {
        trunks = trunk->next;
        trunk->next = of_parents;
        of_parents = trunk;
    }
}
