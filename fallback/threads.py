"""What the kernel knows about a thread: its number, its priority, the timeout it has armed."""

import functools
import os
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Protocol, TypeVar, cast

from ha_qnx.buffers import INT_MAX
from ha_qnx.constants import TIMER_ABSTIME

from .numbers import Slots

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


class _Stay:
    """A thread's time among the known ones. It lives in the thread's local storage and so ends with the thread."""

    def __init__(self, threads: "Threads") -> None:
        self._threads = threads
        self._process = os.getpid()
        self._ident = get_ident()
        self.thread = Thread(threads.numbers.take())

    def __del__(self) -> None:
        if hasattr(self, "thread") and os.getpid() == self._process:
            self._threads.leave(self.thread, self._ident)


class _Own:
    """Makes the record of a thread when the thread first asks for it, and gives way to what it has made."""

    def __init__(self, threads: "Threads") -> None:
        self._threads = threads

    def __get__(self, local: threading.local, _owner: object) -> Thread:
        kept = vars(local)
        # A signal handler that came in between has made a record already; then the one made here ends at once.
        stay: _Stay = kept.setdefault("stay", _Stay(self._threads))
        self._threads.enter(stay.thread)
        kept["thread"] = stay.thread
        return stay.thread


class Local(Protocol):
    """What a thread has for itself."""

    @property
    def thread(self) -> Thread:
        """The record of the calling thread."""


class Threads:
    """The threads of this process that have made a call of ours. No locks: see ``numbers``."""

    def __init__(self) -> None:
        self.numbers = Slots(most=INT_MAX)
        self._known: Dict[int, Thread] = {}
        self._by_ident: Dict[int, Thread] = {}
        self.timeouts: Dict[int, Timeout] = {}
        self.on_exit: Optional[Callable[[int], None]] = None
        self.local: Local = type("Local", (threading.local,), {"thread": _Own(self)})()
        _ = self.local.thread  # Of the first thread, that it may have the first number.

    def enter(self, thread: Thread) -> None:
        """Know the calling thread, which has the lowest number that was free, until it ends (D29)."""
        self._known[thread.tid] = self._by_ident[get_ident()] = thread

    def leave(self, thread: Thread, ident: int) -> None:
        """A thread ends, or was never known."""
        was_known = self._known.get(thread.tid) is thread
        if was_known:
            self.timeouts.pop(ident, None)
            del self._known[thread.tid]
        if self._by_ident.get(ident) is thread:  # Another thread may have its identity by now.
            del self._by_ident[ident]
        self.numbers.give_back(thread.tid)
        if was_known and self.on_exit is not None:
            self.on_exit(thread.tid)

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


_Call = TypeVar("_Call", bound=Callable[..., Any])


class HasThreads(Protocol):
    """A kernel, as far as its threads go."""

    _threads: Threads


def ends_timeout(call: _Call) -> _Call:
    """A call that does not block: one that succeeds keeps the timeout that is armed, one that fails ends it (B212)."""

    @functools.wraps(call)
    def checked(self: "HasThreads", *args: Any, **options: Any) -> Any:
        try:
            return call(self, *args, **options)
        except OSError:
            self._threads.take_timeout()
            raise

    return cast(_Call, checked)
