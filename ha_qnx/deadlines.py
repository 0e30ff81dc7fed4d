"""How long a call may take: one that a caller names, and one of the work that a thread is at.

The kernel keeps the time: a call is limited by TimerTimeout, as on QNX. What that cannot bound: on a channel with
NTO_CHF_UNBLOCK, which every server with a name has, the server is asked to let the client go, and one that is stopped,
or never looks, keeps it waiting. Nothing but the end of the server ends that, on QNX as here; a watchdog sees to it.
"""

import contextlib
import math
import threading
import time
from typing import Any, Callable, Iterator, Optional, Tuple, TypeVar

from .api import Backend
from .buffers import as_seconds
from .constants import NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND

__all__ = ["arm_again", "sooner", "time_limit", "until", "within"]

T = TypeVar("T")
_SEND_AND_REPLY = NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY


class _InThread(threading.local):
    #: When the work that the thread is at has to be done, on the monotonic clock.
    deadline = math.inf
    #: When the call that it makes within a limit has to be done, and on which backend; None if it makes none.
    limited: "Optional[Tuple[Backend, float]]" = None


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
    try:
        _thread.limited = qnx, time.monotonic() + seconds
        qnx.TimerTimeout(_SEND_AND_REPLY, int(seconds * 1e9))
        return call(*arguments)
    finally:
        _thread.limited = before
        qnx.TimerTimeout(0, None)  # Where nothing was sent, it is not for the next message of this thread.


def arm_again() -> None:
    """Limit what a call sends again, once its connection is recovered, to what is left of its time.

    A timeout is for one message; the next one would have none.
    """
    if _thread.limited is not None:
        qnx, deadline = _thread.limited
        qnx.TimerTimeout(_SEND_AND_REPLY, max(0, int((deadline - time.monotonic()) * 1e9)))
