"""Waiting awake: for a while, a thread looks again and again before it sleeps.

Where client and server have a processor each, to wake a thread costs several times what the rest of a message costs.
Who looks by itself needs not to be woken, and uses up its processor meanwhile. So it is off, unless HA_QNX_SPIN_US
tells how many microseconds a thread may look, and it ends where it does not pay: each lane and each channel that has
looked in vain sleeps at once for a while, twice as long each time. A process with one processor never looks, since it
would keep from running whom it waits for.

A handler that runs while the main thread waits ends the call (D19), which a thread that is awake does not notice. So
the main thread looks only while no signal has one but SIGINT with Python's own, which raises an exception.

libha: host/spin.c.
"""

import functools
import os
import select
import signal
import time
from typing import Callable, Optional, TypeVar

from . import host, limits

T = TypeVar("T")
Read = Callable[["bytearray | memoryview"], Optional[int]]
# read(2), by ctypes.
CRead = Callable[[int, object, object], int]
# Looks for a while, in the main thread or in another one, but not beyond a deadline.
Spin = Callable[[bool, Optional[float]], object]
# How a poller waits without a limit of time: for how long, and how much news is told at most.
WaitForEver = Callable[[None, int], host.News]

VARIABLE = "HA_QNX_SPIN_US"


def _chosen() -> int:
    """How long a thread may look, in nanoseconds.

    Raises:
        ImportError: HA_QNX_SPIN_US is no number of microseconds, or too large.
    """
    text = os.environ.get(VARIABLE) or "0"
    if not (text.isascii() and text.isdecimal() and int(text) <= limits.SPIN_MAX):
        raise ImportError(
            f"{VARIABLE} is for how many microseconds a thread looks before it sleeps, "
            f"0 to {limits.SPIN_MAX}, not {text!r}"
        )
    return int(text) * 1000


NANOSECONDS = _chosen()


class Spinner:
    """Looks for what one lane or one channel waits for, as long as that pays."""

    def __init__(self) -> None:
        # How many waits one upon the other have looked in vain.
        self.misses = 0
        # How many of the next waits sleep at once.
        self._skipped = 0 if host.processors() > 1 else limits.SPIN_SKIPPED

    def spin(self, look: Callable[[], T], is_main: bool, deadline: Optional[float] = None) -> Optional[T]:
        """What a look brings that is true; or None."""
        if self.sleeps_at_once(is_main):
            return None
        end = time.monotonic_ns() + NANOSECONDS
        if deadline is not None:
            end = min(end, int(deadline * 1e9))
        while time.monotonic_ns() < end:
            found = look()
            if found:
                self.misses = 0
                return found
        self.missed()
        return None

    def sleeps_at_once(self, is_main: bool) -> bool:
        """Whether not to look this time."""
        if self._skipped:
            self._skipped -= 1
            if not self._skipped and host.processors() < 2:
                self._skipped = limits.SPIN_SKIPPED
            return True
        return is_main and _handlers.may_run()

    def missed(self) -> None:
        """Note that all looks were in vain."""
        self.misses += 1
        self._skipped = min(1 << self.misses, limits.SPIN_SKIPPED)


class _Handlers:
    """Which signals have a handler."""

    def __init__(self) -> None:
        self._may_run = True
        self._looked_at = 0.0

    def may_run(self) -> bool:
        """Whether a handler may run in the main thread that raises nothing; the answer is a moment old."""
        now = time.monotonic()
        if now - self._looked_at > limits.HANDLERS_LOOK:
            self._looked_at = now
            handlers = map(host.getsignal, range(1, signal.NSIG))
            self._may_run = any(callable(one) and one is not signal.default_int_handler for one in handlers)
        return self._may_run


_handlers = _Handlers()


def spin_on(fd: int) -> Spin:
    """What looks whether a descriptor can be read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return functools.partial(Spinner().spin, functools.partial(poll.poll, 0))


def reader(spin: Spin, read_into: Read) -> Read:
    """``read_into`` in any thread but the main one, after looking."""

    def spin_and_read_into(buffer: "bytearray | memoryview") -> Optional[int]:
        spin(False, None)
        return read_into(buffer)

    return spin_and_read_into


def c_reader(spin: Spin) -> CRead:
    """read(2) in the main thread, after looking."""

    def spin_and_read(fd: int, address: object, size: object) -> int:
        spin(True, None)
        count: int = host.c_read(fd, address, size)
        return count

    return spin_and_read
