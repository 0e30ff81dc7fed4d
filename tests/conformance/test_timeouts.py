"""Timeouts: TimerTimeout, and the calls that it ends with ETIMEDOUT."""

import os
import time
from errno import EBADF, ESRCH, ETIMEDOUT
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from ha_qnx import NTO_TIMEOUT_RECEIVE, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND, TIMER_ABSTIME

from .clients import Call, Client, Start
from .cradle import PeerPool
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import (
    PATIENCE,
    PULSE_SIZE,
    SHORT,
    assert_nothing_waits,
    outlast_timeouts,
    receive_message,
    receive_pulse,
)
from .waiting import Task

SEND_AND_REPLY = NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY

# Nanoseconds: what must not expire before a receiver that waits already has the message, waits longer than what is to
# expire.
ENOUGH_TO_BE_RECEIVED = 250_000_000

# More than the host can wait for at a time.
MONTH = 30 * 24 * 3600 * 1_000_000_000

RECEIVES = ["MsgReceive", "MsgReceivev", "MsgReceivePulse"]

#: What sends a message: the common way, a less common one, and one for what is large.
MESSAGES = {
    "bytes": ("MsgSend", b"message", bytearray(10)),
    "parts": ("MsgSendv", [b"mes", b"sage"], [bytearray(10)]),
    "large": ("MsgSend", bytes(100_000), bytearray(100_000)),
}


@pytest.fixture(scope="module")
def other(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Peer]:
    """One other process for all these tests, which leave nothing in it but connections."""
    peer = pool.take(backends[1])
    yield peer
    peer.close()


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start, other: Peer) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, other if request.param == "far" else None)


def limited(qnx: Any, flags: int, nanoseconds: Optional[int], call: Callable[..., int], *args: Any) -> int:
    """Make a call that has a timeout."""
    qnx.TimerTimeout(flags, nanoseconds)
    return call(*args)


def send(qnx: Any, pid: int, chid: int, flags: int, nanoseconds: Optional[int], kind: str = "bytes") -> int:
    """Send a message on a new connection, with a timeout."""
    call, smsg, rmsg = MESSAGES[kind]
    coid = qnx.ConnectAttach(0, pid, chid)
    return limited(qnx, flags, nanoseconds, getattr(qnx, call), coid, smsg, rmsg)


def receive(qnx: Any, call: str, chid: int) -> int:
    """Receive by one of the calls that can."""
    buffer = bytearray(PULSE_SIZE)
    result: int = getattr(qnx, call)(chid, [buffer] if call == "MsgReceivev" else buffer)
    return result


def send_all(client: Client, chid: int, flags: int, nanoseconds: Optional[int]) -> List[Call]:
    """Begin to send a message of each kind."""
    return [client.start(send, os.getpid(), chid, flags, nanoseconds, kind) for kind in MESSAGES]


def begin_to_receive(qnx: Any, start: Start, chid: int) -> List[Task]:
    """Threads that wait, one for a message of each kind."""
    return [start(receive, qnx, "MsgReceive", chid).wait_until_blocked() for _kind in MESSAGES]


# Sending.


@checks("B208")
@pytest.mark.parametrize("flags", [SEND_AND_REPLY, NTO_TIMEOUT_SEND], ids=["send-and-reply", "send"])
def test_the_wait_for_a_receiver_can_be_limited(qnx: Any, client: Client, flags: int) -> None:
    """A message that nobody receives in time fails with ETIMEDOUT, and is withdrawn: the server never sees it."""
    chid = qnx.ChannelCreate(0)
    assert [sending.errno() for sending in send_all(client, chid, flags, SHORT)] == [ETIMEDOUT] * len(MESSAGES)
    assert_nothing_waits(qnx, chid)


@checks("B208", "B181", "B118")
@pytest.mark.parametrize("flags", [SEND_AND_REPLY, NTO_TIMEOUT_REPLY], ids=["send-and-reply", "reply"])
def test_the_wait_for_an_answer_can_be_limited(qnx: Any, start: Start, client: Client, flags: int) -> None:
    """A message that nobody answers in time fails with ETIMEDOUT; the server is not told, and its answer is ESRCH."""
    chid = qnx.ChannelCreate(0)
    receiving = begin_to_receive(qnx, start, chid)
    sending = send_all(client, chid, flags, ENOUGH_TO_BE_RECEIVED)
    rcvids = [task.result() for task in receiving]
    assert [call.errno() for call in sending] == [ETIMEDOUT] * len(MESSAGES)
    assert_nothing_waits(qnx, chid)
    for rcvid in rcvids:
        with fails_with(ESRCH):
            qnx.MsgReply(rcvid, 0)


@checks("B208", "B221")
@pytest.mark.parametrize(
    "flags", [SEND_AND_REPLY, NTO_TIMEOUT_REPLY | TIMER_ABSTIME], ids=["for-both", "point-in-time"]
)
def test_the_wait_for_a_receiver_is_not_given_back(qnx: Any, start: Start, flags: int) -> None:
    """A limit that began before the message was received expires before a later one, which a new one would outlast."""
    chid, silent = qnx.ChannelCreate(0), qnx.ChannelCreate(0)
    limit = 10 * ENOUGH_TO_BE_RECEIVED + (time.monotonic_ns() if flags & TIMER_ABSTIME else 0)
    sending = start(send, qnx, os.getpid(), chid, flags, limit).wait_until_blocked()
    outlast_timeouts(qnx, 4 * ENOUGH_TO_BE_RECEIVED)
    receive_message(qnx, chid)
    with fails_with(ETIMEDOUT):
        send(qnx, os.getpid(), silent, NTO_TIMEOUT_SEND, 8 * ENOUGH_TO_BE_RECEIVED)
    assert sending.done
    assert sending.errno() == ETIMEDOUT


@checks("B208")
@pytest.mark.parametrize("limit", [PATIENCE, MONTH], ids=["short", "long"])
@pytest.mark.parametrize("flags", [SEND_AND_REPLY, NTO_TIMEOUT_SEND, NTO_TIMEOUT_REPLY], ids=["both", "send", "reply"])
def test_an_answer_in_time_is_an_answer(qnx: Any, client: Client, flags: int, limit: int) -> None:
    """A timeout that does not expire changes nothing, however far it is."""
    chid = qnx.ChannelCreate(0)
    sending = [call.wait_until_blocked() for call in send_all(client, chid, flags, limit)]
    rcvids = [receive_message(qnx, chid) for _ in sending]
    for call in sending:
        call.wait_until_blocked()
    for rcvid in rcvids:
        qnx.MsgReply(rcvid, 7, b"reply")
    assert [call.result() for call in sending] == [7] * len(MESSAGES)


@checks("B209")
def test_a_limit_for_sending_does_not_limit_the_answer(qnx: Any, start: Start, client: Client) -> None:
    """With NTO_TIMEOUT_SEND alone, a message that was received in time waits for its answer without a limit."""
    chid = qnx.ChannelCreate(0)
    receiving = begin_to_receive(qnx, start, chid)
    sending = send_all(client, chid, NTO_TIMEOUT_SEND, ENOUGH_TO_BE_RECEIVED)
    rcvids = [task.result() for task in receiving]
    outlast_timeouts(qnx, ENOUGH_TO_BE_RECEIVED)
    for call in sending:
        call.wait_until_blocked()
    for rcvid in rcvids:
        qnx.MsgReply(rcvid, 7)
    assert [call.result() for call in sending] == [7] * len(MESSAGES)


@checks("B210", "D37")
def test_a_limit_for_the_answer_does_not_limit_sending(qnx: Any, client: Client) -> None:
    """With NTO_TIMEOUT_REPLY alone, a message waits for its receiver without a limit, and from then on with one."""
    chid = qnx.ChannelCreate(0)
    sending = [call.wait_until_blocked() for call in send_all(client, chid, NTO_TIMEOUT_REPLY, SHORT)]
    outlast_timeouts(qnx)
    for call in sending:
        call.wait_until_blocked()
    for _call in sending:
        receive_message(qnx, chid)
    assert [call.errno() for call in sending] == [ETIMEDOUT] * len(MESSAGES)


@checks("B208", "B173")
@pytest.mark.parametrize("received", [False, True], ids=["send-blocked", "reply-blocked"])
@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_the_main_thread_is_limited_like_any_other(qnx: Any, start: Start, received: bool, kind: str) -> None:
    """The thread that runs Python's signal handlers gets ETIMEDOUT as the others do."""
    chid = qnx.ChannelCreate(0)
    receiving = start(receive, qnx, "MsgReceive", chid).wait_until_blocked() if received else None
    flags = NTO_TIMEOUT_REPLY if received else NTO_TIMEOUT_SEND
    with fails_with(ETIMEDOUT):
        send(qnx, os.getpid(), chid, flags, SHORT, kind)
    assert_nothing_waits(qnx, chid)
    if receiving:
        with fails_with(ESRCH):
            qnx.MsgReply(receiving.result(), 0)


def send_twice(qnx: Any, pid: int, chid: int, flags: int, told: int) -> List[Any]:
    """On one connection: what becomes of a message that has a timeout, and then of one that has none.

    A pulse on another channel tells that the first has timed out.
    """
    coid = qnx.ConnectAttach(0, pid, chid)
    reply = bytearray(10)
    qnx.TimerTimeout(flags, SHORT)
    with fails_with(ETIMEDOUT):
        qnx.MsgSend(coid, b"first", reply)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, pid, told), 10, 1, 1)
    return [qnx.MsgSend(coid, b"second", reply), bytes(reply)]


@checks("B173", "B208", "B212")
@pytest.mark.parametrize("flags", [NTO_TIMEOUT_SEND, NTO_TIMEOUT_REPLY], ids=["send", "reply"])
def test_a_connection_is_as_good_after_a_timeout(qnx: Any, client: Client, flags: int) -> None:
    """After ETIMEDOUT the connection works as before, and the next message has no timeout."""
    chid, told, message = qnx.ChannelCreate(0), qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    sending = client.start(send_twice, os.getpid(), chid, flags, told)
    unanswered = [receive_message(qnx, chid)] if flags == NTO_TIMEOUT_REPLY else []
    receive_pulse(qnx, told)
    rcvid = receive_message(qnx, chid, message)
    assert message.startswith(b"second")
    outlast_timeouts(qnx)
    sending.wait_until_blocked()
    for stale in unanswered:
        with fails_with(ESRCH):
            qnx.MsgReply(stale, 1, b"the wrong answer")
    qnx.MsgReply(rcvid, 2, b"right")
    assert sending.result() == [2, b"right" + bytes(5)]


# Receiving.


@checks("B211")
@pytest.mark.parametrize("call", RECEIVES)
def test_the_wait_for_a_message_can_be_limited(qnx: Any, call: str) -> None:
    """A call that receives fails with ETIMEDOUT if nothing arrives in time."""
    chid = qnx.ChannelCreate(0)
    with fails_with(ETIMEDOUT):
        limited(qnx, NTO_TIMEOUT_RECEIVE, SHORT, receive, qnx, call, chid)


@checks("B211", "B256")
def test_a_message_does_not_end_the_wait_for_a_pulse(qnx: Any, client: Client) -> None:
    """MsgReceivePulse times out though messages wait, and leaves them where they are."""
    chid = qnx.ChannelCreate(0)
    sending = client.send(client.attach(chid)).wait_until_blocked()
    with fails_with(ETIMEDOUT):
        limited(qnx, NTO_TIMEOUT_RECEIVE, SHORT, receive, qnx, "MsgReceivePulse", chid)
    qnx.MsgReply(receive_message(qnx, chid), 7)
    assert sending.result()[0] == 7


def send_pulse(qnx: Any, pid: int, chid: int) -> None:
    qnx.MsgSendPulse(qnx.ConnectAttach(0, pid, chid), 10, 1, 1)


@checks("B211")
@pytest.mark.parametrize("limit", [PATIENCE, MONTH], ids=["short", "long"])
@pytest.mark.parametrize("call", RECEIVES)
def test_what_arrives_in_time_is_received(qnx: Any, start: Start, client: Client, call: str, limit: int) -> None:
    """A pulse that arrives before the timeout expires is received, however far that is."""
    chid = qnx.ChannelCreate(0)
    task = start(limited, qnx, NTO_TIMEOUT_RECEIVE, limit, receive, qnx, call, chid).wait_until_blocked()
    client.run(send_pulse, os.getpid(), chid)
    assert task.result() == 0


def send_pulse_behind_others(qnx: Any, pid: int, chid: int) -> None:
    """Be a thousand clients that come and go, and then one that sends a pulse."""
    for _client in range(1000):
        qnx.ConnectDetach(qnx.ConnectAttach(0, pid, chid))
    send_pulse(qnx, pid, chid)


@checks("B211", "B218")
@pytest.mark.parametrize("call", RECEIVES)
@pytest.mark.parametrize("limit", [None, 1000], ids=["immediate", "short"])
def test_what_lies_behind_many_clients_is_received(qnx: Any, other: Peer, call: str, limit: Optional[int]) -> None:
    """A pulse that waits is received, whatever the timeout, though there are clients to be noticed first."""
    chid = qnx.ChannelCreate(0)
    other.run(send_pulse_behind_others, os.getpid(), chid)
    assert limited(qnx, NTO_TIMEOUT_RECEIVE, limit, receive, qnx, call, chid) == 0


@checks("B208", "B211")
def test_a_timeout_limits_only_the_states_it_names(qnx: Any, start: Start) -> None:
    """A timeout for receiving does not end a send, nor does one for sending end a receive."""
    chid, silent = qnx.ChannelCreate(0), qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, silent)
    sending = start(limited, qnx, NTO_TIMEOUT_RECEIVE, SHORT, qnx.MsgSend, coid, b"message", None)
    receiving = start(limited, qnx, SEND_AND_REPLY, SHORT, receive, qnx, "MsgReceive", chid)
    outlast_timeouts(qnx)
    for task, number in ((sending, silent), (receiving, chid)):
        task.wait_until_blocked()
        qnx.ChannelDestroy(number)
        assert task.errno() == ESRCH


# For how long a timeout is set.


@checks("B212")
@pytest.mark.parametrize("call", RECEIVES)
def test_a_timeout_is_gone_after_a_call_that_did_not_block(qnx: Any, start: Start, call: str) -> None:
    """A timeout is for one call, which uses it up also if it finds what it wants at once."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.MsgSendPulse(coid, 10, 1, 1)

    def receive_twice() -> int:
        assert limited(qnx, NTO_TIMEOUT_RECEIVE, None, receive, qnx, call, chid) == 0
        return receive(qnx, call, chid)

    task = start(receive_twice).wait_until_blocked()
    qnx.MsgSendPulse(coid, 10, 1, 2)
    assert task.result() == 0


@checks("B212")
def test_a_timeout_is_gone_after_a_message_that_was_answered(qnx: Any, start: Start) -> None:
    """A timeout for sending is used up by one message, whether it expires or not."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)

    def send_two() -> int:
        limited(qnx, SEND_AND_REPLY, PATIENCE, qnx.MsgSend, coid, b"message", bytearray(10))
        status: int = qnx.MsgSend(coid, b"message", bytearray(10))
        return status

    task = start(send_two)
    qnx.MsgReply(receive_message(qnx, chid), 0)
    rcvid = receive_message(qnx, chid)
    outlast_timeouts(qnx)
    task.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert task.result() == 7


@checks("B212")
@pytest.mark.parametrize("call", ["MsgSend", "MsgReceive"])
def test_a_timeout_is_gone_after_a_call_that_failed(qnx: Any, start: Start, call: str) -> None:
    """A call on a number that is nothing uses up a timeout like any other."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)

    def fail_and_receive() -> int:
        qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE | SEND_AND_REPLY, None)
        with fails_with(EBADF if call == "MsgSend" else ESRCH):
            getattr(qnx, call)(-1, bytearray(PULSE_SIZE))
        return receive(qnx, "MsgReceive", chid)

    task = start(fail_and_receive).wait_until_blocked()
    qnx.MsgSendPulse(coid, 10, 1, 1)
    assert task.result() == 0


@checks("B212", "D20")
@open_point("D20")
def test_calls_that_cannot_block_leave_a_timeout_alone(qnx: Any) -> None:
    """A timeout is for the next call that can block; what succeeds without blocking before that does not count."""
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, SHORT)
    chid, other = qnx.ChannelCreate(0), qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, other)
    qnx.MsgSendPulse(coid, 10, 1, 1)
    qnx.ConnectDetach(coid)
    with fails_with(ETIMEDOUT):
        qnx.MsgReceive(chid, bytearray(PULSE_SIZE))


@checks("B212", "D20")
@open_point("D20")
def test_a_call_that_fails_ends_a_timeout(qnx: Any, start: Start) -> None:
    """Whatever it is, and though it could not block: the next call waits for as long as it takes."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)

    def fail_and_receive() -> int:
        qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
        with fails_with(ESRCH):
            qnx.MsgReply(0x3FFF_FFFF, 0)
        return receive(qnx, "MsgReceive", chid)

    task = start(fail_and_receive).wait_until_blocked()
    qnx.MsgSendPulse(coid, 10, 1, 1)
    assert task.result() == 0


@checks("B226")
def test_a_timeout_is_for_the_thread_that_set_it(qnx: Any, start: Start) -> None:
    """Another thread's call neither has the timeout nor uses it up."""
    chid, empty = qnx.ChannelCreate(0), qnx.ChannelCreate(0)
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, None)
    task = start(receive, qnx, "MsgReceive", chid).wait_until_blocked()
    with fails_with(ETIMEDOUT):
        qnx.MsgReceive(empty, bytearray(PULSE_SIZE))
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    assert task.result() == 0


@checks("B222", "B406")
@pytest.mark.parametrize("armed", [False, True], ids=["nothing-set", "set-before"])
@pytest.mark.parametrize("nanoseconds", [None, 0, SHORT], ids=["none", "zero", "short"])
def test_flags_0_set_no_timeout_and_take_one_back(
    qnx: Any, start: Start, armed: bool, nanoseconds: Optional[int]
) -> None:
    """TimerTimeout with flags 0 lets the next call wait without a limit, whatever time it is given."""
    chid = qnx.ChannelCreate(0)

    def receive_without_limit() -> int:
        if armed:
            qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, SHORT)
        return limited(qnx, 0, nanoseconds, receive, qnx, "MsgReceive", chid)

    task = start(receive_without_limit).wait_until_blocked()
    outlast_timeouts(qnx)
    task.wait_until_blocked()
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    assert task.result() == 0


@checks("B212", "B223")
def test_a_timeout_replaces_the_one_before(qnx: Any, start: Start) -> None:
    """Of two timeouts that are set, the second one holds; the result of TimerTimeout says nothing but success."""
    chid = qnx.ChannelCreate(0)

    def receive_with_the_second() -> int:
        assert qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, SHORT) == 0
        assert qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, PATIENCE) in (0, NTO_TIMEOUT_RECEIVE)
        return receive(qnx, "MsgReceive", chid)

    task = start(receive_with_the_second).wait_until_blocked()
    outlast_timeouts(qnx)
    task.wait_until_blocked()
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    assert task.result() == 0


# No time at all.

AT_ONCE = pytest.mark.parametrize(
    ("time_flag", "nanoseconds"), [(0, None), (0, 0), (TIMER_ABSTIME, 1)], ids=["none", "zero", "past"]
)


@checks("B213", "B214", "B218")
@AT_ONCE
@pytest.mark.parametrize("call", RECEIVES)
def test_a_channel_can_be_polled(
    qnx: Any, client: Client, call: str, time_flag: int, nanoseconds: Optional[int]
) -> None:
    """With no time to wait, what is there is received; if there is nothing, the call fails with ETIMEDOUT."""
    chid = qnx.ChannelCreate(0)
    flags = NTO_TIMEOUT_RECEIVE | time_flag
    client.run(send_pulse, os.getpid(), chid)
    assert limited(qnx, flags, nanoseconds, receive, qnx, call, chid) == 0
    with fails_with(ETIMEDOUT):
        limited(qnx, flags, nanoseconds, receive, qnx, call, chid)


@checks("B218")
@AT_ONCE
def test_a_message_can_be_polled_for(qnx: Any, client: Client, time_flag: int, nanoseconds: Optional[int]) -> None:
    """With no time to wait, a message that waits is received."""
    chid = qnx.ChannelCreate(0)
    sending = client.send(client.attach(chid)).wait_until_blocked()
    rcvid = limited(qnx, NTO_TIMEOUT_RECEIVE | time_flag, nanoseconds, receive, qnx, "MsgReceive", chid)
    qnx.MsgReply(rcvid, 7)
    assert sending.result()[0] == 7


@checks("B213", "B214", "B216", "D36")
@AT_ONCE
@pytest.mark.parametrize("flags", [SEND_AND_REPLY, NTO_TIMEOUT_SEND], ids=["send-and-reply", "send"])
def test_a_message_that_no_receiver_waits_for_is_not_sent(
    qnx: Any, client: Client, flags: int, time_flag: int, nanoseconds: Optional[int]
) -> None:
    """With no time to wait for a receiver, a message fails with ETIMEDOUT and is not queued."""
    chid = qnx.ChannelCreate(0)
    assert client.start(send, os.getpid(), chid, flags | time_flag, nanoseconds).errno() == ETIMEDOUT
    assert_nothing_waits(qnx, chid)


@checks("B215")
@AT_ONCE
@pytest.mark.parametrize("flags", [SEND_AND_REPLY, NTO_TIMEOUT_REPLY], ids=["send-and-reply", "reply"])
def test_a_message_whose_answer_cannot_be_waited_for_is_not_delivered(
    qnx: Any, start: Start, client: Client, flags: int, time_flag: int, nanoseconds: Optional[int]
) -> None:
    """With no time to wait for the answer, a message fails with ETIMEDOUT, and the receiver goes on waiting."""
    chid = qnx.ChannelCreate(0)
    receiving = start(receive, qnx, "MsgReceive", chid).wait_until_blocked()
    assert client.start(send, os.getpid(), chid, flags | time_flag, nanoseconds).errno() == ETIMEDOUT
    receiving.wait_until_blocked()
    client.run(send_pulse, os.getpid(), chid)
    assert receiving.result() == 0


@checks("B216", "B209", "D36")
@AT_ONCE
def test_a_message_that_a_receiver_waits_for_is_delivered_at_once(
    qnx: Any, start: Start, client: Client, time_flag: int, nanoseconds: Optional[int]
) -> None:
    """With no time to wait for a receiver, a message goes to one that waits already, and then waits for its answer."""
    chid = qnx.ChannelCreate(0)
    receiving = begin_to_receive(qnx, start, chid)
    sending = send_all(client, chid, NTO_TIMEOUT_SEND | time_flag, nanoseconds)
    rcvids = [task.result() for task in receiving]
    outlast_timeouts(qnx)
    for call in sending:
        call.wait_until_blocked()
    for rcvid in rcvids:
        qnx.MsgReply(rcvid, 7)
    assert [call.result() for call in sending] == [7] * len(MESSAGES)


@checks("B217")
@AT_ONCE
def test_a_queued_message_whose_answer_cannot_be_waited_for_is_passed_over(
    qnx: Any, client: Client, time_flag: int, nanoseconds: Optional[int]
) -> None:
    """A message that may wait for a receiver but not for its answer waits, and fails when it is its turn."""
    chid, message = qnx.ChannelCreate(0), bytearray(PULSE_SIZE)
    passed = send_all(client, chid, NTO_TIMEOUT_REPLY | time_flag, nanoseconds)
    for call in passed:
        call.wait_until_blocked()
    sending = client.send(client.attach(chid), b"the next one").wait_until_blocked()
    for call in passed:
        call.wait_until_blocked()
    rcvid = receive_message(qnx, chid, message)
    assert message.startswith(b"the next one")
    assert [call.errno() for call in passed] == [ETIMEDOUT] * len(MESSAGES)
    qnx.MsgReply(rcvid, 7)
    assert sending.result()[0] == 7


# Absolute times.


@checks("B221")
@pytest.mark.parametrize("call", RECEIVES)
def test_a_timeout_can_be_a_point_in_time(qnx: Any, start: Start, call: str) -> None:
    """With TIMER_ABSTIME a call is limited until that time of the clock."""
    chid = qnx.ChannelCreate(0)
    flags = NTO_TIMEOUT_RECEIVE | TIMER_ABSTIME
    soon = time.monotonic_ns() + SHORT
    assert start(limited, qnx, flags, soon, receive, qnx, call, chid).errno() == ETIMEDOUT
    far = time.monotonic_ns() + PATIENCE
    task = start(limited, qnx, flags, far, receive, qnx, call, chid).wait_until_blocked()
    send_pulse(qnx, os.getpid(), chid)
    assert task.result() == 0


@checks("B221")
def test_a_message_can_be_limited_by_a_point_in_time(qnx: Any, client: Client) -> None:
    """The same holds for a message that is not received, and for one that is not answered."""
    chid = qnx.ChannelCreate(0)
    flags = SEND_AND_REPLY | TIMER_ABSTIME
    soon = time.monotonic_ns() + SHORT
    assert client.start(send, os.getpid(), chid, flags, soon).errno() == ETIMEDOUT
    assert_nothing_waits(qnx, chid)
    far = time.monotonic_ns() + PATIENCE
    sending = client.start(send, os.getpid(), chid, flags, far)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert sending.result() == 7
