"""Servers that answer what they get, and write it down, in a process of their own or in that of the tests."""

import os
import struct
import threading
import time
from errno import ENOSYS
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ha_qnx import (
    IO_CLOSE,
    IO_CONNECT,
    IO_DUP,
    IO_LSEEK,
    IO_READ,
    IO_STAT,
    IO_WRITE,
    NTO_TIMEOUT_RECEIVE,
    MessageInfo,
)

from ..peers import Peer
from ..servers import attach, create_channel
from ..waiting import DEADLINE, eventually
from .ledgers import PathWriter, Received, Writer
from .notation import told

#: How long a server waits before it says that nothing comes, in nanoseconds.
_PAUSE = 5_000_000
_ROOM = 4000

#: What a server answers to I/O messages.
_DATA = b"fiver"
_POSITION = 4711
_ANSWERED = (IO_CONNECT, IO_READ, IO_WRITE, IO_LSEEK, IO_STAT, IO_DUP, IO_CLOSE)


class Manners(NamedTuple):
    """How a server answers.

    ``status`` is for messages that are no I/O messages; ``error``, if it is not 0, for all that are, ``open_error`` for
    _IO_CONNECT alone, and ``file_error`` for _IO_READ and _IO_WRITE. ``opens`` is the status for _IO_CONNECT, and the
    number of zero bytes that go with it. If it ``holds``, it answers no _IO_CONNECT, and if it ``exits``, it ends when
    one comes.
    """

    status: int = 0
    error: int = 0
    open_error: int = 0
    file_error: int = 0
    opens: Tuple[int, int] = (0, 0)
    holds: bool = False
    exits: bool = False

    def error_of(self, kind: int) -> int:
        """The errno that an I/O message is answered, or 0."""
        special = {IO_CONNECT: self.open_error, IO_READ: self.file_error, IO_WRITE: self.file_error}
        return self.error or special.get(kind, 0) or (0 if kind in _ANSWERED else ENOSYS)


class Watch:
    """A server in this process: a thread that answers, and what it has seen."""

    def __init__(self, qnx: Any, chid: int, writer: Optional[Writer] = None) -> None:
        self._qnx = qnx
        self._chid = chid
        self.writer = writer or Writer(qnx)
        self._seen: List[str] = []
        self._told = threading.Event()
        self._ends = False
        self._held = 0
        self.manners = Manners()
        #: When it was asked to open something, by time.monotonic_ns().
        self.asked: List[int] = []
        #: The bytes of the last I/O message.
        self.last = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def saw(self) -> str:
        """What was seen since the last time, and before now."""
        answered = self._told = threading.Event()
        assert answered.wait(DEADLINE), "the server does not receive"
        seen, self._seen = self._seen, []
        return "; ".join(seen) or "(nothing)"

    def saw_at_last(self) -> str:
        """The same, once there is anything: a host may take a moment to tell of the end of a client."""
        eventually(lambda: self._seen, "the server to see anything")
        return self.saw()

    def stop(self) -> None:
        """Receive no longer."""
        self._ends = True
        self._thread.join(DEADLINE)

    def _serve(self) -> None:
        buffer, info = bytearray(_ROOM), MessageInfo()
        while not self._ends:
            # It answers who asks when nothing waits. It has no connection of its own for that: clients in this process
            # might share it.
            told_event = self._told
            self._qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, _PAUSE)
            try:
                found = Received(self._qnx.MsgReceive(self._chid, buffer, info), buffer, info)
            except TimeoutError:
                told_event.set()
                continue
            if found.rcvid and not found.io_type:
                self.writer.remember(found)
                self._qnx.MsgReply(found.rcvid, self.manners.status)
            else:
                self._seen.append(self.writer.write(found))
                if found.rcvid:
                    self._answer(found)

    def _answer(self, found: Received) -> None:
        """Answer an I/O message."""
        kind, manners = found.io_type, self.manners
        self.last = found.data
        if kind == IO_CONNECT:
            self.asked.append(time.monotonic_ns())
            if manners.exits:
                os._exit(0)
            if manners.holds:
                self._held = found.rcvid
                return
        error = manners.error_of(kind)
        if error:
            self._qnx.MsgError(found.rcvid, error)
        else:
            self._qnx.MsgReply(found.rcvid, *self._answer_to(found))

    def answer_held(self, status: int) -> str:
        """Answer the _IO_CONNECT that was held; what MsgReply says."""
        return told(self._qnx.MsgReply, self._held, status)

    def _answer_to(self, found: Received) -> Tuple[int, bytes]:
        """A status and data."""
        kind = found.io_type
        if kind == IO_CONNECT:
            status, size = self.manners.opens
            return status, bytes(size)
        if kind == IO_READ:
            return len(_DATA), _DATA
        if kind == IO_WRITE:
            return struct.unpack_from("=I", found.data, 4)[0], b""
        if kind == IO_LSEEK:
            return 0, struct.pack("=q", _POSITION)
        return 0, bytes(_ROOM) if kind == IO_STAT else b""


_watches: Dict[int, Watch] = {}


def begin_to_watch(qnx: Any, name: str, flags: int, of_paths: bool) -> int:
    """In another process: serve a name, or a channel without one; the channel."""
    chid = attach(qnx, name) if name else create_channel(qnx, flags)
    _watches[chid] = Watch(qnx, chid, PathWriter(qnx) if of_paths else None)
    return chid


def log_of(_qnx: Any, chid: int, at_last: bool) -> str:
    """In another process: what a server has seen."""
    watch = _watches[chid]
    return watch.saw_at_last() if at_last else watch.saw()


def behave(_qnx: Any, chid: int, manners: Manners) -> None:
    """In another process: how a server is to answer from now on."""
    _watches[chid].manners = manners


def tell_bytes(_qnx: Any, chid: int, tell: bool) -> None:
    """In another process: whether a server writes down the bytes of messages, too."""
    _watches[chid].writer.with_bytes = tell


def stop_watching(_qnx: Any, chid: int) -> None:
    """In another process: receive no longer from a channel."""
    _watches.pop(chid).stop()


def answer_held(_qnx: Any, chid: int, status: int) -> str:
    """In another process: answer what was held."""
    return _watches[chid].answer_held(status)


def asked_at(_qnx: Any, chid: int) -> List[int]:
    """In another process: when a server was asked to open something, since the last time."""
    watch = _watches[chid]
    asked, watch.asked = watch.asked, []
    return asked


def last_message(_qnx: Any, chid: int) -> bytes:
    """In another process: the last I/O message that a server got."""
    return _watches[chid].last


class Watched:
    """A server in another process that answers what it gets, and writes it down."""

    def __init__(self, peer: Peer, name: str = "", flags: int = 0, of_paths: bool = False) -> None:
        self.peer = peer
        self.pid = peer.pid
        self.chid: int = peer.run(begin_to_watch, name, flags, of_paths)
        self._manners = Manners()

    def behave(self, **manners: Any) -> None:
        """Answer so from now on; what is not said is as it was at first."""
        wanted = Manners(**manners)
        if wanted != self._manners:
            self.peer.run(behave, self.chid, wanted)
            self._manners = wanted

    def saw(self) -> str:
        """What it has seen since the last time."""
        return str(self.peer.run(log_of, self.chid, False))

    def saw_at_last(self) -> str:
        """The same, once there is anything."""
        return str(self.peer.run(log_of, self.chid, True))

    def tell_bytes(self, tell: bool) -> None:
        """Write down the bytes of messages, too, or no longer."""
        self.peer.run(tell_bytes, self.chid, tell)

    def answer_held(self, status: int = 0) -> str:
        """Answer what it has held."""
        return str(self.peer.run(answer_held, self.chid, status))

    def asked_at(self) -> List[int]:
        """When it was asked to open something, since the last time."""
        return list(self.peer.run(asked_at, self.chid))

    def last_message(self) -> bytes:
        """The last I/O message that it got."""
        return bytes(self.peer.run(last_message, self.chid))

    def stop(self) -> None:
        """Receive no longer, and live on."""
        self.peer.run(stop_watching, self.chid)
