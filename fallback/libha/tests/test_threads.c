/* Many threads on both sides, and threads that end in the middle. */
#include <stdatomic.h>
#include <string.h>

#include "check.h"

/*
 * AddressSanitizer takes the stack of a thread that is cancelled for broken, and ThreadSanitizer does not see the locks
 * that such a thread still takes.
 */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_CANCEL
#endif

#define CLIENTS 4
#define SERVERS 3
#define MESSAGES 500

static atomic_int answered;

static void *serve_here(void *argument)
{
    int chid = *(int *)argument;
    union {
        struct question question;
        struct _pulse pulse;
    } message;
    struct _msg_info64 info;
    for (;;) {
        int rcvid = MsgReceive(chid, &message, sizeof message, &info);
        if (rcvid < 0)
            return NULL; /* The channel is gone. */
        if (rcvid > 0) {
            CHECK(info.msglen == sizeof message.question);
            /* ESRCH: the client has detached meanwhile. */
            int result = MsgReply_r(rcvid, message.question.number, &message.question, sizeof message.question);
            CHECK(result == 0 || result == -ESRCH);
            atomic_fetch_add(&answered, 1);
        }
    }
}

static void *ask_often(void *argument)
{
    int coid = *(int *)argument;
    for (int i = 1; i <= MESSAGES; i++) {
        ask(coid, i);
        if (i % 10 == 0)
            CHECK(!MsgSendPulse(coid, 10, 1, i));
    }
    return NULL;
}

static void *connect_and_ask(void *argument)
{
    int chid = *(int *)argument;
    for (int i = 1; i <= MESSAGES / 5; i++) {
        int coid = ConnectAttach(0, 0, chid, i % 2 ? 0 : _NTO_SIDE_CHANNEL, i % 3 ? 0 : _NTO_COF_NOSHARE);
        CHECK(coid >= 0);
        ask(coid, i);
        CHECK(!ConnectDetach(coid));
    }
    return NULL;
}

static void clients_and_servers(void)
{
    pthread_t servers[SERVERS], clients[CLIENTS];
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    for (int i = 0; i < SERVERS; i++)
        servers[i] = start_thread(serve_here, &chid);
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = start_thread(i % 2 ? ask_often : connect_and_ask, i % 2 ? &coid : &chid);
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    CHECK_EVENTUALLY(answered == CLIENTS / 2 * (MESSAGES + MESSAGES / 5));
    CHECK(!ChannelDestroy(chid));
    for (int i = 0; i < SERVERS; i++)
        pthread_join(servers[i], NULL);
}

struct doomed {
    int coid;
    _Atomic(pid_t) tid;
    bool cancellable;
    long status;
};

static void *receive_doomed(void *argument)
{
    struct doomed *doomed = argument;
    struct _pulse pulse;
    doomed->tid = own_tid();
    doomed->status = MsgReceive(doomed->coid, &pulse, sizeof pulse, NULL);
    return NULL;
}

#ifdef CAN_CANCEL
static void *send_doomed(void *argument)
{
    struct doomed *doomed = argument;
    doomed->tid = own_tid();
    doomed->status = doomed->cancellable ? MsgSend(doomed->coid, "doomed", 7, NULL, 0)
                                         : MsgSendnc(doomed->coid, "doomed", 7, NULL, 0);
    return NULL;
}

/* A thread that is cancelled takes its message with it; with "nc" it is not cancelled there. */
static void a_cancelled_sender(void)
{
    char message[8] = "";
    void *result;
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    struct doomed doomed = {.coid = coid, .cancellable = true}, saved = {.coid = coid};
    pthread_t thread = start_thread(send_doomed, &doomed);
    CHECK_EVENTUALLY(is_asleep(doomed.tid));
    pthread_cancel(thread);
    pthread_join(thread, &result);
    CHECK(result == PTHREAD_CANCELED);
    thread = start_thread(send_doomed, &saved);
    CHECK_EVENTUALLY(is_asleep(saved.tid));
    pthread_cancel(thread);
    int rcvid = MsgReceive(chid, message, sizeof message, NULL);
    CHECK(rcvid > 0 && !strcmp(message, "doomed") && !MsgReply(rcvid, 5, NULL, 0));
    pthread_join(thread, &result);
    CHECK(saved.status == 5);
}

/* A thread that is cancelled while it receives leaves the channel to the others. */
static void a_cancelled_receiver(void)
{
    struct _pulse pulse;
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    for (int i = 0; i < 3; i++) {
        struct doomed first = {.coid = chid}, second = {.coid = chid};
        pthread_t one = start_thread(receive_doomed, &first);
        CHECK_EVENTUALLY(is_asleep(first.tid));
        pthread_t other = start_thread(receive_doomed, &second);
        CHECK_EVENTUALLY(is_asleep(second.tid));
        pthread_cancel(i % 2 ? other : one);
        pthread_join(i % 2 ? other : one, NULL);
        CHECK(!MsgSendPulse(coid, 10, 1, i));
        pthread_join(i % 2 ? one : other, NULL);
        CHECK((i % 2 ? first : second).status == 0);
    }
    CHECK(!MsgSendPulse(coid, 10, 1, 9));
    CHECK(!MsgReceivePulse(chid, &pulse, sizeof pulse, NULL) && pulse.value.sival_int == 9);
}
#endif

static void receivers_of_a_destroyed_channel(void)
{
    int chid = ChannelCreate(0);
    struct doomed receivers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        receivers[i] = (struct doomed){.coid = chid};
        threads[i] = start_thread(receive_doomed, &receivers[i]);
        CHECK_EVENTUALLY(is_asleep(receivers[i].tid));
    }
    CHECK(!ChannelDestroy(chid));
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(receivers[i].status == -1);
    }
}

static atomic_bool enough;

static void *ask_until_enough(void *argument)
{
    while (!enough) {
        int coid = *(int *)argument;
        struct question question = {QUESTION, 0, 1};
        long status = MsgSend_r(coid, &question, sizeof question, NULL, 0);
        CHECK(status == 1 || status == -EBADF || status == -ESRCH);
    }
    return NULL;
}

/* Connections and channels come and go under threads that use them. */
static void ends_under_load(void)
{
    struct question question = {QUESTION, 0, 1};
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 100, 0);
    pthread_t server = start_thread(serve_here, &chid), client = start_thread(ask_until_enough, &coid);
    for (int i = 0; i < 200; i++) {
        CHECK(!ConnectDetach(coid));
        CHECK(ConnectAttach(0, 0, chid, 100, 0) == coid);
        MsgSend(coid, &question, sizeof question, NULL, 0);
    }
    CHECK(!ChannelDestroy(chid));
    enough = true;
    pthread_join(client, NULL);
    pthread_join(server, NULL);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"clients_and_servers", clients_and_servers},
#ifdef CAN_CANCEL
        {"a_cancelled_sender", a_cancelled_sender},
        {"a_cancelled_receiver", a_cancelled_receiver},
#endif
        {"receivers_of_a_destroyed_channel", receivers_of_a_destroyed_channel},
        {"ends_under_load", ends_under_load},
    };
    return RUN_CASES(cases, argc, argv);
}
