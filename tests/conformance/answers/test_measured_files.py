"""Reading, writing and copying through connections, as messages that a server answers; and files of the host."""

import fcntl
import os
import struct
from errno import EBADF, EINTR, ENOSYS, EPERM
from typing import Any, Tuple

from ha_qnx import IO_STAT, NTO_SIDE_CHANNEL, SYSMGR_COID

from ..peers import Peer
from ..servers import StartPeer
from .asking import Answers, measured
from .notation import listed, succeeds, told, yes
from .parties import Party, played
from .test_measured_channels import NO_IO_MESSAGE, finds, opened
from .watched import Watched

SIDE = NTO_SIDE_CHANNEL

#: What a buffer holds before anything is read into it, and its size.
_BLANK, _SIZE = b".", 6


def read_into(qnx: Any, fd: int, size: int) -> str:
    """Read into the first bytes of a buffer; what readinto says, and the buffer."""
    buffer = bytearray(_BLANK * max(size, _SIZE))
    said = told(qnx.readinto, fd, memoryview(buffer)[:size])
    return f"{said} {buffer.decode()}"


def read_text(qnx: Any, fd: int, size: int) -> str:
    """Read; the length and the text."""
    data = qnx.read(fd, size)
    return f"{len(data)} {data.decode()}"


def get_flags(_qnx: Any, fd: int) -> str:
    """What the host knows of a descriptor."""
    return told(fcntl.fcntl, fd, fcntl.F_GETFD)


class Reader(Party):
    """A process that reads and writes."""

    def read_into(self, fd: int, size: int) -> str:
        return str(self.peer.run(read_into, fd, size))

    def read(self, fd: int, size: int) -> str:
        return str(self.peer.run(read_text, fd, size))

    def get_flags(self, fd: int) -> str:
        return str(self.peer.run(get_flags, fd))


def connected(alone: Peer, server: Watched) -> Tuple[Reader, int, int]:
    """A process with a connection among the descriptors and a side channel to a server."""
    client = Reader(alone)
    side, raw = (client.make("ConnectAttach", 0, server.pid, server.chid, index, 0) for index in (SIDE, 0))
    return client, raw, side


@measured("IO01", "IO02", "IO03", "IO04", "IO05", "IO06", "IO07", "IO08")
def test_a_connection_is_used_as_a_file(alone: Peer, start_peer: StartPeer) -> Answers:
    """Each call is a message to the server."""
    server = Watched(start_peer())
    client, raw, _side = connected(alone, server)
    yield "IO01", f"{client.read(raw, 10)}; {server.saw()}"
    yield "IO02", client.read_into(raw, 3)
    yield "IO03", f"{client.told('write', raw, b'seven..')}; {server.saw()}"
    moved = [client.told("lseek", raw, 5, whence) for whence in (os.SEEK_SET, os.SEEK_END)]
    yield "IO04", f"{' '.join(moved)}; {server.saw()}"
    copy = client.make("dup", raw)
    yield "IO05", f"{yes(copy > raw)} {client.get_flags(copy)}; {server.saw()}"
    copied = client.told("dup2", raw, 33)
    yield "IO06", f"{copied} {client.get_flags(33)}; {server.saw()}"
    yield "IO07", f"{client.told('dup2', raw, 33)}; {server.saw()}"
    yield "IO08", f"{client.told('close', 33)} {client.told('close', 33)}; {server.saw()}"


@measured("IO09", "IO10", "IO11", "IO12", "IO13", "IO14", "IO15")
def test_a_server_refuses_to_be_a_file(alone: Peer, start_peer: StartPeer) -> Answers:
    """What it answers is what the calls say, and a descriptor that is closed is closed."""
    server = Watched(start_peer())
    server.behave(status=1)
    client, raw, side = connected(alone, server)

    def copied() -> int:
        server.behave(status=1)
        return int(client.make("dup", raw))

    copy = copied()
    server.behave(status=1, error=EPERM)
    refused = (client.told("dup", raw), client.told("close", copy), client.send(copy))
    yield "IO09", " ".join(refused)
    server.behave(status=1, error=ENOSYS)
    yield "IO10", " ".join((client.told("dup", raw), client.told("read", raw, 10), client.told("write", raw, b"data")))
    copy = copied()
    server.behave(status=1, error=EINTR)
    yield "IO11", f"{client.told('close', copy)} {client.send(copy)}"
    copy = copied()
    server.behave(status=1, error=EBADF)
    yield "IO12", f"{client.told('read', copy, 10)} {client.told('close', copy)} {client.send(copy)}"
    server.behave(status=1)
    spare = client.make("ConnectAttach", 0, server.pid, server.chid, SIDE, 0)
    calls = (("dup", side), ("dup2", side, 34), ("dup", 99), ("dup", -1), ("close", spare), ("close", 99))
    yield "IO13", " ".join(client.told(*call) for call in calls)
    server.saw()
    read, _space, _text = client.read_into(side, 3).partition(" ")
    yield "IO14", f"{read} {client.told('write', side, b'abc')}; {server.saw()}"
    yield "IO15", client.read_into(side, 0).partition(" ")[0]


@measured("XQ06")
def test_a_server_tells_of_its_file(alone: Peer, start_peer: StartPeer) -> Answers:
    """It is asked by a message."""
    server = Watched(start_peer())
    client, raw, _side = connected(alone, server)
    known = succeeds(client.make, "fstat", raw)
    yield "XQ06", f"{known}; {server.saw().rpartition(' room')[0]}"


# Files of the host.


def use_files(qnx: Any) -> Answers:
    """Send messages to what is an ordinary file, and detach it."""
    null = qnx.open(os.devnull, os.O_RDWR)
    message = struct.pack("=HH", NO_IO_MESSAGE, 0) + bytes(12)
    yield "XF01", listed(lambda sent: qnx.MsgSend(null, sent, bytearray(16)), (message, b"", message[:2]), "; ")
    yield "XF02", told(qnx.MsgSendPulse, null, 10, 1, 1)
    yield "XF03", f"{yes(finds(qnx, null))} {succeeds(qnx.ConnectFlags, 0, null, 0, 0)}"
    stat = struct.pack("=HHI", IO_STAT, 8, 0)
    yield "XF04", succeeds(qnx.MsgSend, null, stat, bytearray(200))
    yield "XF05", f"{told(qnx.close, null)}; {told(qnx.MsgSend, null, message)}"
    null = qnx.open(os.devnull, os.O_RDWR)
    detached = told(qnx.ConnectDetach, null)
    again, _null = opened(qnx, os.devnull)
    yield "XF06", f"{detached}; {'a fd' if again.isdigit() else again}"
    yield "XF07", f"{told(qnx.dup2, 0, 0)} {told(qnx.dup2, 77, 77)}"
    yield "QX45", told(qnx.ConnectDetach, SYSMGR_COID)


@measured("XF01", "XF02", "XF03", "XF04", "XF05", "XF06", "XF07", "QX45")
def test_files_are_no_connections(alone: Peer) -> Answers:
    """Those of the host are the host's."""
    yield from played(alone, use_files)
