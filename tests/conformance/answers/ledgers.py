"""What a channel gives, and servers that write it down, step by step."""

import ctypes
import os
import struct
from typing import Any, Dict, Optional, Set

from ha_qnx import (
    IO_BASE,
    IO_CONNECT,
    IO_DUP,
    IO_MAX,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
    Pulse,
)

from ..servers import ConnectMessage, DupMessage
from ..waiting import DEADLINE
from .notation import is_side, item, told

#: How long to wait for an item; less than it is waited for a scene.
_PATIENCE = int(0.6 * DEADLINE * 1e9)
_ROOM = 2000


class Received:
    """What MsgReceive gave: a pulse if the rcvid is 0."""

    def __init__(self, rcvid: int, data: bytearray, info: MessageInfo) -> None:
        self.rcvid = rcvid
        self.info = info
        self.data = bytes(data[: info.msglen] if rcvid else data)

    @property
    def pulse(self) -> Pulse:
        """The pulse that it is."""
        return Pulse.from_buffer_copy(self.data)

    @property
    def io_type(self) -> int:
        """The type of an I/O message, 0 of anything else."""
        kind = struct.unpack_from("=H", self.data)[0] if self.rcvid and len(self.data) >= 2 else 0
        return kind if IO_BASE <= kind <= IO_MAX else 0

    def __str__(self) -> str:
        return item(self.rcvid, self.data, self.info)


def receive(qnx: Any, chid: int, limit: Optional[int] = _PATIENCE, room: int = _ROOM) -> Received:
    """Wait for the next item of a channel."""
    data, info = bytearray(room), MessageInfo()
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, limit)
    return Received(qnx.MsgReceive(chid, data, info), data, info)


def waiting(qnx: Any, chid: int) -> Optional[Received]:
    """The next item of a channel, if one waits."""
    try:
        return receive(qnx, chid, None)
    except TimeoutError:
        return None


def nothing_or(qnx: Any, chid: int) -> str:
    """``nothing``, or what waits on a channel."""
    return str(waiting(qnx, chid) or "nothing")


class Writer:
    """Tells what a server receives, in the words of its log.

    It knows the scoid of a message that is held, and those of messages that it has seen answered; and whose parent a
    client may be: one that has sent a message itself.
    """

    def __init__(self, qnx: Any) -> None:
        self._qnx = qnx
        self._known: Set[int] = set()
        self._clients: Dict[int, int] = {}
        self.held: Optional[Received] = None
        #: Whether the bytes of messages are told, too, where that is more to say.
        self.with_bytes = False

    def remember(self, found: Received) -> None:
        """Note who has sent a message that is answered."""
        self._known.add(found.info.scoid)
        self._clients[found.info.pid] = found.info.scoid

    def hold(self, found: Received) -> None:
        """A message is held from now on."""
        self._known.add(found.info.scoid)
        self.held = found

    def let_go(self) -> None:
        """The message that was held is answered."""
        if self.held is not None:
            self._known.discard(self.held.info.scoid)

    def write(self, found: Received) -> str:
        """Tell of an item; a client that has left is forgotten."""
        if found.rcvid:
            self._known.add(found.info.scoid)
            return written_message(found, self._clients)
        pulse = found.pulse
        if pulse.code == PULSE_CODE_DISCONNECT:
            whose = "known" if pulse.scoid in self._known else "other"
            detached = told(self._qnx.ConnectDetach, pulse.scoid)
            return f"disconnect pulse scoid {whose} value {pulse.value.sival_int}; detach scoid {detached}"
        if pulse.code == PULSE_CODE_UNBLOCK and self.held is not None:
            whose = "the held one" if pulse.value.sival_int == self.held.rcvid else "another"
            return f"unblock pulse for {whose}"
        return f"pulse {pulse.code} value {pulse.value.sival_int}"


class PathWriter(Writer):
    """Tells the same in the words of the second recording, which has more to say of _IO_CONNECT."""

    def write(self, found: Received) -> str:
        """Tell of an item; a client that has left is forgotten."""
        if found.io_type == IO_CONNECT:
            return _connect(found)
        if found.io_type:
            subtype = struct.unpack_from("=H", found.data, 2)[0]
            info = found.info
            told_message = f"io {found.io_type:x}/{subtype:x} len {info.srcmsglen} room {info.dstmsglen}"
            rest = words(found.data[4:]) if self.with_bytes else ""
            return f"{told_message}: {rest}" if rest else told_message
        pulse = found.pulse
        if pulse.code == PULSE_CODE_DISCONNECT:
            told(self._qnx.ConnectDetach, pulse.scoid)
        return f"pulse {pulse.code} scoid {'side' if is_side(pulse.scoid) else pulse.scoid}"


def _connect(found: Received) -> str:
    """An _IO_CONNECT message, member by member."""
    message = ConnectMessage.from_buffer_copy(found.data)
    start = ctypes.sizeof(ConnectMessage)
    path = found.data[start : start + message.path_len].rstrip(b"\0").decode()
    return (
        f"connect/{message.subtype} '{path}' (path_len {message.path_len}) ioflag {qnx_flags(message.ioflag):x}"
        f" mode {message.mode:x} ftype {message.file_type} reply_max {message.reply_max} entry_max {message.entry_max}"
        f" key {message.key} sflag {message.sflag:x} access {message.access} eflag {message.eflag}"
        f" extra {message.extra_type}/{message.extra_len} len {found.info.srcmsglen} room {found.info.dstmsglen}"
    )


def words(data: bytes) -> str:
    """Bytes, four at a time."""
    return " ".join(data[start : start + 4].hex() for start in range(0, len(data), 4))


#: QNX's open flags, which a host may have other numbers for.
_FLAGS = {
    "O_APPEND": 0x8,
    "O_NONBLOCK": 0x80,
    "O_CREAT": 0x100,
    "O_TRUNC": 0x200,
    "O_EXCL": 0x400,
    "O_NOCTTY": 0x800,
    "O_CLOEXEC": 0x2000,
    "O_LARGEFILE": 0x8000,
}


def host_flags(flags: int) -> int:
    """QNX's open flags as the host has them."""
    known = {name: bit for name, bit in _FLAGS.items() if flags & bit}
    return flags - sum(known.values()) + sum(getattr(os, name, 0) for name in known)


def qnx_flags(flags: int) -> int:
    """The host's open flags as QNX has them."""
    known = {bit: getattr(os, name, 0) for name, bit in _FLAGS.items()}
    found = {bit: host for bit, host in known.items() if host and flags & host == host}
    return flags - sum(found.values()) + sum(found)


class Ledger:
    """A server that writes down what it receives, step by step, and answers nothing unless it is told to."""

    def __init__(self, qnx: Any, chid: int) -> None:
        self._qnx = qnx
        self._chid = chid
        self._writer = Writer(qnx)

    def take(self) -> Received:
        """Wait for a message, which is held from then on."""
        found = receive(self._qnx, self._chid)
        assert found.rcvid, f"a pulse rather than a message: {found}"
        self._writer.hold(found)
        return found

    def answer(self, status: int = 0, data: bytes = b"") -> str:
        """Answer the message that is held."""
        self._writer.let_go()
        return released(self._qnx, self._held.rcvid, status, data)

    def refuse(self, error: int) -> str:
        """Let the message that is held fail."""
        return "release " + told(self._qnx.MsgError, self._held.rcvid, error)

    @property
    def _held(self) -> Received:
        assert self._writer.held is not None, "no message was taken"
        return self._writer.held

    def next(self) -> str:
        """Wait for the next item, and tell it."""
        return self._writer.write(receive(self._qnx, self._chid))

    def rest(self) -> str:
        """Tell what waits on the channel."""
        lines = [self._writer.write(found) for found in iter(lambda: waiting(self._qnx, self._chid), None)]
        return "; ".join(lines) or "(nothing)"


def pulse_for(found: Received, rcvid: int) -> str:
    """A pulse, with 777 as its value if that is the rcvid of a message."""
    told_pulse = str(found)
    if found.rcvid == 0 and found.pulse.value.sival_int == rcvid:
        return told_pulse.replace(f"value {rcvid} ", "value 777 ")
    return told_pulse


def released(qnx: Any, rcvid: int, status: int, data: bytes = b"") -> str:
    """What answering a message says."""
    answered = told(qnx.MsgReply, rcvid, status, data)
    return "release " + answered.replace("-1 ", "-")


def written_message(found: Received, parents: Dict[int, int]) -> str:
    """A message, as a server writes it down that knows the scoids of some processes."""
    info, kind = found.info, found.io_type
    if kind == IO_DUP:
        return f"io {kind:x} len {info.srcmsglen} info: {_copied(found, parents)}"
    if kind:
        subtype = struct.unpack_from("=H", found.data, 2)[0] if kind == IO_CONNECT else 0
        return f"io {kind:x} sub {subtype} len {info.srcmsglen} room {info.dstmsglen}"
    return f"message len {info.srcmsglen}"


def _copied(found: Received, parents: Dict[int, int]) -> str:
    """The description of the original connection that an _IO_DUP message carries."""
    info = found.info
    dup = DupMessage.from_buffer_copy(found.data)
    parent = "parent" if dup.pid in parents else "other"
    pid = "sender" if dup.pid == info.pid else parent
    chid = "own" if dup.chid == info.chid else "other"
    parents_scoid = "parent's" if parents.get(dup.pid) == dup.scoid else "other"
    scoid = "same" if dup.scoid == info.scoid else parents_scoid
    return f"pid {pid} chid {chid} scoid {scoid} coid {dup.coid}"
