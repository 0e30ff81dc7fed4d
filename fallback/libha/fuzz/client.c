/* libFuzzer's target: connections of this process to a hostile server, which is a thread of it with a socket of its own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

/* The channel that it claims to have; none of this process has such a number. */
#define CHID 4000
#define COIDS 3
#define MILLISECOND UINT64_C(1000000)

struct server {
    struct input input;
    int trunk;          /* -1: none */
    struct ends writes; /* to write answers and events to */
    struct ends reads;  /* what messages lie in, and near ends of other things that were passed */
    struct ends windows;
};

static int listener, own_chid;

/* The server, which never waits for more than a millisecond, and ends when its input does. */

static bool comes(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&entry, 1, 1) > 0;
}

static void accept_one(struct server *server)
{
    if (!comes(listener))
        return;
    if (server->trunk >= 0)
        close(server->trunk);
    server->trunk = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Reads what the client says, and keeps what it passes. */
static void hear(struct server *server)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(16 * sizeof(int))];
    } control;
    char frame[TRUNK_FRAME];
    struct iovec part = {frame, sizeof frame};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int fds[16];
    if (!comes(server->trunk) || recvmsg(server->trunk, &message, MSG_CMSG_CLOEXEC) <= 0)
        return;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    size_t count = header ? (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds : 0;
    if (count)
        memcpy(fds, CMSG_DATA(header), count * sizeof *fds);
    struct ends *const places[] = {&server->reads, &server->writes, &server->windows};
    for (size_t i = 0; i < count; i++)
        ends_add(places[i < 2 ? i : 2], fds[i]);
}

static void welcome(struct server *server)
{
    struct input *input = &server->input;
    struct welcome_frame frame = {.kind = FRAME_WELCOME, .version = WIRE_VERSION, .scoid = _NTO_SIDE_CHANNEL | 5};
    frame.flags = input_byte(input);
    input_mutate(input, &frame, sizeof frame);
    hostile_send(server->trunk, &frame, sizeof frame, NULL, 0);
}

static void refuse(struct server *server)
{
    const struct refused_frame frame = {
        .kind = FRAME_REFUSED, .version = WIRE_VERSION, .reason = (int32_t)input_number(&server->input)};
    hostile_send(server->trunk, &frame, sizeof frame, NULL, 0);
}

static void answer(struct server *server)
{
    static const uint16_t kinds[] = {FRAME_REPLY, FRAME_ERROR, FRAME_WRITE, FRAME_RECEIVED, FRAME_RECEIVED + 1};
    struct input *input = &server->input;
    uint8_t bytes[FRAME_MAX];
    struct answer_frame frame = {.kind = kinds[input_below(input, 5)]};
    if (frame.kind == FRAME_ERROR)
        frame.error = (int32_t)input_number(input);
    if (frame.kind == FRAME_WRITE)
        frame.status = input_below(input, 100);
    if (frame.kind == FRAME_WRITE || frame.kind == FRAME_REPLY)
        frame.length = input_below(input, 64);
    input_mutate(input, &frame, sizeof frame);
    memset(bytes, 'y', sizeof bytes);
    memcpy(bytes, &frame, sizeof frame);
    size_t size = frame.length < INLINE_PIECE ? sizeof frame + frame.length : sizeof frame;
    if (!input_below(input, 8))
        size = input_below(input, 100);
    int fd = ends_pick(&server->writes, input);
    if (fd >= 0)
        hostile_write(fd, bytes, size);
}

static void pass_events(struct server *server)
{
    struct input *input = &server->input;
    struct refused_frame frame = {.kind = FRAME_EVENTS};
    int fd = input_below(input, 8) ? hostile_pipe(&server->writes, false) : hostile_descriptor(input, &server->writes);
    input_mutate(input, &frame, sizeof frame);
    hostile_send(server->trunk, &frame, sizeof frame, &fd, fd >= 0);
    close(fd);
}

static void write_events(struct server *server)
{
    struct input *input = &server->input;
    struct pulse_frame frame = {
        .kind = FRAME_PULSE, .priority = 10, .code = 5, .coid = (int32_t)input_below(input, 16)};
    uint8_t bytes[20 * sizeof frame];
    size_t size = sizeof frame * (1 + input_below(input, 20));
    input_mutate(input, &frame, sizeof frame);
    for (size_t i = 0; i < size; i += sizeof frame)
        memcpy(bytes + i, &frame, sizeof frame);
    int fd = ends_pick(&server->writes, input);
    if (fd >= 0)
        hostile_write(fd, bytes, input_below(input, 8) ? size : size - 5);
}

static void change_window(struct server *server)
{
    int fd = ends_pick(&server->windows, &server->input);
    static const char bytes[4096] = "changed";
    if (fd >= 0 && (ftruncate(fd, 0) || pwrite(fd, bytes, sizeof bytes, 0) < 0))
        errno = 0; /* It is sealed, or too small. */
}

static void serve_step(struct server *server)
{
    struct input *input = &server->input;
    struct ends *const all[] = {&server->writes, &server->reads, &server->windows};
    switch (input_below(input, 16)) {
    case 0:
        accept_one(server);
        break;
    case 1:
        welcome(server);
        break;
    case 2:
        refuse(server);
        break;
    case 3:
    case 4:
        hear(server);
        break;
    case 5:
    case 6:
    case 7:
        answer(server);
        break;
    case 8:
        pass_events(server);
        break;
    case 9:
        write_events(server);
        break;
    case 10:
        if (server->trunk >= 0)
            hostile_trunk_frame(input, server->trunk, &server->writes);
        break;
    case 11:
        ends_close_one(all[input_below(input, 3)], input);
        break;
    case 12:
        change_window(server);
        break;
    case 13:
        ends_drain(&server->reads);
        break;
    case 14:
        if (server->trunk >= 0)
            shutdown(server->trunk, (int)input_below(input, 3));
        break;
    default:
        comes(ends_pick(&server->reads, input));
    }
}

static void *serve(void *argument)
{
    struct server *server = argument;
    accept_one(server);
    if (server->trunk >= 0) {
        welcome(server);
        hear(server);
        hear(server);
    }
    while (!input_is_over(&server->input))
        serve_step(server);
    if (server->trunk >= 0)
        close(server->trunk);
    ends_close(&server->writes);
    ends_close(&server->reads);
    ends_close(&server->windows);
    return NULL;
}

/* The client. */

static void limit(uint64_t time)
{
    TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_SEND | _NTO_TIMEOUT_REPLY | _NTO_TIMEOUT_RECEIVE, NULL, &time, NULL);
}

static void send_one(struct input *input, int coid)
{
    static const size_t sizes[] = {0, 5, 4064, 4065, 40000, 200000};
    static char message[200000], reply[200000 + 8];
    size_t size = sizes[input_below(input, 6)], room = sizes[input_below(input, 6)];
    memcpy(reply + room, "guarded", 8);
    limit(2 * MILLISECOND);
    MsgSend(coid, message, size, reply, room);
    must(!memcmp(reply + room, "guarded", 8), "a reply has no more than its room");
}

static void call(struct input *input, int coids[COIDS])
{
    struct _msg_info64 info;
    char message[64];
    int *coid = &coids[input_below(input, COIDS)];
    switch (input_below(input, 8)) {
    case 0:
        if (*coid >= 0)
            ConnectDetach(*coid);
        *coid = ConnectAttach(0, getpid(), CHID, 0, 0);
        break;
    case 1:
        MsgSendPulse(*coid, 10, input_below(input, 100), 5);
        break;
    case 2:
        ConnectServerInfo(0, *coid, &info);
        break;
    case 3:
        limit(0);
        MsgReceive(own_chid, message, sizeof message, NULL);
        break;
    case 4:
        limit(MILLISECOND);
        MsgReceive(own_chid, message, sizeof message, NULL);
        break;
    default:
        send_one(input, *coid);
    }
}

/* What has connected, and was not taken in. */
static void empty_backlog(void)
{
    for (int sock; (sock = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;)
        close(sock);
}

static void play(const uint8_t *data, size_t size)
{
    size_t calls = size < 4 ? size : 4 + (size - 4) / 8;
    struct input input = {data, calls};
    struct server server = {.input = {data + calls, size - calls}, .trunk = -1};
    int coids[COIDS] = {-1, -1, -1};
    pthread_t thread;
    must(!pthread_create(&thread, NULL, serve, &server), "pthread_create");
    coids[0] = ConnectAttach(0, getpid(), CHID, 0, 0);
    if (coids[0] >= 0)
        send_one(&input, coids[0]);
    while (!input_is_over(&input))
        call(&input, coids);
    must(!pthread_join(thread, NULL), "pthread_join");
    for (size_t i = 0; i < COIDS; i++)
        if (coids[i] >= 0)
            ConnectDetach(coids[i]);
    empty_backlog();
    limit(0);
    MsgReceive(own_chid, &size, sizeof size, NULL);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char path[512], entry[64];
    own_chid = ChannelCreate(0);
    must(own_chid > 0, "ChannelCreate");
    snprintf(entry, sizeof entry, "%d.%d.0123456789abcdef", (int)getpid(), CHID);
    hostile_entry(path, "channels", entry);
    must(strlen(path) < sizeof name.sun_path, "the path of a channel is short");
    memcpy(name.sun_path, path, strlen(path) + 1);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    must(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 1024), "bind");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return hostile_leaks(play, data, size);
}
