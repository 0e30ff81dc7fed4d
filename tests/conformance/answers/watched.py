"""Servers that answer what they get, and write it down, in a process of their own or in that of the tests."""

import struct
import threading
from errno import ENOSYS
from typing import Any, Dict, List, Tuple

from ha_qnx import IO_CLOSE, IO_CONNECT, IO_DUP, IO_LSEEK, IO_READ, IO_STAT, IO_WRITE, NTO_TIMEOUT_RECEIVE, MessageInfo

from ..peers import Peer
from ..servers import attach, create_channel
from ..waiting import DEADLINE, eventually
from .ledgers import Received, Writer

#: How long a server waits before it says that nothing comes, in nanoseconds.
_PAUSE = 5_000_000
_ROOM = 4000

#: What a server answers to I/O messages.
_DATA = b"fiver"
_POSITION = 4711
_ANSWERED = (IO_CONNECT, IO_READ, IO_WRITE, IO_LSEEK, IO_STAT, IO_DUP, IO_CLOSE)


class Watch:
    """A server in this process: a thread that answers, and what it has seen.

    ``status`` is what messages are answered that are no I/O messages; ``error``, if there is one, what all I/O messages
    are.
    """

    def __init__(self, qnx: Any, chid: int) -> None:
        self._qnx = qnx
        self._chid = chid
        self._writer = Writer(qnx)
        self._seen: List[str] = []
        self._told = threading.Event()
        self._ends = False
        self.status = 0
        self.error = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def saw(self) -> str:
        """What was seen since the last time, and before now."""
        told = self._told = threading.Event()
        assert told.wait(DEADLINE), "the server does not receive"
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
            told = self._told
            self._qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, _PAUSE)
            try:
                found = Received(self._qnx.MsgReceive(self._chid, buffer, info), buffer, info)
            except TimeoutError:
                told.set()
                continue
            if found.rcvid and not found.io_type:
                self._writer.remember(found)
                self._qnx.MsgReply(found.rcvid, self.status)
            else:
                self._seen.append(self._writer.write(found))
                self._answer(found)

    def _answer(self, found: Received) -> None:
        """Answer an I/O message."""
        if found.rcvid and (self.error or found.io_type not in _ANSWERED):
            self._qnx.MsgError(found.rcvid, self.error or ENOSYS)
        elif found.rcvid:
            self._qnx.MsgReply(found.rcvid, *_answer_to(found))


def _answer_to(found: Received) -> Tuple[int, bytes]:
    """A status and data."""
    if found.io_type == IO_READ:
        return len(_DATA), _DATA
    if found.io_type == IO_WRITE:
        return struct.unpack_from("=I", found.data, 4)[0], b""
    if found.io_type == IO_LSEEK:
        return 0, struct.pack("=q", _POSITION)
    return 0, bytes(_ROOM) if found.io_type == IO_STAT else b""


_watches: Dict[int, Watch] = {}


def begin_to_watch(qnx: Any, name: str, flags: int) -> int:
    """In another process: serve a name, or a channel without one; the channel."""
    chid = attach(qnx, name) if name else create_channel(qnx, flags)
    _watches[chid] = Watch(qnx, chid)
    return chid


def log_of(_qnx: Any, chid: int, at_last: bool) -> str:
    """In another process: what a server has seen."""
    watch = _watches[chid]
    return watch.saw_at_last() if at_last else watch.saw()


def behave(_qnx: Any, chid: int, status: int, error: int) -> None:
    """In another process: how a server is to answer from now on."""
    _watches[chid].status, _watches[chid].error = status, error


def stop_watching(_qnx: Any, chid: int) -> None:
    """In another process: receive no longer from a channel."""
    _watches.pop(chid).stop()


class Watched:
    """A server in another process that answers what it gets, and writes it down."""

    def __init__(self, peer: Peer, name: str = "", flags: int = 0) -> None:
        self.peer = peer
        self.pid = peer.pid
        self.chid: int = peer.run(begin_to_watch, name, flags)

    def behave(self, status: int = 0, error: int = 0) -> None:
        """Answer messages by a status, and I/O messages by an error, if there is one."""
        self.peer.run(behave, self.chid, status, error)

    def saw(self) -> str:
        """What it has seen since the last time."""
        return str(self.peer.run(log_of, self.chid, False))

    def saw_at_last(self) -> str:
        """The same, once there is anything."""
        return str(self.peer.run(log_of, self.chid, True))

    def stop(self) -> None:
        """Receive no longer, and live on."""
        self.peer.run(stop_watching, self.chid)
