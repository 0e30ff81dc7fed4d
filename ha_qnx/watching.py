"""Seeing recoveries: a log line for each, counts for each connection, and callbacks.

``Counts.observed`` is called where a recovery function is called, and nowhere else: what does not fail costs nothing
here. One line for each recovery goes to the logger ``ha_qnx``: at INFO if the connection was recovered, at WARNING if
not, when the caller gets an error. What can be asked for is ``ha_qnx.stats``.
"""

import errno
import itertools
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, NamedTuple, Optional

from .buffers import check_callable

__all__ = ["Counts", "RecoveryEvent", "Stats", "on_event"]


class Stats(NamedTuple):
    """What has happened to a connection since it was made HA-aware."""

    #: Calls that failed because the connection was lost.
    failures: int = 0
    #: Calls of the recovery function that brought the connection back.
    recoveries: int = 0
    #: Calls that were made again: once for each recovery, and for each thread that found it done by another one.
    retransmissions: int = 0
    #: The errno of the last of them; 0 if there was none, or the backend does not tell.
    last_error: int = 0
    #: Seconds spent in the recovery function.
    recovery_time: float = 0.0


class RecoveryEvent(NamedTuple):
    """One call of a recovery function: an event, as the callbacks of ``on_event`` get it."""

    coid: int
    #: The error of the call that failed, where the backend tells.
    cause: Optional[OSError]
    #: How often the strategy tried; 1 for a function that does not say.
    attempts: int
    #: Seconds.
    duration: float
    #: Whether the connection is back. If not, the caller got the error.
    recovered: bool
    #: What the function raised, if it did.
    error: Optional[BaseException] = None
    #: The name of the backend, since another one can have a connection of this number, too.
    backend: str = ""

    def __str__(self) -> str:
        cause = "lost" if self.cause is None else errno.errorcode.get(self.cause.errno or 0, str(self.cause))
        outcome = "recovered" if self.recovered else f"not recovered: {self.error!r}" if self.error else "not recovered"
        attempts = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"connection {self.coid:#x}: {cause}, {attempts}, {self.duration * 1000:.1f} ms, {outcome}"


class _Attempts(threading.local):
    """How often the strategy that runs in this thread has tried."""

    count = 0


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


def attempted() -> None:
    """For strategies: another try begins."""
    _attempts.count += 1


class Counts:
    """What has happened to the connections of one backend."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        # No lock: the counts of a connection change only while its recovery is locked, and so by one thread at a time.
        self._stats: Dict[int, Stats] = {}
        self._generations: Dict[int, int] = {}

    def of(self, coid: int) -> Stats:
        """What has happened to a connection since it was made HA-aware; all zero for one that is not."""
        return self._stats.get(coid, Stats())

    def begin(self, coid: int) -> None:
        """A connection is HA-aware from now on: count from zero."""
        self._stats.pop(coid, None)
        self._generations[coid] = self.generation(coid) + 1

    def generation(self, coid: int) -> int:
        """Which of the HA-aware connections that have had a number has it now."""
        return self._generations.get(coid, 0)

    def observed(
        self, coid: int, failure: Optional[OSError], function: Callable[[int, Any], object], handle: object
    ) -> object:
        """Call a recovery function, and tell whoever wants to know.

        Args:
            coid: the connection.
            failure: the error of the call that failed; None where the library does not say.
            function: the recovery function.
            handle: what it gets beside ``coid``.

        Returns:
            What the function returned; what it raises goes through.
        """
        before, _attempts.count = _attempts.count, 0
        thread = threading.get_ident()
        depth = recoveries_of(thread)
        with no_recovery_begins:
            _recoveries[thread] = depth + 1
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
            attempts, _attempts.count = _attempts.count or 1, before
            recovered = isinstance(result, int) and result == coid
            self._count(coid, failure, retransmissions=recovered, recoveries=recovered, duration=duration)
            _tell(RecoveryEvent(coid, failure, attempts, duration, recovered, error, self._backend))
            del failure, error  # Their tracebacks hold this frame.
        return result

    def sent_again(self, coid: int, failure: OSError) -> None:
        """A call failed, but another thread has recovered the connection since it was made."""
        self._count(coid, failure, retransmissions=1)

    def given_up(self, coid: int, failure: OSError) -> None:
        """A call failed, and the recovery function is not called: it is suspended, or a limit is reached."""
        self._count(coid, failure)

    def _count(
        self,
        coid: int,
        failure: Optional[OSError],
        retransmissions: int = 0,
        recoveries: int = 0,
        duration: float = 0.0,
    ) -> None:
        before = self.of(coid)
        self._stats[coid] = Stats(
            failures=before.failures + 1,
            recoveries=before.recoveries + recoveries,
            retransmissions=before.retransmissions + retransmissions,
            last_error=before.last_error if failure is None else failure.errno or 0,
            recovery_time=before.recovery_time + duration,
        )


def _tell(event: RecoveryEvent) -> None:
    # A program that has not imported logging, which takes as long to import as half of this package, would not see a
    # line at INFO; it sees one at WARNING.
    if not event.recovered or "logging" in sys.modules:
        import logging

        _log = logging.getLogger("ha_qnx")
        _log.log(logging.INFO if event.recovered else logging.WARNING, "%s", event)
    for callback in list(_callbacks.values()):
        try:
            callback(event)
        except Exception:
            import logging

            logging.getLogger("ha_qnx").exception("a callback of on_event failed")
