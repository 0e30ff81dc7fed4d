/* Servers that are just dying, and clients that break the rules of the wire: they cost others nothing. */
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "passing.h"

#define NAME "dying"
#define PATH "/dev/" NAME
#define TOKEN "0123456789abcdef"
#define FRAME 32
/* Frames of the wire. */
enum { HELLO = 1, WELCOME, REFUSED, LANE, MESSAGE = 16 };

/* A path in the runtime directory. */
static const char *entry(char path[512], const char *room, const char *name)
{
    snprintf(path, 512, "%s/wire-3/%s/%s", getenv("HA_QNX_RUNTIME"), room, name);
    return path;
}

static void take_file(const char *path, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0 && !flock(fd, LOCK_EX) && !ftruncate(fd, 0) &&
          write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* A socket with the address of a channel's. */
static struct sockaddr_un socket_named(const char *address)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    char path[512];
    CHECK(strlen(entry(path, "channels", address)) < sizeof name.sun_path);
    memcpy(name.sun_path, path, strlen(path) + 1);
    return name;
}

/* Servers. */

struct frame {
    uint16_t kind, second;
    int32_t number;
    uint64_t more[3];
};

/* A process that has a name and a path, and closes whatever connects to it, at once or soon after. */
static struct server start_closing_server(const struct frame *last_word)
{
    int ends[2], chid = ChannelCreate(0), pass = 0;
    char path[512], address[64];
    name_attach_t *attached = name_attach(NULL, "another", 0);
    dispatch_t *dispatch = dispatch_create_channel(chid, 0);
    /* So that the directories are there. */
    CHECK(attached && !name_detach(attached, 0) && !ChannelDestroy(chid) && !pipe(ends));
    (void)dispatch;
    struct server server = {.pid = fork(), .chid = 1};
    CHECK(server.pid >= 0);
    if (server.pid) {
        CHECK(read(ends[0], path, 1) == 1);
        return server;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(address, sizeof address, "%d.1." TOKEN, (int)getpid());
    struct sockaddr_un name = socket_named(address);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 100));
    take_file(entry(path, "names", NAME), address);
    mkdir(entry(path, "paths", ""), 0700);
    CHECK(!mkdir(entry(path, "paths", "%2Fdev%2F" NAME "="), 0700) || errno == EEXIST);
    char file[128], line[128];
    snprintf(file, sizeof file, "%%2Fdev%%2F" NAME "=/%020d.%d.0", 1, (int)getpid());
    snprintf(line, sizeof line, "%s -1 0", address);
    take_file(entry(path, "paths", file), line);
    CHECK(write(ends[1], "x", 1) == 1);
    for (;;) {
        int sock = accept(listener, NULL, NULL);
        if (++pass % 3 == 0)
            check_pause();
        if (last_word)
            send(sock, last_word, FRAME, MSG_NOSIGNAL); /* The client may have gone already. */
        close(sock);
    }
}

static struct server start_dying_server(void)
{
    return start_closing_server(NULL);
}

/* A server that has no room says so, and is not lost; the connection is dead then. */
static void a_server_without_room(void)
{
    const struct frame refused = {REFUSED, 3, EAGAIN, {0}};
    struct server full = start_closing_server(&refused);
    for (int i = 0; i < 100; i++) {
        int coid = ConnectAttach(0, full.pid, full.chid, 0, 0);
        CHECK(coid >= 0 || errno == EAGAIN);
        if (coid >= 0 && i % 2)
            CHECK_FAILS(MsgSend(coid, "x", 1, NULL, 0), EAGAIN);
        else if (coid >= 0)
            CHECK(!MsgSendPulse(coid, 10, 1, 1) || errno == EAGAIN);
        CHECK(coid < 0 || !ConnectDetach(coid));
        CHECK_FAILS(ha_posix_open(PATH, O_RDWR), EAGAIN);
    }
}

static int give_up(int coid, void *handle)
{
    (void)coid;
    (void)handle;
    return -1;
}

/* What meets a dying server says what one says that meets none, so that it is waited for: EBADF would be final. */
static void a_server_that_is_dying(void)
{
    struct server server = start_dying_server();
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0), fd;
    for (int i = 0; i < 100; i++) {
        CHECK(ha_posix_open(PATH, O_RDWR) < 0 && (errno == ESRCH || errno == ENOENT));
        CHECK(ha_open(PATH, O_RDWR, give_up, NULL, 0) < 0 && (errno == ESRCH || errno == ENOENT));
        CHECK(ha_reopen(coid, PATH, O_RDWR) < 0 && (errno == ESRCH || errno == ENOENT));
        fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
        CHECK(fd >= 0 ? !ConnectDetach(fd) : errno == ESRCH);
        fd = name_open(NAME, 0);
        CHECK(fd >= 0 ? !name_close(fd) : errno == ESRCH);
        CHECK(!setenv("HA_QNX_GNS", "1", 1));
        CHECK(name_open(NAME, 0) < 0 && errno == ESRCH);
        CHECK(!unsetenv("HA_QNX_GNS"));
    }
    kill_server(&server);
    CHECK_FAILS(ha_reopen(coid, PATH, O_RDWR), ENOENT);
    CHECK_FAILS(name_open(NAME, 0), ENOENT);
}

/* A client that has lost its server: the first message may be lost with it, every other one is not sent (B168). */
static void a_number_that_is_dead(void)
{
    struct server dying = start_dying_server();
    for (int i = 0; i < 50; i++) {
        int coid = ConnectAttach(0, dying.pid, dying.chid, 0, 0);
        if (coid < 0)
            continue;
        CHECK(MsgSend(coid, "x", 1, NULL, 0) < 0 && (errno == ESRCH || errno == EBADF));
        CHECK_FAILS(MsgSend(coid, "x", 1, NULL, 0), EBADF);
        CHECK_FAILS(MsgSendPulse(coid, 10, 1, 1), EBADF);
        CHECK(!ConnectDetach(coid));
    }
}

/* Clients made of nothing but a socket. */

static void find_address(const struct server *server, char address[256])
{
    char path[512], prefix[64];
    snprintf(prefix, sizeof prefix, "%d.%d.", (int)server->pid, server->chid);
    DIR *directory = opendir(entry(path, "channels", ""));
    CHECK(directory);
    *address = '\0';
    for (struct dirent *found; (found = readdir(directory));)
        if (!strncmp(found->d_name, prefix, strlen(prefix)))
            strcpy(address, found->d_name);
    closedir(directory);
    CHECK(*address);
}

static int connect_raw(const struct server *server)
{
    char address[256];
    find_address(server, address);
    struct sockaddr_un name = socket_named(address);
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(sock >= 0 && !connect(sock, (struct sockaddr *)&name, sizeof name));
    return sock;
}

/* A frame with descriptors. Whether the server is there to get it. */
static bool pass(int sock, const void *frame, const int *fds, size_t count)
{
    return send_passing(sock, frame, FRAME, fds, count, MSG_NOSIGNAL) == FRAME;
}

static const struct frame hello = {HELLO, 3, 0x58514148 /* HAQX */, {0}};

static void greet(int sock)
{
    struct frame welcome;
    CHECK(pass(sock, &hello, NULL, 0) && recv(sock, &welcome, sizeof welcome, MSG_WAITALL) == FRAME);
    CHECK(welcome.kind == WELCOME);
}

static const struct frame lane = {LANE, 0, 7, {0}};

/* The client's ends of a lane whose far ends it has passed: [0] to write to, [1] to read from. */
static bool pass_pipes(int sock, int ends[2])
{
    int messages[2], replies[2];
    CHECK(!pipe(messages) && !pipe(replies));
    const int far[] = {messages[0], replies[1]};
    bool is_passed = pass(sock, &lane, far, 2);
    close(messages[0]);
    close(replies[1]);
    ends[0] = messages[1];
    ends[1] = replies[0];
    return is_passed;
}

/* A message of four bytes, whose reply has so much room. */
static void send_raw(int fd, uint64_t room)
{
    struct {
        uint16_t kind, priority;
        int32_t tid;
        uint64_t size, room, time;
        char data[4];
    } message = {MESSAGE, 10, 1, 4, room, 1, "raw"};
    CHECK(write(fd, &message, 36) == 36);
}

/* The server answers who keeps to the rules. */
static void check_serves(const struct server *server)
{
    int coid = ConnectAttach(0, server->pid, server->chid, 0, 0);
    CHECK(coid >= 0);
    ask(coid, 17);
    CHECK(!ConnectDetach(coid));
}

/* The same, from another process. */
static void check_serves_others(const struct server *server)
{
    int status;
    pid_t other = fork();
    CHECK(other >= 0);
    if (!other) {
        alarm(20);
        check_serves(server);
        _exit(0);
    }
    CHECK(waitpid(other, &status, 0) == other && WIFEXITED(status) && !WEXITSTATUS(status));
}

static int receive_soon(int chid, char *message, size_t size)
{
    uint64_t limit = 20 * UINT64_C(1000000000);
    int rcvid;
    do {
        CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &limit, NULL) >= 0);
        rcvid = MsgReceive(chid, message, size, NULL);
    } while (!rcvid);
    return rcvid;
}

static void *greet_one(void *argument)
{
    greet(*(int *)argument);
    return NULL;
}

/* A socket that its owner lets block: the server, which has the same open file, does not wait all the same. */
static void a_lane_that_blocks(void)
{
    static char reply[32000];
    int chid = ChannelCreate(0), messages[2], replies[2];
    struct server self = {getpid(), chid};
    char message[64];
    alarm(30);
    int sock = connect_raw(&self);
    pthread_t thread = start_thread(greet_one, &sock);
    uint64_t now = 0;
    /* Taking in is all that has to be done. */
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &now, NULL) >= 0);
    CHECK_FAILS(MsgReceive(chid, message, sizeof message, NULL), ETIMEDOUT);
    while (pthread_tryjoin_np(thread, NULL)) {
        CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &now, NULL) >= 0);
        CHECK_FAILS(MsgReceive(chid, message, sizeof message, NULL), ETIMEDOUT);
    }
    CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, messages) && !socketpair(AF_UNIX, SOCK_STREAM, 0, replies));
    const int far[] = {messages[0], replies[0]}, small = 4096;
    CHECK(!setsockopt(replies[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
    CHECK(pass(sock, &lane, far, 2));
    send_raw(messages[1], sizeof reply);
    int rcvid = receive_soon(chid, message, sizeof message);
    CHECK(rcvid > 0 && !strcmp(message, "raw"));
    CHECK(!fcntl(messages[0], F_SETFL, 0) && !fcntl(replies[0], F_SETFL, 0));
    CHECK(MsgRead(rcvid, message, 2, 1) == 2 && !MsgInfo(rcvid, NULL) ? false : true);
    MsgReply(rcvid, 0, reply, sizeof reply); /* Nobody reads that. */
}

/* A connection to a socket that listens, with data that nobody takes, and whose last close waits for a minute. */
static int lingering(int listener)
{
    static char data[1 << 16];
    const struct linger minute = {1, 60};
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(!getsockname(listener, (struct sockaddr *)&name, &size));
    CHECK(!connect(sock, (struct sockaddr *)&name, sizeof name));
    while (send(sock, data, sizeof data, MSG_DONTWAIT) > 0)
        ;
    CHECK(!setsockopt(sock, SOL_SOCKET, SO_LINGER, &minute, sizeof minute));
    return sock;
}

enum where { AS_A_LANE, BESIDE_A_LANE, BEHIND_RUBBISH, IN_A_SOCKET, WHERES };

static void pass_lingering(const struct server *server, int listener, enum where where)
{
    const struct frame rubbish = {99, 0, 0, {0}};
    int fds[16], ends[2], sock = connect_raw(server);
    size_t count = where == BESIDE_A_LANE ? 16 : 2;
    for (size_t i = 0; i < count; i++)
        fds[i] = lingering(listener);
    CHECK(pass(sock, where < BEHIND_RUBBISH ? &hello : &rubbish, NULL, 0));
    if (where == IN_A_SOCKET) {
        CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends) && pass(ends[0], &lane, fds, count));
        CHECK(pass(sock, &lane, &ends[1], 1));
    } else {
        CHECK(pass(sock, &lane, fds, count));
    }
}

/* Sockets whose close would wait for a minute, if the server did not see to that. */
static void closes_that_linger(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct server server = start_server(serve, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0), status;
    CHECK(!bind(listener, (struct sockaddr *)&name, sizeof name) && !listen(listener, 100));
    alarm(50);
    for (enum where where = 0; where < WHERES; where++) {
        CHECK(!kill(server.pid, SIGSTOP));
        pid_t client = fork();
        CHECK(client >= 0);
        if (!client) {
            pass_lingering(&server, listener, where);
            _exit(0); /* At the end of a process, no close waits. The last one is the server's. */
        }
        CHECK(waitpid(client, &status, 0) == client && WIFEXITED(status) && !WEXITSTATUS(status));
        CHECK(!kill(server.pid, SIGCONT));
        check_serves(&server);
    }
}

/* The table is full. */

static void have_few_descriptors(void)
{
    struct rlimit limit;
    CHECK(!getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = 128;
    CHECK(!setrlimit(RLIMIT_NOFILE, &limit));
}

static void serve_with_few_descriptors(int chid)
{
    have_few_descriptors();
    serve(chid);
}

/* Whether the server says that it has no room, now or before. */
static bool is_refused(int sock)
{
    struct frame frame;
    while (recv(sock, &frame, sizeof frame, MSG_DONTWAIT) == FRAME)
        if (frame.kind == REFUSED && frame.number == EAGAIN)
            return true;
    return false;
}

/* One client cannot have all descriptors of a server, whether by lanes or by trunks. */
static void a_flood_of_descriptors(void)
{
    struct server server = start_server(serve_with_few_descriptors, 0);
    int sock = connect_raw(&server), ends[2];
    greet(sock);
    for (int lanes = 0; lanes < 200 && pass_pipes(sock, ends); lanes++)
        ;
    CHECK_EVENTUALLY(is_refused(sock));
    check_serves_others(&server);
    int trunks = 0, last;
    bool refused = false;
    for (; trunks < 200 && !refused; trunks++) {
        struct frame frame = {0};
        last = connect_raw(&server);
        pass(last, &hello, NULL, 0);
        CHECK(recv(last, &frame, sizeof frame, MSG_WAITALL) == FRAME);
        refused = frame.kind == REFUSED && frame.number == EAGAIN;
    }
    CHECK(refused);
    check_serves_others(&server);
}

static int room_ends[2];

static void *give_room(void *argument)
{
    char byte;
    (void)argument;
    CHECK(read(room_ends[0], &byte, 1) == 1);
    for (int fd = 30; fd < 50; fd++)
        close(fd);
    return NULL;
}

static void serve_without_descriptors(int chid)
{
    have_few_descriptors();
    while (dup(2) >= 0)
        ;
    start_thread(give_room, NULL);
    serve(chid);
}

/* Who connects while the table is full is told so, or is served when there is room; nobody hangs. */
static void a_table_that_empties(void)
{
    const char *preloaded = getenv("LD_PRELOAD");
    if (preloaded && strstr(preloaded, "vgpreload"))
        return; /* Valgrind closes what it lets nobody have, so that there is no full table. */
    alarm(20);
    CHECK(!pipe(room_ends));
    struct server server = start_server(serve_without_descriptors, 0);
    int coid = ConnectAttach(0, server.pid, server.chid, 0, 0);
    const uint64_t soon = UINT64_C(500000000);
    CHECK(coid >= 0);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_SEND | _NTO_TIMEOUT_REPLY, NULL, &soon, NULL) >= 0);
    CHECK(MsgSend(coid, "x", 1, NULL, 0) < 0 && (errno == EAGAIN || errno == ETIMEDOUT));
    int waiting = connect_raw(&server);
    struct pollfd entry = {.fd = waiting, .events = POLLIN};
    CHECK(pass(waiting, &hello, NULL, 0));
    poll(&entry, 1, 500); /* There is no telling when the server has looked in vain. */
    CHECK(write(room_ends[1], "x", 1) == 1);
    struct frame frame = {0};
    CHECK(recv(waiting, &frame, sizeof frame, MSG_WAITALL) == FRAME);
    CHECK(frame.kind == WELCOME || frame.kind == REFUSED);
    check_serves(&server);
}

/* Clients that do not read. */

/* A client that is stopped is alive, however much is written for it: the server neither waits nor loses it. */
static void many_writes_to_a_stopped_client(void)
{
    enum { SIZE = 1 << 20, WRITES = 20000 };
    char *reply = malloc(SIZE), message[16];
    int chid = ChannelCreate(0), status;
    pid_t pid = getpid(), client = fork();
    CHECK(client >= 0 && reply);
    if (!client) {
        alarm(60);
        int coid = ConnectAttach(0, pid, chid, 0, 0);
        memset(reply, '.', SIZE);
        CHECK(MsgSend(coid, "x", 1, reply, SIZE) == 5);
        for (int i = 0; i < SIZE; i++)
            CHECK(reply[i] == (i < 2 ? 'r' : i < 2 * WRITES && i % 2 ? 'w' : i >= SIZE - WRITES ? 'e' : '.'));
        _exit(0);
    }
    int rcvid = receive_soon(chid, message, sizeof message);
    CHECK(!kill(client, SIGSTOP) && waitpid(client, &status, WUNTRACED) == client && WIFSTOPPED(status));
    for (int i = 0; i < WRITES; i++) {
        CHECK(MsgWrite(rcvid, "w", 1, (size_t)(2 * i + 1)) == 1);
        CHECK(MsgWrite(rcvid, "e", 1, (size_t)(SIZE - 1 - i)) == 1);
    }
    CHECK(!MsgReply(rcvid, 5, "rr", 2));
    CHECK(!kill(client, SIGCONT) && waitpid(client, &status, 0) == client && WIFEXITED(status) && !WEXITSTATUS(status));
    free(reply);
}

/* rcvids. */

static int first_rcvid(void)
{
    int ends[2], rcvid;
    char message[16];
    CHECK(!pipe(ends));
    pid_t server = fork();
    CHECK(server >= 0);
    if (!server) {
        int chid = ChannelCreate(0), parent = getpid();
        pid_t client = fork();
        if (!client) {
            MsgSend(ConnectAttach(0, parent, chid, 0, 0), "x", 1, NULL, 0);
            _exit(0);
        }
        rcvid = receive_soon(chid, message, sizeof message);
        CHECK(rcvid > 0 && write(ends[1], &rcvid, sizeof rcvid) == sizeof rcvid && !MsgReply(rcvid, 0, NULL, 0));
        _exit(0);
    }
    CHECK(read(ends[0], &rcvid, sizeof rcvid) == sizeof rcvid && waitpid(server, NULL, 0) == server);
    return rcvid;
}

/* Nobody can guess a rcvid, and so forge what frees another client. */
static void rcvids_begin_anywhere(void)
{
    CHECK(abs(first_rcvid() - first_rcvid()) > 16 || abs(first_rcvid() - first_rcvid()) > 16);
}

/* What is left behind. */

static int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Nobody receives on the channel, and all the same nothing is left of who came and went. */
static void attaching_leaves_nothing(void)
{
    int chid = ChannelCreate(0), low = dup(0), before = 0;
    CHECK(low >= 0 && !close(low));
    for (int i = 0; i < 100; i++) {
        int coid = ConnectAttach(0, 0, chid, 0, 0);
        CHECK(coid == low && !ConnectDetach(coid)); /* B34: what the library needs lies elsewhere. */
        if (i == 10)
            before = count_descriptors();
    }
    CHECK(count_descriptors() == before);
}

static int coid_of_all;

static void *ask_much(void *argument)
{
    (void)argument;
    for (int i = 0; i < 20; i++)
        ask(coid_of_all, i);
    return NULL;
}

static int ask_and_count(void)
{
    ask(coid_of_all, 1);
    return count_descriptors();
}

/* After many threads have sent at once, a connection does not keep for good what they needed. */
static void many_threads_leave_little(void)
{
    struct server server = start_server(serve, 0);
    pthread_t threads[60];
    coid_of_all = ConnectAttach(0, server.pid, server.chid, 0, 0);
    ask(coid_of_all, 1);
    int before = count_descriptors();
    for (int i = 0; i < 60; i++)
        threads[i] = start_thread(ask_much, NULL);
    for (int i = 0; i < 60; i++)
        pthread_join(threads[i], NULL);
    CHECK_EVENTUALLY(ask_and_count() <= before + 10);
    ask(coid_of_all, 2);
}

/* Somebody removes a name's file: who had it does not take away the one of its successor. */
static void a_name_that_was_removed(void)
{
    char path[512];
    name_attach_t *first = name_attach(NULL, NAME, 0);
    CHECK(first && !unlink(entry(path, "names", NAME)));
    struct server successor = start_named_server(NAME, serve);
    CHECK(!name_detach(first, 0));
    int coid = name_open(NAME, 0);
    CHECK(coid >= 0 && ask_pid(coid) == successor.pid);
}

static void *receive_for_ever(void *argument)
{
    char message[64];
    while (MsgReceive(*(int *)argument, message, sizeof message, NULL) >= 0)
        ;
    return NULL;
}

static atomic_bool is_over;

static void *come_and_go(void *argument)
{
    (void)argument;
    while (!atomic_load(&is_over)) {
        name_attach_t *attached = name_attach(NULL, "another", 0);
        CHECK(attached && !name_detach(attached, 0));
    }
    return NULL;
}

/* Threads that receive enter again what was removed, whatever others do meanwhile. */
static void entries_that_were_removed(void)
{
    char name[512], channel[512], address[256] = "";
    name_attach_t *attached = name_attach(NULL, NAME, 0);
    CHECK(attached);
    struct server self = {getpid(), attached->chid};
    int other = ChannelCreate(0);
    pthread_t threads[] = {
        start_thread(receive_for_ever, &attached->chid),
        start_thread(receive_for_ever, &attached->chid),
        start_thread(receive_for_ever, &other),
        start_thread(come_and_go, NULL),
    };
    find_address(&self, address);
    entry(name, "names", NAME);
    entry(channel, "channels", address);
    for (int i = 0; i < 2; i++) {
        CHECK(!unlink(name) && !unlink(channel));
        CHECK_EVENTUALLY(!access(name, F_OK) && !access(channel, F_OK));
    }
    atomic_store(&is_over, true);
    CHECK(!pthread_join(threads[3], NULL));
    CHECK(!name_detach(attached, 0) && !ChannelDestroy(other));
    for (int i = 0; i < 3; i++)
        CHECK(!pthread_join(threads[i], NULL));
    CHECK(access(name, F_OK) < 0 && access(channel, F_OK) < 0);
}

/* A process that ends in good order takes its names with it. */
static void a_name_of_a_process_that_ends(void)
{
    char path[512];
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        CHECK(name_attach(NULL, NAME, 0));
        exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(access(entry(path, "names", NAME), F_OK) < 0 && errno == ENOENT);
}

/* A room that others may write to is refused, like the runtime directory itself. */
static void a_room_of_others(void)
{
    char path[512];
    const char *rooms[] = {"names", "channels"};
    int chid = ChannelCreate(0);
    name_attach_t *attached = name_attach(NULL, NAME, 0);
    CHECK(attached);
    for (int i = 0; i < 2; i++) {
        entry(path, rooms[i], "");
        CHECK(!chmod(path, 0777));
        CHECK(i ? ChannelCreate(0) < 0 : !name_attach(NULL, "other", 0));
        CHECK(errno == EPERM);
        CHECK(i || (name_open(NAME, 0) < 0 && errno == EPERM));
        CHECK(!chmod(path, 0700));
    }
    CHECK(!name_detach(attached, 0) && !ChannelDestroy(chid));
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"a_server_that_is_dying", a_server_that_is_dying},
        {"a_number_that_is_dead", a_number_that_is_dead},
        {"a_server_without_room", a_server_without_room},
        {"a_lane_that_blocks", a_lane_that_blocks},
        {"closes_that_linger", closes_that_linger},
        {"a_flood_of_descriptors", a_flood_of_descriptors},
        {"a_table_that_empties", a_table_that_empties},
        {"many_writes_to_a_stopped_client", many_writes_to_a_stopped_client},
        {"rcvids_begin_anywhere", rcvids_begin_anywhere},
        {"attaching_leaves_nothing", attaching_leaves_nothing},
        {"many_threads_leave_little", many_threads_leave_little},
        {"a_name_that_was_removed", a_name_that_was_removed},
        {"entries_that_were_removed", entries_that_were_removed},
        {"a_name_of_a_process_that_ends", a_name_of_a_process_that_ends},
        {"a_room_of_others", a_room_of_others},
    };
    return RUN_CASES(cases, argc, argv);
}
