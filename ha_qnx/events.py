"""Makers of events: what QNX's macros of the same names fill in.

``SIGEV_PULSE_INIT(coid, SIGEV_PULSE_PRIO_INHERIT, code, value)`` is a SigEvent for TimerCreate. An event is a structure
like any other: it can be sent to a server as a part of a message.
"""

from .buffers import INT_MAX, INT_MIN, as_int, integer
from .constants import SIGEV_INTR, SIGEV_NONE, SIGEV_PULSE, SIGEV_SIGNAL, SIGEV_UNBLOCK
from .structures import SigEvent, SigVal

__all__ = ["SIGEV_INTR_INIT", "SIGEV_NONE_INIT", "SIGEV_PULSE_INIT", "SIGEV_SIGNAL_INIT", "SIGEV_UNBLOCK_INIT"]

_SHORT_MIN, _SHORT_MAX = -(1 << 15), (1 << 15) - 1


def SIGEV_PULSE_INIT(coid: int, priority: int, code: int, value: int = 0) -> SigEvent:
    """An event that is a pulse.

    Args:
        coid: a connection of the process that gets it, to a channel of its own as a rule.
        priority: of the pulse, of which the low 8 bits count: 1 to 255. SIGEV_PULSE_PRIO_INHERIT is that of the
            process that receives it. With 0, nothing is delivered.
        code: of which the low 8 bits arrive.
        value: a 32-bit signed number.
    """
    return SigEvent(
        sigev_notify=SIGEV_PULSE,
        sigev_coid=as_int("coid", coid),
        sigev_value=SigVal(sival_int=integer("value", value, INT_MIN, INT_MAX)),
        sigev_code=integer("code", code, _SHORT_MIN, _SHORT_MAX),
        sigev_priority=integer("priority", priority, _SHORT_MIN, _SHORT_MAX),
    )


def SIGEV_SIGNAL_INIT(signo: int) -> SigEvent:
    """An event that is a signal to the process."""
    return SigEvent(sigev_notify=SIGEV_SIGNAL, sigev_coid=as_int("signo", signo))


def SIGEV_UNBLOCK_INIT() -> SigEvent:
    """An event that ends the wait of a thread: what a TimerTimeout does in any case."""
    return SigEvent(sigev_notify=SIGEV_UNBLOCK)


def SIGEV_INTR_INIT() -> SigEvent:
    """An event that a thread in InterruptWait gets, which is a call of drivers and none of ours."""
    return SigEvent(sigev_notify=SIGEV_INTR)


def SIGEV_NONE_INIT() -> SigEvent:
    """An event that does nothing."""
    return SigEvent(sigev_notify=SIGEV_NONE)
