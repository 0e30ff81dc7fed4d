/* Timers: whose pulses they are, and where they go. */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

#define MILLISECOND UINT64_C(1000000)

static int make(int coid, int value, uint64_t first, uint64_t interval)
{
    struct ha_posix_sigevent event;
    const struct _itimer times = {first, interval};
    memset(&event, 0, sizeof event);
    HA_POSIX_SIGEV_PULSE_INIT(&event, coid, SIGEV_PULSE_PRIO_INHERIT, 5, value);
    int timer = TimerCreate(CLOCK_MONOTONIC, &event);
    CHECK(timer > 0 && !TimerSettime(timer, 0, &times, NULL));
    return timer;
}

static struct _pulse receive(int chid)
{
    struct _pulse pulse;
    memset(&pulse, 0xff, sizeof pulse);
    CHECK(!MsgReceive(chid, &pulse, sizeof pulse, NULL));
    CHECK(pulse.type == _PULSE_TYPE && pulse.code == 5 && pulse.scoid & _NTO_SIDE_CHANNEL);
    return pulse;
}

static bool is_empty(int chid)
{
    struct _pulse pulse;
    CHECK(TimerTimeout(CLOCK_MONOTONIC, _NTO_TIMEOUT_RECEIVE, NULL, NULL, NULL) != -1);
    return MsgReceive(chid, &pulse, sizeof pulse, NULL) == -1 && errno == ETIMEDOUT;
}

static void once_and_again(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    const struct _itimer stop = {0, 0};
    struct _itimer before;
    int timer = make(coid, 7, MILLISECOND, 0);
    CHECK(receive(chid).value.sival_int == 7 && is_empty(chid));
    CHECK(!TimerDestroy(timer));
    CHECK_FAILS(TimerDestroy(timer), EINVAL);
    timer = make(coid, 8, MILLISECOND, MILLISECOND);
    for (int i = 0; i < 10; i++)
        CHECK(receive(chid).value.sival_int == 8);
    CHECK(!TimerSettime(timer, 0, &stop, &before) && before.nsec && before.interval_nsec == MILLISECOND);
    CHECK_FAILS(TimerSettime(timer + 1, 0, &stop, NULL), EINVAL);
    CHECK_FAILS(TimerSettime(timer, 0, NULL, NULL), EFAULT);
}

static void many_in_order(void)
{
    enum { TIMERS = 100, ROUNDS = 20 };
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    struct ha_posix_sigevent event;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t start = (uint64_t)now.tv_sec * 1000 * MILLISECOND + (uint64_t)now.tv_nsec + 10 * MILLISECOND;
    memset(&event, 0, sizeof event);
    for (int i = 0; i < TIMERS; i++) {
        const struct _itimer times = {start + (uint64_t)i * 1000, MILLISECOND};
        HA_POSIX_SIGEV_PULSE_INIT(&event, coid, 10, 5, i);
        CHECK(!TimerSettime(TimerCreate(CLOCK_MONOTONIC, &event), HA_POSIX_TIMER_ABSTIME, &times, NULL));
    }
    for (int i = 0; i < TIMERS * ROUNDS; i++)
        CHECK(receive(chid).value.sival_int == i % TIMERS);
}

static void a_connection_that_goes(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    int timer = make(coid, 7, MILLISECOND, MILLISECOND);
    receive(chid);
    CHECK(!ConnectDetach(coid));
    while (!is_empty(chid))
        ;
    check_pause();
    check_pause();
    CHECK(is_empty(chid));
    CHECK(ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0) == coid);
    CHECK(receive(chid).value.sival_int == 7);
    CHECK(!ChannelDestroy(chid) && !TimerDestroy(timer));
    struct ha_posix_sigevent event = {.sigev_notify = HA_POSIX_SIGEV_PULSE, .sigev_coid = 999};
    CHECK_FAILS(TimerCreate(CLOCK_MONOTONIC, &event), EBADF);
    CHECK_FAILS(TimerCreate(77, NULL), EINVAL);
}

static void to_another_process(void)
{
    int ends[2], chid = 0, status;
    CHECK(!pipe(ends));
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        chid = ChannelCreate(0);
        CHECK(write(ends[1], &chid, sizeof chid) == sizeof chid);
        for (int i = 0; i < 5; i++)
            CHECK(receive(chid).value.sival_int == 9);
        _exit(0);
    }
    CHECK(read(ends[0], &chid, sizeof chid) == sizeof chid);
    int coid = ConnectAttach(0, child, chid, _NTO_SIDE_CHANNEL, 0);
    int timer = make(coid, 9, MILLISECOND, MILLISECOND);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(!TimerDestroy(timer));
}

static atomic_int alarms;

static void count_alarm(int number)
{
    (void)number;
    atomic_fetch_add(&alarms, 1);
}

static void a_signal(void)
{
    const struct itimerspec times = {.it_value = {.tv_nsec = 1000000}, .it_interval = {.tv_nsec = 1000000}};
    struct itimerspec left = {.it_value = {.tv_nsec = 2000000000}};
    int timer;
    CHECK(signal(SIGALRM, count_alarm) != SIG_ERR);
    CHECK(!ha_posix_timer_create(CLOCK_REALTIME, NULL, &timer) && !ha_posix_timer_settime(timer, 0, &times, NULL));
    CHECK_EVENTUALLY(atomic_load(&alarms) >= 2);
    CHECK_FAILS(ha_posix_timer_settime(timer, 0, &left, NULL), EINVAL);
    CHECK(!ha_posix_timer_gettime(timer, &left) && left.it_interval.tv_nsec == 1000000);
    CHECK(!ha_posix_timer_getoverrun(timer) && !ha_posix_timer_delete(timer));
    CHECK_FAILS(ha_posix_timer_gettime(timer, &left), EINVAL);
}

static void a_child_has_none(void)
{
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0), status;
    int timer = make(coid, 7, MILLISECOND, MILLISECOND);
    struct _timer_info info;
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        CHECK_FAILS(TimerInfo(0, timer, 0, &info), EINVAL);
        int own = ChannelCreate(0);
        CHECK(make(ConnectAttach(0, 0, own, _NTO_SIDE_CHANNEL, 0), 3, MILLISECOND, 0) == timer);
        CHECK(receive(own).value.sival_int == 3);
        _exit(0);
    }
    CHECK(receive(chid).value.sival_int == 7);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status));
    CHECK(TimerInfo(0, timer, 0, &info) == timer && info.flags & _NTO_TI_ACTIVE && info.event.sigev_coid == coid);
    CHECK(info.itime.interval_nsec == MILLISECOND && info.otime.nsec);
}

static void *set_and_destroy(void *argument)
{
    int coid = *(int *)argument;
    for (int i = 0; i < 300; i++)
        CHECK(!TimerDestroy(make(coid, 7, 1 + (uint64_t)i * 1000, 100000)));
    return NULL;
}

static void by_many_threads(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int chid = ChannelCreate(0), coid = ConnectAttach(0, 0, chid, _NTO_SIDE_CHANNEL, 0);
    for (int i = 0; i < THREADS; i++)
        threads[i] = start_thread(set_and_destroy, &coid);
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_join(threads[i], NULL));
    while (!is_empty(chid))
        ;
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"once_and_again", once_and_again},
        {"many_in_order", many_in_order},
        {"a_connection_that_goes", a_connection_that_goes},
        {"to_another_process", to_another_process},
        {"a_signal", a_signal},
        {"a_child_has_none", a_child_has_none},
        {"by_many_threads", by_many_threads},
    };
    return RUN_CASES(cases, argc, argv);
}
