"""How long a call may take: one that a caller names, and one of the work that a thread is at.

The kernel keeps the time: a call is limited by TimerTimeout, as on QNX. What that cannot bound: on a channel with
NTO_CHF_UNBLOCK, which every server with a name has, the server is asked to let the client go, and one that is stopped,
or never looks, keeps it waiting. Nothing but the end of the server ends that, on QNX as here; a watchdog sees to it.
"""

import contextlib
import math
import threading
import time
from typing import Any, Callable, Iterator, Optional, TypeVar

from .api import Backend
from .buffers import as_seconds
from .constants import NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND

__all__ = ["sooner", "time_limit", "until", "within"]

T = TypeVar("T")


class _InThread(threading.local):
    #: When the work that the thread is at has to be done, on the monotonic clock.
    deadline = math.inf


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
    """Make a call that sends one message, and let the kernel limit it to so many seconds."""
    if timeout is None:
        return call(*arguments)
    qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, int(as_seconds("timeout", timeout) * 1e9))
    try:
        return call(*arguments)
    finally:
        qnx.TimerTimeout(0, None)  # Where nothing was sent, it is not for the next message of this thread.
