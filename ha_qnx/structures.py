"""The structures a caller sees, as ctypes structures: a buffer that was received into can be read as one of them.

``Pulse.from_buffer(buffer)`` reads a pulse where it lies, without copying. The members and their order are QNX's, and
stand in ``ha_qnx.abi``.
"""

import ctypes

from .abi import HOST, fields

__all__ = ["ClientInfo", "Credentials", "MessageInfo", "Pulse", "SigVal"]


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
