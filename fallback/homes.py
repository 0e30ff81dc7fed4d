"""Timers as such, and the places where they are seen to: who gives whom which timer is in timers.py."""

import heapq
import time
from typing import Callable, Dict, Final, List, NamedTuple, Optional, Tuple

from ha_qnx.constants import CLOCK_MONOTONIC, CLOCK_REALTIME, SIGEV_PULSE_PRIO_INHERIT
from ha_qnx.structures import Itimer, SigEvent
from ha_qnx.timing import EVENT_TYPE

from .alarms import Alarm, open_alarm
from .connections import Trunk
from .threads import DEFAULT_PRIORITY

#: What timers wait by.
CLOCKS: Final = (CLOCK_MONOTONIC, CLOCK_REALTIME)

# When, which of those at the same time, and the timer.
Entry = Tuple[int, int, "Timer"]


class Timer:
    """One timer."""

    __slots__ = ("clock", "entry", "event", "expired", "flags", "home", "kind", "priority", "set_to", "waits_by")

    def __init__(self, clock: int, event: SigEvent) -> None:
        self.clock = clock
        self.event = event
        self.kind = event.sigev_notify & EVENT_TYPE
        priority = event.sigev_priority
        #: 0 delivers nothing (B444).
        self.priority = DEFAULT_PRIORITY if priority == SIGEV_PULSE_PRIO_INHERIT else priority & 0xFF
        self.set_to = Itimer()
        self.flags = 0
        self.expired = False
        #: When it is due next, by the clock that it waits by; None while it is stopped.
        self.entry: Optional[Entry] = None
        #: The realtime clock for an absolute time of that, and until then only: an interval is an interval.
        self.waits_by = CLOCK_MONOTONIC
        #: Who sees to it; None for one that nothing ever happens to.
        self.home: Optional[Home] = None

    def expire(self) -> int:
        """Let it be due once; when that was, as time.monotonic_ns() tells it."""
        assert self.entry is not None
        at, order, _timer = self.entry
        if self.waits_by != CLOCK_MONOTONIC:
            at, self.waits_by = time.monotonic_ns(), CLOCK_MONOTONIC
        interval = self.set_to.interval_nsec
        self.entry = (at + interval, order, self) if interval else None
        self.expired = True
        return at

    def pass_over(self) -> None:
        """Let all that it was due for by now pass, without anything being done."""
        if self.entry is not None and self.entry[0] <= time.clock_gettime_ns(self.waits_by):
            at, interval = self.expire(), self.set_to.interval_nsec
            if interval:
                missed = (time.monotonic_ns() - at) // interval
                self.entry = (at + (missed + 1) * interval, self.entry[1], self)


class Due(NamedTuple):
    """A timer that was due: when that was, and the way its pulse goes; None for a signal."""

    at: int
    timer: Timer
    trunk: Optional[Trunk]


class Home:
    """Where timers are seen to: those of one channel, or of the courier. It changes under the lock of all timers."""

    def __init__(
        self,
        watch: Callable[[int], None],
        deliver: Callable[[], None],
        take_due: "Callable[[Home, int], List[Due]]",
    ) -> None:
        """Make one.

        Args:
            watch: called with the descriptor of a new alarm.
            deliver: does what is due by now.
            take_due: tells what that is, at most so much of it.
        """
        self.deliver = deliver
        self._watch = watch
        self._take_due = take_due
        self._alarms: Dict[int, Alarm] = {}
        self._due: Dict[int, List[Entry]] = {clock: [] for clock in CLOCKS}
        #: The descriptors of its alarms.
        self.fds: List[int] = []

    def add(self, timer: Timer) -> None:
        """Take in a timer that is to be due."""
        self.push(timer)
        if timer.entry is not None:
            self.set_alarm(timer.waits_by)

    def push(self, timer: Timer) -> None:
        """The same, for who sets the alarms afterwards."""
        timer.home = self
        if timer.entry is not None:
            heapq.heappush(self._due[timer.waits_by], timer.entry)

    def open_alarm(self, clock: int) -> Alarm:
        """The alarm by a clock.

        Raises:
            OSError: EMFILE, ENFILE, ENOMEM.
        """
        alarm = self._alarms.get(clock)
        if alarm is None:
            alarm = self._alarms[clock] = open_alarm(clock)
            self.fds.append(alarm.fd)
            self._watch(alarm.fd)
        return alarm

    def set_alarm(self, clock: int) -> None:
        """Be woken when the first is due that waits by a clock."""
        first = self._first(clock)
        if first is not None or clock in self._alarms:
            self.open_alarm(clock).set(None if first is None else first[0])

    def _first(self, clock: int) -> Optional[Entry]:
        heap = self._due[clock]
        while heap and heap[0][2].entry is not heap[0]:
            heapq.heappop(heap)  # It was set anew, or destroyed.
        return heap[0] if heap else None

    def pop(self, clock: int, now: int) -> Optional[Timer]:
        """Take out the timer that was due first, if one is by now."""
        first = self._first(clock)
        if first is None or first[0] > now:
            return None
        heapq.heappop(self._due[clock])
        return first[2]

    def now(self) -> List[Tuple[int, int]]:
        """What time it is by each clock that timers wait by."""
        return [(clock, time.clock_gettime_ns(clock)) for clock, heap in self._due.items() if heap]

    def take_due(self, most: int) -> List[Due]:
        """What is due by now, in order."""
        return self._take_due(self, most)

    def is_due(self) -> bool:
        """Whether something is due that was not taken."""
        return any(self._due[clock][0][0] <= now for clock, now in self.now())

    def set_alarms(self) -> None:
        """Be woken when the next is due."""
        for clock in CLOCKS:
            self.set_alarm(clock)

    def close(self) -> List[Timer]:
        """Close its alarms, and let its timers go."""
        for alarm in self._alarms.values():
            alarm.close()
        self._alarms.clear()
        self.fds.clear()
        timers = [entry[2] for heap in self._due.values() for entry in heap if entry[2].entry is entry]
        for heap in self._due.values():
            heap.clear()
        return timers
