"""Numbers of connections to a name, and connections that are used as files, as the second recording has them."""

import errno
import os
import resource
from typing import Any

import pytest

from ha_qnx import NTO_SIDE_CHANNEL

from ..peers import Peer
from ..servers import StartPeer
from .asking import Answers, measured
from .notation import is_side, named, number, told, yes
from .parties import Party, played
from .test_measured_channels import finds, server_info
from .test_measured_files import Reader
from .watched import Watched

SIDE = NTO_SIDE_CHANNEL

#: How many descriptors a process may have there.
_TABLE = 1000


def bound_descriptors(_qnx: Any, limit: int) -> None:
    """In another process: have no more descriptors than QNX's table has."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


class Client(Party):
    """A process with connections."""

    def reach(self, server: Any, index: int = 0) -> int:
        """Connect to a server."""
        return int(self.make("ConnectAttach", 0, server.pid, server.chid, index, 0))

    def info(self, coid: int) -> Any:
        """What is known about a connection."""
        return self.peer.run(server_info, coid)

    def has(self, coid: int) -> bool:
        """Whether there is a connection of a number."""
        return bool(self.peer.run(finds, coid))


@measured(*(f"2.NM{case:02}" for case in (*range(1, 7), *range(8, 16))))
def test_a_name_is_taken_up_again_under_the_old_number(alone: Peer, start_peer: StartPeer, name: str) -> Answers:
    """name_open finds the server; a connection among the descriptors can have the number of the one that was lost."""
    client = Client(alone)
    alone.run(bound_descriptors, _TABLE)
    server = Watched(start_peer(), name)
    server.behave(status=21)
    coid = client.make("name_open", name)
    yield "2.NM01", f"{'side' if is_side(coid) else 'a descriptor'}; {server.saw()}"
    info = client.info(coid)
    where = f"{'the server' if info.pid == server.pid else 'another'} {'same' if info.chid == server.chid else 'other'}"
    yield "2.NM02", f"{yes(info.coid == coid)} {where} {info.flags}"
    fd = client.reach(server)
    yield "2.NM03", "a side channel" if is_side(fd) else "another fd"
    seen = server.saw()
    answered = [client.send(one) for one in (fd, coid)]
    scoids = {client.info(one).scoid for one in (fd, coid)}
    yield "2.NM04", f"{'same' if len(scoids) == 1 else 'differs'}; {seen}"
    yield "2.NM05", answered[0]
    server.peer.kill()
    yield "2.NM06", f"{client.send(coid)} {client.send(fd)}; {client.told('name_open', name)}"

    server = Watched(start_peer(), name)
    server.behave(status=22)
    new = client.make("name_open", name)
    yield "2.NM08", f"ok {yes(new > coid)}"
    info = client.info(new)
    detached = client.told("ConnectDetach", fd)
    attached = client.told("ConnectAttach", 0, info.pid, info.chid, fd, 0)
    yield "2.NM09", f"{detached}; {named(attached, fd, 'the old number')}"
    said = client.send(fd)
    yield "2.NM10", f"{said} {int(client.info(fd).pid == server.pid)}"
    server.behave(status=23)
    closed = client.told("name_close", new)
    yield "2.NM11", f"{closed}; {client.send(fd)}; {server.saw()}"
    server.peer.kill()

    server = Watched(start_peer())
    above = client.reach(server, fd)
    yield "2.NM12", "above" if above > fd else str(above)
    client.make("ConnectDetach", fd)
    file = client.make("open", os.devnull, os.O_RDONLY)
    client.make("ConnectDetach", above)
    found = client.reach(server, fd)
    yield "2.NM13", f"{yes(file == fd)}; f + {found - fd}"
    yield "2.NM14", str(client.reach(server, 200))
    beyond = (client.told("ConnectAttach", 0, server.pid, server.chid, index, 0) for index in (3000, 40000))
    yield "2.NM15", " ".join(beyond)


def attach_at_the_end(qnx: Any) -> Answers:
    """Attach at the last numbers that there are, and behind them."""
    bound_descriptors(qnx, _TABLE)
    chid = qnx.ChannelCreate(0)
    indexes = (_TABLE - 2, _TABLE - 1, _TABLE)
    yield "XQ04", " ".join(told(qnx.ConnectAttach, 0, 0, chid, index, 0) for index in indexes)


@measured("XQ04")
def test_the_last_numbers(alone: Peer) -> Answers:
    """They end where those of descriptors do."""
    yield from played(alone, attach_at_the_end)


@measured(*(f"2.NS{case:02}" for case in range(1, 10)))
def test_which_side_channel_is_given(alone: Peer, start_peer: StartPeer) -> Answers:
    """One that is free; what is asked for does not matter."""
    client = Client(alone)
    server = Watched(start_peer())
    server.behave(status=5)

    def side(index: int = SIDE, of: Any = server) -> int:
        return client.reach(of, SIDE | index)

    def detach(coid: int) -> str:
        return client.told("ConnectDetach", coid)

    a, b, c, d = side(), side(), side(), side()
    yield "2.NS01", " ".join(map(number, (a, b, c, d)))
    detached = detach(b)
    b = side()
    yield "2.NS02", f"{detached} {number(b)}"
    detached = f"{detach(b)} {detach(a)}"
    first, second = side(), side()
    yield "2.NS03", f"{detached} {number(first)} {number(second)}"
    detached = f"{detach(min(first, second))} {detach(max(first, second))}"
    first, second = side(), side()
    yield "2.NS04", f"{detached} {number(first)} {number(second)}"
    server.peer.kill()
    new = Watched(start_peer())
    new.behave(status=5)
    fresh = side(of=new)
    yield "2.NS05", number(fresh)
    detached = detach(c)
    again = side(of=new)
    yield "2.NS06", f"{detached} {number(again)}; {client.send(again)}; {number(c)}"
    before = side(of=new)
    detached = detach(d)
    after = side(of=new)
    yield "2.NS07", f"{number(before)}; {detached} {number(after)}"
    asked = side(after, of=new)
    yield "2.NS08", number(asked)
    detach(after), detach(before)
    given = side(after, of=new)
    yield "2.NS09", f"{number(given)} (d is {number(after)}, the other {number(before)})"


# Used as files.

ERRORS = {"0": ("EOK", 0), "1": ("ENOSYS", errno.ENOSYS), "2": ("EIO", errno.EIO)}
FILE_CASES = ("1", "2", "3", "4", "5", "6", "8", "9")


@measured(*(f"2.NC{family}{case}" for family in ERRORS for case in FILE_CASES), "2.NC92", "2.NC91")
def test_a_raw_connection_is_used_as_a_file(alone: Peer, start_peer: StartPeer, name: str) -> Answers:
    """Each call sends its message, and says what the answer says."""
    client = Reader(alone)
    server = Watched(start_peer())

    def reach(index: int = 0) -> int:
        return int(client.make("ConnectAttach", 0, server.pid, server.chid, index, 0))

    for family, (error_name, error) in ERRORS.items():
        case = f"2.NC{family}"
        fd = reach()
        server.behave(error=error)
        read = [client.read_into(fd, size).partition(" .")[0].partition(" fiver")[0] for size in (10, 0)]
        yield f"{case}1", f"{error_name}: {' '.join(read)}; {server.saw()}"
        yield f"{case}2", f"{client.told('write', fd, b'seven..')}; {server.saw()}"
        yield f"{case}3", f"{client.told('lseek', fd, 5, os.SEEK_SET)}; {server.saw()}"
        yield f"{case}4", client.get_flags(fd)
        copied = client.told("dup", fd)
        yield f"{case}5", f"{'ok' if copied.isdigit() else copied}; {server.saw()}"
        copied = client.told("dup2", fd, 60)
        yield f"{case}6", f"{'ok' if copied.isdigit() else copied}; {server.saw()}"
        client.told("ConnectDetach", 60)
        closed = client.told("close", fd)
        yield f"{case}8", f"{closed}; {yes(alone.run(finds, fd))}; {server.saw()}"
        another = [reach(), reach(SIDE)]
        detached = client.told("ConnectDetach", another[0])
        yield f"{case}9", f"{detached}; {server.saw()}; {client.told('name_close', another[1])}; {server.saw()}"
    opened = client.told("open", f"/dev/name/local/{name}", os.O_RDWR)
    yield "2.NC92", "a fd" if opened.isdigit() else opened
    server.behave()
    fd = reach()
    server.peer.kill()
    yield "2.NC91", f"{client.told('close', fd)} {client.told('close', fd)}"


@pytest.fixture(params=[name for name, _error in ERRORS.values()])
def answered(request: pytest.FixtureRequest) -> str:
    """The error that a server answers."""
    return str(request.param)


@measured("2.NCs", variant="answered")
def test_a_side_channel_is_used_as_a_file(alone: Peer, other: Peer, answered: str) -> Answers:
    """It can be read and written, but not copied."""
    client = Reader(alone)
    server = Watched(other)
    side = client.make("ConnectAttach", 0, server.pid, server.chid, SIDE, 0)
    server.behave(error=dict(ERRORS.values())[answered])
    read = client.read_into(side, 10).partition(" .")[0].partition(" fiver")[0]
    calls = (("write", side, b"seven.."), ("dup", side), ("dup2", side, 61), ("close", side))
    said = [client.told(*call) for call in calls]
    yield "2.NCs", f"{read} {' '.join(said)}; {server.saw()}"
    server.stop()
