/* Pulses: those that are sent, and those of the library's own. */
#include <string.h>
#include <unistd.h>

#include "check.h"

static struct _pulse receive(int chid)
{
    struct _pulse pulse;
    memset(&pulse, 0xff, sizeof pulse);
    CHECK(MsgReceive(chid, &pulse, sizeof pulse, NULL) == 0);
    CHECK(pulse.type == _PULSE_TYPE && pulse.subtype == _PULSE_SUBTYPE);
    return pulse;
}

static void values_and_codes(void)
{
    const int values[] = {0, 1, -1, INT32_MAX, INT32_MIN}, codes[] = {0, 127, -128, -1};
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < 4; j++) {
            CHECK(!MsgSendPulse(coid, 10, codes[j], values[i]));
            struct _pulse pulse = receive(chid);
            CHECK(pulse.code == codes[j] && pulse.value.sival_int == values[i] && pulse.scoid & _NTO_SIDE_CHANNEL);
        }
    }
    CHECK(!MsgSendPulse(coid, 2, 1, 2) && !MsgSendPulse(coid, 0, 1, 1) && !MsgSendPulse(coid, 1, 1, 3));
    const int in_order[] = {2, 1, 3}; /* 0 is taken as 1. */
    for (int i = 0; i < 3; i++)
        CHECK(receive(chid).value.sival_int == in_order[i]);
    CHECK_FAILS(MsgSendPulse(coid, 256, 1, 1), EINVAL);
    CHECK_FAILS(MsgSendPulse(coid, -2, 1, 1), EINVAL);
    CHECK_FAILS(MsgSendPulse(99, 256, 1, 1), EBADF);
}

static void their_order(void)
{
    int chid = ChannelCreate(_NTO_CHF_FIXED_PRIORITY), coid = ConnectAttach(0, 0, chid, 0, 0);
    const int priorities[] = {10, 20, 10, 20, 5}, order[] = {1, 3, 0, 2, 4};
    for (int i = 0; i < 5; i++)
        CHECK(!MsgSendPulse(coid, priorities[i], 1, i));
    for (int i = 0; i < 5; i++)
        CHECK(receive(chid).value.sival_int == order[i]);
}

static void they_outlive_the_connection(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    CHECK(!MsgSendPulse(coid, 10, 1, 8));
    CHECK(!ConnectDetach(coid));
    CHECK(receive(chid).value.sival_int == 8);
}

static void a_buffer_that_is_too_small(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    char buffer[sizeof(struct _pulse) - 1];
    CHECK(!MsgSendPulse(coid, 10, 1, 1));
    CHECK_FAILS(MsgReceivePulse(chid, buffer, sizeof buffer, NULL), EFAULT);
    struct _pulse pulse;
    const iov_t small[2] = {{buffer, sizeof buffer}, {&pulse, sizeof pulse}}, large[2] = {small[1], small[0]};
    CHECK(!MsgSendPulse(coid, 10, 1, 1) && !MsgSendPulse(coid, 10, 1, 2));
    CHECK_FAILS(MsgReceivePulsev(chid, small, 2, NULL), EFAULT);
    CHECK(!MsgReceivePulsev(chid, large, 2, NULL) && pulse.value.sival_int == 2);
}

static void many_pulses(void)
{
    int sent = 0, chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, 0, 0);
    while (sent < 100000 && !MsgSendPulse(coid, 10, 1, sent))
        sent++;
    CHECK(sent >= 1000 && (sent == 100000 || errno == EAGAIN));
    for (int i = 0; i < sent; i++)
        CHECK(receive(chid).value.sival_int == i);
}

static void a_client_leaves(void)
{
    int chid = ChannelCreate(_NTO_CHF_DISCONNECT), coid = ConnectAttach(0, 0, chid, 0, 0);
    struct _client_info info;
    CHECK(!MsgSendPulse(coid, 10, 1, 1));
    struct _pulse pulse = receive(chid);
    CHECK(!ConnectClientInfo(pulse.scoid, &info, 0) && info.pid == getpid());
    CHECK_FAILS(ConnectDetach(pulse.scoid), EINVAL);
    CHECK(!ConnectDetach(coid));
    struct _pulse last = receive(chid);
    CHECK(last.code == _PULSE_CODE_DISCONNECT && last.scoid == pulse.scoid);
    CHECK(!ConnectDetach(last.scoid));
    CHECK_FAILS(ConnectClientInfo(last.scoid, &info, 0), EINVAL);
}

static void a_server_leaves(void)
{
    struct server server = start_server(serve, 0);
    int chid = ChannelCreate(_NTO_CHF_COID_DISCONNECT);
    int one = ConnectAttach(0, server.pid, server.chid, 0, 0);
    int other = ConnectAttach(0, server.pid, server.chid, _NTO_SIDE_CHANNEL, 0);
    CHECK(ask_pid(one) == server.pid);
    CHECK_FAILS(ChannelCreate(_NTO_CHF_COID_DISCONNECT), EBUSY);
    kill_server(&server);
    struct _pulse first = receive(chid), second = receive(chid);
    CHECK(first.code == _PULSE_CODE_COIDDEATH && second.code == _PULSE_CODE_COIDDEATH && first.scoid == -1);
    CHECK((first.value.sival_int == one && second.value.sival_int == other) ||
          (first.value.sival_int == other && second.value.sival_int == one));
}

static void *end_after_a_call(void *argument)
{
    *(int *)argument = ConnectDetach(9999);
    return NULL;
}

static void a_thread_ends(void)
{
    int result, chid = ChannelCreate(_NTO_CHF_THREAD_DEATH);
    pthread_t thread = start_thread(end_after_a_call, &result);
    struct _pulse pulse = receive(chid);
    CHECK(pulse.code == _PULSE_CODE_THREADDEATH && pulse.value.sival_int > 1);
    pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"values_and_codes", values_and_codes},
        {"their_order", their_order},
        {"they_outlive_the_connection", they_outlive_the_connection},
        {"a_buffer_that_is_too_small", a_buffer_that_is_too_small},
        {"many_pulses", many_pulses},
        {"a_client_leaves", a_client_leaves},
        {"a_server_leaves", a_server_leaves},
        {"a_thread_ends", a_thread_ends},
    };
    return RUN_CASES(cases, argc, argv);
}
