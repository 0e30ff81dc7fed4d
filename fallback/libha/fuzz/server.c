/* libFuzzer's target: a channel that this process serves, and what up to three hostile clients say to it. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ha_posix.h"
#include "hostile.h"
#include "wire.h"

#define PEERS 3
#define HELD 6

struct attack {
    struct input input;
    int chid;
    struct sockaddr_un address;
    int trunks[PEERS];  /* -1: none */
    struct ends writes; /* near ends of what was passed: of pipes to the server */
    struct ends reads;  /* and from it */
    int rcvids[HELD];
    size_t held;
    int scoid; /* of whom was heard last */
};

/* The server, which this thread is in between. */

static bool receive_one(struct attack *attack)
{
    const uint64_t now = 0;
    char message[5000];
    struct _msg_info64 info;
    TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &now, NULL);
    int rcvid = MsgReceive_r(attack->chid, message, input_below(&attack->input, 2) ? sizeof message : 40, &info);
    if (rcvid == 0) {
        const struct _pulse *pulse = (const struct _pulse *)message;
        if (pulse->code == _PULSE_CODE_DISCONNECT)
            ConnectDetach(pulse->scoid); /* Or a client has made it up. */
        return true;
    }
    if (rcvid < 0)
        return false;
    attack->scoid = info.scoid;
    if (attack->held == HELD)
        MsgError(attack->rcvids[--attack->held], EBUSY);
    attack->rcvids[attack->held++] = rcvid;
    return true;
}

static void receive_all(struct attack *attack)
{
    for (int i = 0; i < 200 && receive_one(attack); i++)
        ;
}

static void answer_one(struct attack *attack)
{
    static char reply[70000];
    struct input *input = &attack->input;
    if (!attack->held)
        return;
    size_t place = input_below(input, (unsigned)attack->held);
    int rcvid = attack->rcvids[place];
    uint64_t size = input_number(input) % sizeof reply, offset = input_number(input) % 100000;
    char part[5000];
    struct _msg_info64 info;
    switch (input_below(input, 8)) {
    case 0:
        MsgRead(rcvid, part, size % sizeof part, offset);
        return;
    case 1:
        MsgWrite(rcvid, reply, size, offset);
        return;
    case 2:
        MsgInfo(rcvid, &info);
        return;
    case 3: {
        struct ha_posix_sigevent event;
        HA_POSIX_SIGEV_PULSE_INIT(&event, (int)(offset % 16), 10, 5, 6);
        MsgDeliverEvent(rcvid, &event);
        return;
    }
    case 4:
        MsgError(rcvid, (int)(size % 200));
        break;
    default:
        MsgReply(rcvid, (long)offset, reply, size);
    }
    attack->rcvids[place] = attack->rcvids[--attack->held];
}

/* The clients. */

static int trunk_of(struct attack *attack)
{
    return attack->trunks[input_below(&attack->input, PEERS)];
}

static void connect_one(struct attack *attack)
{
    struct input *input = &attack->input;
    unsigned place = input_below(input, PEERS);
    if (attack->trunks[place] >= 0)
        close(attack->trunks[place]);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    attack->trunks[place] = sock;
    if (connect(sock, (struct sockaddr *)&attack->address, sizeof attack->address))
        return;
    struct hello_frame hello = {.kind = FRAME_HELLO, .version = WIRE_VERSION, .magic = WIRE_MAGIC};
    int file = -1;
    if (!input_below(input, 4)) {
        file = hostile_descriptor(input, &attack->reads);
        hello.passes = file >= 0;
    }
    input_mutate(input, &hello, sizeof hello);
    hostile_send(sock, &hello, sizeof hello, &file, file >= 0);
    if (file >= 0)
        close(file);
}

/* A lane as it should be, but for what may be mutated. */
static void pass_lane(struct attack *attack)
{
    struct input *input = &attack->input;
    int sock = trunk_of(attack);
    if (sock < 0)
        return;
    struct lane_frame frame = {.kind = FRAME_LANE, .coid = 7};
    int fds[3] = {hostile_pipe(&attack->writes, false), hostile_pipe(&attack->reads, true), -1};
    size_t count = 2;
    if (!input_below(input, 2)) {
        fds[2] = memfd_create("window", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        frame.window = 1 + input_number(input) % (1 << 18);
        if (!ftruncate(fds[2], (off_t)frame.window) && input_below(input, 4))
            fcntl(fds[2], F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
        count = 3;
    }
    input_mutate(input, &frame, sizeof frame);
    hostile_send(sock, &frame, sizeof frame, fds, count);
    if (count == 3 && !input_below(input, 4) && ftruncate(fds[2], 0))
        errno = 0; /* Sealed. */
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

static void pass_pulses(struct attack *attack)
{
    const struct lane_frame frame = {.kind = FRAME_LANE, .carries = LANE_PULSES};
    int sock = trunk_of(attack), fd = hostile_pipe(&attack->writes, false);
    if (sock >= 0)
        hostile_send(sock, &frame, sizeof frame, &fd, 1);
    close(fd);
}

static void write_frame(struct attack *attack)
{
    struct input *input = &attack->input;
    uint8_t bytes[FRAME_MAX];
    size_t size;
    int fd = ends_pick(&attack->writes, input);
    memset(bytes, 'x', sizeof bytes);
    switch (input_below(input, 4)) {
    case 0: {
        static const uint16_t kinds[] = {FRAME_MESSAGE, FRAME_MESSAGE_TELL, FRAME_MESSAGE_EXPIRED, FRAME_UNBLOCK};
        struct message_frame frame = {.kind = kinds[input_below(input, 4)], .priority = 10, .tid = 1, .room = 64};
        frame.size = input_below(input, 100);
        input_mutate(input, &frame, sizeof frame);
        memcpy(bytes, &frame, sizeof frame);
        size = sizeof frame + (frame.size < INLINE_SIZE ? frame.size : INLINE_SIZE);
        break;
    }
    case 1: {
        struct message_frame frame = {.kind = FRAME_MESSAGE, .priority = 10, .tid = 1};
        frame.size = input_number(input);
        frame.room = input_number(input);
        memcpy(bytes, &frame, sizeof frame);
        size = sizeof frame;
        break;
    }
    case 2: {
        struct pulse_frame frame = {.kind = FRAME_PULSE, .priority = 10, .code = (int8_t)input_byte(input)};
        input_mutate(input, &frame, sizeof frame);
        size = sizeof frame * (1 + input_below(input, 20));
        for (size_t i = 0; i < size; i += sizeof frame)
            memcpy(bytes + i, &frame, sizeof frame);
        break;
    }
    default:
        size = input_below(input, 100);
        input_bytes(input, bytes, size);
    }
    if (fd >= 0)
        hostile_write(fd, bytes, size);
}

static void change_trunk(struct attack *attack)
{
    int sock = trunk_of(attack);
    if (sock >= 0)
        shutdown(sock, (int)input_below(&attack->input, 3));
}

static void change_end(struct attack *attack)
{
    struct input *input = &attack->input;
    int fd = ends_pick(input_below(input, 2) ? &attack->writes : &attack->reads, input);
    if (fd >= 0)
        fcntl(fd, F_SETPIPE_SZ, 4096);
}

static void step(struct attack *attack)
{
    struct input *input = &attack->input;
    int sock;
    switch (input_below(input, 16)) {
    case 0:
        connect_one(attack);
        break;
    case 1:
    case 2:
        pass_lane(attack);
        break;
    case 3:
        pass_pulses(attack);
        break;
    case 4:
    case 5:
    case 6:
        write_frame(attack);
        break;
    case 7:
        if ((sock = trunk_of(attack)) >= 0)
            hostile_trunk_frame(input, sock, &attack->reads);
        break;
    case 8:
        ends_close_one(input_below(input, 2) ? &attack->writes : &attack->reads, input);
        break;
    case 9:
        change_trunk(attack);
        break;
    case 10:
        change_end(attack);
        break;
    case 11:
        ends_drain(&attack->reads);
        break;
    case 12: {
        struct _client_info info;
        ConnectClientInfo(attack->scoid, &info, 8);
        break;
    }
    case 13:
        answer_one(attack);
        break;
    default:
        receive_one(attack);
    }
}

/* The address of the only channel there is. */
static void find_channel(struct sockaddr_un *address)
{
    char path[512];
    hostile_entry(path, "channels", "");
    DIR *directory = opendir(path);
    must(directory, "there is a room for channels");
    address->sun_family = AF_UNIX;
    *address->sun_path = '\0';
    for (struct dirent *found; (found = readdir(directory));)
        if (*found->d_name != '.')
            must((size_t)snprintf(address->sun_path, sizeof address->sun_path, "%s%s", path, found->d_name) <
                     sizeof address->sun_path,
                 "the path of a channel is short");
    closedir(directory);
    must(*address->sun_path, "the channel has a socket");
}

static void play(const uint8_t *data, size_t size)
{
    static const unsigned flags[] = {0, _NTO_CHF_UNBLOCK, _NTO_CHF_DISCONNECT, _NTO_CHF_UNBLOCK | _NTO_CHF_DISCONNECT};
    struct attack attack = {.input = {data, size}, .trunks = {-1, -1, -1}};
    attack.chid = ChannelCreate(flags[input_below(&attack.input, 4)]);
    must(attack.chid > 0, "ChannelCreate");
    find_channel(&attack.address);
    connect_one(&attack);
    receive_all(&attack);
    pass_lane(&attack);
    while (!input_is_over(&attack.input))
        step(&attack);
    receive_all(&attack);
    while (attack.held)
        MsgReply(attack.rcvids[--attack.held], 0, "end", 3);
    for (size_t i = 0; i < PEERS; i++)
        if (attack.trunks[i] >= 0)
            close(attack.trunks[i]);
    ends_close(&attack.writes);
    ends_close(&attack.reads);
    receive_all(&attack);
    must(!ChannelDestroy(attack.chid), "ChannelDestroy");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return hostile_leaks(play, data, size);
}
