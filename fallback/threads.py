"""What the kernel knows about a thread: its number, its priority, the timeout it has armed."""

import heapq
import os
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from ha_qnx.constants import TIMER_ABSTIME

DEFAULT_PRIORITY = 10

get_ident = threading.get_ident


class Timeout(NamedTuple):
    """A timeout for the next blocking call: the states it limits, and the nanoseconds, None for at once."""

    flags: int
    nanoseconds: Optional[int]

    def deadline(self) -> float:
        """The point of time.monotonic() at which the timeout ends, counted from now unless TIMER_ABSTIME is set."""
        if not self.nanoseconds:
            return 0.0
        if self.flags & TIMER_ABSTIME:
            return self.nanoseconds / 1e9
        return time.monotonic() + self.nanoseconds / 1e9

    @property
    def immediate(self) -> bool:
        """Whether a call that has to block fails at once (B213, B214)."""
        if self.flags & TIMER_ABSTIME and self.nanoseconds is not None:
            return self.deadline() <= time.monotonic()
        return not self.nanoseconds


def _host_priority() -> int:
    """The priority of a real-time thread, else the QNX default of user threads (D14)."""
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        return max(1, min(os.sched_getparam(0).sched_priority, 255))
    return DEFAULT_PRIORITY


class _Leaving:
    """Lives in a thread's local storage and so is finalised when the thread ends."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave

    def __del__(self) -> None:
        self._leave()


class Thread:
    """A thread of this process, made when it first makes a call of ours."""

    __slots__ = ("is_main", "is_wanted_back", "priority", "receives_on", "sends_on", "tid")

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.priority = _host_priority()
        self.receives_on: object = None  # The receivers of the channel that it waits on in MsgReceive.
        # The lane by which it sends a message, until the answer has come; and whether it shall not wait for a lane.
        self.sends_on: object = None
        self.is_wanted_back = False
        # Where Python runs signal handlers (D19). Not current_thread(), which makes a record of a foreign thread.
        self.is_main = get_ident() == threading.main_thread().ident


class _Local(threading.local):
    """Gives every thread its own record."""

    def __init__(self, threads: "Threads") -> None:
        self.thread, self._leaving = threads.enter()


class Threads:
    """The threads of this process that have made a call of ours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: List[int] = []
        self._highest = 0
        self._known: Dict[int, Thread] = {}
        self._by_ident: Dict[int, Thread] = {}
        self.timeouts: Dict[int, Timeout] = {}
        self.on_exit: Optional[Callable[[int], None]] = None
        self.local = _Local(self)

    def enter(self) -> "Tuple[Thread, _Leaving]":
        """Give the calling thread the lowest number that is free, until it ends (D29)."""
        with self._lock:
            if self._free:
                tid = heapq.heappop(self._free)
            else:
                self._highest += 1
                tid = self._highest
        thread = self._known[tid] = Thread(tid)
        ident = get_ident()
        self._by_ident[ident] = thread
        process = os.getpid()

        def leave() -> None:
            if os.getpid() != process:
                return
            self.timeouts.pop(ident, None)
            if self._by_ident.get(ident) is thread:  # Another thread may have its identity by now.
                del self._by_ident[ident]
            with self._lock:
                del self._known[tid]
                heapq.heappush(self._free, tid)
            if self.on_exit is not None:
                self.on_exit(tid)

        return thread, _Leaving(leave)

    def known(self) -> List[Thread]:
        """The threads that have made a call of ours and have not ended."""
        return list(self._known.values())

    def find(self, ident: int) -> Optional[Thread]:
        """The thread of an identity, if it has made a call of ours and has not ended."""
        return self._by_ident.get(ident)

    def arm(self, timeout: Optional[Timeout]) -> int:
        """Arm a timeout for the calling thread, or disarm it with None; the flags of the one before (B222, B223)."""
        before = self.timeouts.pop(get_ident(), None)
        if timeout is not None:
            self.timeouts[get_ident()] = timeout
        return before.flags if before else 0

    def armed_timeout(self) -> Optional[Timeout]:
        """The timeout that the calling thread has armed; it stays armed."""
        return self.timeouts.get(get_ident())

    def take_timeout(self) -> Optional[Timeout]:
        """The timeout that the calling thread has armed; from now on it is armed no more (B212)."""
        return self.timeouts.pop(get_ident(), None) if self.timeouts else None
