"""The structures a caller sees, as ctypes structures: a buffer that was received into can be read as one of them.

``Pulse.from_buffer(buffer)`` reads a pulse where it lies, without copying. The layouts are QNX's for LP64
(``_pulse``, ``_msg_info64``, ``_client_info``).
"""

import ctypes

__all__ = ["ClientInfo", "Credentials", "MessageInfo", "Pulse", "SigVal"]


class SigVal(ctypes.Union):
    """The value of a pulse: a number or an address (``union sigval``)."""

    _fields_ = (("sival_int", ctypes.c_int), ("sival_ptr", ctypes.c_void_p))


class Pulse(ctypes.Structure):
    """A pulse as MsgReceive delivers it (``struct _pulse``)."""

    _fields_ = (
        ("type", ctypes.c_uint16),
        ("subtype", ctypes.c_uint16),
        ("code", ctypes.c_int8),
        ("zero", ctypes.c_uint8 * 3),
        ("value", SigVal),
        ("scoid", ctypes.c_int32),
    )


class MessageInfo(ctypes.Structure):
    """What the kernel knows about a message and its sender (``struct _msg_info64``)."""

    _fields_ = (
        ("nd", ctypes.c_uint32),
        ("srcnd", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("tid", ctypes.c_int32),
        ("chid", ctypes.c_int32),
        ("scoid", ctypes.c_int32),
        ("coid", ctypes.c_int32),
        ("priority", ctypes.c_int16),
        ("flags", ctypes.c_int16),
        ("msglen", ctypes.c_ssize_t),
        ("srcmsglen", ctypes.c_ssize_t),
        ("dstmsglen", ctypes.c_ssize_t),
        ("type_id", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class Credentials(ctypes.Structure):
    """Whom a process acts for (``struct _cred_info``)."""

    _fields_ = (
        ("ruid", ctypes.c_int32),
        ("euid", ctypes.c_int32),
        ("suid", ctypes.c_int32),
        ("rgid", ctypes.c_int32),
        ("egid", ctypes.c_int32),
        ("sgid", ctypes.c_int32),
        ("ngroups", ctypes.c_uint32),
        ("grouplist", ctypes.c_int32 * 8),
    )


class ClientInfo(ctypes.Structure):
    """Who is at the other end of a server connection (``struct _client_info``)."""

    _fields_ = (
        ("nd", ctypes.c_uint32),
        ("pid", ctypes.c_int32),
        ("sid", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("cred", Credentials),
    )
