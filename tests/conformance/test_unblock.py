"""NTO_CHF_UNBLOCK: servers that are asked to free a client, and decide when and how."""

import os
import signal
from errno import EINTR, EIO, ESRCH, ETIMEDOUT
from typing import Any, Iterator, List, Optional, Tuple

import pytest

from ha_qnx import (
    EOK,
    NTO_CHF_DISCONNECT,
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_UNBLOCK,
    NTO_MI_UNBLOCK_REQ,
    NTO_TIMEOUT_RECEIVE,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
    Pulse,
)

from .clients import Call, Client, Start, take_priority
from .cradle import PeerPool
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import assert_nothing_waits, receive_message, receive_pulse

# Nanoseconds of a timeout that is to expire, but not before a test has done what has to come first.
SHORT = 150_000_000

handled: List[int] = []


def note(number: int, _frame: object) -> None:
    handled.append(number)


def send(
    qnx: Any, pid: int, chid: int, limit: bool, message: bytes, room: int, following: Optional[bytes] = None
) -> Tuple[int, bytes]:
    """Send a message on a new connection, with a short limit to the wait for the answer, and then perhaps another."""
    coid = qnx.ConnectAttach(0, pid, chid)
    reply = bytearray(room)
    if limit:
        qnx.TimerTimeout(NTO_TIMEOUT_REPLY, SHORT)
    status = qnx.MsgSend(coid, message, reply)
    if following is not None:
        qnx.MsgSend(coid, following, None)
    return status, bytes(reply)


def send_with_handler(
    qnx: Any, pid: int, chid: int, used: bool, message: bytes, room: int, following: Optional[bytes] = None
) -> Tuple[int, bytes]:
    """The same by a thread that handles signals, of which one comes before the message is answered."""
    signal.signal(signal.SIGUSR1, note)
    signal.signal(signal.SIGUSR2, note)
    coid = qnx.ConnectAttach(0, pid, chid)
    reply = bytearray(room)
    if used:
        qnx.MsgSend(coid, b"hello", reply)
    status = qnx.MsgSend(coid, message, reply)
    assert handled, "the call has ended before the signal handler ran"
    if following is not None:
        qnx.MsgSend(coid, following, None)
    return status, bytes(reply)


class ImpatientClient:
    """A client that asks to be freed: because of a signal, or of a timeout."""

    def __init__(self, qnx: Any, reason: str, start: Start, peer: Optional[Peer]) -> None:
        self._qnx = qnx
        self._start = start
        self._peer = peer
        self._is_signal = reason.startswith("signal")
        self._used = reason.endswith("used")
        self.errno = EINTR if self._is_signal else ETIMEDOUT

    def send(self, chid: int, message: bytes = b"message", room: int = 10, following: Optional[bytes] = None) -> Call:
        """Begin to send a message to a channel of this process; the result will be the status and the reply buffer.

        A message that is to follow is sent on the same connection once the first has been answered.
        """
        if self._peer is None:
            return self._start(send, self._qnx, os.getpid(), chid, True, message, room, following)
        if not self._is_signal:
            return self._peer.start(send, os.getpid(), chid, True, message, room, following)
        sending = self._peer.begin(send_with_handler, os.getpid(), chid, self._used, message, room, following)
        if self._used:
            self._qnx.MsgReply(receive_message(self._qnx, chid), 0)
        return sending

    def lose_patience(self, sending: Call) -> None:
        """See to it that the client wants to be freed; a timeout expires by itself."""
        sending.wait_until_blocked()
        if self._peer and self._is_signal:
            self._peer.signal(signal.SIGUSR1)


@pytest.fixture(scope="module")
def other(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Peer]:
    """One other process for all clients that time out, which leave nothing in it but connections."""
    peer = pool.take(backends[1])
    yield peer
    peer.close()


@pytest.fixture(params=["signal", "signal-used", "timeout", "timeout-near"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start, other: Peer) -> ImpatientClient:
    """A client that is interrupted, on a new connection and on a used one, and one that times out, there and here."""
    peers = {"timeout": other, "timeout-near": None}
    peer = peers[request.param] if request.param in peers else request.getfixturevalue("peer")
    return ImpatientClient(qnx, request.param, start, peer)


def receive_request(qnx: Any, chid: int) -> Pulse:
    """The next item of a channel, which has to be an unblock pulse."""
    pulse = receive_pulse(qnx, chid)
    assert pulse.code == PULSE_CODE_UNBLOCK
    return pulse


Answer = Tuple[Any, ...]

#: The calls that end a message with status 0, and what they are given after the rcvid.
ANSWERS: List[Answer] = [("MsgReply", 0), ("MsgReplyv", 0, None), ("MsgError", EOK)]


def answer_by(qnx: Any, rcvid: int, answer: Answer) -> int:
    call, *args = answer
    result: int = getattr(qnx, call)(rcvid, *args)
    return result


# What the server is told.


@checks("B183", "B184", "B195", "B227")
def test_the_server_is_asked_and_the_client_waits(qnx: Any, client: ImpatientClient) -> None:
    """A client that wants to be freed gives one pulse, with its scoid and its rcvid, and waits until it is answered."""
    chid, info = qnx.ChannelCreate(NTO_CHF_UNBLOCK), MessageInfo()
    sending = client.send(chid)
    rcvid = receive_message(qnx, chid, None, info)
    client.lose_patience(sending)
    pulse = receive_request(qnx, chid)
    assert (pulse.value.sival_int, pulse.scoid) == (rcvid, info.scoid)
    sending.wait_until_blocked()
    assert_nothing_waits(qnx, chid)
    qnx.MsgReply(rcvid, 0)
    sending.result()


@checks("B183")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivePulse"])
def test_a_receiver_that_waits_is_asked(qnx: Any, start: Start, client: ImpatientClient, call: str) -> None:
    """The unblock pulse ends the wait of a receiver."""
    chid, pulse = qnx.ChannelCreate(NTO_CHF_UNBLOCK), Pulse()
    sending = client.send(chid)
    rcvid = receive_message(qnx, chid)
    receiving = start(getattr(qnx, call), chid, pulse).wait_until_blocked_or_done()
    client.lose_patience(sending)
    assert receiving.result() == 0
    assert (pulse.code, pulse.value.sival_int) == (PULSE_CODE_UNBLOCK, rcvid)
    qnx.MsgReply(rcvid, 0)
    sending.result()


def send_with_priority(qnx: Any, priority: int, pid: int, chid: int) -> Tuple[int, bytes]:
    """The same by a thread of a certain priority."""
    take_priority(qnx, priority)
    return send_with_handler(qnx, pid, chid, False, b"message", 10)


@checks("B184")
@pytest.mark.parametrize("priority", [5, 10, 30])
def test_an_unblock_pulse_has_the_priority_of_its_client(qnx: Any, peer: Peer, priority: int) -> None:
    """The pulse is received after those of a higher and before those of a lower priority than its client's."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK | NTO_CHF_FIXED_PRIORITY)
    sending = peer.begin(send_with_priority, priority, os.getpid(), chid)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    sending.wait_until_blocked()
    coid = qnx.ConnectAttach(0, 0, chid)
    for difference in (-1, 1):
        qnx.MsgSendPulse(coid, priority + difference, 1, difference)
    assert [receive_pulse(qnx, chid).value.sival_int for _ in range(3)] == [1, rcvid, -1]
    qnx.MsgReply(rcvid, 0)
    sending.result()


@checks("B191", "B153")
@pytest.mark.parametrize("received", [False, True], ids=["pulse-waits", "pulse-received"])
def test_the_flags_of_a_message_show_the_request(qnx: Any, peer: Peer, received: bool) -> None:
    """MsgInfo shows NTO_MI_UNBLOCK_REQ as soon as a client wants to be freed, be the pulse received or not."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = peer.begin(send_with_handler, os.getpid(), chid, False, b"message", 10)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    assert not qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ
    peer.signal(signal.SIGUSR1)
    if received:
        receive_request(qnx, chid)
    sending.wait_until_blocked()
    assert qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ
    qnx.MsgReply(rcvid, 0)
    sending.result()


@checks("B153")
def test_the_next_message_is_no_request(qnx: Any, client: ImpatientClient) -> None:
    """A request ends with its message: the client's next message on the same connection comes without one."""
    chid, message, info = qnx.ChannelCreate(NTO_CHF_UNBLOCK), bytearray(20), MessageInfo()
    sending = client.send(chid, following=b"next")
    rcvid = receive_message(qnx, chid)
    client.lose_patience(sending)
    receive_request(qnx, chid)
    qnx.MsgReply(rcvid, 0)
    rcvid = receive_message(qnx, chid, message, info)
    assert message.startswith(b"next")
    assert info.flags & NTO_MI_UNBLOCK_REQ == qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ == 0
    qnx.MsgReply(rcvid, 0)
    sending.result()


# What the client gets.


@checks("B185", "B227")
@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
def test_an_answer_is_an_answer(qnx: Any, client: ImpatientClient, size: int) -> None:
    """A client that wanted to be freed and is answered by MsgReply gets status and data, and no error."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = client.send(chid, bytes(size), size)
    rcvid = receive_message(qnx, chid)
    client.lose_patience(sending)
    receive_request(qnx, chid)
    qnx.MsgWrite(rcvid, b"written", size - 7)
    qnx.MsgReply(rcvid, 7, b"abc")
    assert sending.result() == (7, b"abc" + bytes(size - 10) + b"written")


@checks("B186", "B227")
@pytest.mark.parametrize("number", [EINTR, EIO])
def test_the_server_chooses_the_error(qnx: Any, client: ImpatientClient, number: int) -> None:
    """A client that wanted to be freed fails with whatever the server gives to MsgError."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = client.send(chid)
    rcvid = receive_message(qnx, chid)
    client.lose_patience(sending)
    receive_request(qnx, chid)
    qnx.MsgError(rcvid, number)
    assert sending.errno() == number


@checks("B187", "B131", "B227", "B413")
def test_the_server_can_leave_the_reason_to_the_kernel(qnx: Any, client: ImpatientClient) -> None:
    """MsgError with -1 lets the client fail with the reason it had: EINTR for a signal, ETIMEDOUT for a timeout."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = client.send(chid)
    rcvid = receive_message(qnx, chid)
    client.lose_patience(sending)
    receive_request(qnx, chid)
    qnx.MsgError(rcvid, -1)
    assert sending.errno() == client.errno


def send_with_both_limits(qnx: Any, chid: int, nanoseconds: int) -> int:
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, nanoseconds)
    status: int = qnx.MsgSend(coid, b"message", None)
    return status


@checks("B187", "B227")
def test_both_limits_of_a_message_ask_the_server(qnx: Any, start: Start) -> None:
    """A timeout for sending and for the answer together asks the server, too, once it has the message."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    receiving = start(receive_message, qnx, chid).wait_until_blocked()
    sending = start(send_with_both_limits, qnx, chid, 10 * SHORT)
    rcvid = receiving.result()
    assert receive_request(qnx, chid).value.sival_int == rcvid
    qnx.MsgError(rcvid, -1)
    assert sending.errno() == ETIMEDOUT


class HandlerError(Exception):
    """What a signal handler raises."""


def fail(_number: int, _frame: object) -> None:
    raise HandlerError


def send_with_failing_handler(qnx: Any, pid: int, chid: int) -> str:
    signal.signal(signal.SIGUSR1, fail)
    coid = qnx.ConnectAttach(0, pid, chid)
    try:
        qnx.MsgSend(coid, b"message", bytearray(10))
    except HandlerError:
        return f"the handler's, and then {qnx.MsgSend(coid, b'message', bytearray(10))}"
    return "none"


@checks("B183", "D19")
def test_an_exception_of_a_signal_handler_comes_after_the_answer(qnx: Any, peer: Peer) -> None:
    """A signal handler that raises is no way around the server: its exception ends the call when that has answered."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = peer.begin(send_with_failing_handler, os.getpid(), chid)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert receive_request(qnx, chid).value.sival_int == rcvid
    sending.wait_until_blocked()
    assert_nothing_waits(qnx, chid)
    qnx.MsgReply(rcvid, 7)
    rcvid = receive_message(qnx, chid)
    qnx.MsgReply(rcvid, 8)
    assert sending.result() == "the handler's, and then 8"


def send_to_name(qnx: Any, name: str) -> int:
    signal.signal(signal.SIGUSR1, note)
    status: int = qnx.MsgSend(qnx.name_open(name), b"message")
    return status


@checks("B183", "B187", "B287", "D19")
def test_the_server_of_a_name_is_asked(qnx: Any, peer: Peer, name: str) -> None:
    """The channel of a name has NTO_CHF_UNBLOCK: a signal in the client waits for the server's answer."""
    chid = qnx.name_attach(name).chid
    sending = peer.begin(send_to_name, name)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert receive_request(qnx, chid).value.sival_int == rcvid
    sending.wait_until_blocked()
    qnx.MsgError(rcvid, -1)
    assert sending.errno() == EINTR


# Once is enough.


@checks("B188", "B195")
@pytest.mark.parametrize("received", [False, True], ids=["pulse-waits", "pulse-received"])
def test_a_server_is_asked_once_for_each_message(qnx: Any, peer: Peer, received: bool) -> None:
    """More signals give no more pulses: a client whose server does not answer cannot be interrupted."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = peer.begin(send_with_handler, os.getpid(), chid, False, b"message", 10)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    if received:
        receive_request(qnx, chid)
    for number in (signal.SIGUSR2, signal.SIGUSR1):
        sending.wait_until_blocked()
        peer.signal(number)
    sending.wait_until_blocked()
    if not received:
        receive_request(qnx, chid)
    assert_nothing_waits(qnx, chid)
    qnx.MsgReply(rcvid, 7)
    assert sending.result()[0] == 7


def send_with_handler_and_limit(qnx: Any, pid: int, chid: int) -> int:
    signal.signal(signal.SIGUSR1, note)
    coid = qnx.ConnectAttach(0, pid, chid)
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, 10 * SHORT)
    status: int = qnx.MsgSend(coid, b"message", None)
    return status


@checks("B188", "B187")
def test_a_timeout_after_a_signal_asks_nobody(qnx: Any, peer: Peer) -> None:
    """A timeout that expires when the client wants to be freed already gives no pulse; the first reason counts."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = peer.begin(send_with_handler_and_limit, os.getpid(), chid)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    receive_request(qnx, chid)
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 12 * SHORT)
    with fails_with(ETIMEDOUT):
        qnx.MsgReceive(chid, Pulse())
    sending.wait_until_blocked()
    qnx.MsgError(rcvid, -1)
    assert sending.errno() == EINTR


def send_twice_with_handler(qnx: Any, pid: int, chid: int) -> List[int]:
    signal.signal(signal.SIGUSR1, note)
    coid = qnx.ConnectAttach(0, pid, chid)
    return [qnx.MsgSend(coid, b"message", bytearray(10)) for _ in range(2)]


@checks("B189", "B135")
@pytest.mark.parametrize("answer", ANSWERS, ids=[call for call, *_args in ANSWERS])
def test_an_answer_takes_back_the_pulse(qnx: Any, peer: Peer, answer: Answer) -> None:
    """A client that is answered before its unblock pulse is received gives none; its connection stays as good."""
    chid, info = qnx.ChannelCreate(NTO_CHF_UNBLOCK), MessageInfo()
    sending = peer.begin(send_twice_with_handler, os.getpid(), chid)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    sending.wait_until_blocked()
    answer_by(qnx, rcvid, answer)
    rcvid = receive_message(qnx, chid, None, info)
    assert not info.flags & NTO_MI_UNBLOCK_REQ
    assert_nothing_waits(qnx, chid)
    assert not qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ
    qnx.MsgReply(rcvid, 8)
    assert sending.result() == [0, 8]


@checks("B190")
def test_a_pulse_that_was_received_may_be_stale(qnx: Any, start: Start, client: ImpatientClient) -> None:
    """When another thread has answered in the meantime, the rcvid of an unblock pulse is nothing any more: ESRCH."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = client.send(chid)
    rcvid = receive_message(qnx, chid)
    client.lose_patience(sending)
    stale = receive_request(qnx, chid).value.sival_int
    start(qnx.MsgReply, rcvid, 7).result()
    assert sending.result()[0] == 7
    for call, *args in (("MsgInfo",), ("MsgReply", 8), ("MsgError", -1)):
        with fails_with(ESRCH):
            getattr(qnx, call)(stale, *args)


# When the server is not asked.


def send_unheard(qnx: Any, pid: int, chid: int, used: bool, limit: bool) -> Tuple[int, int]:
    """Send a message that nobody receives, as the first or as the second one of a connection."""
    if not limit:
        signal.signal(signal.SIGUSR1, note)
    coid = qnx.ConnectAttach(0, pid, chid)
    if used:
        qnx.MsgSend(coid, b"heard", bytearray(10))
    if limit:
        qnx.TimerTimeout(NTO_TIMEOUT_SEND, 3 * SHORT)
    status: int = qnx.MsgSend(coid, b"unheard", bytearray(10))
    return status, len(handled)


@checks("B182")
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
@pytest.mark.parametrize("limit", [False, True], ids=["signal", "timeout"])
def test_a_server_that_has_not_received_is_not_asked(qnx: Any, peer: Peer, used: bool, limit: bool) -> None:
    """A SEND-blocked client is freed at once, by EINTR or ETIMEDOUT, and the server sees neither message nor pulse."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = peer.begin(send_unheard, os.getpid(), chid, used, limit)
    if used:
        qnx.MsgReply(receive_message(qnx, chid), 0)
    sending.wait_until_blocked()
    if not limit:
        peer.signal(signal.SIGUSR1)
    assert sending.errno() == (ETIMEDOUT if limit else EINTR)
    assert_nothing_waits(qnx, chid)


def serve(qnx: Any, chid: int) -> int:
    """Receive a message and the request to free its client, and do nothing about either."""
    receive_message(qnx, chid)
    code: int = receive_pulse(qnx, chid).code
    return code


def create_channel(qnx: Any, flags: int) -> int:
    chid: int = qnx.ChannelCreate(flags)
    return chid


@checks("B194", "B165")
def test_a_server_that_dies_frees_its_clients(qnx: Any, start: Start, peer: Peer) -> None:
    """A client that waits to be freed when its server is killed is freed, with ESRCH."""
    chid = peer.run(create_channel, NTO_CHF_UNBLOCK)
    serving = peer.start(serve, chid)
    sending = start(send, qnx, peer.pid, chid, True, b"message", 10)
    assert serving.result() == PULSE_CODE_UNBLOCK
    sending.wait_until_blocked()
    peer.kill()
    assert sending.errno() == ESRCH


@checks("B20", "B194")
def test_a_channel_that_is_destroyed_frees_its_clients(qnx: Any, client: ImpatientClient) -> None:
    """A client that waits to be freed when the channel is destroyed is freed, with ESRCH."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    sending = client.send(chid)
    receive_message(qnx, chid)
    client.lose_patience(sending)
    receive_request(qnx, chid)
    qnx.ChannelDestroy(chid)
    assert sending.errno() == ESRCH


# Clients that are killed.


@checks("B192", "D26")
@pytest.mark.parametrize("answer", ANSWERS, ids=[call for call, *_args in ANSWERS])
def test_the_message_of_a_killed_client_is_answered_first(qnx: Any, start: Start, peer: Peer, answer: Answer) -> None:
    """A client that is killed while it waits gives an unblock pulse; after the answer the disconnect pulse comes."""
    chid, info = qnx.ChannelCreate(NTO_CHF_UNBLOCK | NTO_CHF_DISCONNECT), MessageInfo()
    client = Client(qnx, start, peer)
    client.send(client.attach(chid))
    rcvid = receive_message(qnx, chid, None, info)
    peer.signal(signal.SIGKILL)
    pulse = receive_request(qnx, chid)
    assert (pulse.value.sival_int, pulse.scoid) == (rcvid, info.scoid)
    assert qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ
    assert answer_by(qnx, rcvid, answer) == 0
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, info.scoid)
    assert_nothing_waits(qnx, chid)
    with fails_with(ESRCH):
        qnx.MsgReply(rcvid, 0)


@checks("B192", "D26")
@open_point("D26")
def test_a_killed_client_can_be_answered_before_it_is_told_of(qnx: Any, start: Start, peer: Peer) -> None:
    """The answer succeeds, too, if the server has not received the unblock pulse, which is then gone."""
    chid, info = qnx.ChannelCreate(NTO_CHF_UNBLOCK | NTO_CHF_DISCONNECT), MessageInfo()
    client = Client(qnx, start, peer)
    client.send(client.attach(chid))
    rcvid = receive_message(qnx, chid, None, info)
    peer.kill()
    assert qnx.MsgReply(rcvid, 0, b"reply") == 0
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, info.scoid)
    assert_nothing_waits(qnx, chid)
