"""Seeing recoveries: a log line for each, counts for each connection, and callbacks.

``Counts.observed`` is called where a recovery function is called, and nowhere else: what does not fail costs nothing
here. One line for each recovery goes to the logger ``ha_qnx``: at INFO if the connection was recovered, at WARNING if
not, when the caller gets an error. What can be asked for is ``ha_qnx.stats``.
"""

import contextlib
import itertools
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Set

from .buffers import check_callable
from .kernel import Kernel, StrPath
from .logs import logger
from .structures import MessageInfo

__all__ = ["Counts", "RecoveryEvent", "Stats", "on_event"]


class Stats(NamedTuple):
    """What has happened to a connection since it was made HA-aware: the same on each backend.

    What a library in C does not tell is not counted: how many calls were waiting, and were made again.

    Attributes:
        failures: how often its recovery function was called: once for each loss, however many threads had a message
            under way; and once more for each call that was made after it had failed.
        recoveries: how often that brought the connection back.
        recovery_time: seconds spent in the recovery function.
    """

    failures: int = 0
    recoveries: int = 0
    recovery_time: float = 0.0


class RecoveryEvent(NamedTuple):
    """One call of a recovery function, as the callbacks of ``on_event`` get it: the same on each backend.

    Attributes:
        coid: the connection.
        attempts: how often the strategy tried; 1 for a function that does not say.
        duration: how many seconds it took.
        recovered: whether the connection is back. If not, the caller got an error.
        error: what the function raised, if it did.
        backend: the name of the backend, since another one can have a connection of this number, too.
        target: the name or the path that the connection was made to, else what a strategy of this package has looked
            for; None if neither is known.
        time: when the recovery began, in seconds as time.time() gives them.
        old_pid: the process whose server was lost; None if that cannot be told.
        new_pid: the process whose server it is now, if the connection is back.
    """

    coid: int
    attempts: int
    duration: float
    recovered: bool
    error: Optional[BaseException] = None
    backend: str = ""
    target: Optional[str] = None
    time: float = 0.0
    old_pid: Optional[int] = None
    new_pid: Optional[int] = None

    def __str__(self) -> str:
        target = "" if self.target is None else f" to {self.target!r}"
        server = "server" if self.old_pid is None else f"server {self.old_pid}"
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time)) + f".{int(self.time % 1 * 1000):03}"
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        outcome = "recovered" if self.recovered else "not recovered"
        if self.recovered and self.new_pid is not None:
            outcome += f" by server {self.new_pid}"
        elif self.error is not None:
            outcome += f": {self.error!r}"
        return (
            f"connection {self.coid:#x}{target}: {server} lost at {began}, "
            f"{attempts}, {self.duration * 1000:.1f} ms, {outcome}"
        )


class _Attempts(threading.local):
    """How often the strategy that runs in this thread has tried, and for whose server it has looked."""

    count = 0
    target: Optional[str] = None


_attempts = _Attempts()
_callbacks: Dict[int, Callable[[RecoveryEvent], object]] = {}
_registrations = itertools.count()


# By a thread's identity: how many recovery functions it is in. It is so only where there are any.
_recoveries: Dict[int, int] = {}

#: As long as it is held, no thread gets into a recovery function. A signal handler may want it, too.
no_recovery_begins = threading.RLock()


def recoveries_of(thread: int) -> int:
    """How many recovery functions a thread is in, one inside the other."""
    return _recoveries.get(thread, 0)


def _after_fork_in_child() -> None:
    global no_recovery_begins
    no_recovery_begins = threading.RLock()
    here = threading.get_ident()
    for thread in [thread for thread in _recoveries if thread != here]:
        del _recoveries[thread]


os.register_at_fork(after_in_child=_after_fork_in_child)


def on_event(callback: Callable[[RecoveryEvent], object]) -> Callable[[], None]:
    """Have a function called after each recovery, in the thread of the recovery, before the message is sent again.

    Other threads with the same connection wait meanwhile, so it must be short. What it raises is logged.

    Returns:
        A function that ends it, and only it: the same function may have been registered more than once.

    Raises:
        TypeError: it is not callable.
    """
    check_callable("a callback of on_event", callback)
    registration = next(_registrations)

    def end() -> None:
        _callbacks.pop(registration, None)

    _callbacks[registration] = callback
    return end


def server_of(kernel: Kernel, coid: int) -> Optional[int]:
    """The process of the server that a connection has, or had; None if the number is no connection's."""
    info = MessageInfo()
    with contextlib.suppress(OSError):
        if kernel.ConnectServerInfo(0, coid, info) == coid:
            pid: int = info.pid
            return pid
    return None


def attempted(target: Optional[StrPath] = None) -> None:
    """For strategies: another try begins, for the server of a name or a path."""
    _attempts.count += 1
    if target is not None:
        _attempts.target = os.fsdecode(target)


class Counts:
    """What has happened to the connections of one backend."""

    def __init__(self, backend: str, server_of: Callable[[int], Optional[int]] = lambda _coid: None) -> None:
        """Count for a backend.

        Args:
            backend: its name.
            server_of: the process of the server that a connection has, or had; None if that cannot be told.
        """
        self._backend = backend
        self._server_of = server_of
        # No lock: the counts of a connection change only while its recovery is locked, and so by one thread at a time.
        self._stats: Dict[int, Stats] = {}
        self._generations: Dict[int, int] = {}
        self._targets: Dict[int, str] = {}
        self._back: Set[int] = set()

    def of(self, coid: int) -> Stats:
        """What has happened to a connection since it was made HA-aware; all zero for one that is not."""
        return self._stats.get(coid, Stats())

    def begin(self, coid: int) -> None:
        """A connection is HA-aware from now on: count from zero."""
        self._stats.pop(coid, None)
        self._targets.pop(coid, None)
        self._back.discard(coid)
        self._generations[coid] = self.generation(coid) + 1

    def is_back(self, coid: int) -> bool:
        """Whether the last call of a connection's recovery function has brought it back."""
        return coid in self._back

    def leads_to(self, coid: int, target: Optional[StrPath]) -> None:
        """What an HA-aware connection was made to, for what is told of it."""
        if target is not None:
            self._targets[coid] = os.fsdecode(target)

    def target(self, coid: int) -> Optional[str]:
        """What a connection was made to, where that is known."""
        return self._targets.get(coid)

    def generation(self, coid: int) -> int:
        """Which of the HA-aware connections that have had a number has it now."""
        return self._generations.get(coid, 0)

    def observed(self, coid: int, function: Callable[[int, Any], object], handle: object) -> object:
        """Call a recovery function, and tell whoever wants to know.

        Args:
            coid: the connection.
            function: the recovery function.
            handle: what it gets beside ``coid``.

        Returns:
            What the function returned; what it raises goes through.
        """
        before, _attempts.count, _attempts.target = (_attempts.count, _attempts.target), 0, None
        thread = threading.get_ident()
        depth = recoveries_of(thread)
        with no_recovery_begins:
            _recoveries[thread] = depth + 1
        now, old_pid = time.time(), self._server_of(coid)
        began = time.monotonic()
        result: object = None
        error: Optional[BaseException] = None
        try:
            result = function(coid, handle)
        except BaseException as raised:
            error = raised
            raise
        finally:
            duration = time.monotonic() - began
            if depth:
                _recoveries[thread] = depth
            else:
                del _recoveries[thread]
            attempts, target = _attempts.count or 1, self.target(coid) or _attempts.target
            _attempts.count, _attempts.target = before
            recovered = isinstance(result, int) and result == coid
            (self._back.add if recovered else self._back.discard)(coid)
            counted = self.of(coid)
            self._stats[coid] = Stats(
                counted.failures + 1, counted.recoveries + recovered, counted.recovery_time + duration
            )
            new_pid = self._server_of(coid) if recovered else None
            where_and_when = (self._backend, target, now, old_pid, new_pid)
            _tell(RecoveryEvent(coid, attempts, duration, recovered, error, *where_and_when))
            del error  # Its traceback holds this frame.
        return result


def _tell(event: RecoveryEvent) -> None:
    # A program that has not imported logging, which takes as long to import as half of this package, would not see a
    # line at INFO; it sees one at WARNING.
    if not event.recovered or "logging" in sys.modules:
        say = logger().info if event.recovered else logger().warning
        say("%s", event)
    for callback in list(_callbacks.values()):
        try:
            callback(event)
        except Exception:
            logger().exception("a callback of on_event failed")
