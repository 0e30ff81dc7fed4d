"""Timers: what their pulses carry, how many there are, and what becomes of them when their connection goes."""

import time
from typing import Any, Callable, Optional

from ha_qnx import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_SOFTTIME,
    NTO_CHF_FIXED_PRIORITY,
    NTO_SIDE_CHANNEL,
    SIGEV_FLAG_CRITICAL,
    SIGEV_INTR,
    SIGEV_NONE,
    SIGEV_PULSE,
    SIGEV_PULSE_INIT,
    SIGEV_SIGNAL,
    SIGEV_UNBLOCK,
    TIMER_ABSTIME,
    Itimer,
    Itimerspec,
    Pulse,
    SigEvent,
    Timespec,
)

from ..clients import take_priority
from ..peers import Peer
from ..receiving import outlast_timeouts
from .asking import Answers, measured
from .ledgers import receive, waiting
from .notation import is_side, succeeds, told, yes
from .parties import played
from .test_measured_messages import own_priority

MILLISECOND = 1_000_000
SOON = 20 * MILLISECOND
PERIOD = 5 * MILLISECOND

CLOCKS = {"TM01": (0, CLOCK_REALTIME), "TM02": (2, CLOCK_MONOTONIC), "TM03": (1, CLOCK_SOFTTIME)}
PRIORITIES = dict(zip((f"TM{case}" for case in range(20, 30)), (-1, 0, 1, 11, 20, 63, 64, 255, 256, -2)))
CODES = dict(zip((f"TM{case}" for case in range(30, 37)), (-1, -32, -33, -128, 127, 128, 300)))
#: The same of pulses that a program sends itself.
SENT_CODES = dict(
    zip((f"EQ1{case}" for case in "abcdefghijklm"), (-1, -2, -32, -33, -35, -64, -128, -129, 0, 127, 128, 255, 256))
)
SENT_PRIORITIES = dict(zip((f"EQ{case}" for case in range(20, 29)), (-1, -2, 0, 1, 63, 64, 255, 256, 1000)))
NOTIFIED = {
    "TM50": (0, SIGEV_NONE),
    "TM51": (1, SIGEV_SIGNAL),
    "TM52": (5, SIGEV_UNBLOCK),
    "TM53": (6, SIGEV_INTR),
    "TM54": (8, SIGEV_SIGNAL - 1 + 8),
    "TM55": (0x104, SIGEV_PULSE | SIGEV_FLAG_CRITICAL),
}


def cases(*numbers: str) -> Callable[[Callable[..., Answers]], Callable[..., None]]:
    """The mark of a test that asks these cases, which are of the second recording."""
    return measured(*(f"2.{number}" for number in numbers))


def described(qnx: Any, pulse: Pulse) -> str:
    """A pulse that was just received, and the priority that its receiver has from it."""
    where = "side" if is_side(pulse.scoid) and pulse.scoid != -1 else str(pulse.scoid)
    kind = f"type {pulse.type}/{pulse.subtype}"
    return f"code {pulse.code} value {pulse.value.sival_int} prio {own_priority(qnx)} {kind} scoid {where}"


def next_pulse(qnx: Any, chid: int) -> str:
    return described(qnx, receive(qnx, chid).pulse)


def nothing_more(qnx: Any, chid: int) -> str:
    return f"something: {waiting(qnx, chid)}" if waiting(qnx, chid) else "nothing more"


def connected(qnx: Any, flags: int = 0, index: int = NTO_SIDE_CHANNEL) -> Any:
    """A channel, and a connection of this process to it."""
    chid = qnx.ChannelCreate(flags)
    return chid, qnx.ConnectAttach(0, 0, chid, index)


def created(qnx: Any, event: Optional[SigEvent], first: int = SOON, interval: int = 0) -> int:
    """A timer that was set."""
    timer: int = qnx.TimerCreate(CLOCK_MONOTONIC, event)
    qnx.TimerSettime(timer, 0, Itimer(first, interval))
    return timer


def spec(nanoseconds: int) -> Itimerspec:
    return Itimerspec(Timespec(*divmod(nanoseconds, 1_000_000_000)), Timespec())


def ask_clocks(qnx: Any) -> Answers:
    """Once, by each clock; and clocks that there are none of."""
    chid, coid = connected(qnx)
    for number, (name, (of_qnx, clock)) in enumerate(CLOCKS.items()):
        timer = qnx.timer_create(clock, SIGEV_PULSE_INIT(coid, 12, 5 + number, 1000 + number))
        said = f"{of_qnx}: 0 {told(qnx.timer_settime, timer, 0, spec(SOON))}"
        said += f": {next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
        yield f"2.{name}", f"{said}; {told(qnx.timer_delete, timer)} {told(qnx.timer_delete, timer)}"
    for name, clock in (("TM04", 3), ("TM05", 9)):
        yield f"2.{name}", f"{clock}: {told(qnx.timer_create, clock, SIGEV_PULSE_INIT(coid, 12, 1, 1))}"


@cases(*CLOCKS, "TM04", "TM05")
def test_a_timer_expires_once_by_each_clock(alone: Peer) -> Answers:
    """With one pulse that says what the event says."""
    yield from played(alone, ask_clocks)


def ask_periods(qnx: Any) -> Answers:
    """Pulses of a periodic timer: received as they come, and not received."""
    chid, coid = connected(qnx)
    event, old = SIGEV_PULSE_INIT(coid, 15, 9, 7), Itimer()
    timer = qnx.TimerCreate(CLOCK_MONOTONIC, event)
    set_once = told(qnx.TimerSettime, timer, 0, Itimer(SOON, 0))
    yield "2.TM10", f"ok {set_once}: {next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
    qnx.TimerSettime(timer, 0, Itimer(SOON, SOON))
    (found,) = {next_pulse(qnx, chid) for _ in range(4)}
    yield "2.TM11", found
    qnx.TimerSettime(timer, 0, Itimer(0, 0), old)
    yield "2.TM12", f"{yes(0 < old.nsec < SOON)} {old.interval_nsec}"
    while waiting(qnx, chid):
        pass
    yield "2.TM13", f"{'one each period' if are_all_there(qnx, chid, timer, PERIOD) else 'not so'}; 0"
    qnx.TimerSettime(timer, 0, Itimer(PERIOD, PERIOD))
    outlast_timeouts(qnx, 4 * PERIOD)
    yield "2.TM14", f"{told(qnx.TimerDestroy, timer)}; {'still has pulses' if waiting(qnx, chid) else 'has none'}"
    again = Itimer(PERIOD, 0)
    yield "2.TM15", f"{told(qnx.TimerDestroy, timer)} {told(qnx.TimerSettime, timer, 0, again)}"


def are_all_there(qnx: Any, chid: int, timer: int, period: int) -> bool:
    """Whether a periodic timer has queued as many pulses as periods have gone by, while nobody received."""
    before = time.monotonic_ns()
    qnx.TimerSettime(timer, 0, Itimer(period, period))
    started = time.monotonic_ns()
    outlast_timeouts(qnx, 20 * period)
    stopping = time.monotonic_ns()
    qnx.TimerSettime(timer, 0, Itimer(0, 0))
    stopped = time.monotonic_ns()
    count = 0
    while waiting(qnx, chid):
        count += 1
    return (stopping - started) // period <= count <= (stopped - before) // period


@cases("TM10", "TM11", "TM12", "TM13", "TM14", "TM15")
def test_a_periodic_timer_queues_a_pulse_each_period(alone: Peer) -> Answers:
    """And leaves them there when it is destroyed."""
    yield from played(alone, ask_periods)


def ask_priorities(qnx: Any) -> Answers:
    """A pulse of each priority, to a thread that has had 11."""
    chid, coid = connected(qnx)
    take_priority(qnx, 11)
    for name, priority in PRIORITIES.items():
        timer = created(qnx, SIGEV_PULSE_INIT(coid, priority, 3, 1), MILLISECOND)
        pulses = "" if priority in (0, 256) else f"{next_pulse(qnx, chid)}; "
        if not pulses:
            outlast_timeouts(qnx, 2 * MILLISECOND)
        yield f"2.{name}", f"{priority}: ok; {pulses}{nothing_more(qnx, chid)}; {own_priority(qnx)}"
        qnx.TimerDestroy(timer)


def ask_codes(qnx: Any) -> Answers:
    """A pulse of each code."""
    chid, coid = connected(qnx)
    for name, code in CODES.items():
        timer = created(qnx, SIGEV_PULSE_INIT(coid, 10, code, 1), MILLISECOND)
        yield f"2.{name}", f"{code}: ok; {next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
        qnx.TimerDestroy(timer)


@cases(*PRIORITIES)
def test_the_low_8_bits_of_a_timers_priority_count(alone: Peer) -> Answers:
    """-1 is that of the process that receives, and 0 delivers nothing."""
    yield from played(alone, ask_priorities)


@cases(*CODES)
def test_the_low_8_bits_of_a_timers_code_arrive(alone: Peer) -> Answers:
    """The system's codes, too."""
    yield from played(alone, ask_codes)


def ask_ends(qnx: Any) -> Answers:
    """What becomes of a timer whose connection or channel goes."""
    chid, coid = connected(qnx, index=0)
    event = SIGEV_PULSE_INIT(coid, 10, 4, 8)
    timer = created(qnx, event)
    yield "2.TM40", f"{next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
    qnx.TimerSettime(timer, 0, Itimer(PERIOD, PERIOD))
    receive(qnx, chid)
    qnx.ConnectDetach(coid)
    while waiting(qnx, chid):
        pass
    outlast_timeouts(qnx, 4 * PERIOD)
    silence, old = nothing_more(qnx, chid), Itimer()
    yield "2.TM41", f"{silence}; {told(qnx.timer_getoverrun, timer)}"
    assert qnx.ConnectAttach(0, 0, chid, coid) == coid
    yield "2.TM42", next_pulse(qnx, chid)
    yield "2.TM43", f"{told(qnx.TimerCreate, CLOCK_MONOTONIC, SIGEV_PULSE_INIT(999, 10, 1, 1))}; -"
    other, _coid = connected(qnx)
    qnx.ChannelDestroy(chid)
    outlast_timeouts(qnx, 4 * PERIOD)
    yield "2.TM44", f"{told(qnx.TimerSettime, timer, 0, Itimer(0, 0), old)}; {nothing_more(qnx, other)}"


@cases("TM40", "TM41", "TM42", "TM43", "TM44")
def test_a_timer_whose_connection_goes_is_silent(alone: Peer) -> Answers:
    """Until its number is a connection again."""
    yield from played(alone, ask_ends)


def ask_events(qnx: Any) -> Answers:
    """Other events, and other times."""
    chid, coid = connected(qnx)
    for name, (of_qnx, notify) in NOTIFIED.items():
        event = SIGEV_PULSE_INIT(coid, 10, 1, 1)
        event.sigev_notify = notify
        if of_qnx == 1:
            event.sigev_signo = 60
        yield f"2.{name}", f"{of_qnx:#x}: {succeeds(qnx.TimerCreate, CLOCK_MONOTONIC, event)}"
    yield "2.TM60", succeeds(qnx.TimerCreate, CLOCK_REALTIME, None)
    event = SIGEV_PULSE_INIT(coid, 10, 3, 1)
    timer = created(qnx, event, 1)
    pulses = f"{next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
    yield "2.TM61", f"{pulses}; {told(qnx.TimerSettime, timer, 0, Itimer(0, 0))}"
    timer = qnx.timer_create(CLOCK_REALTIME, event)
    past = told(qnx.timer_settime, timer, TIMER_ABSTIME, spec(time.time_ns() - 5_000_000_000))
    yield "2.TM62", f"{past}; {next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
    late = told(qnx.timer_settime, timer, 0, Itimerspec(Timespec(0, 2_000_000_000), Timespec()))
    yield "2.TM63", f"{late}; {told(qnx.TimerSettime, timer, 0x55, Itimer(0, 0))}"


@cases(*NOTIFIED, "TM60", "TM61", "TM62", "TM63")
def test_other_events_and_times(alone: Peer) -> Answers:
    """A time that has passed lets a timer expire at once."""
    yield from played(alone, ask_events)


def ask_receivers(qnx: Any) -> Answers:
    """Receivers of another priority, and one that is late."""
    chid, coid = connected(qnx)
    take_priority(qnx, 25)
    created(qnx, SIGEV_PULSE_INIT(coid, -1, 3, 1), MILLISECOND)
    yield "2.TM70", f"{next_pulse(qnx, chid)}; {nothing_more(qnx, chid)}"
    take_priority(qnx, 25)
    fixed, coid = connected(qnx, NTO_CHF_FIXED_PRIORITY)
    created(qnx, SIGEV_PULSE_INIT(coid, 12, 3, 1), MILLISECOND)
    yield "2.TM71", f"{next_pulse(qnx, fixed)}; {nothing_more(qnx, fixed)}"
    timer = qnx.TimerCreate(CLOCK_MONOTONIC, SIGEV_PULSE_INIT(coid, 12, 3, 1))
    are_there = yes(are_all_there(qnx, fixed, timer, MILLISECOND))
    yield "2.TM72", f"{are_there}; {told(qnx.timer_getoverrun, timer)}"


@cases("TM70", "TM71", "TM72")
def test_receivers_of_a_timers_pulses(alone: Peer) -> Answers:
    """They take its priority, unless the channel says otherwise, and get each pulse."""
    yield from played(alone, ask_receivers)


def sent(qnx: Any, priority: int, code: int) -> str:
    """A pulse of one's own: what MsgSendPulse says, and what arrives."""
    chid, coid = connected(qnx)
    said = told(qnx.MsgSendPulse, coid, priority, code, 4)
    found = [next_pulse(qnx, chid)] if said == "0" else []
    return "; ".join([said, *found, nothing_more(qnx, chid)])


@cases(*SENT_CODES)
def test_of_a_code_that_is_sent_the_low_bits_arrive(qnx: Any) -> Answers:
    """Whoever sends it, and whatever it means."""
    for case, code in SENT_CODES.items():
        yield f"2.{case}", f"{code}: {sent(qnx, 12, code)}"


@cases(*SENT_PRIORITIES)
def test_the_priorities_that_are_sent(qnx: Any) -> Answers:
    """By a thread that has 11 itself."""
    for case, priority in SENT_PRIORITIES.items():
        take_priority(qnx, 11)
        yield f"2.{case}", f"{priority}: {sent(qnx, priority, 3)}"
