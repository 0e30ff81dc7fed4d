/* Without memory no pulse is lost: it waits, or what it needs was there before. */
#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static atomic_bool fails;
/* Where the code of the library lies: nobody else's calls fail. */
static uintptr_t begin, end;

static int find_library(struct dl_phdr_info *info, size_t size, void *argument)
{
    (void)size, (void)argument;
    for (int i = 0; strstr(info->dlpi_name, "libha_posix") && i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD && info->dlpi_phdr[i].p_flags & PF_X) {
            begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            end = begin + info->dlpi_phdr[i].p_memsz;
        }
    }
    return 0;
}

/* It is called before a thread is known to the sanitizer. */
__attribute__((no_sanitize("thread"))) void *calloc(size_t count, size_t size)
{
    static _Alignas(max_align_t) char early[4096];
    static atomic_size_t used;
    static void *(*real)(size_t, size_t);
    static atomic_bool is_looking;
    uintptr_t caller = (uintptr_t)__builtin_return_address(0);
    if (caller >= begin && caller < end && atomic_load(&fails))
        return NULL;
    if (!real && atomic_exchange(&is_looking, true)) { /* dlsym itself asks for some. */
        size_t at = atomic_fetch_add(&used, (count * size + 15) / 16 * 16);
        return at + count * size <= sizeof early ? early + at : NULL;
    }
    if (!real) {
        void *found = dlsym(RTLD_NEXT, "calloc");
        memcpy(&real, &found, sizeof real);
    }
    return real(count, size);
}

/* What is there now; its code, 127 for a message, or -128 if nothing is. */
static int next(int chid, int *value, int *rcvid)
{
    struct _pulse pulse;
    uint64_t at_once = 0;
    TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, &at_once, NULL);
    int received = MsgReceive(chid, &pulse, sizeof pulse, NULL);
    if (received < 0)
        return -128;
    if (rcvid)
        *rcvid = received;
    if (value && !received)
        *value = pulse.value.sival_int;
    return received ? 127 : pulse.code;
}

static void pulses_wait(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0), value;
    atomic_store(&fails, true);
    for (int i = 0; i < 300; i++)
        CHECK(!MsgSendPulse(coid, 10, 1, i));
    CHECK(next(chid, NULL, NULL) == -128);
    atomic_store(&fails, false);
    for (int i = 0; i < 300; i++)
        CHECK(next(chid, &value, NULL) == 1 && value == i);
    CHECK(next(chid, NULL, NULL) == -128);
}

static void *receive_one(void *chid)
{
    struct _pulse pulse;
    CHECK(!MsgReceivePulse(*(int *)chid, &pulse, sizeof pulse, NULL) && pulse.value.sival_int == 8);
    return NULL;
}

static void who_waits_for_them_gets_them(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    pthread_t thread = start_thread(receive_one, &chid);
    atomic_store(&fails, true);
    CHECK(!MsgSendPulse(coid, 10, 1, 8));
    for (int i = 0; i < 20; i++)
        check_pause();
    atomic_store(&fails, false);
    CHECK(!pthread_join(thread, NULL));
}

static void a_client_that_leaves(void)
{
    int chid = ChannelCreate(_NTO_CHF_DISCONNECT), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0), value;
    CHECK(next(chid, NULL, NULL) == -128);
    atomic_store(&fails, true);
    CHECK(!ConnectDetach(coid));
    CHECK(next(chid, NULL, NULL) == _PULSE_CODE_DISCONNECT);
    atomic_store(&fails, false);
    coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    int other = ChannelCreate(0), to_other = ConnectAttach(0, 0, other, _NTO_SIDE_CHANNEL, 0);
    atomic_store(&fails, true);
    CHECK(!MsgSendPulse(to_other, 10, 1, 0));
    CHECK(!MsgSendPulse(coid, 10, 1, 7));
    CHECK(!ConnectDetach(coid));
    CHECK(next(other, NULL, NULL) == -128);
    atomic_store(&fails, false);
    int seen[2] = {0}, code;
    for (int i = 0; i < 2; i++) {
        CHECK_EVENTUALLY((code = next(chid, &value, NULL)) != -128);
        seen[code == 1]++;
        CHECK(code == _PULSE_CODE_DISCONNECT || (code == 1 && value == 7));
    }
    CHECK(seen[0] == 1 && seen[1] == 1 && next(chid, NULL, NULL) == -128);
    CHECK(next(other, NULL, NULL) == 1);
}

static void a_server_that_goes(void)
{
    int own = ChannelCreate(_NTO_CHF_COID_DISCONNECT), chid = ChannelCreate(0), value;
    int coids[40];
    for (int i = 0; i < 40; i++)
        coids[i] = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    atomic_store(&fails, true);
    CHECK(!ChannelDestroy(chid));
    CHECK(!ConnectDetach(coids[0]));
    for (int i = 0; i < 40; i++)
        CHECK(next(own, &value, NULL) == _PULSE_CODE_COIDDEATH && value == coids[i]);
    atomic_store(&fails, false);
}

/* Until it was received before it gave up. */
static void *send_for_a_while(void *coid)
{
    long status;
    do {
        uint64_t while_ns = 20 * 1000 * 1000;
        TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_SEND | _NTO_TIMEOUT_REPLY, NULL, &while_ns, NULL);
        errno = 0;
        status = MsgSend(*(int *)coid, "message", 8, NULL, 0);
    } while (status < 0 && errno == ETIMEDOUT);
    return (void *)(intptr_t)(status < 0 ? errno : -1);
}

static void a_client_that_asks_to_be_freed(void)
{
    int chid = ChannelCreate(_NTO_CHF_UNBLOCK), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0), rcvid, value;
    void *error;
    for (int i = 0; i < 3; i++) {
        pthread_t thread = start_thread(send_for_a_while, &coid);
        CHECK_EVENTUALLY(next(chid, NULL, &rcvid) == 127);
        atomic_store(&fails, true);
        CHECK_EVENTUALLY(next(chid, &value, NULL) == _PULSE_CODE_UNBLOCK);
        CHECK(value == rcvid && !MsgError(rcvid, EINTR));
        atomic_store(&fails, false);
        CHECK(!pthread_join(thread, &error) && error == (void *)(intptr_t)EINTR);
    }
}

static void a_timer(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    const struct _itimer once = {.nsec = 1};
    struct ha_posix_sigevent event;
    HA_POSIX_SIGEV_PULSE_INIT(&event, coid, 10, 5, 0);
    CHECK(!TimerSettime(TimerCreate(CLOCK_MONOTONIC, &event), 0, &once, NULL));
    atomic_store(&fails, true);
    CHECK(next(chid, NULL, NULL) == -128);
    atomic_store(&fails, false);
    CHECK_EVENTUALLY(next(chid, NULL, NULL) == 5);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"pulses_wait", pulses_wait},
        {"who_waits_for_them_gets_them", who_waits_for_them_gets_them},
        {"a_client_that_leaves", a_client_that_leaves},
        {"a_server_that_goes", a_server_that_goes},
        {"a_client_that_asks_to_be_freed", a_client_that_asks_to_be_freed},
        {"a_timer", a_timer},
    };
    dl_iterate_phdr(find_library, NULL);
    return RUN_CASES(cases, argc, argv);
}
