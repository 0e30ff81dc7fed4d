"""Timers: which there are, and where each is seen to.

A timer whose pulse goes to a channel of this process costs no thread and no wake-up of its own: its channel's poller
watches an alarm, and whoever receives next queues what is due by then, each pulse with the time at which it was. So
pulses that nobody receives are queued each period, as on QNX, without anything being done meanwhile. All other timers,
those that send to another process or raise a signal, are seen to by one thread, the *courier*, which begins with the
first of them.

Which of them it is follows from the connection, which can change under a timer: it is looked at whenever the timer is
due, and a timer that is in the wrong place by then moves.

Everything here changes under one lock, which is the last that is taken: a channel calls with its own held.
"""

import contextlib
import itertools
import os
import select
import signal
import threading
import time
from errno import EBADF, EINVAL
from typing import Callable, Dict, Final, List, Optional

from ha_qnx.constants import (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_SOFTTIME,
    NTO_TI_ABSOLUTE,
    NTO_TI_ACTIVE,
    NTO_TI_EXPIRED,
    NTO_TI_TOD_BASED,
    SIGEV_INTR,
    SIGEV_NONE,
    SIGEV_PULSE,
    SIGEV_SIGNAL,
    SIGEV_UNBLOCK,
    TIMER_ABSTIME,
)
from ha_qnx.errors import failure
from ha_qnx.structures import Itimer, SigEvent, TimerStatus
from ha_qnx.timing import EVENT_TYPE

from . import wire
from .homes import CLOCKS, Due, Home, Timer
from .table import ConnectionTable, Way

_SIGNAL: Final = SIGEV_SIGNAL & EVENT_TYPE
_PULSE: Final = SIGEV_PULSE & EVENT_TYPE
# Something that is taken at creation, and that nobody has seen happen (SIGEV_MEMORY).
_MEMORY: Final = 8
_KNOWN: Final = frozenset(
    (_SIGNAL, _PULSE, _MEMORY, *(kind & EVENT_TYPE for kind in (SIGEV_NONE, SIGEV_UNBLOCK, SIGEV_INTR)))
)
_CLOCKS: Final = {CLOCK_SOFTTIME: CLOCK_REALTIME, CLOCK_REALTIME: CLOCK_REALTIME, CLOCK_MONOTONIC: CLOCK_MONOTONIC}
_NEVER: Final = (1 << 63) - 1
# What the courier does in one go.
_AT_ONCE: Final = 1024


class Timers:
    """The timers of this process."""

    def __init__(self, table: ConnectionTable) -> None:
        self.lock = threading.RLock()
        #: By number.
        self.entries: Dict[int, Timer] = {}
        self._table = table
        self._order = itertools.count().__next__
        self._courier: Optional[_Courier] = None

    # The calls.

    def create(self, clock: int, event: SigEvent) -> int:
        """TimerCreate."""
        kind = event.sigev_notify & EVENT_TYPE
        if clock not in _CLOCKS or kind not in _KNOWN:
            raise failure(EINVAL)
        if kind == _SIGNAL and not 0 < event.sigev_signo < signal.NSIG:
            raise failure(EINVAL)
        if kind == _PULSE and self._table.get(event.sigev_coid).detached:
            raise failure(EBADF)
        with self.lock:
            number = next(number for number in itertools.count(1) if number not in self.entries)
            self.entries[number] = Timer(clock, SigEvent.from_buffer_copy(event))
        return number

    def set(self, number: int, flags: int, times: Itimer) -> Itimer:
        """TimerSettime: what was left before, and the interval."""
        timer = self._settled(number)
        with self.lock:
            before = _left(timer)
            self._stop(timer)
            timer.expired = False
            timer.flags = flags & TIMER_ABSTIME
            timer.set_to = Itimer(times.nsec, times.interval_nsec)
            if times.nsec:
                self._start(timer)
        self._outlast_courier()
        return before

    def _start(self, timer: Timer) -> None:
        timer.waits_by = _CLOCKS[timer.clock] if timer.flags else CLOCK_MONOTONIC
        start = 0 if timer.flags else time.monotonic_ns()
        timer.entry = (min(start + timer.set_to.nsec, _NEVER), self._order(), timer)
        home = self._home_of(timer)
        try:
            if home is not None:
                home.add(timer)
        except BaseException:
            timer.entry = None
            raise

    @staticmethod
    def _stop(timer: Timer) -> None:
        timer.entry = None
        if timer.home is not None:
            timer.home.set_alarm(timer.waits_by)
            timer.home = None

    def info(self, number: int) -> TimerStatus:
        """TimerInfo."""
        timer = self._settled(number)
        with self.lock:
            flags = NTO_TI_ACTIVE if timer.entry is not None else 0
            flags |= NTO_TI_ABSOLUTE if timer.flags else 0
            flags |= NTO_TI_EXPIRED if timer.expired else 0
            flags |= NTO_TI_TOD_BASED if _CLOCKS[timer.clock] == CLOCK_REALTIME else 0
            notify = timer.event.sigev_notify
            return TimerStatus(timer.set_to, _left(timer), flags, -1, notify, timer.clock, 0, timer.event)

    def destroy(self, number: int) -> None:
        """TimerDestroy."""
        timer = self._settled(number)
        with self.lock:
            if self.entries.pop(number, None) is None:
                raise failure(EINVAL)
            self._stop(timer)
        self._outlast_courier()

    def _outlast_courier(self) -> None:
        """Let it do what it was about to do for a timer that is not to do that any more."""
        if self._courier is not None:
            self._courier.outlast()

    # What they are due for.

    def _settled(self, number: int) -> Timer:
        """A timer, once what it was due for is where it goes.

        Raises:
            OSError: EINVAL, there is no such timer.
        """
        timer = self.entries.get(number)
        if timer is None:
            raise failure(EINVAL)
        self._settle(timer)
        return timer

    def _settle(self, timer: Timer) -> None:
        seen: Optional[Home] = None
        while timer.home is not None and timer.home is not seen:  # It may move.
            seen = timer.home
            seen.deliver()
        if timer.home is None:
            with self.lock:
                timer.pass_over()

    def before_change(self, coid: int) -> None:
        """A connection begins or ends: what is due by now goes where it has gone so far."""
        for timer in list(self.entries.values()):
            if timer.entry is not None and timer.kind == _PULSE and timer.event.sigev_coid == coid:
                self._settle(timer)

    def _take_due(self, home: Home, most: int) -> List[Due]:
        """What is due at a home by now, in order. What belongs elsewhere is moved there."""
        found: List[Due] = []
        with self.lock:
            # What becomes due meanwhile is for the next time: there may be more of it than can be done.
            for clock, now in home.now():
                while len(found) < most:
                    timer = home.pop(clock, now)
                    if timer is None:
                        break
                    rightful = self._home_of(timer)
                    if rightful is home:
                        self._expire(timer, found)
                        home.push(timer)
                    elif rightful is not None:
                        rightful.add(timer)
            home.set_alarms()
        return found

    def _expire(self, timer: Timer, found: List[Due]) -> None:
        way = self._way_of(timer)
        if timer.kind == _PULSE and (way is None or not timer.priority):
            timer.pass_over()
        else:
            found.append(Due(timer.expire(), timer, None if way is None else way.trunk))

    # Where they are seen to.

    def _way_of(self, timer: Timer) -> Optional[Way]:
        return self._table.way_of_pulses(timer.event.sigev_coid) if timer.kind == _PULSE else None

    def _home_of(self, timer: Timer) -> Optional[Home]:
        if timer.kind not in (_PULSE, _SIGNAL):
            return None
        way = self._way_of(timer)
        if way is not None and way.channel is not None:
            return way.channel.make_home(self._take_due)
        if self._courier is None:
            self._courier = _Courier(self._take_due)
        return self._courier.home

    def leave(self, home: Home) -> None:
        """A channel is destroyed: its timers go on, in silence unless their connections lead elsewhere by then."""
        with self.lock:
            for timer in home.close():
                self._start_again(timer)

    def _start_again(self, timer: Timer) -> None:
        timer.home = None
        home = self._home_of(timer)
        with contextlib.suppress(OSError):  # There is no descriptor for its alarm.
            if home is not None:
                home.add(timer)

    def close_in_child(self) -> None:
        """Close what a forked child has inherited of the courier's."""
        if self._courier is not None:
            self._courier.home.close()


def _left(timer: Timer) -> Itimer:
    """What is left until a timer is due, and its interval."""
    left = 0 if timer.entry is None else max(1, timer.entry[0] - time.clock_gettime_ns(timer.waits_by))
    return Itimer(left, timer.set_to.interval_nsec)


class _Courier:
    """Sees to the timers that no channel of this process sees to, in a thread of its own."""

    def __init__(self, take_due: Callable[[Home, int], List[Due]]) -> None:
        self._lock = threading.RLock()
        self._poll = select.poll()
        self.home = Home(lambda fd: self._poll.register(fd, select.POLLIN), self._deliver, take_due)
        try:
            for clock in CLOCKS:
                self.home.open_alarm(clock)
            threading.Thread(target=self._wait, name="ha_qnx timers", daemon=True).start()
        except BaseException:
            self.home.close()
            raise

    def _wait(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # They are for the program's own threads.
        while True:
            self._poll.poll()
            self._deliver()

    def outlast(self) -> None:
        """Return when nothing is on its way that was taken before."""
        with self._lock:
            pass

    def _deliver(self) -> None:
        with self._lock:
            for at, timer, trunk in self.home.take_due(_AT_ONCE):
                event = timer.event
                with contextlib.suppress(OSError):  # Nobody is told (B446).
                    if trunk is None:
                        os.kill(os.getpid(), event.sigev_signo)
                    else:
                        value, rest = wire.value_and_rest(bytes(event.sigev_value))
                        pulse = (timer.priority, event.sigev_code, value, event.sigev_coid, at, rest)
                        trunk.pulse(wire.pulse.pack(wire.PULSE, *pulse))
