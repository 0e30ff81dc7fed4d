#include "server/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/said.h"
#include "ha_posix.h"
#include "host/clock.h"
#include "host/descriptor.h"
#include "host/thread.h"
#include "server/channel.h"
#include "server/client.h"
#include "server/heard.h"
#include "server/rcvid.h"
#include "server/server_lane.h"
#include "wire.h"

/* What a pipe of events is enlarged to, in bytes. */
#define EVENT_PIPE (1 << 20)
/* Without the mark that 7.x gives a sigevent of 64 bits, and without flags. */
#define EVENT_TYPE 0x7f
enum { EVENT_NONE = 0, EVENT_SIGNAL = 1, EVENT_SIGNAL_THREAD = 3, EVENT_PULSE = 4, EVENT_UNBLOCK = 5, EVENT_INTR = 6 };

static int check_connection(const struct client *client, int coid)
{
    unsigned char state = SAID_NO_CONNECTION;
    if (!client->said || coid < 0 || pread(heard_file(client->said), &state, 1, said_place(coid)) != 1)
        return ESRCH;
    return state == SAID_CONNECTION ? 0 : state == SAID_CHANNEL_GONE ? EBADF : ESRCH;
}

/* Makes the pipe through which a client gets its events. 0 or an errno. */
static int open_outlet(struct client *client)
{
    const struct lane_frame frame = {.kind = FRAME_EVENTS};
    int ends[2];
    if (descriptor_pipe(ends, O_NONBLOCK))
        return errno;
    fchmod(ends[0], 0666); /* A client of another user opens it anew. */
    int error = descriptor_pass(client->sock, &frame, sizeof frame, &ends[0], 1);
    descriptor_close(ends[0]);
    if (error) {
        descriptor_close(ends[1]);
        return error == EAGAIN || error == ETOOMANYREFS ? EAGAIN : ESRCH;
    }
    client->outlet = ends[1];
    return 0;
}

static int put(struct client *client, const struct pulse_frame *pulse)
{
    int error = client->outlet < 0 ? open_outlet(client) : 0;
    if (error)
        return error;
    for (bool is_large = false;;) {
        if (descriptor_write(client->outlet, pulse, sizeof *pulse) == sizeof *pulse)
            return 0;
        if (errno == EPIPE) {
            descriptor_close(client->outlet);
            client->outlet = -1;
            return ESRCH;
        }
        if (errno != EINTR && (errno != EAGAIN || is_large))
            return errno;
        if (errno == EAGAIN) {
            fcntl(client->outlet, F_SETPIPE_SZ, EVENT_PIPE);
            is_large = true;
        }
    }
}

static int deliver_pulse(struct client *client, const struct ha_posix_sigevent *event)
{
    const int priority = event->sigev_priority == SIGEV_PULSE_PRIO_INHERIT ? DEFAULT_PRIORITY
                                                                           : event->sigev_priority & 0xff;
    struct pulse_frame pulse = {
        .kind = FRAME_PULSE,
        .priority = (uint16_t)priority,
        .code = event->sigev_code,
        .coid = event->sigev_coid,
        .time = (uint64_t)clock_now(),
    };
    pulse_frame_carry(&pulse, event->sigev_value);
    int error = priority ? check_connection(client, event->sigev_coid) : EINVAL;
    return error ? error : put(client, &pulse);
}

static int deliver_signal(const struct client *client, int signo, int code)
{
    if (signo <= 0 || signo >= NSIG || code > 0)
        return EINVAL;
    if (client->who.pid <= 0)
        return ESRCH; /* It is in another PID namespace, and has no number here. */
    return kill(client->who.pid, signo) ? errno : 0;
}

/* To a thread that waits for the answer; for one in InterruptWait(), there is no such call here. */
static int deliver_to_thread(int rcvid, bool is_unblock)
{
    struct server_lane *lane = server_lane_of(rcvid);
    if (!lane)
        return ESRCH;
    if (is_unblock)
        server_lane_unblock(lane, ETIMEDOUT);
    server_lane_leave(lane);
    return 0;
}

/* The client of a message, with its channel entered; NULL if it has gone. */
static struct client *enter_client(int rcvid)
{
    int chid;
    if (!rcvid_client(rcvid, &chid))
        return NULL;
    struct channel *channel = channel_enter(chid);
    if (!channel)
        return NULL;
    struct client *client = rcvid_client(rcvid, &chid);
    if (client && client->channel == channel && !client->is_leaving && !client->has_left &&
        !descriptor_has_ended(client->sock))
        return client;
    channel_unlock(channel);
    return NULL;
}

int deliver_event(int rcvid, const struct ha_posix_sigevent *event)
{
    int kind = event->sigev_notify & EVENT_TYPE, error = 0;
    struct client *client = enter_client(rcvid);
    if (!client)
        return ESRCH;
    if (kind == EVENT_PULSE)
        error = deliver_pulse(client, event);
    else if (kind >= EVENT_SIGNAL && kind <= EVENT_SIGNAL_THREAD)
        error = deliver_signal(client, event->sigev_coid, kind == EVENT_SIGNAL ? 0 : event->sigev_code);
    else if (kind != EVENT_NONE && kind != EVENT_UNBLOCK && kind != EVENT_INTR)
        error = EINVAL;
    channel_unlock(client->channel);
    if (kind == EVENT_UNBLOCK || kind == EVENT_INTR)
        error = deliver_to_thread(rcvid, kind == EVENT_UNBLOCK);
    return error;
}
