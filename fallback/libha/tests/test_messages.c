/* Messages, replies, and the errors of both sides. */
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

#define MEBIBYTE (1 << 20)
#define MILLISECOND UINT64_C(1000000)

/* A thread that sends one message, and what became of it. */
struct sending {
    int coid;
    const void *message;
    size_t size;
    char reply[64];
    size_t room;
    long status; /* negative errno */
    _Atomic(pid_t) tid;
};

static void *send_one(void *argument)
{
    struct sending *sending = argument;
    sending->tid = own_tid();
    sending->status = MsgSend_r(sending->coid, sending->message, sending->size, sending->reply, sending->room);
    return NULL;
}

static struct sending sending_to(int coid, const char *message)
{
    struct sending sending = {.coid = coid, .message = message, .size = strlen(message), .room = 64};
    return sending;
}

/* A channel of this process, and a side channel to it. */
static int channel_and_connection(unsigned flags, int *coid)
{
    int chid = ChannelCreate(flags);
    CHECK(chid > 0);
    *coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    CHECK(*coid > _NTO_SIDE_CHANNEL);
    return chid;
}

static void an_exchange(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "hello");
    struct _msg_info64 info;
    char message[64] = "";
    pthread_t thread = start_thread(send_one, &sending);
    int rcvid = MsgReceive(chid, message, sizeof message, &info);
    CHECK(rcvid > 0 && !strcmp(message, "hello"));
    CHECK(info.pid == getpid() && info.chid == chid && info.coid == coid && info.tid > 0);
    CHECK(info.scoid & _NTO_SIDE_CHANNEL);
    CHECK(info.msglen == 5 && info.srcmsglen == 5 && info.dstmsglen == 64 && info.priority == 10);
    CHECK(!MsgReply(rcvid, 42, "goodbye", 8));
    pthread_join(thread, NULL);
    CHECK(sending.status == 42 && !strcmp(sending.reply, "goodbye"));
    CHECK_FAILS(MsgReply(rcvid, 0, NULL, 0), ESRCH);
    CHECK(ConnectDetach(coid) == 0 && ChannelDestroy(chid) == 0);
}

static void short_buffers(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "0123456789");
    struct _msg_info64 info;
    char head[4], rest[16] = "", one[3] = "", other[3] = "";
    iov_t parts[2];
    sending.room = 6;
    pthread_t thread = start_thread(send_one, &sending);
    int rcvid = MsgReceive(chid, head, sizeof head, &info);
    CHECK(rcvid > 0 && !memcmp(head, "0123", 4) && info.msglen == 4 && info.srcmsglen == 10);
    CHECK(MsgRead(rcvid, rest, sizeof rest, 4) == 6 && !strcmp(rest, "456789"));
    CHECK(MsgRead(rcvid, rest, sizeof rest, 10) == 0);
    SETIOV(&parts[0], one, 2);
    SETIOV(&parts[1], other, 2);
    CHECK(MsgReadv(rcvid, parts, 2, 1) == 4 && !strcmp(one, "12") && !strcmp(other, "34"));
    CHECK(MsgWrite(rcvid, "uvwxyz", 6, 3) == 3);
    SETIOV(&parts[0], "A", 1);
    SETIOV(&parts[1], "B", 1);
    CHECK(MsgWritev(rcvid, parts, 2, 1) == 2);
    CHECK(MsgInfo(rcvid, &info) == 0 && info.coid == coid);
    CHECK(!MsgReplyv(rcvid, 1, parts, 1));
    pthread_join(thread, NULL);
    CHECK(sending.status == 1 && !memcmp(sending.reply, "AABuvw", 6) && !sending.reply[6]);
}

static int answer_with_message(int chid)
{
    char message[16] = "";
    struct _msg_info64 info;
    int rcvid = MsgReceive(chid, message, sizeof message, &info);
    return rcvid > 0 ? MsgReply(rcvid, info.msglen, message, (size_t)info.msglen) : rcvid;
}

static void *answer_sixteen(void *argument)
{
    for (int i = 0; i < 16; i++)
        CHECK(!answer_with_message(*(int *)argument));
    return NULL;
}

static void all_sends(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    pthread_t thread = start_thread(answer_sixteen, &chid);
    iov_t out[2], in[2];
    char reply[5];
    SETIOV(&out[0], "ab", 2);
    SETIOV(&out[1], "cd", 2);
    SETIOV(&in[0], reply, 1);
    SETIOV(&in[1], reply + 1, 3);
#define SENDS(NAME, OUT, OUT_COUNT, IN, IN_COUNT)                                       \
    do {                                                                                \
        memset(reply, 0, sizeof reply);                                                 \
        CHECK(NAME(coid, OUT, OUT_COUNT, IN, IN_COUNT) == 4 && !strcmp(reply, "abcd")); \
    } while (0)
    SENDS(MsgSend, "abcd", 4, reply, 4);
    SENDS(MsgSend_r, "abcd", 4, reply, 4);
    SENDS(MsgSendnc, "abcd", 4, reply, 4);
    SENDS(MsgSendnc_r, "abcd", 4, reply, 4);
    SENDS(MsgSendsv, "abcd", 4, in, 2);
    SENDS(MsgSendsv_r, "abcd", 4, in, 2);
    SENDS(MsgSendsvnc, "abcd", 4, in, 2);
    SENDS(MsgSendsvnc_r, "abcd", 4, in, 2);
    SENDS(MsgSendvs, out, 2, reply, 4);
    SENDS(MsgSendvs_r, out, 2, reply, 4);
    SENDS(MsgSendvsnc, out, 2, reply, 4);
    SENDS(MsgSendvsnc_r, out, 2, reply, 4);
    SENDS(MsgSendv, out, 2, in, 2);
    SENDS(MsgSendv_r, out, 2, in, 2);
    SENDS(MsgSendvnc, out, 2, in, 2);
    SENDS(MsgSendvnc_r, out, 2, in, 2);
    pthread_join(thread, NULL);
}

static void errors_and_their_signs(void)
{
    struct _msg_info64 info;
    char byte;
    int coid, chid = channel_and_connection(0, &coid);
    CHECK_FAILS(MsgSend(9999, NULL, 0, NULL, 0), EBADF);
    CHECK_FAILS(MsgSend(-1, NULL, 0, NULL, 0), EBADF);
    CHECK_FAILS(MsgReceive(9999, &byte, 1, NULL), ESRCH);
    CHECK_FAILS(MsgReply(9999, 0, NULL, 0), ESRCH);
    CHECK_FAILS(ChannelDestroy(9999), EINVAL);
    CHECK_FAILS(ConnectDetach(9999), EINVAL);
    CHECK_FAILS(ConnectAttach(0, 0, 9999, 0, 0), ESRCH);
    CHECK_FAILS(ConnectAttach(1, 0, chid, 0, 0), ENOREMOTE);
    errno = 77;
    CHECK(MsgSend_r(9999, NULL, 0, NULL, 0) == -EBADF);
    CHECK(MsgReceive_r(9999, &byte, 1, NULL) == -ESRCH);
    CHECK(MsgReceivePulse_r(9999, &byte, 1, NULL) == -ESRCH);
    CHECK(MsgReply_r(9999, 0, NULL, 0) == -ESRCH);
    CHECK(MsgRead_r(9999, &byte, 1, 0) == -ESRCH);
    CHECK(MsgWrite_r(9999, &byte, 1, 0) == -ESRCH);
    CHECK(ConnectAttach_r(0, 0, 9999, 0, 0) == -ESRCH);
    CHECK(ConnectFlags_r(0, 9999, 0, 0) == -EBADF);
    CHECK(ConnectServerInfo_r(0, coid + 1, &info) == -EINVAL);
    CHECK(ChannelDestroy_r(9999) == EINVAL);
    CHECK(ConnectDetach_r(9999) == EINVAL);
    CHECK(ConnectClientInfo_r(9999, NULL, 0) == EFAULT);
    CHECK(MsgError_r(9999, EIO) == ESRCH);
    CHECK(MsgInfo_r(9999, &info) == ESRCH);
    CHECK(MsgSendPulse_r(9999, 10, 0, 0) == EBADF);
    CHECK(errno == 77);
}

static void the_servers_error(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    const int errors[] = {EIO, 4711, EOK};
    for (int i = 0; i < 3; i++) {
        struct sending sending = sending_to(coid, "question");
        pthread_t thread = start_thread(send_one, &sending);
        int rcvid = MsgReceive(chid, NULL, 0, NULL);
        CHECK(rcvid > 0 && !MsgError(rcvid, errors[i]));
        pthread_join(thread, NULL);
        CHECK(sending.status == -errors[i]);
    }
}

static void a_restart(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "again");
    char message[8] = "";
    pthread_t thread = start_thread(send_one, &sending);
    CHECK(!MsgError(MsgReceive(chid, NULL, 0, NULL), ERESTART));
    int rcvid = MsgReceive(chid, message, sizeof message, NULL);
    CHECK(!strcmp(message, "again") && !MsgReply(rcvid, 3, NULL, 0));
    pthread_join(thread, NULL);
    CHECK(sending.status == 3);
}

/* A mebibyte each way, and through MsgRead and MsgWrite. */
static void large_messages(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    char *message = malloc(MEBIBYTE), *received = calloc(1, MEBIBYTE);
    CHECK(message && received);
    for (int i = 0; i < MEBIBYTE; i++)
        message[i] = (char)(i * 7 + i / 4096);
    for (int round = 0; round < 3; round++) {
        struct sending sending = {.coid = coid, .message = message, .size = MEBIBYTE, .room = 64};
        struct _msg_info64 info;
        pthread_t thread = start_thread(send_one, &sending);
        int rcvid = MsgReceive(chid, received, MEBIBYTE / 2, &info);
        CHECK(rcvid > 0 && info.msglen == MEBIBYTE / 2 && info.srcmsglen == MEBIBYTE);
        CHECK(MsgRead(rcvid, received + MEBIBYTE / 2, MEBIBYTE, MEBIBYTE / 2) == MEBIBYTE / 2);
        CHECK(!memcmp(message, received, MEBIBYTE));
        CHECK(MsgWrite(rcvid, message, MEBIBYTE, 60) == 4);
        CHECK(!MsgReply(rcvid, 1, "reply", 6));
        pthread_join(thread, NULL);
        CHECK(sending.status == 1 && !strcmp(sending.reply, "reply") && !memcmp(sending.reply + 60, message, 4));
    }
    free(message);
    free(received);
}

static void the_other_process(void)
{
    struct server server = start_server(serve, _NTO_CHF_DISCONNECT);
    struct _msg_info64 info = {0};
    int side = ConnectAttach(0, server.pid, server.chid, _NTO_SIDE_CHANNEL, 0);
    int fd = ConnectAttach(0, server.pid, server.chid, 0, 0);
    CHECK(side > 0 && fd >= 0 && fd < 512);
    for (int i = 1; i < 1000; i++)
        ask(i % 2 ? side : fd, i);
    CHECK(ask_pid(fd) == server.pid);
    CHECK(ConnectServerInfo(0, fd, &info) == fd && info.pid == server.pid && info.chid == server.chid);
    CHECK(ConnectFlags(0, fd, 0, 0) == _NTO_COF_CLOEXEC);
    kill_server(&server);
    CHECK_FAILS(ask_pid(fd), EBADF);
    CHECK(ConnectServerInfo(0, fd, &info) == fd && info.flags & _NTO_COF_DEAD);
    CHECK(!ConnectDetach(fd) && !ConnectDetach(side));
    CHECK_FAILS(ask_pid(fd), EBADF);
}

static void a_server_dies_with_a_message(void)
{
    struct server server = start_server(serve, 0);
    const struct question question = {ASK_SILENCE, 0, 0};
    int coid = ConnectAttach(0, server.pid, server.chid, 0, 0);
    struct sending sending = {.coid = coid, .message = &question, .size = sizeof question};
    CHECK(ask_pid(coid) == server.pid);
    pthread_t thread = start_thread(send_one, &sending);
    CHECK_EVENTUALLY(is_asleep(sending.tid));
    kill_server(&server);
    pthread_join(thread, NULL);
    CHECK(sending.status == -ESRCH);
    CHECK_FAILS(ask_pid(coid), EBADF);
}

static void a_channel_is_destroyed(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    struct sending held = sending_to(coid, "held"), waiting = sending_to(coid, "waiting");
    pthread_t one = start_thread(send_one, &held);
    int rcvid = MsgReceive(chid, NULL, 0, NULL);
    pthread_t other = start_thread(send_one, &waiting);
    CHECK_EVENTUALLY(is_asleep(waiting.tid));
    CHECK(rcvid > 0 && !ChannelDestroy(chid));
    pthread_join(one, NULL);
    pthread_join(other, NULL);
    CHECK(held.status == -ESRCH && waiting.status == -ESRCH);
    CHECK_FAILS(MsgReply(rcvid, 0, NULL, 0), ESRCH);
    CHECK_FAILS(MsgSend(coid, NULL, 0, NULL, 0), EBADF);
    CHECK(!ConnectDetach(coid));
}

static void a_connection_is_detached(void)
{
    int coid, chid = channel_and_connection(0, &coid);
    struct sending held = sending_to(coid, "held"), waiting = sending_to(coid, "waiting");
    pthread_t one = start_thread(send_one, &held);
    CHECK(MsgReceive(chid, NULL, 0, NULL) > 0);
    pthread_t other = start_thread(send_one, &waiting);
    CHECK_EVENTUALLY(is_asleep(waiting.tid));
    CHECK(!ConnectDetach(coid));
    pthread_join(one, NULL);
    pthread_join(other, NULL);
    CHECK(held.status == -EBADF && waiting.status == -EBADF);
}

static void timeouts(void)
{
    const uint64_t soon = 20 * MILLISECOND, at_once = 0;
    int coid, chid = channel_and_connection(0, &coid);
    struct _pulse pulse;
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &soon, NULL) >= 0);
    CHECK_FAILS(MsgReceive(chid, &pulse, sizeof pulse, NULL), ETIMEDOUT);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &at_once, NULL) >= 0);
    CHECK_FAILS(MsgReceivePulse(chid, &pulse, sizeof pulse, NULL), ETIMEDOUT);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_SEND | _NTO_TIMEOUT_REPLY, NULL, &soon, NULL) >= 0);
    CHECK_FAILS(MsgSend(coid, "nobody", 6, NULL, 0), ETIMEDOUT);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &at_once, NULL) >= 0);
    CHECK_FAILS(MsgReceive(chid, &pulse, sizeof pulse, NULL), ETIMEDOUT); /* The message was withdrawn. */
    CHECK_FAILS(TimerTimeout(12345, _NTO_TIMEOUT_RECEIVE, NULL, &soon, NULL), EINVAL);
    CHECK(TimerTimeout_r(12345, _NTO_TIMEOUT_RECEIVE, NULL, &soon, NULL) == -EINVAL);
}

static void *send_with_timeout(void *argument)
{
    const uint64_t soon = 20 * MILLISECOND;
    struct ha_posix_sigevent event;
    HA_POSIX_SIGEV_UNBLOCK_INIT(&event);
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_REPLY, &event, &soon, NULL) >= 0);
    return send_one(argument);
}

static void an_unblock_pulse(void)
{
    int coid, chid = channel_and_connection(_NTO_CHF_UNBLOCK, &coid);
    struct sending sending = sending_to(coid, "patience");
    struct _msg_info64 info;
    struct _pulse pulse;
    pthread_t thread = start_thread(send_with_timeout, &sending);
    int rcvid = MsgReceive(chid, NULL, 0, NULL);
    CHECK(MsgReceive(chid, &pulse, sizeof pulse, NULL) == 0);
    CHECK(pulse.code == _PULSE_CODE_UNBLOCK && pulse.value.sival_int == rcvid);
    CHECK(!MsgInfo(rcvid, &info) && info.flags & _NTO_MI_UNBLOCK_REQ);
    CHECK(!MsgError(rcvid, -1));
    pthread_join(thread, NULL);
    CHECK(sending.status == -ETIMEDOUT);
}

static void nothing(int number)
{
    (void)number;
}

/* With SA_RESTART: a kernel call does not start again. */
static void a_signal(void)
{
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "question");
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    pthread_t thread = start_thread(send_one, &sending);
    CHECK(MsgReceive(chid, NULL, 0, NULL) > 0);
    CHECK_EVENTUALLY(is_asleep(sending.tid));
    CHECK(!pthread_kill(thread, SIGUSR1));
    pthread_join(thread, NULL);
    CHECK(sending.status == -EINTR);
}

static void a_thread_that_goes_on(void)
{
    struct sigaction action = {.sa_handler = nothing};
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "question");
    CHECK(!sigaction(SIGUSR1, &action, NULL));
    CHECK(ha_posix_interrupt_main_only(1) == 0 && ha_posix_interrupt_main_only(1) == 1);
    pthread_t thread = start_thread(send_one, &sending);
    int rcvid = MsgReceive(chid, NULL, 0, NULL);
    for (int i = 0; i < 3; i++) {
        CHECK_EVENTUALLY(is_asleep(sending.tid));
        CHECK(!pthread_kill(thread, SIGUSR1));
    }
    CHECK(!MsgReply(rcvid, 4, NULL, 0));
    pthread_join(thread, NULL);
    CHECK(sending.status == 4);
}

/* The other thread's message is taken back; once it is received, the thread is free, or the server is asked. */
static void another_threads_wait(void)
{
    struct _pulse pulse;
    int coid, chid = channel_and_connection(0, &coid);
    struct sending sending = sending_to(coid, "question");
    CHECK(!ha_posix_unblock(pthread_self()));
    pthread_t thread = start_thread(send_one, &sending);
    CHECK_EVENTUALLY(is_asleep(sending.tid));
    CHECK(!ha_posix_unblock(thread));
    pthread_join(thread, NULL);
    CHECK(sending.status == -EINTR);

    thread = start_thread(send_one, &sending);
    int rcvid = MsgReceive(chid, NULL, 0, NULL);
    CHECK_EVENTUALLY(is_asleep(sending.tid));
    CHECK(rcvid > 0 && !ha_posix_unblock(thread));
    pthread_join(thread, NULL);
    CHECK(sending.status == -EINTR && MsgReply(rcvid, 3, NULL, 0) == -1 && errno == ESRCH);

    chid = channel_and_connection(_NTO_CHF_UNBLOCK, &coid);
    sending = sending_to(coid, "question");
    for (int i = 0; i < 2; i++) {
        thread = start_thread(send_one, &sending);
        rcvid = MsgReceive(chid, NULL, 0, NULL);
        CHECK_EVENTUALLY(is_asleep(sending.tid));
        CHECK(!ha_posix_unblock(thread) && !ha_posix_unblock(thread));
        CHECK(MsgReceive(chid, &pulse, sizeof pulse, NULL) == 0 && pulse.code == _PULSE_CODE_UNBLOCK);
        CHECK(i ? !MsgError(rcvid, -1) : !MsgReply(rcvid, 4, NULL, 0));
        pthread_join(thread, NULL);
        CHECK(sending.status == (i ? -EINTR : 4));
    }
}

static atomic_bool is_over;

static void *send_many(void *argument)
{
    struct sending *sending = argument;
    long answered = 0;
    for (int i = 0; i < 2000; i++) {
        long status = MsgSend_r(sending->coid, "question", 9, NULL, 0);
        CHECK(status == 4 || status == -EINTR);
        answered += status == 4;
    }
    CHECK(answered > 0);
    atomic_store(&is_over, true);
    MsgSendPulse(sending->coid, -1, 1, 0);
    return NULL;
}

static void *answer_many(void *argument)
{
    const int *chid = argument;
    struct _pulse pulse;
    for (;;) {
        int rcvid = MsgReceive(*chid, &pulse, sizeof pulse, NULL);
        if (rcvid > 0)
            MsgReply(rcvid, 4, NULL, 0);
        else if (rcvid == 0 && pulse.code == 1)
            return NULL;
    }
}

/* At whatever point it is: its message has its answer, or none. */
static void a_thread_that_is_asked_for_all_the_time(void)
{
    for (int i = 0; i < 2; i++) {
        int coid, chid = channel_and_connection(i ? _NTO_CHF_UNBLOCK : 0, &coid);
        struct sending sending = sending_to(coid, "question");
        atomic_store(&is_over, false);
        pthread_t server = start_thread(answer_many, &chid), client = start_thread(send_many, &sending);
        while (!atomic_load(&is_over)) {
            ha_posix_unblock(client);
            usleep(50);
        }
        pthread_join(client, NULL);
        pthread_join(server, NULL);
    }
}

static void many_channels_and_connections(void)
{
    int chids[64], coids[64];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 64; i++) {
            chids[i] = ChannelCreate(i % 2 ? _NTO_CHF_PRIVATE : 0);
            coids[i] = ConnectAttach(0, 0, chids[i], i % 3 ? 0 : _NTO_SIDE_CHANNEL, i % 5 ? 0 : _NTO_COF_NOSHARE);
            CHECK(chids[i] > 0 && coids[i] >= 0);
        }
        for (int i = 0; i < 64; i++)
            CHECK(i % 2 ? !ChannelDestroy(chids[i]) && !ConnectDetach(coids[i])
                        : !ConnectDetach(coids[i]) && !ChannelDestroy(chids[i]));
    }
}

/* A process that is in very many groups lists the first of them. Only root can be in so many at will. */
static void many_groups(void)
{
    static gid_t groups[2000];
    struct _client_info info;
    for (int i = 0; i < 2000; i++)
        groups[i] = (gid_t)(100 + i);
    if (setgroups(2000, groups)) {
        printf("many_groups: not run, setgroups() is not allowed\n");
        return;
    }
    CHECK(!ConnectClientInfo(-1, &info, 3) && info.cred.ngroups == 2000);
    CHECK(info.cred.grouplist[0] == 100 && info.cred.grouplist[2] == 102 && !info.cred.grouplist[3]);
}

static void what_the_library_is(void)
{
    CHECK(!strncmp(ha_posix_version(), "libha for POSIX ", 16));
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"an_exchange", an_exchange},
        {"short_buffers", short_buffers},
        {"all_sends", all_sends},
        {"errors_and_their_signs", errors_and_their_signs},
        {"the_servers_error", the_servers_error},
        {"a_restart", a_restart},
        {"large_messages", large_messages},
        {"the_other_process", the_other_process},
        {"a_server_dies_with_a_message", a_server_dies_with_a_message},
        {"a_channel_is_destroyed", a_channel_is_destroyed},
        {"a_connection_is_detached", a_connection_is_detached},
        {"timeouts", timeouts},
        {"an_unblock_pulse", an_unblock_pulse},
        {"a_signal", a_signal},
        {"a_thread_that_goes_on", a_thread_that_goes_on},
        {"another_threads_wait", another_threads_wait},
        {"a_thread_that_is_asked_for_all_the_time", a_thread_that_is_asked_for_all_the_time},
        {"many_channels_and_connections", many_channels_and_connections},
        {"many_groups", many_groups},
        {"what_the_library_is", what_the_library_is},
    };
    return RUN_CASES(cases, argc, argv);
}
