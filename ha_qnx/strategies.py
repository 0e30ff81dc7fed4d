"""Ready-made recovery functions. Each call here makes one; they compose.

    ha.ha_open("/dev/ledger", os.O_RDWR, strategies.wait_for(strategies.reopen("/dev/ledger"), timeout=10))

    log_in_again = strategies.then(strategies.reopen_name("ledger"), log_in)
    ha_qnx.connect("ledger", recover=strategies.wait_for(log_in_again, timeout=10))

A server is found by a name that it has attached (``reopen_name``) or by a path (``reopen``). On QNX these are two
things: a name is not opened, and a path has no name.

A strategy is a recovery function like any other: it takes the connection and the handle, and returns the connection's
number or raises OSError. So whatever decorates a function that raises decorates a strategy: tenacity, stamina.

Each takes the backend to work on; without it, the default one.
"""

import contextlib
import functools
import math
import os
import threading
import time
from errno import EAGAIN, EBADF, EINTR, ENOENT, ENXIO, EPERM, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, Generic, Optional, Sequence, Tuple, TypeVar

from . import backends
from .api import Backend, RecoveryFunction
from .arrivals import Arrivals
from .buffers import INT_MAX, as_int, as_seconds, check_callable, integer
from .constants import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_SUSPEND,
    NTO_COF_CLOEXEC,
)
from .deadlines import sooner, until, within
from .errors import naming
from .kernel import StrPath
from .logs import logger
from .structures import MessageInfo
from .watching import Counts, attempted

__all__ = [
    "ATTEMPTS",
    "NO_SERVER",
    "circuit_breaker",
    "failover",
    "find_server",
    "is_path",
    "limit",
    "reconnect",
    "reopen",
    "reopen_name",
    "then",
    "wait_for",
]

#: What opening and attaching fail with while one server is gone and the next one is not there yet.
NO_SERVER = frozenset((ENOENT, ESRCH, ENXIO, EAGAIN))

#: How many servers in a row may be lost with one message in hand before ``connect`` takes the message for the reason.
ATTEMPTS = 5

T = TypeVar("T")


def is_path(target: StrPath) -> bool:
    """Whether a target is a path, which begins with a slash, and not a name of name_attach."""
    return os.fsdecode(target).startswith("/")


def find_server(name: str, *, backend: Optional[Backend] = None) -> MessageInfo:
    """Find the server of a name by name_open: ``nd``, ``pid`` and ``chid`` are what ConnectAttach takes.

    Raises:
        OSError: as name_open and ConnectServerInfo.
    """
    qnx, info = _use(backend), MessageInfo()
    found = within(qnx, sooner(), qnx.name_open, name)
    try:
        qnx.ConnectServerInfo(0, found, info)
    finally:
        qnx.name_close(found)
    return info


def reopen(
    path: StrPath, oflag: int = os.O_RDWR, mode: int = 0o666, *, backend: Optional[Backend] = None
) -> RecoveryFunction:
    """Open the path again, for connections of ha_open."""

    def recover(coid: int, _handle: Any) -> int:
        attempted(path)
        qnx = _use(backend)
        with naming(path):
            return within(qnx, sooner(), qnx.ha_reopen, coid, path, oflag, mode)

    return recover


def reopen_name(name: str, *, backend: Optional[Backend] = None) -> RecoveryFunction:
    """Find the server that has the name now, and connect to it under the old number: for what ConnectAttach has made.

    The number has to be one of the descriptors' range. QNX gives a side channel, such as name_open makes, the first
    number that is free, and so not the one that it had; then the recovery fails.
    """

    def recover(coid: int, _handle: Any) -> int:
        attempted(name)
        server = find_server(name, backend=backend)
        place = coid, server.nd, server.pid, server.chid, coid, NTO_COF_CLOEXEC
        qnx = _use(backend)
        return within(qnx, sooner(), qnx.ha_ReConnectAttach, *place)

    return recover


def reconnect(nd: int, pid: int, chid: int, flags: int = 0, *, backend: Optional[Backend] = None) -> RecoveryFunction:
    """Connect to the channel again: for a server whose process lives on and makes its channel anew."""

    def recover(coid: int, _handle: Any) -> int:
        attempted()
        qnx = _use(backend)
        return within(qnx, sooner(), qnx.ha_ReConnectAttach, coid, nd, pid, chid, coid, flags)

    return recover


def to_target(target: StrPath, oflag: int = os.O_RDWR, *, backend: Optional[Backend] = None) -> RecoveryFunction:
    """``reopen`` for a path, ``reopen_name`` for a name."""
    return (
        reopen(target, oflag, backend=backend) if is_path(target) else reopen_name(os.fsdecode(target), backend=backend)
    )


class _Remembered(Generic[T]):
    """What a strategy remembers of each connection; another one that gets the number of a closed one is new to it."""

    def __init__(self, backend: Optional[Backend]) -> None:
        self._backend = backend
        # By the backend's counts and the number of a connection: its generation, and what is remembered of it.
        self._of: Dict[Tuple[Counts, int], Tuple[int, T]] = {}

    def get(self, coid: int) -> Optional[T]:
        counts = _use(self._backend).counts
        generation, value = self._of.get((counts, coid), (None, None))
        return value if generation == counts.generation(coid) else None

    def put(self, coid: int, value: T) -> None:
        counts = _use(self._backend).counts
        self._of[counts, coid] = (counts.generation(coid), value)


class Failover:
    """What ``failover`` makes: it remembers which server each connection had."""

    def __init__(self, targets: Sequence[StrPath], oflag: int, step: int, backend: Optional[Backend]) -> None:
        self.targets = list(targets)
        self._strategies = [to_target(target, oflag, backend=backend) for target in targets]
        self._step = step
        self._last: _Remembered[int] = _Remembered(backend)

    def __call__(self, coid: int, handle: Any) -> int:
        count = len(self._strategies)
        last = self._last.get(coid)
        start = 0 if last is None else last + self._step
        failures = []
        for number in (place % count for place in range(start, start + count)):
            try:
                reopened = self._strategies[number](coid, handle)
            except OSError as error:
                if error.errno == EBADF:
                    raise
                failures.append(error)
            else:
                self._last.put(coid, number)
                return reopened
        raise failures[-1]


def failover(
    targets: Sequence[StrPath], oflag: int = os.O_RDWR, *, round_robin: bool = False, backend: Optional[Backend] = None
) -> Failover:
    """Connect to the first of several names, or open the first of several paths, that answers.

    A connection begins with the server that it had last, so that it stays with one that was started again at once, and
    goes through the list from there. With ``round_robin`` it begins with the one after that, which gives each server
    its turn. No answer is any error but EBADF, which says that the number belongs to something else by now.

    Raises:
        TypeError: ``targets`` is one name or path, and no sequence of them.
        ValueError: there is none, or there are names and paths, whose connections end in different ways.
    """
    if isinstance(targets, (str, bytes)):
        raise TypeError(f"failover takes a sequence of names or paths: [{targets!r}], not {targets!r}")
    if not targets:
        raise ValueError("failover needs a name or a path")
    if len({is_path(target) for target in targets}) > 1:
        raise ValueError("failover takes names or paths, and not both")
    return Failover(targets, oflag, 1 if round_robin else 0, backend)


def wait_for(strategy: RecoveryFunction, timeout: float = 30.0) -> RecoveryFunction:
    """Use the strategy until there is a server, for so many seconds at most. Any other error ends it at once.

    It sleeps until a server arrives; on QNX it looks every 50 ms. The time is one for all tries together, and for all
    threads that have met the same loss: one that comes when another has just waited in vain tries once. What ``reopen``
    sends in a try is limited by it, too, so that it ends if a server is there and does not answer. (A server that has
    the message and does not let its client go is waited for as ever: see ``Connection.ask``. And where the time is 0,
    there is one try without a limit.)

    When the time is over, the error says so, and how often it was tried; its errno and its file name are those of the
    last try.

    Raises:
        TypeError: the strategy is not callable, or the time is no number.
        ValueError: the time is NaN.
    """
    check_callable("a strategy", strategy)
    timeout = as_seconds("timeout", timeout)

    # Where the library has the lock, and not we, the threads that wait for it come one after the other.
    in_vain: Dict[int, Tuple[int, float]] = {}

    @functools.wraps(strategy)
    def recover(coid: int, handle: Any) -> int:
        tries = 0

        def attempt() -> int:
            nonlocal tries
            tries += 1
            return strategy(coid, handle)

        thread, ended = in_vain.pop(coid, (0, -math.inf))
        is_too_late = thread != threading.get_ident() and time.monotonic() - ended < _SAME_LOSS
        allowed = 0.0 if is_too_late else timeout
        try:
            with until(time.monotonic() + timeout + LAST_TRY) if timeout else contextlib.nullcontext():
                answer = until_served(attempt, allowed, lambda answer: answer == coid)
        except OSError as error:
            if error.errno not in NO_SERVER and error.errno != ETIMEDOUT:
                raise
            in_vain[coid] = threading.get_ident(), time.monotonic()
            attempts = "1 attempt" if tries == 1 else f"{tries} attempts"
            found = "no answer of a successor" if error.errno == ETIMEDOUT else "no successor"
            waited = f"{found} within {timeout:g} s ({attempts}; last: {error.strerror or error})"
            raise OSError(error.errno, waited, error.filename) from error
        if answer != coid:
            in_vain[coid] = threading.get_ident(), time.monotonic()
        return answer

    return recover


#: So many seconds a last try may take, which begins when the time for all of them is over.
LAST_TRY = 0.05

#: So many seconds after a wait in vain, another thread that comes has met the same loss.
_SAME_LOSS = 0.05


def until_served(attempt: Callable[[], T], timeout: float, is_served: Callable[[T], bool]) -> T:
    """Make an attempt until there is a server, or the time is over: then return or raise what the last one did.

    One that a signal's handler has interrupted is made again: it says nothing of the server.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        arrivals: Optional[Arrivals] = None
        while True:
            left = deadline - time.monotonic()
            try:
                answer = attempt()
                if is_served(answer) or left <= 0:
                    return answer
            except OSError as error:
                if error.errno not in NO_SERVER | {EINTR} or left <= 0:
                    raise
                if error.errno == EINTR:
                    continue
            if arrivals is None:
                # Look once more, for what has arrived before anybody watched.
                arrivals = stack.enter_context(Arrivals())
            else:
                arrivals.wait(max(left, 0))


def then(strategy: RecoveryFunction, rebuild: Callable[[int, Any], object]) -> RecoveryFunction:
    """Use the strategy, then rebuild the conversation: ``rebuild(coid, handle)`` logs in, seeks, subscribes again.

    What it sends on the connection is not recovered. If the server is lost again meanwhile, that is an ESRCH, which
    ``wait_for(then(...))`` takes for another try. What else it raises ends the recovery.

    Raises:
        TypeError: one of them is not callable.
    """
    check_callable("a strategy", strategy)
    check_callable("rebuild", rebuild)

    @functools.wraps(strategy)
    def recover(coid: int, handle: Any) -> int:
        answer = strategy(coid, handle)
        if answer == coid:
            try:
                rebuild(coid, handle)
            except OSError as error:
                if error.errno != EBADF:
                    raise
                raise ProcessLookupError(
                    ESRCH, "the server was lost again while the conversation was rebuilt"
                ) from error
        return answer

    return recover


def limit(
    strategy: RecoveryFunction,
    attempts: Optional[int] = None,
    recoveries: Optional[int] = None,
    *,
    backend: Optional[Backend] = None,
) -> RecoveryFunction:
    """Have the library call the strategy so often at most: ``attempts`` for one failure, ``recoveries`` in all.

    Raises:
        TypeError: the strategy is not callable, or a limit is no number.
        ValueError: a limit is too large for C's int.
    """
    check_callable("a strategy", strategy)
    check_limits(attempts, recoveries)

    @functools.wraps(strategy)
    def recover(coid: int, handle: Any) -> int:
        set_limits(_use(backend), coid, attempts, recoveries)
        if 0 in (attempts, recoveries):  # The library does not know that before the first call.
            raise PermissionError(EPERM, "the limit of this connection's recoveries is 0")
        return strategy(coid, handle)

    # So that connect has the connection limited from the first, and knows why a message is given up.
    recover.limits = attempts, recoveries  # type: ignore[attr-defined]  # A function has attributes.
    return recover


def check_limits(attempts: Optional[int], recoveries: Optional[int]) -> None:
    """Refuse what no limit can be.

    Raises:
        TypeError: it is no number.
        ValueError: it is too large for C's int.
    """
    for name, limit in (("attempts", attempts), ("recoveries", recoveries)):
        if limit is not None:
            as_int(name, limit)


def set_limits(qnx: Backend, coid: int, attempts: Optional[int], recoveries: Optional[int]) -> None:
    """Bound the recovery of a connection; None leaves a bound as it is, a negative number takes it away."""
    if attempts is not None:
        qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, attempts)
    if recoveries is not None:
        qnx.ha_connection_ctrl(coid, HA_RECOVERY_ACOUNT, recoveries)


def circuit_breaker(
    strategy: RecoveryFunction, failures: int = 3, cooldown: float = 30.0, *, backend: Optional[Backend] = None
) -> RecoveryFunction:
    """After so many failures in a row, suspend the recovery of the connection for ``cooldown`` seconds.

    Until then, calls on it fail at once. After that the strategy gets one chance: its next failure suspends it again.

    Raises:
        TypeError: the strategy is not callable, or one of the others is no number.
        ValueError: ``failures`` is less than 1, or ``cooldown`` is NaN.
    """
    check_callable("a strategy", strategy)
    failures = integer("failures", failures, 1, INT_MAX)
    cooldown = as_seconds("cooldown", cooldown)
    failed: _Remembered[int] = _Remembered(backend)

    @functools.wraps(strategy)
    def recover(coid: int, handle: Any) -> int:
        recovered = False
        try:
            answer = strategy(coid, handle)
            recovered = answer == coid
            return answer
        finally:
            count = 0 if recovered else (failed.get(coid) or 0) + 1
            failed.put(coid, count)
            if count >= failures:
                _suspend(_use(backend), coid, cooldown)

    return recover


def _suspend(qnx: Backend, coid: int, seconds: float) -> None:
    generation = qnx.counts.generation(coid)

    def enable() -> None:
        with contextlib.suppress(OSError):  # The connection is closed by now.
            if qnx.counts.generation(coid) == generation:  # Or another one has its number, which is none of ours.
                qnx.ha_connection_ctrl(coid, HA_RECOVERY_ENABLE)

    qnx.ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND)
    logger().warning("connection %#x: recovery is suspended for %g s", coid, seconds)
    timer = threading.Timer(seconds, enable)
    timer.daemon = True
    timer.start()


def _use(backend: Optional[Backend]) -> Backend:
    return backends.backend() if backend is None else backend
