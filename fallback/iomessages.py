"""The I/O messages that a client sends on its own account: _IO_CONNECT, _IO_DUP, _IO_CLOSE (B310 to B341)."""

import os
from struct import Struct

from ha_qnx.constants import FTYPE_ANY, FTYPE_NAME, IO_CLOSE, IO_CONNECT, IO_CONNECT_OPEN, IO_DUP
from ha_qnx.structures import MessageInfo

_connect = Struct("=HHIHHIIIIHHHHBBH")
_dup = Struct("=HHIIiiiiiiiihhIII")  # with the 48-byte _msg_info of 6.x (D27)
_combine = Struct("=HH")

_SH_DENYNO = 0x40
_PATH_MAX = 1024

# The host's open flags and QNX's numbers for them.
_OPEN_FLAGS = (
    (os.O_APPEND, 0x0008),
    (getattr(os, "O_DSYNC", 0), 0x0010),
    (os.O_NONBLOCK, 0x0080),
    (os.O_CREAT, 0x0100),
    (os.O_TRUNC, 0x0200),
    (os.O_EXCL, 0x0400),
    (os.O_NOCTTY, 0x0800),
)


def _ioflag(oflag: int) -> int:
    """The open flags as a server sees them: the access mode plus one, O_CLOEXEC left out (B312)."""
    flags = sum(number for host, number in _OPEN_FLAGS if host and oflag & host == host)
    return (oflag & os.O_ACCMODE) + 1 | flags


def _connect_message(oflag: int, mode: int, file_type: int) -> bytes:
    path = b"\0"  # Names have nothing below them: the path behind the mount point is empty.
    header = _connect.pack(
        IO_CONNECT, IO_CONNECT_OPEN, file_type, 0, 0, 0, 0, _ioflag(oflag), mode, _SH_DENYNO, 0, 0, len(path), 0, 0, 0
    )
    return header + path


def open_message(oflag: int, mode: int) -> bytes:
    """What a server receives for open (B311)."""
    return _connect_message(oflag, mode, FTYPE_ANY)


def name_open_message() -> bytes:
    """What a server receives for name_open (B300)."""
    return _connect_message(os.O_RDWR, 0, FTYPE_NAME)


def dup_message(info: MessageInfo) -> bytes:
    """Tell a server that a new connection stands for the one described by ``info`` (B341)."""
    return _dup.pack(
        IO_DUP, _dup.size, info.nd, info.srcnd, info.pid, info.tid, info.chid, info.scoid, info.coid,
        0, 0, 0, info.priority, info.flags, 0, 0, 0,
    )  # fmt: skip


def close_message() -> bytes:
    """What a server receives for close (B328)."""
    return _combine.pack(IO_CLOSE, _combine.size)


PATH_MAX = _PATH_MAX
