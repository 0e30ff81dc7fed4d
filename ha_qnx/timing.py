"""Timers by the names that POSIX gives them, for all backends, and what the calls about time are passed."""

from errno import EINVAL, ENOTSUP
from typing import Any, Callable, Optional, Tuple, Type, TypeVar

from .api import Backend
from .buffers import INT_MIN, UINT_MAX, as_int, integer
from .constants import CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_SOFTTIME, SIGEV_UNBLOCK
from .documenting import documented_by
from .errors import failure
from .structures import Itimer, Itimerspec, SigEvent, TimerStatus, Timespec

S = TypeVar("S")

SECOND = 1_000_000_000

#: What is left of a sigev_notify when its flags are taken away, and the mark that 7.x gives it on 64 bits.
EVENT_TYPE = 0x7F

_CLOCKS = (CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_SOFTTIME)


@documented_by(Backend)
class PosixTimers:
    """timer_create() and its kind, made of TimerCreate() and its kind, as they are on QNX."""

    TimerCreate: Callable[..., int]
    TimerSettime: Callable[..., int]
    TimerInfo: Callable[..., TimerStatus]
    TimerDestroy: Callable[[int], int]

    def timer_create(self, clockid: int, evp: Optional[SigEvent] = None) -> int:
        return self.TimerCreate(clockid, evp)

    def timer_settime(self, timerid: int, flags: int, value: Itimerspec, ovalue: Optional[Itimerspec] = None) -> int:
        structure("value", value, Itimerspec)
        before = None if ovalue is None else Itimer()
        if ovalue is not None:
            structure("ovalue", ovalue, Itimerspec)
        first, interval = (_nanoseconds(part) for part in (value.it_value, value.it_interval))
        self.TimerSettime(timerid, flags, Itimer(first, interval), before)
        if ovalue is not None and before is not None:
            _fill_in(ovalue, before)
        return 0

    def timer_gettime(self, timerid: int) -> Itimerspec:
        value = Itimerspec()
        _fill_in(value, self.TimerInfo(0, timerid, 0).otime)
        return value

    def timer_getoverrun(self, timerid: int) -> int:
        return int(self.TimerInfo(0, timerid, 0).overruns)

    def timer_delete(self, timerid: int) -> int:
        return self.TimerDestroy(timerid)


def _nanoseconds(value: Timespec) -> int:
    """A time as one number.

    Raises:
        OSError: EINVAL, it is none.
    """
    if value.tv_sec < 0 or not 0 <= value.tv_nsec < SECOND:
        raise failure(EINVAL)
    return min(int(value.tv_sec) * SECOND + int(value.tv_nsec), (1 << 64) - 1)


def _fill_in(value: Itimerspec, times: Itimer) -> None:
    for part, nanoseconds in ((value.it_value, times.nsec), (value.it_interval, times.interval_nsec)):
        part.tv_sec, part.tv_nsec = divmod(nanoseconds, SECOND)


def structure(name: str, value: object, kind: Type[S]) -> S:
    """An argument that has to be a certain structure.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def notify_arguments(action: Any, flags: Any, event: Any) -> Tuple[int, int, Optional[SigEvent]]:
    """The arguments of ionotify but for the descriptor.

    Raises:
        TypeError, ValueError: one is wrong.
    """
    conditions = integer("flags", flags, INT_MIN, UINT_MAX) & UINT_MAX
    return as_int("action", action), conditions, None if event is None else structure("event", event, SigEvent)


def timeout_arguments(flags: Any, ntime: Any, c_form: Tuple[Any, ...]) -> Tuple[int, int, Optional[int]]:
    """The clock, the flags and the nanoseconds of a TimerTimeout in either form.

    Raises:
        TypeError: it is neither form; else what is wrong with an argument.
        OSError: EINVAL, the clock; ENOTSUP, the event, which would not end the call.
    """
    if not c_form:
        return CLOCK_MONOTONIC, flags, ntime
    if len(c_form) != 3:
        forms = "TimerTimeout(flags, ntime), or in C's form TimerTimeout(clock, flags, notify, ntime, otime)"
        raise TypeError(f"{2 + len(c_form)} arguments are no timeout: it takes {forms}")
    clock = flags
    flags, (notify, ntime, otime) = ntime, c_form
    if otime is not None:
        raise TypeError("otime must be None: only a timeout of nanosleep fills it in")
    if (
        notify is not None
        and structure("notify", notify, SigEvent).sigev_notify & EVENT_TYPE != SIGEV_UNBLOCK & EVENT_TYPE
    ):
        raise failure(ENOTSUP)
    if clock not in _CLOCKS:
        raise failure(EINVAL)
    return clock, flags, None if ntime is None else integer("ntime", ntime, 0, (1 << 64) - 1)
