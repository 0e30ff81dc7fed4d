"""Connections: ConnectAttach, ConnectDetach, ConnectServerInfo, ConnectFlags, ConnectClientInfo."""

import contextlib
import itertools
import os
import resource
import signal
import time
from errno import EBADF, EINVAL, EMFILE, EPERM, ESRCH
from pathlib import Path
from typing import Any, Callable, List, Set, Tuple

import pytest

from ha_qnx import (
    ENOREMOTE,
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    NTO_COF_CLOEXEC,
    NTO_COF_DEAD,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
    SYSMGR_COID,
    ClientInfo,
    MessageInfo,
    Pulse,
)

from .clients import Client, Start, detach, expect_nothing_waits, transact
from .cradle import Born
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import become_another_program, free_numbers, is_descriptor, take_descriptors
from .waiting import Task, eventually

# A descriptor number far from those that the test runner uses.
HIGH = 200

SPACES = pytest.mark.parametrize("index", [0, NTO_SIDE_CHANNEL], ids=["descriptor", "side-channel"])


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


def receive(qnx: Any, chid: int, status: int = 0) -> MessageInfo:
    """Receive a message and answer it; what is known about it."""
    info = MessageInfo()
    rcvid = qnx.MsgReceive(chid, bytearray(100), info)
    assert rcvid > 0
    qnx.MsgReply(rcvid, status)
    return info


def receive_pulse(qnx: Any, chid: int) -> Pulse:
    """Receive a pulse."""
    pulse = Pulse()
    assert qnx.MsgReceive(chid, pulse) == 0, "a message came instead of a pulse"
    return pulse


def create_channel(qnx: Any, flags: int = 0) -> int:
    """A channel that receives nothing."""
    chid: int = qnx.ChannelCreate(flags)
    return chid


# ConnectAttach.


@checks("B31", "B32")
@pytest.mark.parametrize("own_pid", [lambda: 0, os.getpid], ids=["zero", "own"])
def test_a_process_can_connect_to_itself(qnx: Any, start: Start, own_pid: Callable[[], int]) -> None:
    """Process 0 is the calling process, and so is the process of its own number."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, own_pid(), chid)
    task = start(qnx.MsgSend, coid, b"message")
    info = receive(qnx, chid, 7)
    assert task.result() == 7
    assert (info.pid, info.coid) == (os.getpid(), coid)


@checks("B33", "B51")
def test_the_index_is_the_lowest_number_a_connection_may_have(qnx: Any) -> None:
    """A connection gets the lowest free descriptor number from the index on; a number that was freed comes back."""
    chid = qnx.ChannelCreate(0)
    expected = list(itertools.islice(free_numbers(HIGH), 3))
    coids = [qnx.ConnectAttach(0, 0, chid, HIGH) for _ in range(3)]
    assert coids == expected
    qnx.ConnectDetach(coids[1])
    assert qnx.ConnectAttach(0, 0, chid, coids[1]) == coids[1]
    qnx.ConnectDetach(coids[0])
    assert qnx.ConnectAttach(0, 0, chid, HIGH) == coids[0]


@checks("B34")
def test_connections_and_descriptors_are_one_number_space(qnx: Any) -> None:
    """A connection from index 0 on has the number that open() would give, and a descriptor is not given it again."""
    chid = qnx.ChannelCreate(0)
    lowest = next(free_numbers(0))
    coid = qnx.ConnectAttach(0, 0, chid, 0)
    assert coid == lowest
    fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)
    assert fd > coid
    qnx.ConnectDetach(coid)
    assert not is_descriptor(coid)


@checks("B35", "B52", "B437")
def test_a_side_channel_gets_the_lowest_free_slot(qnx: Any) -> None:
    """NTO_SIDE_CHANNEL is set in the number of a side channel; the other bits of the index mean nothing."""
    chid = qnx.ChannelCreate(0)
    coids = [qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL) for _ in range(3)]
    assert all(coid & NTO_SIDE_CHANNEL for coid in coids)
    assert coids == sorted(coids)
    qnx.ConnectDetach(coids[0])
    qnx.ConnectDetach(coids[1])
    assert qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL | 500) == coids[0]
    assert qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL) == coids[1]


@checks("B436")
@pytest.mark.parametrize("holder", ["dead", "file"])
def test_an_index_that_is_taken_gives_the_next_free_number(qnx: Any, holder: str, tmp_path: Path) -> None:
    """Whether a connection holds it whose server is gone, or a file."""
    chid = qnx.ChannelCreate(0)
    if holder == "dead":
        gone = qnx.ChannelCreate(0)
        taken = qnx.ConnectAttach(0, 0, gone, 20)
        qnx.ChannelDestroy(gone)
    else:
        taken = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    coid = qnx.ConnectAttach(0, 0, chid, taken)
    assert taken < coid < NTO_SIDE_CHANNEL
    assert not any(not is_descriptor(number) for number in range(taken, coid))


@checks("B36", "B62")
def test_the_first_side_channel_is_the_process_managers(qnx: Any, client: Client) -> None:
    """SYSMGR_COID is the side channel of slot 0: no other connection gets it, and nobody can detach it."""
    assert SYSMGR_COID == NTO_SIDE_CHANNEL
    assert client.attach(qnx.ChannelCreate(0)) > SYSMGR_COID
    with fails_with(EPERM):
        client.detach(SYSMGR_COID)


def send_pulse(qnx: Any, coid: int, code: int, value: int) -> None:
    """Send a pulse."""
    qnx.MsgSendPulse(coid, 10, code, value)


@checks("B37")
@SPACES
def test_both_kinds_of_connection_carry_the_same(qnx: Any, client: Client, index: int) -> None:
    """Messages and pulses go over a side channel as over a connection with a descriptor's number."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid, index)
    call = client.send(coid, b"message", 5)
    buffer = bytearray(7)
    info = MessageInfo()
    rcvid = qnx.MsgReceive(chid, buffer, info)
    qnx.MsgReply(rcvid, 3, b"reply")
    assert call.result() == (3, b"reply")
    assert (bytes(buffer), info.coid) == (b"message", coid)
    client.run(send_pulse, coid, 5, -6)
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.value.sival_int, pulse.scoid) == (5, -6, info.scoid)


@checks("B38", "B177")
def test_a_process_that_does_not_exist_cannot_be_connected_to(qnx: Any, peer: Peer) -> None:
    """A process that has ended, with nobody left to ask for its exit status, is ESRCH."""
    chid = peer.run(create_channel)
    peer.kill()
    with fails_with(ESRCH):
        qnx.ConnectAttach(0, peer.pid, chid)


@checks("B39", "B177")
def test_a_channel_that_does_not_exist_cannot_be_connected_to(qnx: Any, client: Client) -> None:
    """A number that is no channel of the target, never was or is no longer one, is ESRCH."""
    chid = qnx.ChannelCreate(0)
    for wrong in (chid + 1000, 0, -1):
        with fails_with(ESRCH):
            client.attach(wrong)
    qnx.ChannelDestroy(chid)
    with fails_with(ESRCH):
        client.attach(chid)


@checks("B39", "B13")
def test_the_channel_of_one_process_is_none_of_another(qnx: Any, peer: Peer) -> None:
    """A channel is looked up in the process that was named, not in the caller."""
    chid = max(qnx.ChannelCreate(0) for _ in range(20))
    with fails_with(ESRCH):
        qnx.ConnectAttach(0, peer.pid, chid)


@checks("B40")
def test_a_zombie_cannot_be_connected_to(qnx: Any, peer: Born) -> None:
    """A process that has ended but whose parent has not yet asked for its exit status is ESRCH."""
    chid = peer.run(create_channel)
    peer.become_a_zombie(by=signal.SIGKILL)
    with fails_with(ESRCH):
        qnx.ConnectAttach(0, peer.pid, chid)


@checks("B41")
@open_point("D21")
def test_there_are_no_other_nodes(qnx: Any) -> None:
    """A node other than 0 is ENOREMOTE, whatever process and channel are asked for."""
    chid = qnx.ChannelCreate(0)
    for pid, channel in ((0, chid), (os.getpid(), chid + 1000)):
        with fails_with(ENOREMOTE):
            qnx.ConnectAttach(1, pid, channel)


def attach_around_the_limit(qnx: Any) -> Tuple[int, int]:
    """Attach at the last number that the limit of descriptors allows; the number, and the errno for the next one."""
    limit = 128
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    chid = qnx.ChannelCreate(0)
    last = qnx.ConnectAttach(0, 0, chid, limit - 1)
    try:
        qnx.ConnectAttach(0, 0, chid, limit)
    except OSError as error:
        return last, error.errno or 0
    return last, 0


@checks("B42", "B353")
def test_an_index_beyond_the_limit_of_descriptors_is_refused(peer: Peer) -> None:
    """The limit of descriptors bounds the index, too: from the limit on it is EINVAL, below it is as good as any."""
    assert peer.run(attach_around_the_limit) == (127, EINVAL)


def attach_until_refused(qnx: Any, indices: List[int]) -> Tuple[int, int, int, int]:
    """Use up all connections that the limit of descriptors allows, and then detach one.

    Returns:
        The limit, how many connections there were room for, the errno of the refusal, and the status of a message on
        the connection that was made after the detaching.
    """
    limit = 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    chid = qnx.ChannelCreate(0)
    coids: List[int] = []
    refusal = 0
    for index in itertools.islice(itertools.cycle(indices), 2 * limit):
        try:
            coids.append(qnx.ConnectAttach(0, 0, chid, index))
        except OSError as error:
            refusal = error.errno or 0
            break
    count = len(coids)
    for _ in range(min(count, 20)):
        qnx.ConnectDetach(coids.pop())
    coid = qnx.ConnectAttach(0, 0, chid, indices[0])
    return limit, count, refusal, qnx.MsgSendPulse(coid, 10, 0, 0)


@checks("B43", "B353")
@pytest.mark.parametrize(
    "indices",
    [[0], [NTO_SIDE_CHANNEL], [0, NTO_SIDE_CHANNEL]],
    ids=["descriptors", "side-channels", "both"],
)
def test_connections_are_limited_like_descriptors(peer: Peer, indices: List[int]) -> None:
    """There are no more connections than the limit of descriptors allows: one more is EMFILE, of whatever kind.

    As soon as some are detached, there is room again.
    """
    limit, count, refusal, status = peer.run(attach_until_refused, indices)
    assert refusal == EMFILE
    assert 1 <= count <= limit
    assert status == 0


@checks("B44")
@pytest.mark.parametrize("flag", [1 << 12, 1 << 30], ids=hex)
def test_an_unknown_flag_of_a_connection_is_refused(qnx: Any, flag: int) -> None:
    """A flag that no release of QNX knows is EINVAL, and takes no number."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ConnectDetach(coid)
    with fails_with(EINVAL):
        qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, flag)
    assert qnx.ConnectAttach(0, 0, chid) == coid


def clients_seen(qnx: Any, client: Client, chid: int, coids: List[int]) -> List[int]:
    """The scoids with which messages on some connections arrive; the coids with which they arrive are the same."""
    scoids = []
    for coid in coids:
        call = client.send(coid)
        info = receive(qnx, chid)
        call.result()
        assert info.coid == coid
        scoids.append(info.scoid)
    return scoids


@checks("B46")
@SPACES
def test_connections_of_one_process_to_one_channel_are_one_client(qnx: Any, client: Client, index: int) -> None:
    """A second connection of a process to a channel has a number of its own, but the server sees the same scoid."""
    chid = qnx.ChannelCreate(0)
    coids = [client.attach(chid, index) for _ in range(3)]
    assert len(set(coids)) == 3
    assert len(set(clients_seen(qnx, client, chid, coids))) == 1


@checks("B47")
def test_a_connection_can_be_a_client_of_its_own(qnx: Any, client: Client) -> None:
    """With NTO_COF_NOSHARE a connection has a scoid of its own."""
    chid = qnx.ChannelCreate(0)
    coids = [client.attach(chid, flags=flags) for flags in (0, NTO_COF_NOSHARE, NTO_COF_NOSHARE, 0)]
    shared, alone, alone_too, shared_too = clients_seen(qnx, client, chid, coids)
    assert shared == shared_too
    assert len({shared, alone, alone_too}) == 3


@checks("B48")
def test_every_process_is_a_client_of_its_own(qnx: Any, start: Start, start_peer: Callable[[], Peer]) -> None:
    """The scoid tells client processes apart; side channels and clients have the bit of side channels set."""
    chid = qnx.ChannelCreate(0)
    clients = [Client(qnx, start, peer) for peer in (None, start_peer(), start_peer())]
    scoids: Set[int] = set()
    for client in clients:
        scoids.update(clients_seen(qnx, client, chid, [client.attach(chid)]))
    assert len(scoids) == 3
    assert all(scoid > NTO_SIDE_CHANNEL for scoid in scoids)


@checks("B49")
def test_the_server_is_not_told_of_a_connection(qnx: Any, client: Client) -> None:
    """ConnectAttach sends nothing, whatever the flags of the channel are."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK)
    client.attach(chid)
    client.attach(chid, 0)
    expect_nothing_waits(qnx, chid)


def next_value(qnx: Any, chid: int) -> int:
    """Receive a pulse; its value."""
    value: int = receive_pulse(qnx, chid).value.sival_int
    return value


@checks("B49")
def test_connecting_does_not_wait_for_the_server(qnx: Any, peer: Peer) -> None:
    """ConnectAttach returns though the server never receives, as often as it is called."""
    chid = peer.run(create_channel)
    for _ in range(180):
        coid = qnx.ConnectAttach(0, peer.pid, chid, NTO_SIDE_CHANNEL, NTO_COF_NOSHARE)
    qnx.MsgSendPulse(coid, 10, 1, 180)
    assert peer.run(next_value, chid) == 180


def send_and_exec(qnx: Any, coid: int) -> None:
    """In another process: send a message, and become a program that knows nothing of ours."""
    qnx.MsgSend(coid, b"message")
    become_another_program()


@checks("B50")
def test_exec_closes_a_connection_that_is_close_on_exec(qnx: Any, start: Start, peer: Peer) -> None:
    """The server loses the client when the client becomes another program, though the process lives on."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = Client(qnx, start, peer).attach(chid, 0, NTO_COF_CLOEXEC)
    peer.begin(send_and_exec, coid)
    scoid = receive(qnx, chid).scoid
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, scoid)
    assert peer.process.poll() is None


# ConnectDetach.


@checks("B53", "B54", "B176")
@SPACES
def test_a_connection_can_be_detached_once(qnx: Any, client: Client, index: int) -> None:
    """ConnectDetach returns 0; the number is no connection any more, which is EINVAL."""
    coid = client.attach(qnx.ChannelCreate(0), index)
    assert client.detach(coid) == 0
    with fails_with(EINVAL):
        client.detach(coid)


@checks("B54", "B176")
@pytest.mark.parametrize("wrong", [-1, -(2**31), 1000, NTO_SIDE_CHANNEL | 1000, 2**31 - 1])
def test_what_is_no_connection_cannot_be_detached(qnx: Any, wrong: int) -> None:
    """ConnectDetach of a number that never was a connection is EINVAL."""
    qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    with fails_with(EINVAL):
        qnx.ConnectDetach(wrong)


def destroy_channel(qnx: Any, chid: int) -> None:
    """End a channel."""
    qnx.ChannelDestroy(chid)


@checks("B55", "B169")
@SPACES
@pytest.mark.parametrize("end", ["destroyed", "killed"])
def test_a_dead_connection_can_be_detached(qnx: Any, peer: Peer, index: int, end: str) -> None:
    """A connection whose server is gone is still there until it is detached."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid, index)
    if end == "killed":
        peer.kill()
    else:
        peer.run(destroy_channel, chid)
    assert qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), coid) != coid
    assert qnx.ConnectDetach(coid) == 0
    with fails_with(EINVAL):
        qnx.ConnectDetach(coid)


@checks("B56", "B170")
@pytest.mark.parametrize("flags", [0, NTO_CHF_UNBLOCK], ids=["plain", "unblock"])
def test_detaching_frees_a_thread_whose_message_is_not_received(qnx: Any, client: Client, flags: int) -> None:
    """A SEND-blocked thread gets EBADF when its connection is detached, and the server never sees its message."""
    chid = qnx.ChannelCreate(flags)
    coid = client.attach(chid)
    call = client.send(coid).wait_until_blocked()
    assert client.detach(coid) == 0
    assert call.errno() == EBADF
    expect_nothing_waits(qnx, chid)


@checks("B57", "B170")
@pytest.mark.parametrize("room", [0, 100_000], ids=["small", "large"])
def test_detaching_frees_a_thread_that_waits_for_its_reply(qnx: Any, client: Client, room: int) -> None:
    """A REPLY-blocked thread gets EBADF at once when its connection is detached; nobody is left to be answered."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    call = client.send(coid, room=room)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert client.detach(coid) == 0
    assert call.errno() == EBADF
    with fails_with(ESRCH):
        qnx.MsgReply(rcvid, 0)


ROUNDS = 40


def detach_and_say_so(qnx: Any, pid: int, chid: int) -> None:
    """In another process: detach connections while a thread waits for its reply, and tell the server by another one."""
    other = qnx.ConnectAttach(0, pid, chid, NTO_SIDE_CHANNEL)
    for _round in range(ROUNDS):
        coid = qnx.ConnectAttach(0, pid, chid, NTO_SIDE_CHANNEL)
        waiting = Task(qnx.MsgSend_r, coid, b"held")
        qnx.MsgSend(other, b"what is held has been received")
        qnx.ConnectDetach(coid)
        qnx.MsgSendPulse(other, 10, 1, 0)
        assert waiting.result() == -EBADF


@checks("B57", "B174", "D132")
def test_what_was_detached_is_not_answered_any_more(qnx: Any, peer: Peer) -> None:
    """A server that is told of the ConnectDetach at once, and replies then, gets ESRCH, unless the client is slow."""
    chid = qnx.ChannelCreate(0)
    detaching = peer.begin(detach_and_say_so, os.getpid(), chid)
    answered = 0
    for _round in range(ROUNDS):
        rcvids = {}
        for _message in range(2):
            data = bytearray(100)
            rcvid = qnx.MsgReceive(chid, data)
            rcvids[bytes(data[:4])] = rcvid
        qnx.MsgReply(rcvids[b"what"], 0)
        receive_pulse(qnx, chid)
        with contextlib.suppress(ProcessLookupError):
            qnx.MsgReply(rcvids[b"held"], 0)
            answered += 1
    assert detaching.result() is None
    assert answered <= ROUNDS // 10


DESCRIPTORS = 100


def bound_descriptors(_qnx: Any) -> None:
    """Let the process have few descriptors, from the beginning."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def detach_without_descriptors(qnx: Any, coid: int) -> int:
    """Detach a connection while no descriptor is free."""
    taken = take_descriptors(DESCRIPTORS)
    try:
        return detach(qnx, coid)
    finally:
        for number in taken:
            os.close(number)


@checks("B57", "B170")
@pytest.mark.parametrize("received", [False, True], ids=["send-blocked", "reply-blocked"])
def test_detaching_needs_no_descriptor(qnx: Any, start: Start, peer: Peer, received: bool) -> None:
    """A process that has used up its descriptors can detach a side channel, which frees the thread that waits there."""
    chid, client = qnx.ChannelCreate(0), Client(qnx, start, peer)
    client.run(bound_descriptors)
    coid = client.attach(chid)
    call = client.send(coid).wait_until_blocked()
    if received:
        assert qnx.MsgReceive(chid, bytearray(100)) > 0
    assert client.run(detach_without_descriptors, coid) == 0
    assert call.errno() == EBADF


@checks("B58", "B170")
@pytest.mark.parametrize("room", [5, 100_000], ids=["small", "large"])
def test_detaching_asks_a_server_with_unblock_to_free_the_thread(qnx: Any, client: Client, room: int) -> None:
    """On a channel with NTO_CHF_UNBLOCK the server gets the unblock pulse, and the thread waits for its answer.

    The number of the connection is free at once.
    """
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    coid = client.attach(chid)
    call = client.send(coid, room=room)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert client.detach(coid) == 0
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.value.sival_int) == (PULSE_CODE_UNBLOCK, rcvid)
    call.wait_until_blocked()
    assert client.attach(chid) == coid
    qnx.MsgReply(rcvid, 7, b"reply")
    assert call.result() == (7, b"reply" + b"." * (room - 5))


def transact_for(qnx: Any, nanoseconds: int, coid: int, message: bytes, room: int) -> Tuple[int, bytes]:
    """The same as transact, with a timeout for the answer."""
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, nanoseconds)
    return transact(qnx, coid, message, room)


@checks("B58", "B183", "B185")
@pytest.mark.parametrize("first", ["timeout", "detach"])
@pytest.mark.parametrize("room", [5, 100_000], ids=["small", "large"])
def test_an_answer_that_comes_after_timeout_and_detach_is_received(
    qnx: Any, client: Client, room: int, first: str
) -> None:
    """A client that has two reasons to leave waits for a server that has not heard of either, and gets its answer."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    coid = client.attach(chid)
    call = client.start(transact_for, 200_000_000, coid, b"message", room)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    end = time.monotonic() + 0.25
    if first == "detach":
        client.detach(coid)
    eventually(lambda: time.monotonic() > end, "the end of the timeout")
    call.wait_until_blocked()
    if first == "timeout":
        client.detach(coid)
    call.wait_until_blocked()
    assert qnx.MsgReply(rcvid, 7, b"reply") == 0
    assert call.result() == (7, b"reply" + b"." * (room - 5))


@checks("B59")
def test_the_connections_of_a_client_end_one_by_one(qnx: Any, client: Client) -> None:
    """A client with two connections has not left when it detaches one: the other one works, and no pulse comes."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    first, second = client.attach(chid), client.attach(chid, 0)
    (scoid,) = clients_seen(qnx, client, chid, [first])
    client.detach(first)
    expect_nothing_waits(qnx, chid)
    assert clients_seen(qnx, client, chid, [second]) == [scoid]


@checks("B60", "B61", "B201")
def test_the_number_of_a_client_is_taken_until_the_server_releases_it(
    qnx: Any, start: Start, start_peer: Callable[[], Peer]
) -> None:
    """ConnectDetach of a scoid is EINVAL while its client is there, and 0 once after the client has left.

    Until then no other client gets the number.
    """
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    clients = [Client(qnx, start, start_peer()) for _ in range(3)]
    (first,) = clients_seen(qnx, clients[0], chid, [clients[0].attach(chid)])
    with fails_with(EINVAL):
        qnx.ConnectDetach(first)
    os.kill(clients[0].pid, signal.SIGKILL)
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, first)
    (second,) = clients_seen(qnx, clients[1], chid, [clients[1].attach(chid)])
    assert second != first
    assert qnx.ConnectDetach(first) == 0
    with fails_with(EINVAL):
        qnx.ConnectDetach(first)
    (third,) = clients_seen(qnx, clients[2], chid, [clients[2].attach(chid)])
    assert third == first


@checks("B60")
def test_a_client_of_the_own_process_cannot_be_detached_by_its_scoid(qnx: Any, start: Start) -> None:
    """A scoid is no connection: detaching it is EINVAL, and leaves the client's connection alone."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client = Client(qnx, start, None)
    coid = client.attach(chid)
    (scoid,) = clients_seen(qnx, client, chid, [coid])
    with fails_with(EINVAL):
        qnx.ConnectDetach(scoid)
    assert clients_seen(qnx, client, chid, [coid]) == [scoid]


# ConnectServerInfo.


def server_info(qnx: Any, coid: int) -> Tuple[int, int, int, int, int, int, int]:
    """ConnectServerInfo, as plain numbers."""
    info = MessageInfo()
    found = qnx.ConnectServerInfo(0, coid, info)
    return found, info.nd, info.pid, info.chid, info.scoid, info.coid, info.flags


@checks("B63")
@SPACES
def test_the_servers_side_of_a_connection_is_described(qnx: Any, client: Client, index: int) -> None:
    """ConnectServerInfo returns the connection, and tells node, process, channel, scoid, coid and flags."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid, index, NTO_COF_NOSHARE)
    (seen,) = clients_seen(qnx, client, chid, [coid])
    found, nd, pid, channel, scoid, own, flags = client.run(server_info, coid)
    assert found == own == coid
    assert (nd, pid, channel, scoid) == (0, os.getpid(), chid, seen)
    assert flags & (NTO_COF_NOSHARE | NTO_COF_DEAD) == NTO_COF_NOSHARE


@checks("B63")
@open_point("D28")
def test_the_scoid_is_not_known_before_the_server_takes_note(qnx: Any, peer: Peer) -> None:
    """Until the server has received anything, ConnectServerInfo tells scoid 0, and all the rest as ever."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    found, nd, pid, channel, scoid, own, _flags = server_info(qnx, coid)
    assert (found, nd, pid, channel, scoid, own) == (coid, 0, peer.pid, chid, 0, coid)


@checks("B64", "B66")
def test_the_next_connection_is_found_where_there_is_none(qnx: Any) -> None:
    """ConnectServerInfo of a number that is no connection describes the next higher one, side channels last."""
    chid = qnx.ChannelCreate(0)
    side_channel = qnx.ConnectAttach(0, 0, chid)
    low = qnx.ConnectAttach(0, 0, chid, HIGH)
    high = qnx.ConnectAttach(0, 0, chid, HIGH + 20)
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, low, info) == info.coid == low
    assert qnx.ConnectServerInfo(0, low + 1, info) == info.coid == high
    assert qnx.ConnectServerInfo(0, low + 1) == high
    found = qnx.ConnectServerInfo(0, high + 1, info)
    assert NTO_SIDE_CHANNEL <= found == info.coid <= side_channel
    qnx.ConnectDetach(high)
    assert qnx.ConnectServerInfo(0, low + 1, info) == found


@checks("B65")
def test_behind_the_last_connection_there_is_none(qnx: Any) -> None:
    """ConnectServerInfo is EINVAL where there is no connection of that or a higher number; info is left alone."""
    qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    info = MessageInfo(coid=-77)
    with fails_with(EINVAL):
        qnx.ConnectServerInfo(0, NTO_SIDE_CHANNEL | 60_000, info)
    assert info.coid == -77


@checks("B67", "B68")
@pytest.mark.parametrize("end", ["destroyed", "killed"])
def test_a_dead_connection_is_passed_over_unless_it_is_to_be_described(qnx: Any, peer: Peer, end: str) -> None:
    """With info a dead connection is found, and has NTO_COF_DEAD; without, the search goes on to the next one."""
    chid = peer.run(create_channel)
    dead = qnx.ConnectAttach(0, peer.pid, chid, HIGH)
    alive = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), HIGH)
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, dead) == dead
    assert qnx.ConnectServerInfo(0, dead, info) == dead
    assert not info.flags & NTO_COF_DEAD
    if end == "killed":
        peer.kill()
    else:
        peer.run(destroy_channel, chid)
    assert qnx.ConnectServerInfo(0, dead) == alive
    assert qnx.ConnectServerInfo(0, dead, info) == info.coid == dead
    assert info.flags & NTO_COF_DEAD
    assert (info.pid, info.chid) == (peer.pid, chid)


@checks("B69")
def test_the_connections_of_a_process_that_does_not_exist(qnx: Any, peer: Peer) -> None:
    """ConnectServerInfo and ConnectFlags of a process that is not there are ESRCH; none has a negative number."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    peer.kill()
    for none in (peer.pid, -1, -os.getpgrp(), -(1 << 31)):
        with fails_with(ESRCH):
            qnx.ConnectServerInfo(none, coid, MessageInfo())
        with fails_with(ESRCH):
            qnx.ConnectFlags(none, coid, 0, 0)


@checks("B63", "B71")
def test_the_own_process_can_be_named_by_its_number(qnx: Any) -> None:
    """Process 0 is the calling one, and so is the process of its own number."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    assert qnx.ConnectServerInfo(os.getpid(), coid) == coid
    assert qnx.ConnectFlags(os.getpid(), coid, 0, 0) == qnx.ConnectFlags(0, coid, 0, 0)


# ConnectFlags.


@checks("B70", "B178")
@pytest.mark.parametrize("wrong", [-1, 1000, NTO_SIDE_CHANNEL | 1000])
def test_the_flags_of_what_is_no_connection(qnx: Any, wrong: int) -> None:
    """ConnectFlags of a number that is no connection is EBADF: it does not look for the next one."""
    qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    with fails_with(EBADF):
        qnx.ConnectFlags(0, wrong, 0, 0)


@checks("B71")
@SPACES
def test_flags_are_changed_where_the_mask_says(qnx: Any, index: int) -> None:
    """ConnectFlags returns the flags before, and gives the bits of the mask their new values."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), index, NTO_COF_NOSHARE)
    before = qnx.ConnectFlags(0, coid, 0, NTO_COF_CLOEXEC)
    assert before & NTO_COF_NOSHARE
    assert qnx.ConnectFlags(0, coid, NTO_COF_CLOEXEC, 0) == before
    assert qnx.ConnectFlags(0, coid, NTO_COF_CLOEXEC, NTO_COF_CLOEXEC) == before & ~NTO_COF_CLOEXEC
    assert qnx.ConnectFlags(0, coid, 0, 0) == before | NTO_COF_CLOEXEC
    info = MessageInfo()
    qnx.ConnectServerInfo(0, coid, info)
    assert info.flags == before | NTO_COF_CLOEXEC


@checks("B71")
def test_close_on_exec_is_that_of_the_descriptor(qnx: Any) -> None:
    """NTO_COF_CLOEXEC of a connection with a descriptor's number is the host's close-on-exec flag."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), 0, NTO_COF_CLOEXEC)
    assert not os.get_inheritable(coid)
    qnx.ConnectFlags(0, coid, NTO_COF_CLOEXEC, 0)
    assert os.get_inheritable(coid)
    qnx.ConnectFlags(0, coid, NTO_COF_CLOEXEC, NTO_COF_CLOEXEC)
    assert not os.get_inheritable(coid)


@checks("B71")
@pytest.mark.parametrize("before", [0, NTO_COF_CLOEXEC], ids=["kept", "close-on-exec"])
@pytest.mark.parametrize("call", ["dup", "dup2"])
def test_close_on_exec_of_a_duplicate_is_that_of_its_descriptor(qnx: Any, start: Start, call: str, before: int) -> None:
    """ConnectFlags tells of a duplicate what its own descriptor is, whatever the original's is."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid, 0)
    qnx.ConnectFlags(0, coid, NTO_COF_CLOEXEC, before)
    task = start(qnx.dup, coid) if call == "dup" else start(qnx.dup2, coid, next(free_numbers(HIGH)))
    receive(qnx, chid)
    copy = task.result()
    flag = 0 if os.get_inheritable(copy) else NTO_COF_CLOEXEC
    assert qnx.ConnectFlags(0, copy, 0, 0) & NTO_COF_CLOEXEC == flag


# ConnectClientInfo.


def expect_credentials(info: ClientInfo, pid: int) -> None:
    """The client is a process of the user that runs the tests."""
    assert (info.nd, info.pid, info.sid) == (0, pid, os.getsid(pid))
    assert (info.cred.ruid, info.cred.euid) == (os.getuid(), os.geteuid())
    assert (info.cred.rgid, info.cred.egid) == (os.getgid(), os.getegid())


@checks("B72")
def test_a_server_can_ask_who_its_client_is(qnx: Any, client: Client) -> None:
    """ConnectClientInfo tells process, session and credentials of a client."""
    chid = qnx.ChannelCreate(0)
    (scoid,) = clients_seen(qnx, client, chid, [client.attach(chid)])
    expect_credentials(qnx.ConnectClientInfo(scoid), client.pid)


@checks("B72")
def test_a_process_can_ask_who_it_is_itself(qnx: Any) -> None:
    """ConnectClientInfo of -1 is the calling process, with as many groups as were asked for and fit."""
    info = qnx.ConnectClientInfo(-1, 8)
    expect_credentials(info, os.getpid())
    groups = os.getgroups()[:8]
    assert info.cred.ngroups >= len(groups)
    assert list(info.cred.grouplist[: len(groups)]) == groups
    assert not any(qnx.ConnectClientInfo(-1, 0).cred.grouplist)


@checks("B72")
def test_there_is_nobody_behind_a_wrong_scoid(qnx: Any, client: Client) -> None:
    """ConnectClientInfo is EINVAL for what is no scoid, and for the scoid of a client that has left."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = client.attach(chid)
    (scoid,) = clients_seen(qnx, client, chid, [coid])
    for wrong in (0, scoid + 1000, scoid & ~NTO_SIDE_CHANNEL, qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))):
        with fails_with(EINVAL):
            qnx.ConnectClientInfo(wrong)
    client.detach(coid)
    assert receive_pulse(qnx, chid).code == PULSE_CODE_DISCONNECT
    qnx.ConnectDetach(scoid)
    with fails_with(EINVAL):
        qnx.ConnectClientInfo(scoid)
