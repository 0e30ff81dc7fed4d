"""QNX's I/O messages: what libc sends for open, read, write, lseek, fstat, dup and close, and what comes back.

Only layouts are known here, neither kernels nor recovery. A server finds the same structures here that a client uses:
``TRANSFER``, ``SEEK``, ``COMBINE``, ``DUP``, ``CONNECT`` and ``DEVCTL`` read what it receives, ``stat_reply`` and
``devctl_reply`` make what it answers to _IO_STAT and _IO_DEVCTL. The layouts are those of B310 to B341 and B480.
"""

import os
import sys
from ctypes import sizeof
from errno import EINVAL, EIO
from struct import Struct
from typing import Optional, Tuple

from .abi import HOST, ILP32_6, packing
from .constants import (
    FTYPE_ANY,
    FTYPE_NAME,
    IO_CHMOD,
    IO_CLOSE,
    IO_CONNECT,
    IO_CONNECT_OPEN,
    IO_DEVCTL,
    IO_DUP,
    IO_LSEEK,
    IO_NOTIFY,
    IO_NOTIFY64,
    IO_READ,
    IO_SPACE,
    IO_STAT,
    IO_SYNC,
    IO_WRITE,
    IO_XTYPE_OFFSET,
)
from .errors import failure
from .kernel import BytesLike
from .structures import MessageInfo, SigEvent

__all__ = [
    "CHMOD",
    "COMBINE",
    "CONNECT",
    "DEVCTL",
    "DUP",
    "FREE",
    "NOTIFY",
    "OFFSET",
    "OPEN_ROOM",
    "POSITION",
    "SEEK",
    "SPACE",
    "STAT_SIZE",
    "TRANSFER",
    "TRANSFER_MAX",
    "allocate_message",
    "chmod_message",
    "close_message",
    "combine_message",
    "devctl_message",
    "devctl_reply",
    "dup_message",
    "free_message",
    "info_of",
    "lseek_message",
    "name_open_message",
    "notified_event",
    "notify_flags",
    "notify_message",
    "notify_reply",
    "open_message",
    "position_of",
    "pread_message",
    "pwrite_message",
    "read_message",
    "stat_message",
    "stat_of",
    "stat_reply",
    "sync_message",
    "write_message",
]

#: The first four bytes of every I/O message but _IO_CONNECT: type, combine_len. All of _IO_CLOSE.
COMBINE = Struct("=HH")
#: The 40 bytes of an _IO_CONNECT message that come before the path: type, subtype, ..., ioflag (8th), mode, ...
CONNECT = Struct("=HHIHHIIIIHHHHBBH")
#: _IO_READ and _IO_WRITE, the data behind it: type, combine_len, nbytes, xtype, zero.
TRANSFER = Struct("=HHIII")
#: _IO_READ and _IO_WRITE elsewhere than at the position: the same, and the offset.
OFFSET = Struct("=HHIIIq")
#: _IO_CHMOD: type, combine_len, mode.
CHMOD = Struct("=HHI")
#: _IO_SPACE: type, combine_len, subtype, whence, start, len.
SPACE = Struct("=HHHhqq")
#: Its subtype by which ftruncate first asks to free what is behind the start, and the one by which it asks for more.
FREE, _ALLOCATE = 0x6F, 0x6E
#: _IO_LSEEK: type, combine_len, whence, zero, offset.
SEEK = Struct("=HHhHq")
#: _IO_DEVCTL, the data behind it: type, combine_len, dcmd, nbytes, zero.
DEVCTL = Struct("=HHIII")
#: What _IO_NOTIFY and _IO_NOTIFY64 begin with: type, combine_len, action, flags.
NOTIFY = Struct("=HHiI")
#: What is answered to _IO_LSEEK: the new position.
POSITION = Struct("=q")
#: The beginning of _IO_DUP: type, combine_len, then the _msg_info of 6.x of the original (D27): nd, srcnd, pid, tid,
#: chid, scoid, coid, ...
DUP = Struct(COMBINE.format + packing("info32", ILP32_6).format[1:])
#: The most that one message asks for or carries: the most that one read or write of Linux does.
TRANSFER_MAX = 0x7FFF_F000

_stat = Struct("=HHI")
_sync = Struct("=HHI")
# What is answered to _IO_DEVCTL, the data behind it: zero, ret_val, nbytes, zero.
_devctl_answer = Struct("=IiII")
# What is in an _IO_NOTIFY message between its beginning and timo: a sigevent of 32 bits, and seven numbers; and timo.
_notify_rest = Struct("=16x28xq")
# That sigevent: notify, coid, value, code, priority. What is answered: zero, and the conditions that hold.
_event_32 = Struct("=iiihh")
_notify_answer = Struct("=II")
# struct stat: first the 72 bytes of 6.x, whose times are seconds; then, on LP64, times with nanoseconds.
_old_status = Struct("=QqIIiiIIIIIIiIQ")
_times = Struct("=qqqqqq")

STAT_SIZE = _old_status.size + _times.size

_DUP_REST = bytes(8)  # reserved, key
_SH_DENYNO = 0x40
_SYNC_FLAG = 0x20
# What a reply buffer holds before the reply: where it is still there, the reply did not reach.
_UNANSWERED = b"\xff"
_U32_MAX = 0xFFFF_FFFF

_REPLY_MAX = 2456
_ENTRY_MAX = 15
_ACCESS = 3
_IO_CONNECT_COMBINE_CLOSE = 1

#: The room for a server's answer to an _IO_CONNECT message.
OPEN_ROOM = _REPLY_MAX


def _connect_message(
    subtype: int, file_type: int, handle: int, ioflag: int, mode: int, rest: str, ending: int
) -> bytes:
    path = os.fsencode(rest) + b"\0"
    header = CONNECT.pack(
        IO_CONNECT, subtype, file_type, _REPLY_MAX, _ENTRY_MAX, 0, handle, ioflag, mode, _SH_DENYNO, _ACCESS, 0,
        len(path), ending, 0, 0,
    )  # fmt: skip
    return header + path


def open_message(oflag: int, mode: int, handle: int = 0, rest: str = "", ending: int = 0) -> bytes:
    """What a server receives for open (B311).

    The open flags are those of the host, the access mode plus one, O_CLOEXEC left out (B312).

    Args:
        oflag: how it is opened.
        mode: the permissions of a file that is created.
        handle: the number of the server's attachment.
        rest: what of the path lies below what it has attached.
        ending: see ``ha_qnx.paths.PlainPath``.
    """
    ioflag = oflag & ~(os.O_CLOEXEC | os.O_ACCMODE) | oflag + 1 & os.O_ACCMODE
    return _connect_message(IO_CONNECT_OPEN, FTYPE_ANY, handle, ioflag, _mode(oflag, mode), rest, ending)


def _mode(oflag: int, mode: int) -> int:
    """The permissions as a server sees them: those of what is created."""
    return mode if oflag & os.O_CREAT else 0


def combine_message(oflag: int, mode: int, handle: int, rest: str, ending: int) -> bytes:
    """What a server receives after it has answered ENOSYS to open, whatever it answers to this."""
    return _connect_message(_IO_CONNECT_COMBINE_CLOSE, FTYPE_ANY, handle, 0, _mode(oflag, mode), rest, ending)


def name_open_message() -> bytes:
    """What a server receives for name_open where there is a global name service (B300)."""
    return _connect_message(IO_CONNECT_OPEN, FTYPE_NAME, 0, os.O_RDWR + 1, 0, "", 0)


def dup_message(info: MessageInfo) -> bytes:
    """Tell a server that a new connection stands for the one described by ``info`` (B341)."""
    head = DUP.pack(
        IO_DUP, DUP.size + len(_DUP_REST), info.nd, info.srcnd, info.pid, info.tid, info.chid, info.scoid, info.coid,
        0, 0, 0, info.priority, info.flags, 0,
    )  # fmt: skip
    return head + _DUP_REST


def close_message() -> bytes:
    """What a server receives for close (B328)."""
    return COMBINE.pack(IO_CLOSE, COMBINE.size)


def read_message(nbytes: int) -> bytes:
    """What a server receives for read; it answers with the data, and with their number for a status (B317, B318)."""
    return TRANSFER.pack(IO_READ, TRANSFER.size, nbytes, 0, 0)


def write_message(nbytes: int) -> bytes:
    """What a server receives for write, before the data; its status says how many bytes it took (B322, B324)."""
    return TRANSFER.pack(IO_WRITE, TRANSFER.size, nbytes, 0, 0)


def pread_message(nbytes: int, offset: int) -> bytes:
    """What a server receives for pread."""
    return OFFSET.pack(IO_READ, TRANSFER.size, nbytes, IO_XTYPE_OFFSET, 0, offset)


def pwrite_message(nbytes: int, offset: int) -> bytes:
    """What a server receives for pwrite, before the data."""
    return OFFSET.pack(IO_WRITE, TRANSFER.size, nbytes, IO_XTYPE_OFFSET, 0, offset)


def free_message(start: int) -> bytes:
    """What a server receives first for ftruncate: to cut the file; it answers how long the file is then (B487)."""
    return SPACE.pack(IO_SPACE, SPACE.size, FREE, os.SEEK_SET, start, 0)


def allocate_message(length: int) -> bytes:
    """What a server receives for ftruncate if the file is shorter than that (B487)."""
    return SPACE.pack(IO_SPACE, SPACE.size, _ALLOCATE, os.SEEK_SET, 0, length)


def sync_message() -> bytes:
    """What a server receives for fsync (B488)."""
    return _sync.pack(IO_SYNC, _sync.size, _SYNC_FLAG)


def chmod_message(mode: int) -> bytes:
    """What a server receives for fchmod (B488)."""
    return CHMOD.pack(IO_CHMOD, CHMOD.size, mode)


def lseek_message(offset: int, whence: int) -> bytes:
    """What a server receives for lseek; it answers with the new position (B325, B326)."""
    return SEEK.pack(IO_LSEEK, SEEK.size, whence, 0, offset)


def stat_message() -> bytes:
    """What a server receives for fstat; it answers with a struct stat (B327)."""
    return _stat.pack(IO_STAT, _stat.size, 0)


def devctl_message(dcmd: int, nbytes: int) -> bytes:
    """What a server receives for devctl, before the data if that goes to it (B480)."""
    return DEVCTL.pack(IO_DEVCTL, DEVCTL.size, dcmd, nbytes, 0)


def devctl_reply(info: int, data: BytesLike) -> bytes:
    """What a server answers to _IO_DEVCTL, by a status of EOK (B481)."""
    part = bytes(data)
    return _devctl_answer.pack(0, info, len(part), 0) + part


def info_of(reply: bytearray) -> int:
    """The info in the answer to _IO_DEVCTL; 0 if there was none (D95)."""
    info: int = _devctl_answer.unpack_from(reply)[1]
    return info


def notify_message(action: int, flags: int, event: Optional[SigEvent]) -> bytes:
    """What a server receives for ionotify (B490).

    On 32 bits, it is _IO_NOTIFY with the event behind the flags; on 64, _IO_NOTIFY64 with the event at the end.
    """
    given = bytes(SigEvent() if event is None else event)
    if HOST is ILP32_6:
        length = NOTIFY.size + _notify_rest.size
        head, rest = NOTIFY.pack(IO_NOTIFY, length, action, flags & _U32_MAX), _notify_rest.pack(0)
        return head + given + rest[len(given) :]
    length = NOTIFY.size + _notify_rest.size + len(given)
    return NOTIFY.pack(IO_NOTIFY64, length, action, flags & _U32_MAX) + _notify_rest.pack(0) + given


def notified_event(message: bytes) -> SigEvent:
    """The event in an _IO_NOTIFY or _IO_NOTIFY64 message, by which a client is to be told.

    Raises:
        OSError: EINVAL, the message is too short for one.
    """
    is_64 = int.from_bytes(message[:2], sys.byteorder) == IO_NOTIFY64
    start = NOTIFY.size + _notify_rest.size if is_64 else NOTIFY.size
    if is_64 and len(message) >= start + sizeof(SigEvent):
        return SigEvent.from_buffer_copy(message, start)
    if len(message) < start + _event_32.size:
        raise failure(EINVAL)
    notify, coid, value, code, priority = _event_32.unpack_from(message, start)
    event = SigEvent(sigev_notify=notify, sigev_coid=coid, sigev_code=code, sigev_priority=priority)
    event.sigev_value.sival_int = value
    return event


def notify_reply(conditions: int) -> bytes:
    """What a server answers to _IO_NOTIFY and _IO_NOTIFY64, by a status of EOK (B491)."""
    return _notify_answer.pack(0, conditions & _U32_MAX)


def notify_flags(reply: bytearray) -> int:
    """The conditions in the answer to _IO_NOTIFY."""
    flags: int = _notify_answer.unpack_from(reply)[1]
    return flags


def reply_buffer(size: int) -> bytearray:
    """Room for the answer to _IO_LSEEK or _IO_STAT, of which ``position_of`` and ``stat_of`` know what was answered."""
    return bytearray(_UNANSWERED * size)


def position_of(reply: bytearray) -> int:
    """The position in the answer to _IO_LSEEK.

    Raises:
        OSError: EIO, there is none: the answer was shorter than a position, or not possible as one.
    """
    position: int = POSITION.unpack(reply)[0]
    if position < 0:
        raise OSError(EIO, "the server answered lseek without a position")
    return position


def stat_of(reply: bytearray) -> os.stat_result:
    """The struct stat in the answer to _IO_STAT, of LP64 or, shorter, of 6.x.

    Raises:
        OSError: EIO, there is none.
    """
    (
        ino, size, dev, rdev, uid, gid, mtime, atime, ctime, mode, nlink, block_size, blocks_of_it, blksize, blocks,
    ) = _old_status.unpack_from(reply)  # fmt: skip
    if mode == _U32_MAX:
        raise OSError(EIO, "the server answered fstat without a status")
    seconds_and_nanoseconds = _times.unpack_from(reply, _old_status.size)
    if seconds_and_nanoseconds[1] == -1:
        seconds_and_nanoseconds = (mtime, 0, atime, 0, ctime, 0)
    if blocks == _U32_MAX << 32 | _U32_MAX:
        blocks = block_size * max(blocks_of_it, 0) // 512
    times = {}
    for name, seconds, nanoseconds in zip(
        ("st_mtime", "st_atime", "st_ctime"), seconds_and_nanoseconds[::2], seconds_and_nanoseconds[1::2]
    ):
        times[name] = seconds + nanoseconds / 1e9
        times[f"{name}_ns"] = seconds * 1_000_000_000 + nanoseconds
    whole = (int(times["st_atime"]), int(times["st_mtime"]), int(times["st_ctime"]))
    others = {**times, "st_blksize": blksize, "st_blocks": blocks, "st_rdev": rdev}
    return os.stat_result((mode, ino, dev, nlink, uid, gid, size, *whole), others)


def stat_reply(status: os.stat_result) -> bytes:
    """What a server answers to _IO_STAT for a file that looks like this."""
    # A result that was made of ten numbers has None for what is beyond them, and only whole seconds.
    blocks, rdev = getattr(status, "st_blocks", 0) or 0, getattr(status, "st_rdev", 0) or 0
    times: Tuple[Optional[int], ...] = (status.st_mtime_ns, status.st_atime_ns, status.st_ctime_ns)
    nanoseconds = [
        1_000_000_000 * int(status[index]) if time is None else time for index, time in zip((8, 7, 9), times)
    ]
    old_times = (number // 1_000_000_000 & _U32_MAX for number in nanoseconds)
    return _old_status.pack(
        status.st_ino, status.st_size, status.st_dev & _U32_MAX, rdev & _U32_MAX,
        status.st_uid & 0x7FFF_FFFF, status.st_gid & 0x7FFF_FFFF, *old_times, status.st_mode, status.st_nlink,
        512, blocks & 0x7FFF_FFFF, getattr(status, "st_blksize", 0) or 512, blocks,
    ) + _times.pack(*(part for number in nanoseconds for part in divmod(number, 1_000_000_000)))  # fmt: skip
