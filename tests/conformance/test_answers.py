"""What a server can do with a message besides MsgReply: MsgError, MsgRead, MsgWrite, MsgInfo."""

import signal
from errno import EACCES, EAGAIN, EBADF, EINTR, EINVAL, EIO, ESRCH, ETIMEDOUT
from typing import Any, Dict, List, Tuple

import pytest

from ha_qnx import (
    EBADFSYS,
    EOK,
    ERESTART,
    ESRVRFAULT,
    NTO_CHF_UNBLOCK,
    NTO_MI_UNBLOCK_REQ,
    NTO_TIMEOUT_REPLY,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
    Pulse,
)

from .clients import BLANK, Client, Start, expect_nothing_waits, transact, transact_at
from .marks import checks, open_point
from .peers import Peer, Remote
from .receiving import receive_message
from .waiting import eventually

# A message that fits into anything, one that may take several steps, and one that certainly takes another way.
SMALL, MIDDLING, LARGE = 60, 9_000, 100_000
ANY_SIZE = pytest.mark.parametrize("size", [SMALL, MIDDLING, LARGE], ids=["small", "middling", "large"])


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


def pattern(size: int) -> bytes:
    """Bytes that show when they are shifted: they repeat after a prime number only."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def transact_in_parts(qnx: Any, coid: int, message: List[bytes], rooms: List[int]) -> Tuple[int, List[bytes]]:
    """Send a message made of parts, and receive the reply in parts."""
    parts = [bytearray(BLANK * room) for room in rooms]
    status: int = qnx.MsgSendv(coid, message, parts)
    return status, [bytes(part) for part in parts]


# MsgError.


def transact_or_errno(qnx: Any, coid: int, room: int) -> Tuple[int, bytes]:
    """Send a message; the errno, or -1, and all of the reply buffer."""
    reply = bytearray(BLANK * room)
    try:
        qnx.MsgSend(coid, b"message", reply)
    except OSError as error:
        return error.errno or 0, bytes(reply)
    return -1, bytes(reply)


@checks("B10", "B127")
@open_point("D18")
def test_the_client_gets_the_error(qnx: Any, client: Client) -> None:
    """MsgSend fails with exactly the number that was given to MsgError, known or not, which returns 0.

    No data moves.
    """
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for number in (1, EIO, EACCES, EAGAIN, EINVAL, EBADFSYS, ESRVRFAULT, 4711, 2**31 - 1):
        for room in (5, LARGE):
            call = client.start(transact_or_errno, coid, room)
            rcvid = qnx.MsgReceive(chid, bytearray(10))
            assert qnx.MsgError(rcvid, number) == 0
            assert call.result() == (number, BLANK * room)


@checks("B127")
@pytest.mark.parametrize("number", [EBADF, ESRCH])
def test_an_error_that_looks_like_a_lost_server_is_given_as_it_is(qnx: Any, client: Client, number: int) -> None:
    """On an ordinary connection EBADF and ESRCH from the server are errors like any other; the connection lives."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    call = client.send(coid)
    qnx.MsgError(qnx.MsgReceive(chid, bytearray(10)), number)
    assert call.errno() == number
    call = client.send(coid)
    qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10)), 7)
    assert call.result() == (7, b"")


@checks("B128")
@pytest.mark.parametrize("room", [5, LARGE], ids=["small", "large"])
def test_eok_is_no_error(qnx: Any, client: Client, room: int) -> None:
    """MsgError with EOK lets MsgSend return 0, without any data."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), room=room)
    assert qnx.MsgError(qnx.MsgReceive(chid, bytearray(10)), EOK) == 0
    assert call.result() == (0, BLANK * room)


def transact_twice(qnx: Any, coid: int, message: bytes, room: int) -> List[Tuple[int, bytes]]:
    """Send a message twice from one thread."""
    return [transact(qnx, coid, message, room) for _ in range(2)]


@checks("B129")
@ANY_SIZE
def test_erestart_makes_the_client_send_again(qnx: Any, client: Client, size: int) -> None:
    """The server receives the message again, as often as it answers ERESTART; the client sees the last answer only."""
    chid = qnx.ChannelCreate(0)
    call = client.start(transact_twice, client.attach(chid), pattern(size), 5)
    for status in range(2):
        rcvids = []
        for answered in (True, True, False):
            buffer = bytearray(size)
            rcvids.append(receive_message(qnx, chid, buffer))
            assert buffer == pattern(size)
            if answered:
                assert qnx.MsgError(rcvids[-1], ERESTART) == 0
        assert len(set(rcvids)) == 3
        qnx.MsgReply(rcvids[-1], status, b"reply")
    assert call.result() == [(0, b"reply"), (1, b"reply")]


def restart_and_answer(qnx: Any, chid: int, count: int) -> List[bytes]:
    """Let the client send again, and answer it then; what was received."""
    received = []
    for _ in range(count):
        for answer in (qnx.MsgError, qnx.MsgReply):
            buffer = bytearray(100)
            info = MessageInfo()
            answer(qnx.MsgReceive(chid, buffer, info), ERESTART)
            received.append(bytes(buffer[: info.msglen]))
    return received


@checks("B129")
def test_erestart_holds_for_messages_in_parts_and_in_the_main_thread(qnx: Any, start: Start) -> None:
    """All parts are sent again."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    task = start(restart_and_answer, qnx, chid, 3)
    assert qnx.MsgSend(coid, b"message", bytearray(5)) == ERESTART
    assert qnx.MsgSend(coid, b"message", bytearray(5)) == ERESTART
    assert qnx.MsgSendv(coid, [b"mes", b"", b"sage"], None) == ERESTART
    assert task.result() == [b"message"] * 6


def interruptible_transact(qnx: Any, coid: int, room: int) -> Tuple[int, bytes]:
    """Send a message in a thread that is told of signals."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    return transact(qnx, coid, b"message", room)


def transact_with_timeout(qnx: Any, coid: int, room: int) -> Tuple[int, bytes]:
    """Send a message, and wait a hundredth of a second for the reply."""
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, 10_000_000)
    return transact(qnx, coid, b"message", room)


def receive_from_interrupted(qnx: Any, peer: Peer, chid: int, coid: int) -> Tuple[Remote, int]:
    """A message whose sender has been interrupted by a signal, which the server may not know yet."""
    call = peer.begin(interruptible_transact, coid, 5)
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    call.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    return call, rcvid


def receive_unblock(qnx: Any, chid: int, rcvid: int) -> None:
    """Receive the pulse that asks for a message to be answered."""
    pulse = Pulse()
    assert qnx.MsgReceive(chid, pulse) == 0
    assert (pulse.code, pulse.value.sival_int) == (PULSE_CODE_UNBLOCK, rcvid)


@checks("B131", "B187", "D42")
def test_minus_one_stands_for_the_signal_that_asked(qnx: Any, start: Start, peer: Peer) -> None:
    """MsgError(-1) after an unblock pulse lets a client that a signal has interrupted fail with EINTR."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    call, rcvid = receive_from_interrupted(qnx, peer, chid, Client(qnx, start, peer).attach(chid))
    receive_unblock(qnx, chid, rcvid)
    assert qnx.MsgError(rcvid, -1) == 0
    assert call.errno() == EINTR


@checks("B131", "B187", "B227", "D42")
def test_minus_one_stands_for_the_timeout_that_asked(qnx: Any, client: Client) -> None:
    """MsgError(-1) after an unblock pulse lets a client whose timeout has expired fail with ETIMEDOUT."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    call = client.start(transact_with_timeout, client.attach(chid), 5)
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    receive_unblock(qnx, chid, rcvid)
    call.wait_until_blocked()
    assert qnx.MsgError(rcvid, -1) == 0
    assert call.errno() == ETIMEDOUT


@checks("B135", "B189")
@pytest.mark.parametrize("answer", ["MsgError", "MsgReply"])
def test_an_answer_takes_back_the_unblock_pulse(qnx: Any, start: Start, peer: Peer, answer: str) -> None:
    """An unblock pulse that waits in the queue when its message is answered is never received."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    own = qnx.ConnectAttach(0, 0, chid)
    call, rcvid = receive_from_interrupted(qnx, peer, chid, Client(qnx, start, peer).attach(chid))

    def is_pending() -> bool:
        """Whether the pulse is in the queue, behind one that is received meanwhile."""
        qnx.MsgSendPulse(own, 63, 1, 0)
        assert qnx.MsgReceive(chid, Pulse()) == 0
        return bool(qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ)

    eventually(is_pending, "the unblock request")
    getattr(qnx, answer)(rcvid, EIO)
    expect_nothing_waits(qnx, chid)
    if answer == "MsgError":
        assert call.errno() == EIO
    else:
        assert call.result() == (EIO, BLANK * 5)


# MsgRead.


@checks("B136", "B137", "B138", "B140")
@ANY_SIZE
def test_any_part_of_a_message_can_be_read(qnx: Any, client: Client, size: int) -> None:
    """MsgRead copies from an offset on, as much as there is, as often as wanted; behind the end that is nothing."""
    chid = qnx.ChannelCreate(0)
    message = pattern(size)
    call = client.send(client.attach(chid), message)
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    for _ in range(2):
        for offset in (0, 1, 10, size // 2, size - 1, size, size + 1, 1 << 30):
            for room in (0, 1, 20, size, size + 50):
                buffer = bytearray(BLANK * room)
                count = qnx.MsgRead(rcvid, buffer, offset)
                assert count == max(0, min(room, size - offset)), (offset, room)
                assert buffer == message[offset : offset + count] + BLANK * (room - count), (offset, room)
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, b"")


@checks("B139")
@ANY_SIZE
def test_the_rest_of_a_message_can_be_read(qnx: Any, client: Client, size: int) -> None:
    """What did not fit into the receive buffer is read from where it ended."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), pattern(size))
    head, info = bytearray(16), MessageInfo()
    rcvid = qnx.MsgReceive(chid, head, info)
    rest = bytearray(info.srcmsglen - info.msglen)
    assert qnx.MsgRead(rcvid, rest, info.msglen) == len(rest)
    assert head + rest == pattern(size)
    qnx.MsgReply(rcvid, 0)
    call.result()


@checks("B140")
@ANY_SIZE
def test_a_message_can_be_read_though_its_buffer_is_used_again(qnx: Any, client: Client, size: int) -> None:
    """The message is the client's: what the server does with its own buffer, and other messages, change nothing."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    buffer = bytearray(size)
    calls, rcvids = [], []
    for start_of_pattern in range(3):
        calls.append(client.send(coid, pattern(size + start_of_pattern)[start_of_pattern:]))
        rcvids.append(qnx.MsgReceive(chid, buffer))
    buffer[:] = bytes(size)
    for start_of_pattern in (1, 0, 2):
        again = bytearray(size)
        assert qnx.MsgRead(rcvids[start_of_pattern], again, 0) == size
        assert again == pattern(size + start_of_pattern)[start_of_pattern:]
        qnx.MsgReply(rcvids[start_of_pattern], start_of_pattern)
    assert [call.result()[0] for call in calls] == [0, 1, 2]


@checks("B141")
@ANY_SIZE
def test_a_message_can_be_read_in_parts(qnx: Any, client: Client, size: int) -> None:
    """MsgReadv fills its parts in order, up to the end of the message; the client's parts are not visible."""
    chid = qnx.ChannelCreate(0)
    message = pattern(size)
    coid = client.attach(chid)
    call = client.start(transact_in_parts, coid, [message[:7], b"", message[7 : size // 2], message[size // 2 :]], [])
    rcvid = qnx.MsgReceive(chid, None)
    parts = [bytearray(BLANK * 5), bytearray(), bytearray(BLANK * (size - 20)), bytearray(BLANK * 30)]
    assert qnx.MsgReadv(rcvid, parts, 3) == size - 3
    assert b"".join(parts) == message[3:] + BLANK * 18
    assert qnx.MsgReadv(rcvid, parts, size + 1) == 0
    assert qnx.MsgReadv(rcvid, None, 0) == 0
    assert qnx.MsgRead(rcvid, None, 0) == 0
    qnx.MsgReply(rcvid, 0)
    call.result()


# MsgWrite.


@checks("B143", "B144", "B145", "B147", "B149")
@ANY_SIZE
def test_any_part_of_a_reply_can_be_written(qnx: Any, client: Client, size: int) -> None:
    """MsgWrite writes from an offset on, as much as there is room for; the client waits until it is answered."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for offset in (0, 1, 10, size // 2, size - 1, size, size + 1, 1 << 30):
        for length in (0, 1, 20, size, size + 50):
            call = client.send(coid, room=size)
            rcvid = qnx.MsgReceive(chid, bytearray(10))
            count = qnx.MsgWrite(rcvid, pattern(length), offset)
            assert count == max(0, min(length, size - offset)), (offset, length)
            assert not call.done
            qnx.MsgReply(rcvid, 7)
            expected = bytearray(BLANK * size)
            expected[offset : offset + count] = pattern(length)[:count]
            assert call.result() == (7, bytes(expected)), (offset, length)


@checks("B143", "B147", "B149")
@ANY_SIZE
def test_a_reply_can_be_written_bit_by_bit(qnx: Any, client: Client, size: int) -> None:
    """Written parts may come in any order, may overlap, and may leave gaps; the client sees them when it is answered.

    The later of two that overlap counts.
    """
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), room=size)
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    expected = bytearray(BLANK * size)
    writes = [(30, b"cc"), (10, b"aaaa"), (12, b"bbbb"), (8, b"dddd"), (size - 3, b"eee"), (20, b""), (9, b"f")]
    for offset, data in writes:
        assert qnx.MsgWrite(rcvid, data, offset) == len(data)
        expected[offset : offset + len(data)] = data
    call.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, bytes(expected))


@checks("B143", "B144", "B146")
@ANY_SIZE
def test_offsets_count_over_all_parts_of_a_reply(qnx: Any, client: Client, size: int) -> None:
    """Where the client has parts, an offset counts bytes over all of them; MsgWritev writes parts as one."""
    chid = qnx.ChannelCreate(0)
    call = client.start(transact_in_parts, client.attach(chid), [b"message"], [10, 0, size, 10])
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    assert qnx.MsgWrite(rcvid, b"abcd", 8) == 4
    assert qnx.MsgWritev(rcvid, [b"ef", b"", b"ghij"], size + 7) == 6
    assert qnx.MsgWritev(rcvid, [b"kl", b"mnop"], size + 17) == 3
    assert qnx.MsgWritev(rcvid, None, 0) == 0
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (
        7,
        [b"........ab", b"", b"cd" + BLANK * (size - 5) + b"efg", b"hij....klm"],
    )


@checks("B148")
@ANY_SIZE
def test_the_data_of_a_reply_starts_at_its_beginning(qnx: Any, client: Client, size: int) -> None:
    """MsgReply with data after MsgWrite writes from offset 0 on, over what was written there; the rest stays."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for reply in (b"reply", [b"re", b"ply"]):
        call = client.send(coid, room=size)
        rcvid = qnx.MsgReceive(chid, bytearray(10))
        qnx.MsgWrite(rcvid, b"written", 2)
        if isinstance(reply, list):
            qnx.MsgReplyv(rcvid, 7, reply)
        else:
            qnx.MsgReply(rcvid, 7, reply)
        assert call.result() == (7, b"replytten" + BLANK * (size - 9))


@checks("B83", "B143", "B147")
def test_a_client_that_is_stopped_can_be_answered(qnx: Any, start: Start, peer: Peer) -> None:
    """A client that a debugger holds loses neither its answer nor its other connections, and holds no server up."""
    chid, client = qnx.ChannelCreate(0), Client(qnx, start, peer)
    coid, other = client.attach(chid), client.attach(chid)
    call = client.send(coid, room=32_000)
    rcvid = qnx.MsgReceive(chid, bytearray(10))
    peer.stop()
    for offset in (0, 1_000, 2_000):
        assert qnx.MsgWrite(rcvid, pattern(30_000), offset) == 30_000
    qnx.MsgReply(rcvid, 7)
    peer.signal(signal.SIGCONT)
    status, reply = call.result()
    assert (status, reply[2_000:]) == (7, pattern(30_000))
    call = client.send(other, room=5)
    qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10)), 8, b"reply")
    assert call.result() == (8, b"reply")


@checks("B92", "B143")
@ANY_SIZE
def test_a_message_is_read_before_the_reply_is_written(qnx: Any, client: Client, size: int) -> None:
    """Where message and reply are apart, reading after writing reads the message as it was sent."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), pattern(size), size)
    rcvid = qnx.MsgReceive(chid, None)
    assert qnx.MsgWrite(rcvid, bytes(size), 0) == size
    buffer = bytearray(size)
    assert qnx.MsgRead(rcvid, buffer, 0) == size
    assert buffer == pattern(size)
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, bytes(size))


@checks("B142")
@ANY_SIZE
def test_any_thread_can_read_and_write_and_answer(qnx: Any, start: Start, client: Client, size: int) -> None:
    """A message may be received by one thread, read by another, written to by a third and answered by a fourth."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), pattern(size), size)
    rcvid = start(qnx.MsgReceive, chid, bytearray(10)).result()
    buffer = bytearray(size)
    assert start(qnx.MsgRead, rcvid, buffer, 0).result() == size
    assert buffer == pattern(size)
    assert start(qnx.MsgWrite, rcvid, b"written", 3).result() == 7
    assert start(qnx.MsgInfo, rcvid).result().srcmsglen == size
    assert start(qnx.MsgReply, rcvid, 7, b"re").result() == 0
    assert call.result() == (7, b"re.written" + BLANK * (size - 10))


# MsgInfo.

FIELDS = ["nd", "srcnd", "pid", "tid", "chid", "scoid", "coid", "priority", "flags", "msglen", "srcmsglen", "dstmsglen"]


def fields(info: MessageInfo) -> Dict[str, int]:
    """All that is told about a message."""
    return {field: getattr(info, field) for field in FIELDS}


@checks("B152")
@ANY_SIZE
def test_what_is_known_about_a_message_can_be_asked_again(qnx: Any, client: Client, size: int) -> None:
    """MsgInfo tells the same as MsgReceive, for each of the messages that wait for an answer."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    calls, received = [], []
    for priority in (15, 12, 17):
        calls.append(client.start(transact_at, priority, coid, pattern(size), priority))
        info = MessageInfo()
        rcvid = qnx.MsgReceive(chid, bytearray(10), info)
        received.append((rcvid, info))
    for rcvid, info in received:
        assert fields(qnx.MsgInfo(rcvid)) == fields(info)
        assert (info.msglen, info.srcmsglen, info.dstmsglen) == (10, size, info.priority)
    for rcvid, _info in received:
        qnx.MsgReply(rcvid, 0)
    for call in calls:
        call.result()


@checks("B153", "B191")
def test_a_client_that_wants_to_be_freed_is_marked(qnx: Any, start: Start, peer: Peer) -> None:
    """MsgInfo has NTO_MI_UNBLOCK_REQ after the unblock pulse of a message, and not for other messages."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    client = Client(qnx, start, peer)
    coid = client.attach(chid)
    other = client.send(coid)
    other_rcvid = qnx.MsgReceive(chid, bytearray(10))
    call, rcvid = receive_from_interrupted(qnx, peer, chid, coid)
    receive_unblock(qnx, chid, rcvid)
    assert qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ
    assert not qnx.MsgInfo(other_rcvid).flags & NTO_MI_UNBLOCK_REQ
    qnx.MsgReply(other_rcvid, 1)
    qnx.MsgReply(rcvid, 2)
    assert other.result() == (1, b"")
    assert call.result() == (2, BLANK * 5)


@checks("B153", "B191")
def test_a_client_that_wants_to_be_freed_is_marked_before_its_pulse_is_received(
    qnx: Any, start: Start, peer: Peer
) -> None:
    """A server that does not receive while it works on a message can ask by MsgInfo whether to go on."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    call, rcvid = receive_from_interrupted(qnx, peer, chid, Client(qnx, start, peer).attach(chid))
    eventually(lambda: qnx.MsgInfo(rcvid).flags & NTO_MI_UNBLOCK_REQ, "the unblock request")
    receive_unblock(qnx, chid, rcvid)
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, BLANK * 5)
