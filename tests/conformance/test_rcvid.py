"""The rcvid: what names a message until it is answered, and what it is worth afterwards."""

import signal
from errno import EINTR, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, List, Optional, Tuple

import pytest

from ha_qnx import (
    NTO_CHF_DISCONNECT,
    NTO_TIMEOUT_REPLY,
    PULSE_CODE_DISCONNECT,
    MessageInfo,
    Pulse,
)

from .clients import Client, Start, transact
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer

ANSWERS: Dict[str, Callable[[Any, int], object]] = {
    "MsgReply": lambda qnx, rcvid: qnx.MsgReply(rcvid, 0, b"reply"),
    "MsgReply-empty": lambda qnx, rcvid: qnx.MsgReply(rcvid, 0),
    "MsgReply-large": lambda qnx, rcvid: qnx.MsgReply(rcvid, 0, bytes(100_000)),
    "MsgReplyv": lambda qnx, rcvid: qnx.MsgReplyv(rcvid, 0, [b"re", b"ply"]),
    "MsgError": lambda qnx, rcvid: qnx.MsgError(rcvid, 5),
}

# Every call that takes a rcvid; first those that would leave a message as it is.
USES: Dict[str, Callable[[Any, int], object]] = {
    "MsgInfo": lambda qnx, rcvid: qnx.MsgInfo(rcvid),
    "MsgRead": lambda qnx, rcvid: qnx.MsgRead(rcvid, bytearray(5), 0),
    "MsgReadv": lambda qnx, rcvid: qnx.MsgReadv(rcvid, [bytearray(5)], 0),
    "MsgWrite": lambda qnx, rcvid: qnx.MsgWrite(rcvid, b"reply", 0),
    "MsgWritev": lambda qnx, rcvid: qnx.MsgWritev(rcvid, [b"reply"], 0),
    **ANSWERS,
}


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


def errno_of(use: Callable[[Any, int], object], qnx: Any, rcvid: int) -> Optional[int]:
    """How a use of a rcvid fails; None if it does not."""
    try:
        use(qnx, rcvid)
    except OSError as error:
        return error.errno
    return None


def expect_stale(qnx: Any, rcvid: int) -> None:
    """No call takes the rcvid any more."""
    assert {name: errno_of(use, qnx, rcvid) for name, use in USES.items()} == dict.fromkeys(USES, ESRCH)


@checks("B112", "B113", "B122")
def test_a_message_has_a_rcvid_and_a_pulse_has_none(qnx: Any, client: Client) -> None:
    """MsgReceive returns a positive number for a message, and 0 for a pulse, which nobody can answer."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid))
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert rcvid > 0
    qnx.MsgReply(rcvid, 0)
    call.result()
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 2)
    assert qnx.MsgReceive(chid, bytearray(100)) == 0
    expect_stale(qnx, 0)


@checks("B125")
@open_point("D23")
def test_a_rcvid_is_a_plain_number(qnx: Any, start: Start) -> None:
    """A rcvid is an int, whatever its width is in C."""
    chid = qnx.ChannelCreate(0)
    start(transact, qnx, qnx.ConnectAttach(0, 0, chid), b"message", 0)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert type(rcvid) is int
    qnx.MsgReply(rcvid, 0)


@checks("B114")
def test_unanswered_messages_have_different_rcvids(qnx: Any, start: Start) -> None:
    """Messages that wait for an answer at the same time are told apart, over all channels of a process."""
    rcvids: List[int] = []
    for _ in range(3):
        chid = qnx.ChannelCreate(0)
        coid = qnx.ConnectAttach(0, 0, chid)
        for _ in range(3):
            start(transact, qnx, coid, b"message", 0)
            rcvids.append(qnx.MsgReceive(chid, bytearray(100)))
    assert len(set(rcvids)) == 9
    for rcvid in rcvids:
        qnx.MsgReply(rcvid, 0)


@checks("B116", "B134", "B150", "B174")
@pytest.mark.parametrize("answer", ["MsgReply", "MsgReply-large", "MsgReplyv", "MsgError"])
def test_an_answered_rcvid_is_stale(qnx: Any, client: Client, answer: str) -> None:
    """Once a message is answered, its rcvid is ESRCH for every call."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for room in (0, 5, 100_000):
        call = client.send(coid, room=room)
        rcvid = qnx.MsgReceive(chid, bytearray(100))
        assert USES[answer](qnx, rcvid) == 0
        expect_stale(qnx, rcvid)
        if answer == "MsgError":
            assert call.errno() == 5
        else:
            call.result()
        expect_stale(qnx, rcvid)


def send_again_and_again(qnx: Any, coid: int, count: int) -> List[Tuple[int, bytes]]:
    """Send messages from one thread."""
    return [transact(qnx, coid, b"message", 5) for _ in range(count)]


@checks("B115", "B117", "B150")
@open_point("D16")
def test_an_answered_rcvid_does_not_stand_for_the_next_message(qnx: Any, client: Client) -> None:
    """When a thread sends again, what named its first message does not name the second one.

    The second message stays unanswered, and its data and its reply buffer untouched.
    """
    chid = qnx.ChannelCreate(0)
    call = client.start(send_again_and_again, client.attach(chid), 3)
    stale: List[int] = []
    for status in range(3):
        rcvid = qnx.MsgReceive(chid, bytearray(100))
        assert rcvid not in stale
        for old in stale:
            expect_stale(qnx, old)
        qnx.MsgReply(rcvid, status, b"ok")
        stale.append(rcvid)
    assert call.result() == [(status, b"ok...") for status in range(3)]


@checks("B123")
def test_a_message_that_is_not_received_cannot_be_answered(qnx: Any, client: Client) -> None:
    """What named the former message of a thread does nothing to its next one, which is not received yet."""
    chid = qnx.ChannelCreate(0)
    call = client.start(send_again_and_again, client.attach(chid), 2)
    first = qnx.MsgReceive(chid, bytearray(100))
    qnx.MsgReply(first, 1)
    call.wait_until_blocked()
    expect_stale(qnx, first)
    qnx.MsgReply(qnx.MsgReceive(chid, bytearray(100)), 2)
    assert call.result() == [(1, b"....."), (2, b".....")]


def send_until_a_signal(qnx: Any, coid: int) -> Tuple[int, bytes]:
    """Send a message that a signal handler interrupts."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    return transact(qnx, coid, b"message", 5)


@checks("B118", "B150", "B180")
def test_the_rcvid_of_an_interrupted_client_is_stale(qnx: Any, start: Start, peer: Peer) -> None:
    """A client whom a signal has freed is not there any more to be answered."""
    chid = qnx.ChannelCreate(0)
    call = peer.begin(send_until_a_signal, Client(qnx, start, peer).attach(chid))
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    call.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert call.errno() == EINTR
    expect_stale(qnx, rcvid)


def send_with_timeout(qnx: Any, coid: int) -> Tuple[int, bytes]:
    """Send a message, and wait a hundredth of a second for the reply."""
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, 10_000_000)
    return transact(qnx, coid, b"message", 5)


@checks("B118", "B150", "B181")
def test_the_rcvid_of_a_client_that_has_timed_out_is_stale(qnx: Any, client: Client) -> None:
    """A client that has waited long enough is not there any more to be answered."""
    chid = qnx.ChannelCreate(0)
    call = client.start(send_with_timeout, client.attach(chid))
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert call.errno() == ETIMEDOUT
    expect_stale(qnx, rcvid)


@checks("B119", "B174")
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("room", [5, 100_000], ids=["small", "large"])
def test_a_dead_client_cannot_be_answered(
    qnx: Any, start: Start, peer: Peer, answer: Callable[[Any, int], object], room: int
) -> None:
    """An answer to a client that was killed is ESRCH, though nobody has told the server yet."""
    chid = qnx.ChannelCreate(0)
    client = Client(qnx, start, peer)
    client.send(client.attach(chid), room=room)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    peer.kill()
    with fails_with(ESRCH):
        answer(qnx, rcvid)


@checks("B119", "B150", "B174")
@pytest.mark.parametrize("room", [5, 100_000], ids=["small", "large"])
def test_the_rcvid_of_a_dead_client_is_stale(qnx: Any, start: Start, peer: Peer, room: int) -> None:
    """The message of a client that was killed is gone: no call takes its rcvid, though nobody has told the server."""
    chid = qnx.ChannelCreate(0)
    client = Client(qnx, start, peer)
    client.send(client.attach(chid), room=room)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    assert qnx.MsgRead(rcvid, bytearray(7), 0) == 7
    peer.kill()
    expect_stale(qnx, rcvid)


@checks("B120", "B174")
def test_the_rcvid_of_a_client_that_has_left_is_stale(qnx: Any, start: Start, peer: Peer) -> None:
    """Once the disconnect pulse of a client is received, none of its messages can be answered."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client = Client(qnx, start, peer)
    coid = client.attach(chid)
    client.send(coid, room=5)
    client.send(coid, room=100_000)
    rcvids = [qnx.MsgReceive(chid, bytearray(100)) for _ in range(2)]
    peer.kill()
    pulse = Pulse()
    assert qnx.MsgReceive(chid, pulse) == 0
    assert pulse.code == PULSE_CODE_DISCONNECT
    for rcvid in rcvids:
        expect_stale(qnx, rcvid)


@checks("B121", "B134", "B150")
def test_a_rcvid_that_was_made_up_is_nobodys(qnx: Any, client: Client) -> None:
    """A number that MsgReceive never returned is ESRCH, and disturbs no message that is under way."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    call = client.send(coid, room=5)
    info = MessageInfo()
    rcvid = qnx.MsgReceive(chid, bytearray(100), info)
    for wrong in (rcvid + 1, rcvid - 1, rcvid ^ 0x10000, 1, -1, -rcvid, info.scoid, coid, 2**31 - 1):
        expect_stale(qnx, wrong)
    qnx.MsgReply(rcvid, 7, b"reply")
    assert call.result() == (7, b"reply")


def use_foreign_rcvid(qnx: Any, rcvid: int) -> None:
    """Use the rcvid of another process."""
    expect_stale(qnx, rcvid)


@checks("B124")
def test_a_rcvid_means_nothing_in_another_process(qnx: Any, start: Start, peer: Peer) -> None:
    """Another process cannot answer a message with the rcvid that this one has received."""
    chid = qnx.ChannelCreate(0)
    task = start(transact, qnx, qnx.ConnectAttach(0, 0, chid), b"message", 5)
    rcvid = qnx.MsgReceive(chid, bytearray(100))
    peer.run(use_foreign_rcvid, rcvid)
    qnx.MsgReply(rcvid, 7, b"reply")
    assert task.result() == (7, b"reply")
