"""Who takes in the pulses of a service while all its threads are at work: one of them may free a client.

Pulses stay in their order if one thread at a time takes them in. So the one that does it beside threads at work begins
when that work has taken long, and is through with it before one of them receives again.
"""

import contextlib
import random
import threading
from typing import Callable, List

from .constants import PULSE_CODE_MAXAVAIL

__all__ = ["Relief"]

# Work that takes longer than this, in seconds, takes long.
_LONG = 0.01


class Relief:
    """Whether the threads that receive are relieved of the pulses.

    For a message nothing is done here, unless all were idle before, or are relieved.
    """

    def __init__(self) -> None:
        #: Code and value of the pulse that ends it; nobody else knows it.
        self.call_off = PULSE_CODE_MAXAVAIL, random.SystemRandom().randrange(1 << 31)
        self.is_on = False
        self.is_called_off = False
        #: Whether nobody looks who is at work, because nobody was: ``wake`` says that somebody is.
        self.is_asleep = False
        # How often each thread has begun or ended its work: odd while it is at work.
        self._counts: List[List[int]] = []
        self._alarm = threading.Event()
        self._is_over = threading.Event()
        self._is_off = threading.Event()
        self._lock = threading.Lock()

    def join(self) -> List[int]:
        """The count of a thread that receives, which adds 1 when it begins its work, and when it has ended it."""
        count = [0]
        self._counts.append(count)
        return count

    def wake(self) -> None:
        """Look who is at work."""
        self._alarm.set()

    def stop(self) -> None:
        """Nobody needs it any more."""
        self._is_over.set()
        self._alarm.set()

    def wait_until_needed(self) -> bool:
        """Wait until all threads have been at work for long: it is on from then on; False if it was stopped."""
        before: List[int] = []
        while not self._is_over.is_set():
            now = self._now()
            if now and now == before and all(count & 1 for count in now):
                self._is_off.clear()
                self.is_called_off = False
                self.is_on = True
                if now == self._now():
                    return True
                self.end()
            elif now == before and not any(count & 1 for count in now):
                self.is_asleep = True
                if now == self._now():
                    self._alarm.wait()
                    self._alarm.clear()
                self.is_asleep = False
            before = now
            self._is_over.wait(_LONG)
        return False

    def _now(self) -> List[int]:
        return [count[0] for count in self._counts]

    def end(self) -> None:
        """It is off."""
        self.is_on = False
        self._is_off.set()

    def wait_until_off(self, send_pulse: Callable[[int, int], object]) -> None:
        """Call it off, by a pulse."""
        with self._lock:
            if self.is_on:
                self.is_called_off = True
                with contextlib.suppress(OSError):  # So many pulses wait that nobody sleeps.
                    send_pulse(*self.call_off)
                self._is_off.wait()
