"""How long a call may take: one that a caller names, and one of the work that a thread is at.

The kernel keeps the time: a call is limited by TimerTimeout, as on QNX. What that cannot bound: on a channel with
NTO_CHF_UNBLOCK, which every server with a name has, the server is asked to let the client go, and one that is stopped,
or never looks, keeps it waiting. Nothing but the end of the server ends that, on QNX as here; a watchdog sees to it.

A timeout of the kernel is for one message. What is sent again after a recovery gets what is left: ``arm_again`` in the
thread that sends it. Where a library in C sends it, the thread of the recovery function comes by here and no other:
those that have waited for it are asked to let go when their time is over (``watch_others``).
"""

import contextlib
import math
import os
import threading
import time
from errno import EINTR, ETIMEDOUT
from typing import Any, Callable, Iterator, Optional, Set, TypeVar

from . import watching
from .api import Backend
from .buffers import as_seconds
from .constants import NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND
from .errors import failure

__all__ = ["arm_again", "sooner", "time_limit", "until", "watch_others", "within"]

T = TypeVar("T")
_SEND_AND_REPLY = NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY
# After how many seconds to ask again for a thread that has not let go: between two steps, it has not noticed.
_ASK_AGAIN = 0.01


class _Limited:
    """A call that a thread makes within a limit."""

    def __init__(self, qnx: Backend, deadline: float) -> None:
        self.qnx = qnx
        self.deadline = deadline
        self.thread = threading.get_ident()
        #: Whether the thread has been asked to let go, which is why it gets EINTR.
        self.has_expired = False
        self._depth = watching.recoveries_of(self.thread)

    def ask(self) -> None:
        """Have the thread let go. A recovery that it is in is for others, too: it is left alone."""
        with watching.no_recovery_begins:
            if self in _calls and watching.recoveries_of(self.thread) == self._depth:
                self.has_expired = True
                with contextlib.suppress(OSError):  # There is no way; then it waits for the answer.
                    self.qnx.unblock(self.thread)


class _Watcher:
    """Sees to it that calls end in time whose kernel keeps no time any more. It has a thread while there are any."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._watched: Set[_Limited] = set()
        self._is_at_work = False

    def take(self, calls: Set[_Limited]) -> None:
        with self._news:
            self._watched |= calls
            if not self._is_at_work:
                threading.Thread(target=self._work, name="ha_qnx.deadlines", daemon=True).start()
                self._is_at_work = True
            self._news.notify()

    def _work(self) -> None:
        while True:
            with self._news:
                self._watched &= _calls  # The others have ended.
                if not self._watched:
                    self._is_at_work = False
                    return
                first = min(limited.deadline for limited in self._watched)
                self._news.wait(max(_ASK_AGAIN, first - time.monotonic()))
                watched = list(self._watched)
            for limited in watched:
                if limited.deadline <= time.monotonic():
                    limited.ask()


# Those that are being made.
_calls: Set[_Limited] = set()
_watcher = _Watcher()


def _start_anew() -> None:
    """In a forked child, the other threads are gone."""
    global _watcher
    _watcher = _Watcher()
    for limited in [limited for limited in _calls if limited.thread != threading.get_ident()]:
        _calls.discard(limited)


os.register_at_fork(after_in_child=_start_anew)


class _InThread(threading.local):
    #: When the work that the thread is at has to be done, on the monotonic clock.
    deadline = math.inf
    #: The call that it makes within a limit, if it makes one.
    limited: Optional[_Limited] = None


_thread = _InThread()


def time_limit(timeout: Optional[float]) -> Optional[float]:
    """A limit in seconds, or None.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, or negative.
    """
    if timeout is None:
        return None
    seconds = as_seconds("timeout", timeout)
    if seconds < 0:
        raise ValueError(f"timeout must not be negative, not {timeout}")
    return seconds


@contextlib.contextmanager
def until(deadline: float) -> Iterator[None]:
    """Limit what this thread does in the context, where it asks by ``sooner``."""
    before = _thread.deadline
    _thread.deadline = min(before, deadline)
    try:
        yield
    finally:
        _thread.deadline = before


def sooner(timeout: Optional[float] = None) -> Optional[float]:
    """A time in seconds, or what is left of the work that this thread is at, if that is less; None is for ever."""
    if _thread.deadline == math.inf:
        return timeout
    left = max(0.0, _thread.deadline - time.monotonic())
    return left if timeout is None else min(as_seconds("timeout", timeout), left)


def within(qnx: Backend, timeout: Optional[float], call: Callable[..., T], *arguments: Any) -> T:
    """Make a call that sends one message, and let the kernel limit it to so many seconds, recoveries included."""
    if timeout is None:
        return call(*arguments)
    before, seconds = _thread.limited, as_seconds("timeout", timeout)
    limited = _Limited(qnx, time.monotonic() + seconds)
    try:
        _thread.limited = limited
        _calls.add(limited)
        qnx.TimerTimeout(_SEND_AND_REPLY, int(seconds * 1e9))
        return call(*arguments)
    except OSError as error:
        if error.errno != EINTR or not limited.has_expired:
            raise
        raise failure(ETIMEDOUT) from error
    finally:
        _thread.limited = before
        with watching.no_recovery_begins:  # From now on, nobody may unblock this thread for this call.
            _calls.discard(limited)
        qnx.TimerTimeout(0, None)  # Where nothing was sent, it is not for the next message of this thread.


def arm_again() -> None:
    """Limit what a call sends again, once its connection is recovered, to what is left of its time.

    A timeout is for one message; the next one would have none.
    """
    limited = _thread.limited
    if limited is not None:
        left = limited.deadline - time.monotonic()
        limited.qnx.TimerTimeout(_SEND_AND_REPLY, max(0, int(left * 1e9)))


def watch_others(qnx: Backend) -> None:
    """Limit what other threads send again, because this one has recovered their connection, to what is left.

    They do not come by here: a library sends for them, and their timeouts were for what they have sent before.
    """
    here = threading.get_ident()
    others = {limited for limited in list(_calls) if limited.qnx is qnx and limited.thread != here}
    if others:
        _watcher.take(others)
