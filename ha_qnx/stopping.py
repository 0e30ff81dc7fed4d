"""Signals that end a service, also those that come when no call is there for them to end.

Python runs a handler when the main thread is back from its call, and a signal ends a call of the kernel only if it
comes while that blocks: one that comes a moment before is not heard of until the next message. So the signal is written
to a pipe as well, which another thread reads: it stops the service, and that wakes the main thread.
"""

import contextlib
import os
import signal
import threading
from typing import Callable, Iterator, List, Optional, Sequence

__all__ = ["stopped_by"]

_END = b"\0"
# The ends of the pipe in use. A forked child shares it: what it is told is none of its parent's business.
_in_use: List[int] = []


def _leave_to_parent() -> None:
    if _in_use:
        signal.set_wakeup_fd(-1)
    while _in_use:
        os.close(_in_use.pop())


os.register_at_fork(after_in_child=_leave_to_parent)


@contextlib.contextmanager
def stopped_by(signals: Sequence[int], stop: Callable[[], object]) -> Iterator[None]:
    """In the main thread, have signals stop what runs meanwhile; in others, leave them alone.

    Args:
        signals: their numbers.
        stop: is called in a signal handler or in a thread, once for each signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    lock, ahead = threading.RLock(), 0

    def hear(by: int) -> None:
        """One and the same signal is heard of twice, by the handler (-1) and by a thread (1)."""
        nonlocal ahead
        with lock:
            ahead += by
            is_first = ahead * by > 0
        if is_first:
            stop()

    def handle(_number: int, _frame: object) -> None:
        hear(-1)

    with contextlib.ExitStack() as stack:
        for number in signals:
            stack.callback(signal.signal, number, signal.signal(number, handle))
        stack.enter_context(_heard(handle, lambda: hear(1)))
        yield


@contextlib.contextmanager
def _heard(handler: Callable[[int, object], None], hear: Callable[[], None]) -> Iterator[None]:
    """Have signals that have this handler heard of by a thread, too, where there is room for that."""
    ends = _pipe()
    if ends is None:
        yield
        return
    read_end, write_end = ends

    def read() -> None:
        numbers = b""
        while _END not in numbers:
            numbers = os.read(read_end, 64)
            for number in numbers:
                if number and signal.getsignal(number) is handler:
                    hear()

    thread = threading.Thread(target=read, name="ha_qnx.stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        if _in_use:  # In a forked child it is not.
            now = signal.set_wakeup_fd(-1)
            if now not in (write_end, -1):  # The program has meanwhile one of its own.
                signal.set_wakeup_fd(now)
            os.set_blocking(write_end, True)
            os.write(write_end, _END)
            thread.join()
            while _in_use:
                os.close(_in_use.pop())


def _pipe() -> Optional[List[int]]:
    """The ends of a pipe to which signals are written; None if the program has one of its own, or there is no room."""
    with contextlib.suppress(OSError):
        before = signal.set_wakeup_fd(-1)
        if before >= 0:
            signal.set_wakeup_fd(before)
            return None
        ends = list(os.pipe())
        os.set_blocking(ends[1], False)
        signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
        _in_use.extend(ends)
        return ends
    return None
