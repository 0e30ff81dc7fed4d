"""Timers: many at once, those of other processes and of forked children, and the calls that make and set them."""

import contextlib
import os
import resource
import signal
import time
from errno import EAGAIN, EBADF, EINVAL, EMFILE, ENFILE, ENOMEM, ENOTSUP, EPERM, ESRCH, ETIMEDOUT
from typing import Any, Iterator, List, Tuple

import pytest

from ha_qnx import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_SOFTTIME,
    NTO_CHF_DISCONNECT,
    NTO_SIDE_CHANNEL,
    NTO_TI_ABSOLUTE,
    NTO_TI_ACTIVE,
    NTO_TI_EXPIRED,
    NTO_TI_TOD_BASED,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_DISCONNECT,
    SIGEV_INTR_INIT,
    SIGEV_NONE_INIT,
    SIGEV_PULSE_INIT,
    SIGEV_SIGNAL_INIT,
    SIGEV_UNBLOCK_INIT,
    TIMER_ABSTIME,
    Itimer,
    Itimerspec,
    Pulse,
    SigEvent,
    Timespec,
)

from .clients import Start
from .expect import fails_with
from .marks import checks
from .peers import Peer
from .receiving import (
    PULSE_SIZE,
    assert_nothing_waits,
    outlast_timeouts,
    receive_pulse,
    receive_values,
    receive_what_waits,
)
from .servers import become_another_program, create_channel
from .waiting import eventually

MILLISECOND = 1_000_000
LONG = 3_600_000_000_000


def make_timer(qnx: Any, event: SigEvent, first: int, interval: int = 0) -> int:
    """A timer that was set."""
    timer: int = qnx.TimerCreate(CLOCK_MONOTONIC, event)
    qnx.TimerSettime(timer, 0, Itimer(first, interval))
    return timer


@pytest.fixture
def channel(qnx: Any) -> Tuple[int, int]:
    """A channel of this process, and a connection to it."""
    chid = qnx.ChannelCreate(0)
    return chid, qnx.ConnectAttach(0, 0, chid)


@pytest.fixture(autouse=True)
def no_timer_is_left(qnx: Any) -> Iterator[None]:
    """What a test sets ends with it."""
    yield
    for timer in range(1, 200):
        try:
            qnx.TimerDestroy(timer)
        except OSError:
            continue


# Many at once.


@checks("B445", "B237")
def test_no_pulse_of_many_timers_is_lost_and_none_comes_twice(qnx: Any, channel: Tuple[int, int]) -> None:
    """Each period of each of a hundred timers is a pulse, in the order in which they were due."""
    chid, coid = channel
    timers = [qnx.TimerCreate(CLOCK_MONOTONIC, SIGEV_PULSE_INIT(coid, 10, 1, value)) for value in range(100)]
    start = time.monotonic_ns() + 20 * MILLISECOND
    for value, timer in enumerate(timers):
        qnx.TimerSettime(timer, TIMER_ABSTIME, Itimer(start + value * 1000, MILLISECOND))
    rounds = 50
    assert receive_values(qnx, chid, rounds * 100) == [*range(100)] * rounds
    for timer in timers:
        qnx.TimerDestroy(timer)


@checks("B445")
def test_several_threads_receive_the_pulses_of_a_timer(qnx: Any, channel: Tuple[int, int], start: Start) -> None:
    """Each pulse goes to one of them."""
    chid, coid = channel
    receivers = [start(receive_values, qnx, chid, 25) for _ in range(4)]
    timer = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), MILLISECOND, MILLISECOND)
    assert [receiver.result() for receiver in receivers] == [[7] * 25] * 4
    qnx.TimerDestroy(timer)


@checks("B444")
def test_pulses_of_timers_are_received_by_priority(qnx: Any, channel: Tuple[int, int]) -> None:
    """Before what is less urgent, and behind what is more, though nobody received when they were due."""
    chid, coid = channel
    qnx.MsgSendPulse(coid, 10, 1, 10)
    qnx.MsgSendPulse(coid, 30, 1, 30)
    make_timer(qnx, SIGEV_PULSE_INIT(coid, 20, 1, 20), 1)
    outlast_timeouts(qnx, MILLISECOND)
    assert receive_values(qnx, chid, 3) == [30, 20, 10]


@checks("B442")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivev", "MsgReceivePulse"])
def test_a_timer_ends_the_wait_of_a_receiver(qnx: Any, channel: Tuple[int, int], start: Start, call: str) -> None:
    """Each call that receives returns 0 when a timer expires."""
    (chid, coid), pulse = channel, Pulse()
    receiver = start(getattr(qnx, call), chid, [pulse] if call == "MsgReceivev" else pulse).wait_until_blocked()
    make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 3, 4), MILLISECOND)
    assert receiver.result() == 0
    assert (pulse.code, pulse.value.sival_int) == (3, 4)


@checks("B442")
def test_a_timer_names_its_process_as_the_connection_does(qnx: Any, channel: Tuple[int, int]) -> None:
    """The scoid of its pulses is that of pulses that are sent on the connection, be it the first or not."""
    chid, coid = channel
    make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 1), 1)
    scoid = receive_pulse(qnx, chid).scoid
    qnx.MsgSendPulse(coid, 10, 1, 1)
    assert receive_pulse(qnx, chid).scoid == scoid
    assert scoid & NTO_SIDE_CHANNEL


# Other processes, and signals.


def receive_there(qnx: Any, chid: int, count: int) -> List[int]:
    return receive_values(qnx, chid, count)


@checks("B442", "B445")
def test_a_timer_sends_its_pulses_to_another_process(qnx: Any, peer: Peer) -> None:
    """They are queued there each period, whatever this process does."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    timer = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), MILLISECOND, MILLISECOND)
    assert peer.run(receive_there, chid, 20) == [7] * 20
    qnx.TimerDestroy(timer)


@checks("B446")
def test_a_timer_for_a_process_that_was_killed_is_silent(qnx: Any, channel: Tuple[int, int], peer: Peer) -> None:
    """Nothing happens here, and its connection may lead elsewhere later."""
    chid, own = channel
    coid = qnx.ConnectAttach(0, peer.pid, peer.run(create_channel))
    timer = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), MILLISECOND, MILLISECOND)
    peer.kill()
    outlast_timeouts(qnx, 5 * MILLISECOND)
    assert_nothing_waits(qnx, chid)
    qnx.ConnectDetach(coid)
    assert qnx.ConnectAttach(0, 0, chid) == coid
    assert receive_values(qnx, chid, 3) == [7] * 3
    qnx.TimerDestroy(timer)
    assert qnx.ConnectDetach(own) == 0


@checks("B441", "D78")
@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGUSR1])
def test_a_timer_raises_a_signal(qnx: Any, number: signal.Signals) -> None:
    """A handler runs; without an event the signal is SIGALRM."""
    seen: List[int] = []
    before = signal.signal(number, lambda number, _frame: seen.append(number))
    try:
        event = None if number == signal.SIGALRM else SIGEV_SIGNAL_INIT(number)
        timer = qnx.TimerCreate(CLOCK_MONOTONIC, event)
        qnx.TimerSettime(timer, 0, Itimer(MILLISECOND, MILLISECOND))
        eventually(lambda: len(seen) >= 2, "two signals")
        qnx.TimerDestroy(timer)
        outlast_signals(qnx)
    finally:
        signal.signal(number, before)
    assert set(seen) == {number}


def outlast_signals(qnx: Any) -> None:
    """Wait until a signal that is on its way has come; it may end this."""
    chid = qnx.ChannelCreate(0)
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 20 * MILLISECOND)
    with pytest.raises((TimeoutError, InterruptedError)):
        qnx.MsgReceive(chid, bytearray(PULSE_SIZE))


@checks("D78")
@pytest.mark.parametrize("event", [SIGEV_NONE_INIT(), SIGEV_UNBLOCK_INIT(), SIGEV_INTR_INIT()])
def test_a_timer_without_effect_runs(qnx: Any, event: SigEvent) -> None:
    """It can be asked what is left of its time."""
    timer = make_timer(qnx, event, MILLISECOND, LONG)
    eventually(lambda: qnx.TimerInfo(0, timer).flags & NTO_TI_EXPIRED, "an expiry")
    assert LONG - 60_000 * MILLISECOND < qnx.TimerInfo(0, timer).otime.nsec <= LONG


def child_has_timer(qnx: Any, timer: int) -> int:
    """Whether a forked child has a timer of its parent: its exit status is 0 if not."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            qnx.TimerInfo(0, timer)
        except OSError as error:
            status = int(error.errno != EINVAL)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if hasattr(os, "waitstatus_to_exitcode") else 0


@checks("D78", "B269")
def test_a_forked_child_has_no_timers(qnx: Any, channel: Tuple[int, int]) -> None:
    """Those of the parent go on."""
    chid, coid = channel
    timer = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), MILLISECOND, MILLISECOND)
    assert child_has_timer(qnx, timer) == 0
    assert receive_values(qnx, chid, 3) == [7] * 3
    qnx.TimerDestroy(timer)


def send_by_timer_and_exec(qnx: Any, pid: int, chid: int) -> None:
    """In another process: set a timer that sends pulses there, and become a program that does nothing."""
    make_timer(qnx, SIGEV_PULSE_INIT(qnx.ConnectAttach(0, pid, chid), 10, 1, 7), MILLISECOND, MILLISECOND)
    become_another_program()


@checks("B200", "B269", "B279")
def test_exec_ends_the_timers_of_a_process(qnx: Any, peer: Peer, start: Start) -> None:
    """What they have sent until then is received, be it after the news that the client is gone; and no more comes."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer.begin(send_by_timer_and_exec, os.getpid(), chid)
    codes = list(iter(lambda: receive_pulse(qnx, chid).code, PULSE_CODE_DISCONNECT))
    codes += [pulse.code for pulse in receive_what_waits(qnx, chid, 10_000)]
    assert set(codes) <= {1}
    outlast_timeouts(qnx, 5 * MILLISECOND)
    assert_nothing_waits(qnx, chid)
    assert peer.process.poll() is None


def set_timers_until_refused(qnx: Any) -> Tuple[int, List[int]]:
    """Use up all descriptors, then try to make and set a timer; the errno, and what comes once there is room."""
    limit = 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    event = SIGEV_PULSE_INIT(coid, 10, 1, 7)
    held: List[int] = []
    with contextlib.suppress(OSError):
        while len(held) < limit:
            held.append(os.dup(0))
    number = 0
    try:
        make_timer(qnx, event, MILLISECOND, MILLISECOND)
    except OSError as error:
        number = error.errno or 0
    for fd in held:
        os.close(fd)
    if number:
        make_timer(qnx, event, MILLISECOND, MILLISECOND)
    return number, receive_values(qnx, chid, 3)


@checks("B441", "B445")
def test_a_timer_that_finds_no_descriptor_is_refused_or_runs(peer: Peer) -> None:
    """On QNX a timer takes none; a host may have no room for it, and says so. Afterwards all is as before."""
    number, values = peer.run(set_timers_until_refused)
    assert number in {0, EAGAIN, EMFILE, ENFILE, ENOMEM}
    assert values == [7] * 3


@checks("D78")
def test_timers_are_those_of_the_own_process(qnx: Any, peer: Peer, channel: Tuple[int, int]) -> None:
    """TimerInfo of another process is EPERM, of none ESRCH; a negative number is none."""
    timer = make_timer(qnx, SIGEV_PULSE_INIT(channel[1], 10, 1, 1), LONG)
    for none in (-1, -os.getpgrp(), -(1 << 31)):
        with fails_with(ESRCH):
            qnx.TimerInfo(none, timer)
    with fails_with(EPERM):
        qnx.TimerInfo(peer.pid, timer)
    pid = peer.pid
    peer.kill()
    with fails_with(ESRCH):
        qnx.TimerInfo(pid, timer)


# The calls.


@checks("B449")
def test_a_timer_tells_what_is_left(qnx: Any, channel: Tuple[int, int]) -> None:
    """TimerInfo tells how it was set, what is left, and the event."""
    timer = make_timer(qnx, SIGEV_PULSE_INIT(channel[1], 12, 3, 4), LONG, 5 * LONG)
    info = qnx.TimerInfo(0, timer)
    assert (info.itime.nsec, info.itime.interval_nsec, info.otime.interval_nsec) == (LONG, 5 * LONG, 5 * LONG)
    assert LONG - 60_000 * MILLISECOND < info.otime.nsec <= LONG
    assert (info.flags, info.clockid, info.overruns) == (NTO_TI_ACTIVE, CLOCK_MONOTONIC, 0)
    assert (info.event.sigev_coid, info.event.sigev_priority, info.event.sigev_code) == (channel[1], 12, 3)
    value = qnx.timer_gettime(timer)
    assert (value.it_interval.tv_sec, value.it_interval.tv_nsec) == (18_000, 0)
    assert 3_500 < value.it_value.tv_sec <= 3_600
    qnx.TimerSettime(timer, 0, Itimer(0, 0))
    assert (qnx.TimerInfo(0, timer).flags, qnx.timer_gettime(timer).it_value.tv_sec) == (0, 0)


@checks("B447", "D77", "D79")
@pytest.mark.parametrize("clock", [CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_SOFTTIME])
def test_an_absolute_time_is_one_of_the_timers_clock(qnx: Any, channel: Tuple[int, int], clock: int) -> None:
    """It does not expire before, and what is left is told as a span."""
    chid, coid = channel
    timer = qnx.TimerCreate(clock, SIGEV_PULSE_INIT(coid, 10, 1, 7))
    due = time.clock_gettime_ns(clock) + 30 * MILLISECOND
    qnx.TimerSettime(timer, TIMER_ABSTIME, Itimer(due, 0))
    of_day = NTO_TI_TOD_BASED if clock != CLOCK_MONOTONIC else 0
    assert qnx.TimerInfo(0, timer).flags & ~NTO_TI_EXPIRED | NTO_TI_ACTIVE == NTO_TI_ACTIVE | NTO_TI_ABSOLUTE | of_day
    assert receive_values(qnx, chid, 1) == [7]
    assert time.clock_gettime_ns(clock) >= due
    before = Itimer()
    qnx.TimerSettime(timer, 0, Itimer(0, 0), before)
    assert before.nsec == 0


@checks("B447")
def test_a_timer_that_is_set_again_begins_anew(qnx: Any, channel: Tuple[int, int]) -> None:
    """What was set before has no effect any more, and is told."""
    chid, coid = channel
    timer, old = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), 20 * MILLISECOND, LONG), Itimer()
    qnx.TimerSettime(timer, 0, Itimer(2 * LONG, 0), old)
    assert old.interval_nsec == LONG
    outlast_timeouts(qnx, 25 * MILLISECOND)
    count = 0 if old.nsec else 1
    assert receive_values(qnx, chid, count) == [7] * count
    assert_nothing_waits(qnx, chid)


@checks("B446", "B450")
def test_a_timer_ends_with_its_event(qnx: Any, channel: Tuple[int, int]) -> None:
    """An event of a coid that was detached is EBADF, a timer that was destroyed EINVAL in each call."""
    chid, coid = channel
    timer = make_timer(qnx, SIGEV_PULSE_INIT(coid, 10, 1, 7), LONG)
    qnx.TimerDestroy(timer)
    for call, arguments in (("TimerInfo", (0, timer)), ("timer_gettime", (timer,)), ("timer_delete", (timer,))):
        with fails_with(EINVAL):
            getattr(qnx, call)(*arguments)
    qnx.ConnectDetach(coid)
    with fails_with(EBADF):
        qnx.TimerCreate(CLOCK_MONOTONIC, SIGEV_PULSE_INIT(coid, 10, 1, 7))
    assert_nothing_waits(qnx, chid)


@checks("B441", "B448")
def test_bad_arguments_are_refused(qnx: Any, channel: Tuple[int, int]) -> None:
    """Before anything is done."""
    event = SIGEV_PULSE_INIT(channel[1], 10, 1, 7)
    timer = qnx.TimerCreate(CLOCK_MONOTONIC, event)
    event.sigev_notify = 99
    for clock, bad in ((CLOCK_MONOTONIC, event), (77, SIGEV_NONE_INIT()), (CLOCK_MONOTONIC, SIGEV_SIGNAL_INIT(0))):
        with fails_with(EINVAL):
            qnx.TimerCreate(clock, bad)
    for seconds, nanoseconds in ((-1, 0), (0, -1), (0, 1_000_000_000)):
        with fails_with(EINVAL):
            qnx.timer_settime(timer, 0, Itimerspec(Timespec(seconds, nanoseconds), Timespec()))
    for call, arguments in (
        ("TimerCreate", (CLOCK_MONOTONIC, 7)),
        ("TimerSettime", (timer, 0, 7)),
        ("timer_settime", (timer, 0, Itimer())),
        ("TimerDestroy", ("1",)),
    ):
        with pytest.raises(TypeError):
            getattr(qnx, call)(*arguments)


# TimerTimeout in C's form.


@checks("B208", "B219", "B225")
def test_a_timeout_is_taken_in_the_form_of_c(qnx: Any, channel: Tuple[int, int]) -> None:
    """With a clock, an event that unblocks or none, and no place for what is left."""
    chid, _coid = channel
    for clock, flags, ntime in (
        (CLOCK_MONOTONIC, 0, MILLISECOND),
        (CLOCK_REALTIME, 0, MILLISECOND),
        (CLOCK_MONOTONIC, TIMER_ABSTIME, time.monotonic_ns() + MILLISECOND),
        (CLOCK_REALTIME, TIMER_ABSTIME, time.time_ns() + MILLISECOND),
        (CLOCK_MONOTONIC, 0, None),
    ):
        for event in (None, SIGEV_UNBLOCK_INIT()):
            qnx.TimerTimeout(clock, NTO_TIMEOUT_RECEIVE | flags, event, ntime, None)
            with fails_with(ETIMEDOUT):
                qnx.MsgReceive(chid, bytearray(PULSE_SIZE))


@checks("B220", "B225")
def test_a_timeout_that_is_none_is_refused(qnx: Any) -> None:
    """Another clock is EINVAL, another event ENOTSUP, and another number of arguments names both forms."""
    with fails_with(EINVAL):
        qnx.TimerTimeout(77, NTO_TIMEOUT_RECEIVE, None, 1, None)
    with fails_with(ENOTSUP):
        qnx.TimerTimeout(CLOCK_MONOTONIC, NTO_TIMEOUT_RECEIVE, SIGEV_NONE_INIT(), 1, None)
    with pytest.raises(TypeError, match="notify, ntime, otime"):
        qnx.TimerTimeout(CLOCK_MONOTONIC, NTO_TIMEOUT_RECEIVE, None)
