/* What a QNX Neutrino 6.4.1 kernel was seen to do, as far as it takes C, or one process, to see it. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

/* A thread that sends seven bytes, and how that went. */
struct sender {
    int coid;
    void *reply;
    size_t room;
    long result;
    int error;
};

static void *send_seven(void *argument)
{
    struct sender *sender = argument;
    errno = 0;
    sender->result = MsgSend(sender->coid, "abcdefg", 7, sender->reply, sender->room);
    sender->error = errno;
    return NULL;
}

static int new_channel(unsigned flags, int *coid)
{
    int chid = ChannelCreate(flags);
    *coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    CHECK(chid > 0 && *coid > 0);
    return chid;
}

/* Cases MF16 to MF20, MN03, QX19, RW03, RW08, RW23 to RW25. */
static void memory_that_is_none(void)
{
    char buffer[64] = "";
    iov_t overflowing[2] = {{buffer, SIZE_MAX / 2}, {buffer, SIZE_MAX / 2}};
    int coid, chid = new_channel(0, &coid);
    struct sender sender = {.coid = coid, .reply = NULL, .room = 8};
    pthread_t thread = start_thread(send_seven, &sender);
    struct _msg_info64 info;
    int rcvid = MsgReceive(chid, buffer, sizeof buffer, &info);
    CHECK(rcvid > 0 && info.dstmsglen == 8 && !MsgReply(rcvid, 9, "1234", 4));
    pthread_join(thread, NULL);
    CHECK(sender.result == -1 && sender.error == EFAULT);
    thread = start_thread(send_seven, &sender); /* A reply without data does not touch it. */
    CHECK((rcvid = MsgReceive(chid, NULL, 0, NULL)) > 0 && !MsgReply(rcvid, 9, NULL, 0));
    pthread_join(thread, NULL);
    CHECK(sender.result == 9);
    CHECK_FAILS(MsgSend(coid, NULL, 7, NULL, 0), EFAULT);
    sender = (struct sender){.coid = coid, .reply = buffer, .room = sizeof buffer};
    for (int i = 0; i < 4; i++) {
        sender.room = i ? sizeof buffer : 0;
        thread = start_thread(send_seven, &sender);
        if (i == 1)
            CHECK_FAILS(MsgReceive(chid, NULL, 10, NULL), EFAULT);
        CHECK((rcvid = MsgReceive(chid, buffer, sizeof buffer, NULL)) > 0);
        CHECK_FAILS(MsgRead(rcvid, NULL, 4, 0), ESRVRFAULT);
        CHECK_FAILS(MsgWrite(rcvid, NULL, 4, 0), ESRVRFAULT);
        CHECK(MsgRead(rcvid, NULL, 0, 0) == 0 && MsgWrite(rcvid, NULL, 0, 0) == 0);
        if (i == 2)
            CHECK_FAILS(MsgReplyv(rcvid, 0, overflowing, 2), ESRVRFAULT);
        else if (i == 3)
            CHECK_FAILS(MsgReplyv(rcvid, 0, NULL, 2), ESRVRFAULT);
        else
            CHECK_FAILS(MsgReply(rcvid, 0, NULL, 5), ESRVRFAULT);
        pthread_join(thread, NULL);
        CHECK(sender.result == -1 && sender.error == ESRVRFAULT);
        CHECK_FAILS(MsgReply(rcvid, 0, NULL, 0), ESRCH);
        CHECK_FAILS(MsgReply(rcvid, 0, NULL, 5), ESRCH);
        CHECK_FAILS(MsgRead(rcvid, NULL, 5, 0), ESRCH);
    }
}

/* Cases RW06 and RW10. */
static void the_length_after_a_read(void)
{
    char head[4];
    int coid, chid = new_channel(0, &coid);
    struct sender sender = {.coid = coid};
    for (int i = 0; i < 2; i++) {
        struct _msg_info64 info;
        pthread_t thread = start_thread(send_seven, &sender);
        int rcvid = MsgReceive(chid, head, sizeof head, &info);
        CHECK(info.msglen == 4 && !MsgInfo(rcvid, &info) && info.msglen == 4);
        CHECK((i ? MsgWrite(rcvid, head, 1, 0) : MsgRead(rcvid, head, 1, 0)) >= 0);
        CHECK(!MsgInfo(rcvid, &info) && info.msglen == 7 && info.srcmsglen == 7);
        CHECK(!MsgReply(rcvid, 0, NULL, 0));
        pthread_join(thread, NULL);
    }
}

/* Case XQ11 and the like: a limit on the number of parts is not found. */
static void very_many_parts(void)
{
    const size_t count = 524289;
    iov_t *parts = calloc(count, sizeof *parts);
    char text[8] = "", reply[8] = "";
    int coid, chid = new_channel(0, &coid);
    CHECK(parts);
    SETIOV(&parts[count - 1], text, 7);
    struct sender sender = {.coid = coid, .reply = reply, .room = 7};
    pthread_t thread = start_thread(send_seven, &sender);
    int rcvid = MsgReceivev(chid, parts, count, NULL);
    CHECK(rcvid > 0 && !memcmp(text, "abcdefg", 7) && !MsgReplyv(rcvid, 3, parts, count));
    pthread_join(thread, NULL);
    CHECK(sender.result == 3 && !strcmp(reply, "abcdefg"));
    free(parts);
}

static atomic_int signals;

static void note_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

/*
 * Case DK16: a signal that comes right after the server has received the message ends the call, or makes the unblock
 * pulse; it cannot fall between the message and the wait for its answer.
 */
static void a_signal_after_the_receive(unsigned flags)
{
    enum { ROUNDS = 1000 };
    int chid = ChannelCreate(flags), rcvid;
    pid_t server = getpid(), client = fork();
    if (!client) {
        const struct sigaction action = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
        int coid = ConnectAttach(0, server, chid, 0, 0);
        CHECK(!sigaction(SIGUSR1, &action, NULL));
        for (int i = 0; i < ROUNDS; i++)
            CHECK_FAILS(MsgSend(coid, NULL, 0, NULL, 0), EINTR);
        CHECK(signals == ROUNDS && MsgSend(coid, "x", 1, NULL, 0) == 5);
        _exit(0);
    }
    for (int i = 0; i < ROUNDS; i++) {
        struct _pulse pulse;
        do { /* Without a wait, so that the client is hit before it waits. */
            CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, NULL, NULL) == 0);
            rcvid = MsgReceive(chid, &pulse, sizeof pulse, NULL);
            CHECK(rcvid >= 0 || errno == ETIMEDOUT);
        } while (rcvid <= 0);
        CHECK(!kill(client, SIGUSR1));
        if (!(flags & _NTO_CHF_UNBLOCK))
            continue;
        CHECK(!MsgReceivePulse(chid, &pulse, sizeof pulse, NULL) && pulse.code == _PULSE_CODE_UNBLOCK);
        CHECK(pulse.value.sival_int == rcvid && !MsgError(rcvid, EINTR));
    }
    int status;
    CHECK((rcvid = MsgReceive(chid, NULL, 0, NULL)) > 0 && !MsgReply(rcvid, 5, NULL, 0));
    CHECK(waitpid(client, &status, 0) == client && WIFEXITED(status) && !WEXITSTATUS(status));
}

static void a_signal_on_a_plain_channel(void)
{
    a_signal_after_the_receive(0);
}

static void a_signal_on_an_unblock_channel(void)
{
    a_signal_after_the_receive(_NTO_CHF_UNBLOCK);
}

/* What is done between arming a timeout and the call that would block: cases TC01 to TC22. */
static int own_chid, own_coid;

static void nothing(void)
{
}
static void create_and_destroy(void)
{
    CHECK(!ChannelDestroy(ChannelCreate(0)));
}
static void attach_and_detach(void)
{
    CHECK(!ConnectDetach(ConnectAttach(0, 0, own_chid, 0, 0)));
}
static void ask_about(void)
{
    CHECK(ConnectServerInfo(0, own_coid, NULL) == own_coid);
}
static void ask_flags(void)
{
    CHECK(ConnectFlags(0, own_coid, 0, 0) >= 0);
}
static void send_pulse(void)
{
    int coid, chid = new_channel(0, &coid);
    CHECK(!MsgSendPulse(coid, 10, 1, 1));
    CHECK(!ChannelDestroy(chid));
}
static void fail_to_pulse(void)
{
    CHECK_FAILS(MsgSendPulse(99, 10, 1, 1), EBADF);
}
static void fail_to_reply(void)
{
    CHECK_FAILS(MsgReply(12345, 0, NULL, 0), ESRCH);
}
static void fail_to_arm(void)
{
    CHECK_FAILS(TimerTimeout(77, 0, NULL, NULL, NULL), EINVAL);
}
static void fail_to_receive(void)
{
    CHECK_FAILS(MsgReceive(999, NULL, 0, NULL), ESRCH);
}
static void fail_to_send(void)
{
    CHECK_FAILS(MsgSend(99, NULL, 0, NULL, 0), EBADF);
}
static void fail_to_attach(void)
{
    CHECK_FAILS(ConnectAttach(0, 0, 999, 0, 0), ESRCH);
}
static void fail_to_detach(void)
{
    CHECK_FAILS(ConnectDetach(99), EINVAL);
}
static void fail_without_errno(void)
{
    CHECK(ConnectDetach_r(99) == EINVAL && ConnectAttach_r(0, 0, 999, 0, 0) == -ESRCH);
}
static void write_nothing(void)
{
    int ends[2];
    CHECK(!pipe(ends) && ha_posix_write(ends[1], "", 0) == 0 && !close(ends[0]) && !close(ends[1]));
}

static void armed_timeouts(void)
{
    static void (*const keep[])(void) = {nothing,   create_and_destroy, attach_and_detach,
                                         ask_about, ask_flags,          send_pulse};
    static void (*const take[])(void) = {fail_to_pulse,   fail_to_reply,      fail_to_arm,
                                         fail_to_receive, fail_to_send,       fail_to_attach,
                                         fail_to_detach,  fail_without_errno, write_nothing};
    const uint64_t soon = 1000000;
    own_chid = new_channel(0, &own_coid);
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &soon, NULL) == 0);
        keep[i]();
        CHECK_FAILS(MsgReceive(own_chid, NULL, 0, NULL), ETIMEDOUT);
    }
    for (size_t i = 0; i < sizeof take / sizeof *take; i++) {
        CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &soon, NULL) == 0);
        take[i]();
        CHECK(TimerTimeout(CLOCK_MONOTONIC, 0, NULL, NULL, NULL) == 0); /* It says what was armed before. */
    }
}

static atomic_int tid_of_receiver;

static void *receive_one(void *argument)
{
    atomic_store(&tid_of_receiver, own_tid());
    *(int *)argument = MsgReceive(*(int *)argument, NULL, 0, NULL);
    return NULL;
}

static void *send_seven_at_once(void *sender)
{
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_SEND, NULL, NULL, NULL) == 0);
    return send_seven(sender);
}

/* Cases TS03 and TS13: who may not wait to be received does not, unless somebody receives. */
static void sending_at_once(void)
{
    int coid, chid = new_channel(0, &coid), received = chid;
    struct sender sender = {.coid = coid};
    send_seven_at_once(&sender);
    CHECK(sender.result == -1 && sender.error == ETIMEDOUT);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, NULL, NULL) == 0);
    CHECK_FAILS(MsgReceive(chid, NULL, 0, NULL), ETIMEDOUT); /* Nothing is queued. */
    pthread_t receiving = start_thread(receive_one, &received);
    CHECK_EVENTUALLY(is_asleep(atomic_load(&tid_of_receiver)));
    pthread_t sending = start_thread(send_seven_at_once, &sender);
    pthread_join(receiving, NULL);
    CHECK(received > 0 && !MsgReply(received, 8, NULL, 0));
    pthread_join(sending, NULL);
    CHECK(sender.result == 8);
}

/* Case CS06: what a connection wanted for itself, a later one may share. */
static void sharing(void)
{
    struct server server = start_server(serve, _NTO_CHF_DISCONNECT);
    int coids[4], scoids[4];
    for (int i = 0; i < 4; i++) {
        struct _msg_info64 info;
        const int flags[] = {0, _NTO_COF_NOSHARE, _NTO_COF_NOSHARE, 0};
        if (i == 3)
            CHECK(scoids[0] != scoids[1] && scoids[1] != scoids[2] && !ConnectDetach(coids[0]));
        coids[i] = ConnectAttach(0, server.pid, server.chid, 0, flags[i]);
        CHECK(coids[i] > 0 && ask_pid(coids[i]) == server.pid);
        CHECK(ConnectServerInfo(0, coids[i], &info) == coids[i]);
        scoids[i] = info.scoid;
    }
    CHECK(scoids[3] == scoids[1] || scoids[3] == scoids[2]);
    int plain = ConnectAttach(0, server.pid, server.chid, 0, 0);
    struct _msg_info64 info;
    CHECK(ConnectServerInfo(0, plain, &info) == plain && info.scoid == scoids[3]);
}

/* Cases CI12, CI13, CI16, CA02, CA10. */
static void numbers_and_flags(void)
{
    int chid = ChannelCreate(0), fd = ConnectAttach(0, 0, chid, 0, 0);
    CHECK(ConnectFlags(0, fd, ~0u, 0) >= 0 && ConnectFlags(0, fd, 0, 0) == 0);
    CHECK(ConnectFlags(0, fd, _NTO_COF_DEAD, _NTO_COF_DEAD) == 0 && ConnectFlags(0, fd, 0, 0) == 0);
    CHECK(ConnectFlags(0, fd, ~0u, ~0u) == 0 && ConnectFlags(0, fd, 0, 0) == _NTO_COF_CLOEXEC);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC && !fcntl(fd, F_SETFD, 0) && ConnectFlags(0, fd, 0, 0) == 0);
    struct _msg_info64 info;
    CHECK(ConnectServerInfo(0, fd, &info) == fd && info.flags == 0);
    CHECK(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && ConnectFlags(0, fd, 0, 0) == _NTO_COF_CLOEXEC);
    CHECK(ConnectAttach(0, 0, chid, (unsigned)-1, 0) > _NTO_SIDE_CHANNEL);
    CHECK(ConnectAttach(0, 0, chid, 0x7fffffff, 0) > _NTO_SIDE_CHANNEL);
    CHECK_FAILS(ConnectAttach(0, 0, chid, 0x3fffffff, 0), EINVAL);
    CHECK_FAILS(ConnectAttach(0, 0, chid, 0x80000000, 0), EINVAL);
    CHECK(ConnectAttach(0, 0, chid, 40, 0) == 40 && ConnectAttach(0, 0, chid, 40, 0) == 41);
    CHECK(!ConnectDetach(40) && ConnectAttach(0, 0, chid, 40, 0) == 40);
    int lowest = dup(0);
    CHECK(!close(lowest) && ConnectAttach(0, 0, chid, 0, 0) == lowest);
}

/* Cases CC06, CD02, CD03 and DI03: whether the server has taken note of a client's end makes no difference. */
static void clients_that_have_gone(void)
{
    for (int i = 0; i < 2; i++) {
        struct _msg_info64 info;
        struct _client_info who;
        int coid, chid = new_channel(i ? _NTO_CHF_DISCONNECT : 0, &coid);
        struct sender sender = {.coid = coid};
        pthread_t thread = start_thread(send_seven, &sender);
        int rcvid = MsgReceive(chid, NULL, 0, &info);
        CHECK(!ConnectClientInfo(info.scoid, &who, 0) && who.pid == getpid());
        CHECK_FAILS(ConnectDetach(info.scoid), EINVAL);
        CHECK_FAILS(ConnectDetach(info.scoid & ~_NTO_SIDE_CHANNEL), EINVAL);
        CHECK(!MsgReply(rcvid, 0, NULL, 0));
        pthread_join(thread, NULL);
        CHECK(!ConnectDetach(coid));
        CHECK_FAILS(ConnectClientInfo(info.scoid, &who, 0), i ? EFAULT : EINVAL);
        if (!i)
            continue;
        struct _pulse pulse;
        CHECK(!MsgReceive(chid, &pulse, sizeof pulse, NULL) && pulse.code == _PULSE_CODE_DISCONNECT);
        CHECK_FAILS(ConnectClientInfo(info.scoid, &who, 0), EFAULT);
        CHECK(!ConnectDetach(info.scoid));
        CHECK_FAILS(ConnectClientInfo(info.scoid, &who, 0), EINVAL);
    }
}

/* Case FK15. */
static void dead_connections_in_a_child(void)
{
    struct server server = start_server(serve, 0), other = start_server(serve, 0);
    int dead = ConnectAttach(0, server.pid, server.chid, 0, 0), fd = ConnectAttach(0, other.pid, other.chid, 0, 0);
    CHECK(ask_pid(dead) == server.pid && ask_pid(fd) == other.pid);
    kill_server(&server);
    pid_t child = fork();
    if (!child) {
        CHECK(ConnectServerInfo(0, dead, NULL) == fd);
        CHECK_FAILS(fcntl(dead, F_GETFD), EBADF);
        CHECK_FAILS(ask_pid(dead), EBADF);
        CHECK_FAILS(ConnectDetach(dead), EINVAL);
        CHECK(ask_pid(fd) == other.pid);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK_FAILS(ask_pid(dead), EBADF);
}

/* Whether a process cannot be connected to any more. */
static bool is_out_of_reach(const struct server *server)
{
    int coid = ConnectAttach(0, server->pid, server->chid, 0, 0);
    CHECK(coid > 0 || errno == ESRCH);
    return coid < 0 || ConnectDetach(coid);
}

/*
 * Cases CZ01 and RV10: a server that was killed is not there, before its process has been waited for. (With a kernel that
 * shows it at once, it is not there from that moment on.)
 */
static void a_server_that_is_ending(void)
{
    for (int i = 0; i < 20; i++) {
        struct server server = start_path_server("/dev/ending", 0, serve), named = start_named_server("ending", serve);
        int fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
        CHECK(fd > 0);
        kill(server.pid, SIGKILL);
        kill(named.pid, SIGKILL);
        CHECK_EVENTUALLY(is_out_of_reach(&server) && is_out_of_reach(&named));
        CHECK_FAILS(ha_posix_open("/dev/ending", O_RDWR), ENOENT);
        CHECK_FAILS(name_open("ending", 0), ENOENT);
        siginfo_t info;
        CHECK(!waitid(P_PID, (id_t)server.pid, &info, WEXITED | WNOWAIT));
        CHECK_FAILS(ConnectAttach(0, server.pid, server.chid, 0, 0), ESRCH); /* A zombie. */
        kill_server(&server);
        kill_server(&named);
        CHECK_FAILS(ConnectAttach(0, server.pid, server.chid, 0, 0), ESRCH);
        CHECK(!ConnectDetach(fd));
    }
}

/* A thread in MsgReceivePulse, and which pulse it got. */
struct pulse_receiver {
    int chid, got;
    atomic_int tid;
};

static void *receive_pulse(void *argument)
{
    struct pulse_receiver *receiver = argument;
    struct _pulse pulse;
    atomic_store(&receiver->tid, own_tid());
    CHECK(!MsgReceivePulse(receiver->chid, &pulse, sizeof pulse, NULL));
    receiver->got = pulse.value.sival_int;
    return NULL;
}

/* Case PM11. */
static void several_receivers_of_pulses(void)
{
    int coid, chid = new_channel(0, &coid);
    struct pulse_receiver receivers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        receivers[i] = (struct pulse_receiver){.chid = chid};
        threads[i] = start_thread(receive_pulse, &receivers[i]);
        CHECK_EVENTUALLY(is_asleep(atomic_load(&receivers[i].tid)));
    }
    for (int i = 2; i >= 0; i--) {
        CHECK(!MsgSendPulse(coid, 10, 1, i));
        pthread_join(threads[i], NULL);
        CHECK(receivers[i].got == i);
    }
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"memory_that_is_none", memory_that_is_none},
        {"the_length_after_a_read", the_length_after_a_read},
        {"very_many_parts", very_many_parts},
        {"a_signal_on_a_plain_channel", a_signal_on_a_plain_channel},
        {"a_signal_on_an_unblock_channel", a_signal_on_an_unblock_channel},
        {"armed_timeouts", armed_timeouts},
        {"sending_at_once", sending_at_once},
        {"sharing", sharing},
        {"numbers_and_flags", numbers_and_flags},
        {"clients_that_have_gone", clients_that_have_gone},
        {"dead_connections_in_a_child", dead_connections_in_a_child},
        {"a_server_that_is_ending", a_server_that_is_ending},
        {"several_receivers_of_pulses", several_receivers_of_pulses},
    };
    return RUN_CASES(cases, argc, argv);
}
