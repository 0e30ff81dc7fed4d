"""The structures a caller sees, as ctypes structures: a buffer that was received into can be read as one of them.

``Pulse.from_buffer(buffer)`` reads a pulse where it lies, without copying. The members and their order are QNX's, and
stand in ``ha_qnx.abi``.
"""

import ctypes

from .abi import HOST, fields, layout

__all__ = [
    "ClientInfo",
    "Credentials",
    "Itimer",
    "Itimerspec",
    "MessageInfo",
    "Pulse",
    "SigEvent",
    "SigVal",
    "TimerStatus",
    "Timespec",
]


class SigVal(ctypes.Union):
    """The value of a pulse (``union sigval``): ``sival_int``, a number, or ``sival_ptr``, an address."""

    _fields_ = fields("sigval", HOST)


class Pulse(ctypes.Structure):
    """A pulse as MsgReceive delivers it (``struct _pulse``): ``type``, ``subtype``, ``code``, ``value``, ``scoid``."""

    _fields_ = fields("pulse", HOST, {"sigval": SigVal})


class MessageInfo(ctypes.Structure):
    """What the kernel knows about a message and its sender (``struct _msg_info``).

    ``nd``, ``srcnd``, ``pid``, ``tid``, ``chid``, ``scoid``, ``coid``, ``priority``, ``flags``; and, in bytes,
    ``msglen``, which was received, ``srcmsglen``, which was sent, and ``dstmsglen``, which the reply may have.
    """

    _fields_ = fields(HOST.info, HOST)


class Credentials(ctypes.Structure):
    """Whom a process acts for (``struct _cred_info``).

    ``ruid``, ``euid``, ``suid``, ``rgid``, ``egid``, ``sgid``, and ``ngroups`` entries in ``grouplist``.
    """

    _fields_ = fields("cred", HOST)


class ClientInfo(ctypes.Structure):
    """Who is at the other end of a server connection (``struct _client_info``): ``nd``, ``pid``, ``sid``, ``cred``."""

    _fields_ = fields("client", HOST, {"cred": Credentials})


class SigEvent(ctypes.Structure):
    """What is to happen when a timer expires (``struct sigevent``); ``ha_qnx.events`` makes them.

    ``sigev_notify`` says what: SIGEV_PULSE sends a pulse with ``sigev_code`` and ``sigev_value`` on ``sigev_coid`` at
    ``sigev_priority``, SIGEV_SIGNAL a signal. It is 32 bytes long on 64 bits and 16 on 32, as in C.
    """

    _fields_ = fields(layout("event", HOST), HOST, {"sigval": SigVal})

    @property
    def sigev_signo(self) -> int:
        """The number of a signal, which lies where the coid of a pulse does."""
        return int(self.sigev_coid)

    @sigev_signo.setter
    def sigev_signo(self, number: int) -> None:
        self.sigev_coid = number


class Itimer(ctypes.Structure):
    """When a timer expires, in nanoseconds (``struct _itimer``): ``nsec`` the first time, then each ``interval_nsec``.

    ``nsec`` 0 stops a timer; an ``interval_nsec`` of 0 lets it expire once.
    """

    _fields_ = fields("itimer", HOST)


class TimerStatus(ctypes.Structure):
    """What is known about a timer (``struct _timer_info``).

    ``itime`` as it was set, ``otime`` what is left, ``flags`` (NTO_TI_...), ``tid``, ``notify``, ``clockid``,
    ``overruns`` and the ``event``.
    """

    _fields_ = fields(layout("timer", HOST), HOST, {"itimer": Itimer, layout("event", HOST): SigEvent})


class Timespec(ctypes.Structure):
    """Seconds and nanoseconds (``struct timespec``): ``tv_sec``, ``tv_nsec``."""

    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_long))


class Itimerspec(ctypes.Structure):
    """When a timer expires (``struct itimerspec``): ``it_value`` the first time, then each ``it_interval``."""

    _fields_ = (("it_value", Timespec), ("it_interval", Timespec))
