"""What a channel gives, and servers that write it down, step by step."""

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

from ..servers import DupMessage
from ..waiting import DEADLINE
from .notation import item, told

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
