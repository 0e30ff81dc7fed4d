"""Descriptors that become readable at a point of time.

On Linux that is a timerfd, which the host's kernel makes readable. Elsewhere one thread of the process rings a bell for
each; it sleeps until the next is due.
"""

import heapq
import itertools
import os
import threading
import time
from typing import List, Optional, Tuple, Union

from ha_qnx.timing import SECOND

from . import host


class BellAlarm:
    """A bell that the ringer of this process rings at a point of time."""

    def __init__(self, clock: int) -> None:
        self._bell = host.Bell()
        self.fd = self._bell.fd
        self._clock = clock
        #: The point of time.monotonic_ns() that counts, if it was set more than once.
        self.at: Optional[int] = None

    def set(self, at: Optional[int]) -> None:
        """Become readable at a point of the clock, in nanoseconds, or never. Jumps of the clock are not followed."""
        self._bell.stop()
        self.at = at
        if at is not None:
            self.at = at - time.clock_gettime_ns(self._clock) + time.monotonic_ns()
            _ringer_of_process().add(self.at, self)

    def ring(self) -> None:
        self._bell.ring()

    def close(self) -> None:
        """The bell goes with this object."""
        self.at = None


class _Ringer:
    """The thread that rings bells."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._changed = threading.Condition()
        self._due: List[Tuple[int, int, BellAlarm]] = []
        self._order = itertools.count().__next__
        threading.Thread(target=self._ring, name="ha_qnx alarms", daemon=True).start()

    def add(self, at: int, alarm: BellAlarm) -> None:
        with self._changed:
            heapq.heappush(self._due, (at, self._order(), alarm))
            self._changed.notify()

    def _ring(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic_ns()
                while self._due and self._due[0][0] <= now:
                    at, _order, alarm = heapq.heappop(self._due)
                    if alarm.at == at:
                        alarm.ring()
                self._changed.wait((self._due[0][0] - now) / SECOND if self._due else None)


_ringer: Optional[_Ringer] = None
_ringer_lock = threading.Lock()


def _ringer_of_process() -> _Ringer:
    """The ringer; a forked child has another one than its parent."""
    global _ringer  # it is one for the process
    with _ringer_lock:
        if _ringer is None or _ringer.process != os.getpid():
            _ringer = _Ringer()
        return _ringer


Alarm = Union[host.Timerfd, BellAlarm]


def open_alarm(clock: int) -> Alarm:
    """An alarm by one of the host's clocks.

    Raises:
        OSError: EMFILE.
    """
    return host.Timerfd(clock) if host.HAS_TIMERFD else BellAlarm(clock)


def _new_lock_in_child() -> None:
    """A thread of the parent may have held the lock when it forked."""
    global _ringer_lock  # as above
    _ringer_lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock_in_child)
