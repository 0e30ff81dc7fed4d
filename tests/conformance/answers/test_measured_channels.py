"""Channels and connections that are only made and ended: their numbers, flags, and what is known about them."""

import ctypes
import fcntl
import os
import resource
import struct
from typing import Any, Callable, Tuple

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_THREAD_DEATH,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    MessageInfo,
)

from ..clients import Client
from ..cradle import Born
from ..peers import Peer
from ..receiving import receive_message
from ..servers import Server, StartPeer, answer, create_channel
from ..waiting import DEADLINE, Task
from .asking import Answers, measured
from .ledgers import receive
from .notation import (
    PULSE_SIZE,
    UNTOUCHED,
    failed,
    is_side,
    listed,
    low,
    number,
    numbered,
    succeeds,
    told,
    yes,
)
from .parties import Party, played, said_at_last

SIDE = NTO_SIDE_CHANNEL
NOBODY = 1234567

#: The type of a message that is none of the I/O messages.
NO_IO_MESSAGE = 0x400


def server_info(qnx: Any, coid: int, pid: int = 0) -> MessageInfo:
    """What is known about a connection."""
    info = MessageInfo()
    qnx.ConnectServerInfo(pid, coid, info)
    return info


# Channels.


def number_channels(qnx: Any) -> Answers:
    """Channels, connections and the numbers that they get."""
    chids = [qnx.ChannelCreate(0) for _ in range(3)]
    yield "CH01", " ".join(map(str, chids))
    yield "CH02", told(qnx.ChannelDestroy, chids[1])
    yield "CH03", told(qnx.ChannelCreate, 0)
    side = qnx.ConnectAttach(0, 0, chids[0], SIDE, 0)
    yield "CH04", number(side)
    yield "CH05", told(qnx.ChannelCreate, 0)
    yield "CH06", numbered(qnx.ConnectAttach, 0, 0, chids[0], 0, 0)
    yield "CH07", told(qnx.ChannelCreate, 0)
    scoid = server_info(qnx, side).scoid
    yield "CH08", f"{low(scoid)} {'side' if is_side(scoid) else 'plain'}"
    yield "CH09", listed(qnx.ChannelDestroy, (-1, 0, 999, SIDE))
    yield "CH10", listed(qnx.ChannelDestroy, (low(side), scoid))


@measured("CH01", "CH02", "CH03", "CH04", "CH05", "CH06", "CH07", "CH08", "CH09", "CH10")
def test_channels_share_their_numbers_with_connections(alone: Peer) -> Answers:
    """The numbers that a process gets for its first channels and connections."""
    yield from played(alone, number_channels)


def create_with_flags(qnx: Any) -> Answers:
    """One channel of a process hears of deaths; and each flag by itself."""
    hears = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    refused = listed(qnx.ChannelCreate, (NTO_CHF_COID_DISCONNECT, NTO_CHF_THREAD_DEATH))
    yield "CF01", f"ok, {refused}"
    qnx.ChannelDestroy(hears)
    hears = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT | NTO_CHF_THREAD_DEATH)
    yield "CF03", "ok"
    qnx.ChannelDestroy(hears)
    hears = qnx.ChannelCreate(NTO_CHF_THREAD_DEATH)
    yield "CF04", f"ok, {told(qnx.ChannelCreate, NTO_CHF_COID_DISCONNECT)}"
    qnx.ChannelDestroy(hears)
    for bit in range(32):
        try:
            qnx.ChannelDestroy(qnx.ChannelCreate(1 << bit))
        except OSError as error:
            yield f"CF1{bit:02}", failed(error)
        else:
            yield f"CF1{bit:02}", "ok"


@measured("CF01", "CF03", "CF04", *(f"CF1{bit:02}" for bit in range(32)))
def test_a_channel_takes_the_flags_that_are_known(alone: Peer) -> Answers:
    """ChannelCreate with each flag alone, and with those that only one channel of a process can have."""
    yield from played(alone, create_with_flags)


# Attaching.


def number_connections(qnx: Any) -> Answers:
    """Connections of one process to its own channel."""
    chid = qnx.ChannelCreate(0)

    def attach(index: int) -> str:
        return numbered(qnx.ConnectAttach, 0, 0, chid, index, 0)

    yield "CA01", " ".join(attach(0) for _ in range(3))
    yield "CA02", " ".join(map(attach, (10, 10, 0, 4)))
    yield "CA03", f"{told(qnx.ConnectDetach, 4)} {attach(4)}, {told(qnx.ConnectDetach, 10)} {attach(0)} {attach(10)}"
    yield "CA04", succeeds(qnx.ConnectAttach, 0, os.getpid(), chid, 0, 0)
    sides = [qnx.ConnectAttach(0, 0, chid, SIDE | index, 0) for index in (0, 77, 1)]
    steps = [later - earlier for earlier, later in zip(sides, sides[1:])]
    yield "CA05", f"{'side' if all(map(is_side, sides)) else 'no side'}, {' '.join(map(str, steps))}"
    for coid in sides[1::-1]:
        qnx.ConnectDetach(coid)
    again = qnx.ConnectAttach(0, 0, chid, SIDE, 0)
    yield "CA06", "lowest" if again == min(sides) else "another"
    yield "CA07", listed(lambda pid: qnx.ConnectAttach(0, pid, chid), (NOBODY, -1, 32767))
    yield "CA08", listed(lambda other: qnx.ConnectAttach(0, 0, other), (999, 0, -1, low(again)))
    yield "CA09", listed(lambda node: qnx.ConnectAttach(node, 0, chid), (5, 2**32 - 1))
    yield (
        "CA10",
        ", ".join(
            succeeds(qnx.ConnectAttach, 0, 0, chid, index, 0) for index in (1_000_000, -1, 0x7FFFFFFF, 0x3FFFFFFF)
        ),
    )
    for bit in range(32):
        yield f"CA1{bit:02}", succeeds(qnx.ConnectAttach, 0, 0, chid, SIDE, 1 << bit)


@measured(*(f"CA{case:02}" for case in range(1, 11)), *(f"CA1{bit:02}" for bit in range(32)))
def test_a_connection_gets_the_number_that_is_asked_for(alone: Peer) -> Answers:
    """ConnectAttach with each kind of index, with targets that do not exist, and with each flag alone."""
    yield from played(alone, number_connections)


@measured("CZ01", "CZ02", "CZ03", "CZ04")
def test_a_process_that_has_ended_cannot_be_connected_to(qnx: Any, start_peer: Callable[[], Born]) -> Answers:
    """A zombie is no process that has channels or connections."""
    server = start_peer()
    chid = server.run(create_channel)
    server.become_a_zombie()
    yield "CZ01", told(qnx.ConnectAttach, 0, server.pid, chid)
    yield "CZ02", f"{told(qnx.ConnectServerInfo, server.pid, 0)}, {told(qnx.ConnectFlags, server.pid, 0, 0, 0)}"
    yield "CZ03", f"exit {server.process.wait(DEADLINE)}"
    yield "CZ04", told(qnx.ConnectAttach, 0, server.pid, chid)


def scoid_of(qnx: Any, client: Client, coid: int, chid: int) -> int:
    """Which client a server takes the messages of a connection for."""
    info = MessageInfo()
    call = client.send(coid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    call.result()
    return int(info.scoid)


@measured("CS01", "CS02", "CS03", "CS04", "CS05", "CS06")
def test_connections_to_one_channel_share_their_scoid(qnx: Any, client: Client) -> Answers:
    """One client process has one scoid, unless it asks for another one."""
    chid = qnx.ChannelCreate(0)

    def attach(index: int = 0, flags: int = 0) -> Tuple[int, int]:
        coid = client.attach(chid, index, flags)
        return coid, scoid_of(qnx, client, coid, chid)

    first = attach()
    shared = [first, attach()]
    yield "CS01", "equal" if shared[1][1] == first[1] else "differs"
    apart = [attach(flags=NTO_COF_NOSHARE)]
    yield "CS02", "equal" if apart[0][1] == first[1] else "differs"
    for name, index, flags in (("CS03", SIDE, 0), ("CS04", 0, NTO_COF_CLOEXEC)):
        shared.append(attach(index, flags))
        yield name, "equal" if shared[-1][1] == first[1] else "differs"
    apart.append(attach(flags=NTO_COF_NOSHARE))
    yield "CS05", "equal" if apart[1][1] == apart[0][1] else "differs"
    for coid, _scoid in shared:
        client.detach(coid)
    _coid, scoid = attach()
    yield "CS06", "shares with a NOSHARE one" if scoid in (apart[0][1], apart[1][1]) else "own scoid"


# Detaching.


def own_scoid(qnx: Any, coid: int, chid: int) -> int:
    """The scoid of a connection of this process to its own channel."""
    return scoid_of(qnx, Client(qnx, Task, None), coid, chid)


def detach_connections(qnx: Any) -> Answers:
    """Of one process, and of its files, which the host sees to."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    yield "CD01", listed(qnx.ConnectDetach, (99, -1, SIDE + 99, -(2**31)))
    scoid = own_scoid(qnx, coid, chid)
    yield "CD02", told(qnx.ConnectDetach, low(scoid))
    yield "CD03", told(qnx.ConnectDetach, scoid)
    yield "CD04", f"{told(qnx.ConnectDetach, coid)}, {told(qnx.ConnectDetach, coid)}"
    null = qnx.open(os.devnull, os.O_RDWR)
    yield "CD05b", str(null)
    yield "CD06", f"{told(qnx.ConnectDetach, null)}, {told(qnx.write, null, b'x')}, {told(qnx.close, null)}"
    again, null = opened(qnx, os.devnull)
    yield "CD06b", again
    message = struct.pack("=HH", NO_IO_MESSAGE, 0) + bytes(12)
    yield "CD07", listed(lambda sent: qnx.MsgSend(null, sent, bytearray(16)), (message, b"", message[:2]), "; ")
    yield "CD08", told(qnx.MsgSendPulse, null, 10, 1, 1)
    ends = os.pipe()
    yield "CD09", f"{told(qnx.MsgSend, ends[1], message)}; {told(qnx.MsgSendPulse, ends[1], 10, 1, 1)}"
    yield "CD10", f"{yes(finds(qnx, null))}, {told(qnx.ConnectFlags, 0, null, 0, 0)}"
    yield "CD11", told(qnx.MsgReceive, null, bytearray(PULSE_SIZE))


def opened(qnx: Any, path: str) -> Tuple[str, int]:
    """What open says, and the descriptor, or -1."""
    try:
        fd = qnx.open(path, os.O_RDWR)
    except OSError as error:
        return failed(error), -1
    return str(fd), fd


def finds(qnx: Any, coid: int) -> bool:
    """Whether ConnectServerInfo knows a number."""
    try:
        return bool(qnx.ConnectServerInfo(0, coid) == coid)
    except OSError:
        return False


@measured(*(f"CD{case}" for case in ["01", "02", "03", "04", "05b", "06", "06b", "07", "08", "09", "10", "11"]))
def test_only_connections_can_be_detached(alone: Peer) -> Answers:
    """What ConnectDetach says to numbers that are none of the client's, and of what are files."""
    yield from played(alone, detach_connections)


# What is known about a connection.


def describe_connection(qnx: Any, pid: int, chid: int, x: int, y: int) -> Answers:
    """Ask for what is known about two connections to a server, one of them close-on-exec."""
    info = server_info(qnx, x)
    facts = ((info.nd, 0), (info.pid, pid), (info.chid, chid), (info.coid, x))
    names = ("0", "server", "chid", "coid")
    known = " ".join(name if value == expected else str(value) for (value, expected), name in zip(facts, names))
    yield "CI01", f"{yes(finds(qnx, x))}; {known}"
    side = qnx.ConnectAttach(0, pid, chid, SIDE, NTO_COF_CLOEXEC)
    yield "CI02", " ".join(str(server_info(qnx, coid).flags) for coid in (x, side, y))
    yield "CI05", "the next one" if qnx.ConnectServerInfo(0, x + 1) == y else "another one"
    yield "CI06", "a side channel" if is_side(qnx.ConnectServerInfo(0, y + 1)) else "another descriptor"
    yield "CI07", told(qnx.ConnectServerInfo, 0, SIDE + 900)
    first = qnx.ConnectServerInfo(0, SIDE)
    yield "CI08", "side+0" if first == SIDE else "another side channel"
    nobody = (told(qnx.ConnectServerInfo, NOBODY, 0), told(qnx.ConnectFlags, NOBODY, x, 0, 0))
    yield "CI09", ", ".join(nobody)
    yield "CI10", listed(lambda coid: qnx.ConnectFlags(0, coid, 0, 0), (99, -1, SIDE + 900))

    def flags(mask: int, bits: int) -> str:
        return told(qnx.ConnectFlags, 0, x, mask, bits)

    yield "CI11", " ".join(flags(mask, bits) for mask, bits in ((0, 0), (1, 1), (0, 0), (1, 0), (0, 0)))
    everything = 2**32 - 1
    changes = (succeeds(qnx.ConnectFlags, 0, x, everything, everything), flags(0, 0))
    back = (succeeds(qnx.ConnectFlags, 0, x, everything, 0), flags(0, 0))
    yield "CI12", " ".join(changes + back)
    dead = succeeds(qnx.ConnectFlags, 0, x, NTO_COF_DEAD, NTO_COF_DEAD)
    yield "CI13", f"{dead} {flags(0, 0)} {told(qnx.MsgSend, x, b'message')}"
    others = (succeeds(qnx.ConnectServerInfo, pid, 0), succeeds(qnx.ConnectFlags, pid, 0, 0, 0))
    yield "CI15", ", ".join(others)
    descriptors = [told(fcntl.fcntl, coid, fcntl.F_GETFD) for coid in (x, y)]
    set_there = told(fcntl.fcntl, x, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    yield "CI16", " ".join([*descriptors, set_there, flags(0, 0)])


def scoid_known(qnx: Any, coid: int) -> int:
    """What is known about the scoid of a connection."""
    return int(server_info(qnx, coid).scoid)


def describe_use(qnx: Any, x: int, before: int) -> Answers:
    """What a connection is known to be after the first message."""
    qnx.MsgSend(x, b"message")
    info = MessageInfo()
    ctypes.memset(ctypes.byref(info), UNTOUCHED, ctypes.sizeof(info))
    qnx.ConnectServerInfo(0, x, info)
    then = "known" if info.scoid else "0"
    yield "CI03", f"{'same' if before == info.scoid else before}, {then}"
    rest = (info.tid, info.srcnd, info.msglen, info.srcmsglen, info.dstmsglen, info.priority)
    yield "CI04", " ".join(map(str, rest))


def describe_dead_connection(qnx: Any, pid: int, chid: int, x: int) -> Answers:
    """The same after the death of the server."""
    info = server_info(qnx, x)
    kept = ["kept" if value == before else str(value) for value, before in ((info.pid, pid), (info.chid, chid))]
    yield "CI20", f"{yes(info.coid == x)} {info.flags} {' '.join(kept)}"
    yield "CI21", found_number(qnx, x)
    yield "CI22", " ".join(told(qnx.ConnectFlags, 0, x, mask, 1) for mask in (0, 1))
    yield "CI23", told(fcntl.fcntl, x, fcntl.F_GETFD)
    yield "CI24", told(qnx.ConnectDetach, x)


def found_number(qnx: Any, coid: int) -> str:
    """Which kind of number ConnectServerInfo finds from one on."""
    try:
        found = qnx.ConnectServerInfo(0, coid)
    except OSError as error:
        return failed(error)
    return "side" if is_side(found) else "a descriptor"


@measured(*(f"CI{case:02}" for case in (*range(1, 14), 15, 16, *range(20, 25))))
def test_what_is_known_about_a_connection(alone: Peer, start_peer: StartPeer) -> Answers:
    """ConnectServerInfo and ConnectFlags say what a connection is, while its server lives and afterwards."""
    server = Server(start_peer())
    attach = Party(alone).make
    x = attach("ConnectAttach", 0, server.pid, server.chid, 0, 0)
    y = attach("ConnectAttach", 0, server.pid, server.chid, 0, NTO_COF_CLOEXEC)
    # Before the server receives anything: then it would take note of the client.
    before = alone.run(scoid_known, x)
    answering = server.peer.start(answer, server.chid, 1)
    yield from played(alone, describe_use, x, before)
    answering.result()
    answering = server.peer.start(answer, server.chid, 7)
    yield from played(alone, describe_connection, server.pid, server.chid, x, y)
    answering.result()
    server.kill()
    yield from played(alone, describe_dead_connection, server.pid, server.chid, x)


def send_and_wait(qnx: Any, coid: int) -> int:
    """In another process, in its main thread: send a message."""
    return int(qnx.MsgSend(coid, b"message"))


@measured("CC01", "CC02", "CC03", "CC04", "CC05", "CC06", "CC07")
def test_what_a_server_knows_about_a_client(qnx: Any, peer: Peer) -> Answers:
    """ConnectClientInfo, and what comes with a message, while the client lives and afterwards."""
    chid = qnx.ChannelCreate(0)
    coid = Client(qnx, Task, peer).attach(chid)
    call = peer.begin(send_and_wait, coid)
    found = receive(qnx, chid)
    info, scoid = found.info, found.info.scoid
    client = qnx.ConnectClientInfo(scoid)
    yield (
        "CC01",
        " ".join(
            (
                str(client.nd),
                "client" if client.pid == peer.pid else str(client.pid),
                hex(client.flags),
                # On a host, a session that began outside of this PID namespace has number 0.
                "some" if client.sid == os.getsid(peer.pid) else "another",
            )
        ),
    )
    yield "CC02", "own" if qnx.ConnectClientInfo(-1).pid == os.getpid() else "another"
    yield "CC03", listed(qnx.ConnectClientInfo, (999, 0), " ")
    sides = ["side" if is_side(number) else "plain" for number in (info.scoid, info.coid)]
    pid, ours = ("client" if info.pid == peer.pid else "another"), ("ours" if info.chid == chid else "another")
    yield "CC04", f"{pid} {' '.join(sides)} {info.tid} {ours}"
    yield "CC05", told(qnx.ConnectDetach, scoid)
    qnx.MsgReply(found.rcvid, 0)
    call.result()
    peer.kill()
    # Nobody tells of it on this channel, and a host may need a moment to know that the client is gone.
    yield "CC06", said_at_last(lambda: qnx.ConnectClientInfo(scoid))
    yield "CC07", told(qnx.ConnectDetach, scoid)


# How many there can be.


def attach_all(qnx: Any, limit: int) -> Answers:
    """Attach until there is no number left."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    chid, error = qnx.ChannelCreate(0), ""
    for _ in range(5 * limit):
        try:
            qnx.ConnectAttach(0, 0, chid, 0, 0)
        except OSError as refused:
            error = failed(refused)
            break
    yield "CL01", error.replace("-1 ", "") or "none"
    yield "CL03", told(os.pipe)


@measured("CL01", "CL03")
def test_a_process_has_as_many_connections_as_descriptors(alone: Peer) -> Answers:
    """Connections and descriptors are one table, and it has an end."""
    yield from played(alone, attach_all, 1000)
