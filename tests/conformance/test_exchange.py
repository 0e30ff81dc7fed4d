"""The exchange: MsgSend in all its forms, MsgReceive, MsgReply."""

import array
import ctypes
import mmap
import sys
import threading
from errno import EIO, ESRCH
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from ha_qnx import NTO_MI_ENDIAN_BIG, NTO_SIDE_CHANNEL, MessageInfo, Pulse

from .clients import BLANK, Client, Start, transact, transact_at
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer

FORMS = [
    f"MsgSend{kind}{cancelling}{returning}"
    for kind in ("", "v", "sv", "vs")
    for cancelling in ("", "nc")
    for returning in ("", "_r")
]

# Nothing, a little, the neighbourhood of a page (where a frame of headers and data may end), and large ones.
SIZES = [0, 1, 64, 4000, 4063, 4064, 4065, 4072, 4073, 4096, 4097, 8144, 8145, 32_768, 32_769, 70_001, 300_000]


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


def pattern(size: int) -> bytes:
    """Bytes that show when they are shifted: they repeat after a prime number only."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def cut(buffer: Any, *places: int) -> List[memoryview]:
    """Views of the parts of a buffer; where two places are the same, a part is empty."""
    view = memoryview(buffer)
    borders = [0, *places, len(view)]
    return [view[start:end] for start, end in zip(borders, borders[1:])]


def joined(parts: List[Any]) -> bytes:
    """What all parts of a vector hold."""
    return b"".join(bytes(part) for part in parts)


# The forms of MsgSend.


def send_by(qnx: Any, form: str, coid: int, message: bytes, room: int) -> Tuple[int, bytes]:
    """Send a message by one of the forms, in parts where it takes parts; the result, and all of the reply buffer."""
    reply = bytearray(BLANK * room)
    kind = form[len("MsgSend") :].replace("_r", "").replace("nc", "")
    size = len(message)
    source = cut(message, size // 3, size // 3, size // 2) if kind in ("v", "vs") else message
    sink = cut(reply, room // 4, room // 4, room // 2) if kind in ("v", "sv") else reply
    status: int = getattr(qnx, form)(coid, source, sink)
    return status, bytes(reply)


def answer_in_reverse(qnx: Any, chid: int, count: int) -> None:
    """Answer messages: the status is the length, the reply is the message, last byte first."""
    buffer = bytearray(1 << 17)
    info = MessageInfo()
    for _ in range(count):
        rcvid = qnx.MsgReceive(chid, buffer, info)
        qnx.MsgReply(rcvid, info.msglen, bytes(buffer[: info.msglen][::-1]))


MESSAGES = [b"abcdefghi", b"", b"x", pattern(4000), b"abcdefghi", pattern(100_000), b"abcdefghi"]


def send_all_by(qnx: Any, form: str, coid: int) -> List[Tuple[int, bytes]]:
    """Send all messages by one form, with five bytes more room than the reply needs."""
    return [send_by(qnx, form, coid, message, len(message) + 5) for message in MESSAGES]


ALL_ANSWERS = [(len(message), message[::-1] + BLANK * 5) for message in MESSAGES]


@checks("B2", "B76", "B81", "B84", "B86", "B93", "B94", "B96", "B97")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_send_carries_message_and_reply(qnx: Any, start: Start, form: str) -> None:
    """All forms send the same bytes and receive the same bytes, in one buffer or in parts, and return the status."""
    chid = qnx.ChannelCreate(0)
    start(answer_in_reverse, qnx, chid, len(MESSAGES))
    assert send_all_by(qnx, form, qnx.ConnectAttach(0, 0, chid)) == ALL_ANSWERS


@checks("B2", "B76", "B81", "B84", "B86", "B93", "B94", "B96", "B97")
def test_every_form_of_send_works_in_any_thread_and_between_processes(qnx: Any, client: Client) -> None:
    """It makes no difference whether the client is a thread of the server's process or of another one."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for form in FORMS:
        call = client.start(send_all_by, form, coid)
        answer_in_reverse(qnx, chid, len(MESSAGES))
        assert call.result() == ALL_ANSWERS, form


def create_channel(qnx: Any) -> int:
    """A channel of another process."""
    chid: int = qnx.ChannelCreate(0)
    return chid


@checks("B76", "B81")
def test_a_server_in_another_process_answers(qnx: Any, peer: Peer) -> None:
    """A client's main thread sends to a server thread of another process."""
    chid = peer.run(create_channel)
    peer.start(answer_in_reverse, chid, len(MESSAGES) * len(FORMS))
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    for form in FORMS:
        assert send_all_by(qnx, form, coid) == ALL_ANSWERS, form


def refuse_with_eio(qnx: Any, chid: int, count: int) -> None:
    """Answer messages with an error."""
    for _ in range(count):
        qnx.MsgError(qnx.MsgReceive(chid, bytearray(100)), EIO)


@checks("B1", "B2", "B127")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_send_tells_of_errors(qnx: Any, start: Start, form: str) -> None:
    """The plain forms raise OSError; those with _r return the negative errno."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    start(refuse_with_eio, qnx, chid, 2)
    for _ in range(2):
        if form.endswith("_r"):
            assert send_by(qnx, form, coid, b"message", 8) == (-EIO, BLANK * 8)
        else:
            with fails_with(EIO):
                send_by(qnx, form, coid, b"message", 8)


# Who waits for whom.


@checks("B73", "B112")
def test_a_message_goes_to_the_thread_that_waits_for_it(qnx: Any, start: Start, client: Client) -> None:
    """A message for a RECEIVE-blocked thread is received at once, and its sender waits for the reply."""
    chid = qnx.ChannelCreate(0)
    buffer = bytearray(7)
    receiver = start(qnx.MsgReceive, chid, buffer).wait_until_blocked()
    call = client.send(client.attach(chid))
    rcvid = receiver.result()
    assert (rcvid > 0, bytes(buffer)) == (True, b"message")
    call.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, b"")


@checks("B74", "B112")
def test_a_message_waits_until_somebody_receives(qnx: Any, client: Client) -> None:
    """A message that nobody waits for stays queued, its sender blocked, until a thread receives it."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid)).wait_until_blocked()
    buffer = bytearray(7)
    rcvid = qnx.MsgReceive(chid, buffer)
    assert (rcvid > 0, bytes(buffer)) == (True, b"message")
    call.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert call.result() == (7, b"")


@checks("B75")
def test_messages_are_received_by_priority_and_then_in_order(qnx: Any, client: Client) -> None:
    """The message of the highest priority comes first; among equals, the one that was sent first."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    sent = [(12, b"a"), (15, b"b"), (12, b"c"), (9, b"d"), (15, b"e"), (12, b"f")]
    calls = [client.start(transact_at, priority, coid, message, 0).wait_until_blocked() for priority, message in sent]
    received = b""
    for _ in sent:
        buffer = bytearray(1)
        qnx.MsgReply(qnx.MsgReceive(chid, buffer), 0)
        received += bytes(buffer)
    assert received == b"beacfd"
    assert [call.result() for call in calls] == [(0, b"")] * len(sent)


@checks("B79", "B114")
def test_messages_can_be_answered_in_any_order(qnx: Any, client: Client) -> None:
    """Several messages can be under way; each reply goes to its own sender, whatever the order."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    calls = {message: client.send(coid, message, 1) for message in (b"a", b"b", b"c", b"d")}
    rcvids = {}
    for _ in calls:
        buffer = bytearray(1)
        rcvid = qnx.MsgReceive(chid, buffer)
        rcvids[bytes(buffer)] = rcvid
    assert len(set(rcvids.values())) == 4
    for message in (b"c", b"a", b"d", b"b"):
        qnx.MsgReply(rcvids[message], message[0], message.upper())
        assert calls[message].result() == (message[0], message.upper())


@checks("B80", "B142")
def test_another_thread_can_answer_once(qnx: Any, start: Start, client: Client) -> None:
    """Any thread of the server can answer a message, but only one of them: then it is ESRCH."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), room=5)
    rcvid = start(qnx.MsgReceive, chid, bytearray(10)).result()
    assert start(qnx.MsgReply, rcvid, 7, b"reply").result() == 0
    with fails_with(ESRCH):
        qnx.MsgReply(rcvid, 8, b"other")
    assert call.result() == (7, b"reply")


def answer_together(qnx: Any, together: threading.Barrier, rcvid: int, status: int) -> int:
    """Answer a message when all the others do; the errno, or 0."""
    together.wait(10)
    try:
        qnx.MsgReply(rcvid, status, b"reply")
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Python lets another thread run as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@checks("B80")
@pytest.mark.usefixtures("restless_threads")
def test_threads_that_answer_at_the_same_time_answer_once(qnx: Any, start: Start, client: Client) -> None:
    """Of several threads that answer a message at the same time one succeeds; the others get ESRCH."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for _ in range(50):
        call = client.send(coid)
        rcvid = qnx.MsgReceive(chid, bytearray(10))
        together = threading.Barrier(4)
        answers = [start(answer_together, qnx, together, rcvid, status) for status in range(4)]
        status, _reply = call.result()
        assert [answer.result() for answer in answers] == [0 if n == status else ESRCH for n in range(4)]


def send_to_oneself(qnx: Any, channels: List[int]) -> None:
    """Send to a channel on which only the own thread would receive."""
    channels.append(qnx.ChannelCreate(0))
    qnx.MsgSend(qnx.ConnectAttach(0, 0, channels[0]), b"message")


@checks("B82")
def test_a_thread_that_sends_to_itself_waits_for_the_end_of_the_channel(qnx: Any, start: Start) -> None:
    """Nobody receives what a thread sends to a channel of its own; it waits until the channel is destroyed."""
    channels: List[int] = []
    task = start(send_to_oneself, qnx, channels).wait_until_blocked()
    qnx.ChannelDestroy(channels[0])
    assert task.errno() == ESRCH


def receive_and_forget(qnx: Any, chid: int) -> None:
    """Receive a message, and never answer it."""
    qnx.MsgReceive(chid, bytearray(10))


@checks("B83")
def test_a_client_without_an_answer_waits_until_the_server_dies(qnx: Any, start: Start, peer: Peer) -> None:
    """A message that is received and never answered keeps its sender waiting for as long as the server lives."""
    chid = peer.run(create_channel)
    task = start(transact, qnx, qnx.ConnectAttach(0, peer.pid, chid), b"message", 0)
    peer.run(receive_and_forget, chid)
    task.wait_until_blocked()
    peer.kill()
    assert task.errno() == ESRCH


# What arrives of a message.


@checks("B84", "B85", "B99", "B100")
def test_as_much_of_a_message_is_received_as_there_is_room_for(qnx: Any, client: Client) -> None:
    """A message is cut to the receive buffer, or leaves the rest of the buffer alone; info tells both lengths."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    info = MessageInfo()
    for size in SIZES:
        for room in (0, size // 2, size, size + 100):
            message = pattern(size)
            call = client.send(coid, message)
            buffer = bytearray(BLANK * room)
            qnx.MsgReply(qnx.MsgReceive(chid, buffer, info), size)
            assert call.result() == (size, b"")
            copied = min(size, room)
            assert buffer == message[:copied] + BLANK * (room - copied), (size, room)
            assert (info.msglen, info.srcmsglen) == (copied, size)


@checks("B91", "B99", "B100")
@pytest.mark.parametrize("message", [None, b"", bytearray()], ids=["none", "bytes", "bytearray"])
def test_a_message_may_be_empty(qnx: Any, start: Start, message: Any) -> None:
    """An empty message wakes the server; nothing is received, and the server's buffer stays as it is."""
    chid = qnx.ChannelCreate(0)
    task = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), message)
    buffer, info = bytearray(BLANK * 8), MessageInfo(msglen=77, srcmsglen=77)
    rcvid = qnx.MsgReceive(chid, buffer, info)
    assert rcvid > 0
    assert (info.msglen, info.srcmsglen) == (0, 0)
    assert buffer == BLANK * 8
    qnx.MsgReply(rcvid, 7)
    assert task.result() == 7


@checks("B85", "B91")
@pytest.mark.parametrize("sink", [None, bytearray()], ids=["none", "empty"])
@pytest.mark.parametrize("waiting", [False, True], ids=["queued", "waited-for"])
def test_a_message_can_be_received_without_a_buffer(qnx: Any, start: Start, sink: Any, waiting: bool) -> None:
    """MsgReceive without a buffer takes a message all the same, and nothing of it."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for message in (b"message", b"", b"another message"):
        info = MessageInfo(msglen=77)
        if waiting:
            receiver = start(qnx.MsgReceive, chid, sink, info).wait_until_blocked()
            task = start(transact, qnx, coid, message, 0)
            rcvid = receiver.result()
        else:
            task = start(transact, qnx, coid, message, 0).wait_until_blocked()
            rcvid = qnx.MsgReceive(chid, sink, info)
        assert (info.msglen, info.srcmsglen) == (0, len(message))
        qnx.MsgReply(rcvid, 7)
        assert task.result() == (7, b"")


@checks("B93", "B95", "B99", "B100")
@pytest.mark.parametrize("size", [20, 100_000])
def test_a_message_can_be_received_in_parts(qnx: Any, client: Client, size: int) -> None:
    """The parts are filled in order, empty ones are skipped; borders of the client's parts are not visible."""
    chid = qnx.ChannelCreate(0)
    message = pattern(size)
    coid = client.attach(chid)
    for room in (size // 2, size, size + 10):
        call = client.start(send_by, "MsgSendv", coid, message, 0)
        buffer, info = bytearray(BLANK * room), MessageInfo()
        qnx.MsgReply(qnx.MsgReceivev(chid, cut(buffer, 3, 3, 5, room // 2), info), 7)
        assert call.result() == (7, b"")
        copied = min(size, room)
        assert buffer == message[:copied] + BLANK * (room - copied)
        assert (info.msglen, info.srcmsglen) == (copied, size)


@checks("B85")
@pytest.mark.parametrize("iov", [None, [], [None, bytearray()]], ids=["none", "empty", "empty-parts"])
def test_a_message_can_be_received_without_parts(qnx: Any, start: Start, iov: Any) -> None:
    """MsgReceivev without parts takes a message all the same, and nothing of it."""
    chid = qnx.ChannelCreate(0)
    task = start(transact, qnx, qnx.ConnectAttach(0, 0, chid), b"message", 0)
    qnx.MsgReply(qnx.MsgReceivev(chid, iov), 7)
    assert task.result() == (7, b"")


# What arrives of a reply.


@checks("B76", "B77", "B78")
def test_the_client_gets_the_status(qnx: Any, client: Client) -> None:
    """MsgSend returns the status of MsgReply, whatever the size of the reply is."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for status in (0, 1, 255, 4096, 2**31 - 1):
        for reply in (None, b"", b"reply", pattern(5000)):
            call = client.send(coid, room=5)
            assert qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10)), status, reply) == 0
            assert call.result() == (status, (reply or b"")[:5] or BLANK * 5)


@checks("B86", "B87", "B88", "B89", "B90", "B101")
def test_as_much_of_a_reply_arrives_as_there_is_room_for(qnx: Any, client: Client) -> None:
    """A reply is cut to the client's buffer, or leaves the rest of it alone. Neither side is told.

    The server can see beforehand how much room there is.
    """
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    info = MessageInfo()
    for size in SIZES:
        for room in (0, size // 2, size, size + 100):
            reply = pattern(size)
            call = client.send(coid, room=room)
            rcvid = qnx.MsgReceive(chid, bytearray(10), info)
            assert qnx.MsgReply(rcvid, 7, reply) == 0
            copied = min(size, room)
            assert call.result() == (7, reply[:copied] + BLANK * (room - copied)), (size, room)
            assert info.dstmsglen == room


@checks("B90")
@pytest.mark.parametrize("rmsg", [None, bytearray()], ids=["none", "empty"])
def test_a_client_may_have_no_room_for_a_reply(qnx: Any, start: Start, rmsg: Any) -> None:
    """The data of a reply is dropped if the client has no buffer; the status arrives, and MsgReply succeeds."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for size in (5, 5000):
        task = start(qnx.MsgSend, coid, b"message", rmsg)
        info = MessageInfo(dstmsglen=77)
        rcvid = qnx.MsgReceive(chid, bytearray(10), info)
        assert info.dstmsglen == 0
        assert qnx.MsgReply(rcvid, 7, bytes(size)) == 0
        assert task.result() == 7


@checks("B94", "B95")
@pytest.mark.parametrize("size", [20, 100_000])
def test_a_reply_can_be_made_of_parts(qnx: Any, client: Client, size: int) -> None:
    """MsgReplyv sends parts as one reply; the client's parts are filled in order, and later ones stay untouched."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    reply = pattern(size)
    for room in (size // 2, size, 3 * size):
        call = client.start(send_by, "MsgSendv", coid, b"message", room)
        rcvid = qnx.MsgReceive(chid, bytearray(10))
        assert qnx.MsgReplyv(rcvid, 7, cut(reply, 3, 3, size // 2, size)) == 0
        copied = min(size, room)
        assert call.result() == (7, reply[:copied] + BLANK * (room - copied))


@checks("B89", "B95")
@pytest.mark.parametrize("iov", [None, [], [None, b""]], ids=["none", "empty", "empty-parts"])
def test_a_reply_may_have_no_parts(qnx: Any, start: Start, iov: Any) -> None:
    """MsgReplyv without parts delivers the status alone."""
    chid = qnx.ChannelCreate(0)
    task = start(transact, qnx, qnx.ConnectAttach(0, 0, chid), b"message", 5)
    qnx.MsgReplyv(qnx.MsgReceive(chid, bytearray(10)), 7, iov)
    assert task.result() == (7, BLANK * 5)


def send_and_receive_in(qnx: Any, coid: int, buffer: bytearray) -> Tuple[int, bytes]:
    """Send what a buffer holds, and receive the reply into the same memory."""
    status: int = qnx.MsgSend(coid, buffer, buffer)
    return status, bytes(buffer)


@checks("B92")
@pytest.mark.parametrize("size", [20, 100_000])
def test_message_and_reply_may_be_the_same_memory(qnx: Any, client: Client, size: int) -> None:
    """The reply overwrites the message, as far as it goes."""
    chid = qnx.ChannelCreate(0)
    message = pattern(size)
    call = client.start(send_and_receive_in, client.attach(chid), bytearray(message))
    buffer = bytearray(size)
    rcvid = qnx.MsgReceive(chid, buffer)
    assert buffer == message
    qnx.MsgReply(rcvid, 7, b"reply")
    assert call.result() == (7, b"reply" + message[5:])


def mapped(data: bytes) -> mmap.mmap:
    """Memory of a mapping of its own."""
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


# Makes a buffer with certain content, which can be written to.
BUFFERS: Dict[str, Callable[[bytes], Any]] = {
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(bytearray(data)),
    "slice": lambda data: memoryview(bytearray(b"xx" + data + b"xx"))[2:-2],
    "array": lambda data: array.array("H", data),
    "ctypes-array": lambda data: (ctypes.c_uint32 * (len(data) // 4)).from_buffer_copy(data),
    "structure": Pulse.from_buffer_copy,
    "matrix": lambda data: memoryview(bytearray(data)).cast("B", (2, len(data) // 2)),
    "mapping": mapped,
}


def echo_once(qnx: Any, chid: int, buffer: Any) -> None:
    """Answer a message with itself, from the buffer that it was received into."""
    qnx.MsgReply(qnx.MsgReceive(chid, buffer), 7, buffer)


@checks("B76", "B84", "B86")
@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_messages_and_replies_lie_in_any_kind_of_buffer(qnx: Any, start: Start, make: Callable[[bytes], Any]) -> None:
    """Whatever has contiguous bytes can be sent, and whatever has writable ones can be received into."""
    message = pattern(ctypes.sizeof(Pulse))
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for _ in range(2):
        task = start(echo_once, qnx, chid, make(bytes(len(message))))
        reply = make(bytes(len(message)))
        assert qnx.MsgSend(coid, make(message), reply) == 7
        assert memoryview(reply).tobytes() == message
        task.result()


def echo(qnx: Any, chid: int, messages: int) -> None:
    """Answer so many messages, each with its own bytes from the first to the last."""
    buffer = bytearray(BLANK * max(SIZES))
    for _ in range(messages):
        info = MessageInfo()
        rcvid = qnx.MsgReceive(chid, buffer, info)
        qnx.MsgReply(rcvid, info.msglen, memoryview(buffer)[: info.msglen][::-1].tobytes())


def send_each(qnx: Any, coid: int, sizes: List[int], less: int) -> List[Tuple[int, bytes]]:
    """Send messages of these sizes, with room for so many bytes less of each reply."""
    found = []
    for size in sizes:
        reply = bytearray(BLANK * max(0, size - less))
        found.append((qnx.MsgSend(coid, pattern(size), memoryview(reply)), bytes(reply)))
    return found


@checks("B76", "B84", "B90", "B91")
@pytest.mark.parametrize("less", [0, 5])
def test_messages_of_all_sizes_follow_each_other_on_one_connection(
    qnx: Any, start: Start, client: Client, less: int
) -> None:
    """Nothing is left in the next message or reply of what was in the last one, be it larger or smaller."""
    sizes = [*SIZES, *reversed(SIZES), *(size for pair in zip(SIZES, reversed(SIZES)) for size in pair)]
    chid = qnx.ChannelCreate(0)
    server = start(echo, qnx, chid, len(sizes))
    found = client.start(send_each, client.attach(chid), sizes, less).result()
    assert found == [(size, pattern(size)[::-1][: max(0, size - less)]) for size in sizes]
    server.result()


# What is known about a message.


def send_twice(qnx: Any, coid: int) -> None:
    """Send two messages from one thread."""
    for _ in range(2):
        qnx.MsgSend(coid, b"message")


@checks("B98", "B102", "B103")
@pytest.mark.parametrize("index", [0, NTO_SIDE_CHANNEL], ids=["descriptor", "side-channel"])
def test_a_message_tells_where_it_comes_from(qnx: Any, client: Client, index: int) -> None:
    """A message tells process, thread, channel, client and connection; all nodes are 0, this one."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid, index)
    call = client.start(send_twice, coid)
    seen = []
    for _ in range(2):
        info = MessageInfo(nd=7, srcnd=7)
        qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10), info), 0)
        assert (info.pid, info.chid, info.coid) == (client.pid, chid, coid)
        assert info.tid >= 1
        assert info.scoid > NTO_SIDE_CHANNEL
        assert (info.nd, info.srcnd) == (0, 0)
        seen.append((info.tid, info.scoid))
    call.result()
    assert seen[0] == seen[1]


@checks("B103", "B98")
@open_point("D29")
def test_threads_of_a_client_are_told_apart(qnx: Any, client: Client) -> None:
    """Every thread of a process has a number of its own, a small one from 1 on."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    calls = [client.send(coid) for _ in range(4)]
    received = []
    for _ in calls:
        info = MessageInfo()
        received.append((qnx.MsgReceive(chid, bytearray(10), info), info.tid))
    tids = {tid for _rcvid, tid in received}
    assert len(tids) == 4
    assert all(1 <= tid < 100 for tid in tids)
    for rcvid, _tid in received:
        qnx.MsgReply(rcvid, 0)
    for call in calls:
        call.result()


@checks("B98")
def test_a_message_tells_the_priority_of_its_sender(qnx: Any, client: Client) -> None:
    """The priority is that of the thread that sends."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for priority in (17, 11):
        call = client.start(transact_at, priority, coid, b"message", 0)
        info = MessageInfo()
        qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10), info), 0)
        call.result()
        assert info.priority == priority


@checks("B104")
def test_a_message_tells_the_byte_order(qnx: Any, client: Client) -> None:
    """A fresh message has no flag but, between big-endian machines, NTO_MI_ENDIAN_BIG."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid))
    info = MessageInfo(flags=-1)
    qnx.MsgReply(qnx.MsgReceive(chid, bytearray(10), info), 0)
    call.result()
    assert info.flags == (NTO_MI_ENDIAN_BIG if sys.byteorder == "big" else 0)


@checks("B100", "B101")
def test_the_lengths_of_parts_are_added_up(qnx: Any, client: Client) -> None:
    """A message in parts tells the length of all parts, those of the message and those of the reply buffer."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for size, room in ((20, 50), (100_000, 10), (10, 100_000)):
        call = client.start(send_by, "MsgSendv", coid, bytes(size), room)
        info = MessageInfo()
        qnx.MsgReply(qnx.MsgReceive(chid, None, info), 0)
        call.result()
        assert (info.srcmsglen, info.dstmsglen) == (size, room)


# Receiving on what is no channel.

RECEIVING = pytest.mark.parametrize(
    "receive",
    [
        lambda qnx, chid: qnx.MsgReceive(chid, bytearray(100)),
        lambda qnx, chid: qnx.MsgReceivev(chid, [bytearray(100)]),
        lambda qnx, chid: qnx.MsgReceivePulse(chid, Pulse()),
    ],
    ids=["MsgReceive", "MsgReceivev", "MsgReceivePulse"],
)


@checks("B109", "B111", "B175")
@RECEIVING
def test_nothing_can_be_received_on_what_is_no_channel(qnx: Any, receive: Callable[[Any, int], int]) -> None:
    """A number that is no channel, never was or is no longer one, is ESRCH; so is -1."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for wrong in (chid + 1000, 0, -1, coid):
        with fails_with(ESRCH):
            receive(qnx, wrong)
    qnx.ChannelDestroy(chid)
    with fails_with(ESRCH):
        receive(qnx, chid)


def create_channels(qnx: Any, count: int) -> List[int]:
    """Channels of another process."""
    return [qnx.ChannelCreate(0) for _ in range(count)]


@checks("B110")
@RECEIVING
def test_a_channel_of_another_process_is_not_ones_own(qnx: Any, peer: Peer, receive: Callable[[Any, int], int]) -> None:
    """Nobody receives on another process's channel: its number is looked up in the own process."""
    chid = max(peer.run(create_channels, 20))
    with fails_with(ESRCH):
        receive(qnx, chid)
