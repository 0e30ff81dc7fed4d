"""Who takes part: processes in which scenes are played, and servers that tell what they see."""

import struct
import traceback
from typing import Any, Callable, List, Optional, Set, Tuple

from ha_qnx import (
    IO_BASE,
    IO_DUP,
    IO_MAX,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
    Pulse,
)

from ..clients import Call, transact
from ..peers import Peer, PeerError
from ..servers import DupMessage
from ..waiting import DEADLINE
from .asking import Answers
from .notation import failed, item, told

Scene = Callable[..., Answers]

#: How long to wait for an item; less than it is waited for a scene.
_PATIENCE = int(0.6 * DEADLINE * 1e9)
_ROOM = 2000
_MARKER = 99


# Scenes in other processes.


def play(qnx: Any, scene: Scene, *args: Any) -> "Tuple[List[Tuple[str, str]], Optional[str]]":
    """In another process: all answers of a scene, and what went wrong after them."""
    answers = []
    try:
        for answer in scene(qnx, *args):
            answers.append(answer)
    except Exception:
        return answers, traceback.format_exc()
    return answers, None


def played(peer: Peer, scene: Scene, *args: Any) -> Answers:
    """The answers of a scene that is played in another process, in its main thread."""
    answers, problem = peer.run(play, scene, *args)
    yield from answers
    if problem is not None:
        raise PeerError(problem)


def make(qnx: Any, call: str, *args: Any) -> Any:
    """Make a call by its name."""
    return getattr(qnx, call)(*args)


class Party:
    """A process that makes calls, one after the other, as it is told."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pid = peer.pid

    def make(self, call: str, *args: Any) -> Any:
        """What a call returns there."""
        return self.peer.run(make, call, *args)

    def told(self, call: str, *args: Any) -> str:
        """What a call says there."""
        return told(self.make, call, *args)

    def send(self, coid: int, message: bytes = b"message", room: int = 0) -> str:
        """The status of a message that is sent from there."""
        return outcome(self.begin(coid, message, room))

    def begin(self, coid: int, message: bytes = b"message", room: int = 0) -> Call:
        """Begin to send a message, in a thread there."""
        return self.peer.start(transact, coid, message, room)


# Calls that may be blocked.


def outcome(call: Call) -> str:
    """What a call said in the end; of a message, only the status."""
    try:
        result = call.result()
    except OSError as error:
        return failed(error)
    return str(result[0] if isinstance(result, tuple) else result)


def state(call: Call) -> str:
    """``blocked``, or what the call said."""
    return "blocked" if call.is_blocked() else outcome(call)


# What a channel gives.


class Received:
    """What MsgReceive gave: a pulse if the rcvid is 0."""

    def __init__(self, rcvid: int, data: bytearray, info: MessageInfo) -> None:
        self.rcvid = rcvid
        self.info = info
        self.data = bytes(data[: info.msglen]) if rcvid else bytes(data)

    @property
    def pulse(self) -> Pulse:
        """The pulse that it is."""
        return Pulse.from_buffer_copy(self.data)

    def __str__(self) -> str:
        return item(self.rcvid, self.data, self.info)


def receive(qnx: Any, chid: int, limit: Optional[int] = _PATIENCE, room: int = _ROOM) -> Received:
    """Wait for the next item of a channel."""
    data, info = bytearray(room), MessageInfo()
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, limit)
    return Received(qnx.MsgReceive(chid, data, info), data, info)


def nothing_or(qnx: Any, chid: int) -> str:
    """``nothing``, or what waits on a channel: what was there before a pulse of the lowest priority comes before it."""
    coid = qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, NTO_COF_NOSHARE)
    qnx.MsgSendPulse(coid, 1, _MARKER, 0)
    found = receive(qnx, chid)
    if found.rcvid == 0 and found.pulse.code == _MARKER:
        return "nothing"
    return str(found)


class Ledger:
    """A server that writes down what it receives, step by step, and answers nothing unless it is told to.

    It knows the scoid of a message that it holds, and of the I/O messages that it has answered.
    """

    def __init__(self, qnx: Any, chid: int) -> None:
        self._qnx = qnx
        self._chid = chid
        self._marking = qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, NTO_COF_NOSHARE)
        self._known: Set[int] = set()
        self.held: Optional[Received] = None

    def take(self) -> Received:
        """Wait for a message, which is held from then on."""
        found = receive(self._qnx, self._chid)
        assert found.rcvid, f"a pulse rather than a message: {found}"
        self._known.add(found.info.scoid)
        self.held = found
        return found

    def answer(self, status: int = 0, data: bytes = b"") -> str:
        """Answer the message that is held."""
        assert self.held is not None
        self._known.discard(self.held.info.scoid)
        return released(self._qnx, self.held.rcvid, status, data)

    def refuse(self, error: int) -> str:
        """Let the message that is held fail."""
        assert self.held is not None
        return "release " + told(self._qnx.MsgError, self.held.rcvid, error)

    def next(self) -> str:
        """Wait for the next item, and tell it."""
        return self._written(receive(self._qnx, self._chid))

    def rest(self) -> str:
        """Tell what waits on the channel."""
        self._qnx.MsgSendPulse(self._marking, 1, _MARKER, 0)
        lines: List[str] = []
        while True:
            found = receive(self._qnx, self._chid)
            if found.rcvid == 0 and found.pulse.code == _MARKER:
                return "; ".join(lines) or "(nothing)"
            lines.append(self._written(found))

    def _written(self, found: Received) -> str:
        if found.rcvid:
            self._known.add(found.info.scoid)
            return written_message(found)
        pulse = found.pulse
        if pulse.code == PULSE_CODE_DISCONNECT:
            whose = "known" if pulse.scoid in self._known else "other"
            detached = told(self._qnx.ConnectDetach, pulse.scoid)
            return f"disconnect pulse scoid {whose} value {pulse.value.sival_int}; detach scoid {detached}"
        if pulse.code == PULSE_CODE_UNBLOCK and self.held is not None:
            whose = "the held one" if pulse.value.sival_int == self.held.rcvid else "another"
            return f"unblock pulse for {whose}"
        return f"pulse {pulse.code} value {pulse.value.sival_int}"


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


def written_message(found: Received) -> str:
    """A message, as a server writes it down."""
    info, data = found.info, found.data
    kind, subtype = struct.unpack_from("=HH", data) if len(data) >= 4 else (0, 0)
    if kind == IO_DUP:
        return f"io {kind:x} len {info.srcmsglen} info: {_copied(found)}"
    if IO_BASE <= kind <= IO_MAX:
        return f"io {kind:x} sub {subtype if kind == IO_BASE else 0} len {info.srcmsglen} room {info.dstmsglen}"
    return f"message len {info.srcmsglen}"


def _copied(found: Received) -> str:
    """The description of the original connection that an _IO_DUP message carries."""
    info = found.info
    dup = DupMessage.from_buffer_copy(found.data)
    whose = "sender" if dup.pid == info.pid else "other"
    chid = "own" if dup.chid == info.chid else "other"
    scoid = "same" if dup.scoid == info.scoid else "other"
    return f"pid {whose} chid {chid} scoid {scoid} coid {dup.coid}"
