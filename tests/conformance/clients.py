"""Clients of the channels of this process: threads of its own, or another process.

Both kinds look the same to a test, so that it can be run with either: ``send`` begins a MsgSend that blocks in a thread
over there, and returns at once.
"""

import os
from typing import Any, Callable, Optional, Tuple, Union

from ha_qnx import NTO_SIDE_CHANNEL, Pulse

from .peers import Peer, Remote
from .waiting import Task

Start = Callable[..., Task]
Call = Union[Task, Remote]

#: What a reply buffer holds before the reply comes.
BLANK = b"."

_MARKER = 99


def attach(qnx: Any, pid: int, chid: int, index: int, flags: int) -> int:
    """Connect to a channel."""
    coid: int = qnx.ConnectAttach(0, pid, chid, index, flags)
    return coid


def detach(qnx: Any, coid: int) -> int:
    """End a connection."""
    result: int = qnx.ConnectDetach(coid)
    return result


def transact(qnx: Any, coid: int, message: bytes, room: int) -> Tuple[int, bytes]:
    """Send a message; the status, and all of the reply buffer."""
    reply = bytearray(BLANK * room)
    status: int = qnx.MsgSend(coid, message, reply)
    return status, bytes(reply)


def take_priority(qnx: Any, priority: int) -> None:
    """Give the calling thread the priority of a pulse that it receives, without any right to set priorities."""
    chid = qnx.ChannelCreate(0)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), priority, 0, 0)
    assert qnx.MsgReceive(chid, Pulse()) == 0


def transact_at(qnx: Any, priority: int, coid: int, message: bytes, room: int) -> Tuple[int, bytes]:
    """The same as transact, by a thread of a certain priority."""
    take_priority(qnx, priority)
    return transact(qnx, coid, message, room)


class Client:
    """Who sends messages to the channels of this process."""

    def __init__(self, qnx: Any, start: Start, peer: Optional[Peer]) -> None:
        self._qnx = qnx
        self._start = start
        self._peer = peer

    @property
    def pid(self) -> int:
        return os.getpid() if self._peer is None else self._peer.pid

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function over there, and wait for its result."""
        return function(self._qnx, *args) if self._peer is None else self._peer.run(function, *args)

    def start(self, function: Callable[..., Any], *args: Any) -> Call:
        """Call a function in a new thread over there, and do not wait."""
        if self._peer is None:
            return self._start(function, self._qnx, *args)
        return self._peer.start(function, *args)

    def attach(self, chid: int, index: int = NTO_SIDE_CHANNEL, flags: int = 0) -> int:
        """Connect to a channel of this process."""
        coid: int = self.run(attach, os.getpid(), chid, index, flags)
        return coid

    def detach(self, coid: int) -> int:
        """End a connection."""
        result: int = self.run(detach, coid)
        return result

    def send(self, coid: int, message: bytes = b"message", room: int = 0) -> Call:
        """Begin to send a message; the result will be the status and the reply buffer."""
        return self.start(transact, coid, message, room)


def expect_nothing_waits(qnx: Any, chid: int) -> None:
    """Nothing waits on a channel: a pulse of the lowest priority is the first thing to be received from it."""
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.MsgSendPulse(coid, 1, _MARKER, 0)
    pulse = Pulse()
    rcvid = qnx.MsgReceive(chid, pulse)
    assert rcvid == 0, f"a message waited: {bytes(pulse)!r}"
    assert pulse.code == _MARKER, f"a pulse waited: code {pulse.code}, value {pulse.value.sival_int}"
