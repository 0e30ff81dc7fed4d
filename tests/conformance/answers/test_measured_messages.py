"""Messages and answers: forms, lengths, statuses, errors, rcvids, and what a server reads and writes."""

import itertools
from errno import EBADF, EPERM, ESRCH
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ha_qnx import ERESTART, NTO_CHF_FIXED_PRIORITY, MessageInfo

from ..clients import Call, Client, Start, take_priority, transact
from ..peers import Peer
from ..receiving import receive_message
from ..waiting import Task, eventually
from .asking import Answers, measured
from .ledgers import Received, receive
from .notation import error_name, failed, told, yes
from .parties import outcome, played, state

#: What is in a buffer before anything is written to it.
BLANK = b"."

MESSAGE, REPLY, STATUS = b"abcdefg", b"123456", 9


def pattern(size: int) -> bytes:
    """Bytes that show when they are shifted."""
    return (bytes(range(1, 252)) * (size // 251 + 1))[:size]


# Forms.


def send_form(qnx: Any, coid: int, form: str, kinds: str, empty: str = "") -> str:
    """Send a message by one of the calls; its status, and the two buffers that the reply may be in.

    Args:
        qnx: the backend.
        coid: the connection.
        form: the call.
        kinds: of message and reply, each s for a buffer or v for parts.
        empty: nothing; "none" or "[]" for no parts at all, "part" for a part of no bytes among them, "overlap" for
            parts of the reply that overlap.
    """
    first, second = bytearray(b"-" * 8), bytearray(b"-" * 8)
    whole = memoryview(first)
    message: Any = [MESSAGE[:3], MESSAGE[3:]] if kinds[0] == "v" else MESSAGE
    reply: Any = [whole[:4], second] if kinds[1] == "v" else first
    if empty in ("none", "[]"):
        message, reply = (None, None) if empty == "none" else ([], [])
    elif empty == "part":
        message.insert(1, b"")
        reply.insert(0, bytearray())
    elif empty == "overlap":
        reply = [whole[:4], whole[2:]]
    status = getattr(qnx, form)(coid, message, reply)
    return f"{status} reply {first.decode()}|{second.decode()}"


def send_in_place(qnx: Any, coid: int) -> str:
    """Send a message out of the buffer that the reply comes into."""
    buffer = bytearray(MESSAGE)
    status = qnx.MsgSend(coid, buffer, buffer)
    return f"{status} reply {buffer.decode()}"


FORMS: Dict[str, Tuple[str, ...]] = {
    "MF01": ("MsgSend", "ss"),
    "MF02": ("MsgSendnc", "ss"),
    "MF03": ("MsgSendsv", "sv"),
    "MF04": ("MsgSendsvnc", "sv"),
    "MF05": ("MsgSendvs", "vs"),
    "MF06": ("MsgSendvsnc", "vs"),
    "MF07": ("MsgSendv", "vv"),
    "MF08": ("MsgSendvnc", "vv"),
    "MF09": ("MsgSend_r", "ss"),
    "MF10": ("MsgSendv_r", "vv"),
    "MF11": ("MsgSendv", "vv", "[]"),
    "MF12": ("MsgSendv", "vv", "none"),
    "MF13": ("MsgSendv", "vv", "part"),
    "MF14": ("MsgSendv", "vv", "overlap"),
}


def served(qnx: Any, chid: int, call: Call) -> str:
    """What a message has brought to a server that answers it, and what the client says."""
    found = bytearray(BLANK * 10)
    qnx.MsgReply(receive_message(qnx, chid, found), STATUS, REPLY)
    status, _space, reply = call.result().partition(" ")
    return f"{status} got {found.decode()} {reply}"


@measured(*FORMS, "MF15")
def test_every_form_of_send_carries_message_and_reply(qnx: Any, client: Client) -> Answers:
    """All forms bring the same message, and put the reply into what they were given."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for name, form in FORMS.items():
        yield name, served(qnx, chid, client.start(send_form, coid, *form))
    yield "MF15", served(qnx, chid, client.start(send_in_place, coid))


# Lengths.

SIZES = (
    (0, 64),
    (1, 64),
    (64, 64),
    (100, 64),
    (100, 0),
    (256, 256),
    (300, 256),
    (5000, 4096),
    (65536, 65536),
    (65536, 100),
    (0, 0),
)
REPLY_SIZES = ((6, 8), (6, 6), (6, 3), (6, 0), (0, 8), (5000, 6000), (5000, 100), (65536, 65536))
REPLY_ROOM = 33


def copied(buffer: Sequence[int], data: bytes) -> int:
    """How many bytes of a pattern have come into a buffer that is blank but for them."""
    size = len(bytes(buffer).rstrip(BLANK))
    return size if buffer[:size] == data[:size] else -1


def send_pattern(qnx: Any, coid: int, size: int, room: int) -> Tuple[int, bytes]:
    """Send a message of a size."""
    return transact(qnx, coid, pattern(size), room)


@measured(*(f"{family}{case:02}" for family in ("ML", "MQ") for case in range(len(SIZES))))
def test_the_lengths_of_a_message_are_told(qnx: Any, start: Start, client: Client) -> Answers:
    """A receiver gets what has room, and is told of the rest; whether it waits first or the message does."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for (family, status), (case, (sent, room)) in itertools.product((("ML", 0), ("MQ", 3)), enumerate(SIZES)):
        buffer, info = bytearray(BLANK * room), MessageInfo()
        if family == "ML":
            receiving = start(qnx.MsgReceive, chid, buffer, info).wait_until_blocked()
            call = client.start(send_pattern, coid, sent, REPLY_ROOM)
            rcvid = receiving.result()
        else:
            call = client.start(send_pattern, coid, sent, REPLY_ROOM).wait_until_blocked()
            rcvid = receive_message(qnx, chid, buffer, info)
        qnx.MsgReply(rcvid, status)
        lengths = f"msglen {info.msglen} src {info.srcmsglen} dst {info.dstmsglen}"
        got = copied(buffer, pattern(sent))
        yield f"{family}{case:02}", f"{sent}/{room}: {outcome(call)} got {got} {lengths}"


@measured(*(f"MR{case:02}" for case in range(len(REPLY_SIZES))))
def test_as_much_of_a_reply_arrives_as_has_room(qnx: Any, client: Client) -> Answers:
    """The rest is cut off, and nobody is told."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for case, (size, room) in enumerate(REPLY_SIZES):
        call = client.send(coid, b"message", room)
        answered = qnx.MsgReply(receive_message(qnx, chid), 42, pattern(size))
        status, reply = call.result()
        yield f"MR{case:02}", f"{size}/{room}: {status} copied {copied(reply, pattern(size))}; MsgReply {answered}"


@measured("MN01", "MN02")
def test_a_message_is_received_without_any_room(qnx: Any, client: Client) -> Answers:
    """It can be read afterwards."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), b"hello").wait_until_blocked()
    rcvid = qnx.MsgReceive(chid, None)
    yield "MN01", "rcvid" if rcvid > 0 else str(rcvid)
    buffer = bytearray(10)
    size = qnx.MsgRead(rcvid, buffer, 0)
    yield "MN02", f"{size} {buffer[:size].decode()}"
    qnx.MsgReply(rcvid, 0)
    call.result()


# Statuses and errors.

STATUSES = (0, 1, 5, 1_000_000, 2**31 - 1, -1, -2, -9, -12345, -(2**31))
ERRORS = {
    "ME00": 0,
    "ME01": EPERM,
    "ME02": EBADF,
    "ME03": ESRCH,
    "ME04": 12345,
    "ME05": -1,
    "ME06": -5,
    "ME08": 2**31 - 1,
    "ME09": 4095,
    "ME10": 4096,
}


def sent_by(qnx: Any, coid: int, form: str) -> str:
    """What a form of MsgSend says."""
    return told(getattr(qnx, form), coid, b"message")


def send_both_ways(qnx: Any, client: Client, chid: int, coid: int, answer: Callable[..., int], value: int) -> List[str]:
    """What MsgSend and MsgSend_r say to the same answer, and what the call that gives it says."""
    said = []
    for form in ("MsgSend", "MsgSend_r"):
        call = client.start(sent_by, coid, form)
        answered = told(answer, receive_message(qnx, chid), value)
        said.append(call.result())
    return [*said, answered]


@measured(*(f"MS{case:02}" for case in range(len(STATUSES))))
def test_any_status_arrives(qnx: Any, client: Client) -> Answers:
    """What MsgReply gives is what MsgSend returns."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for case, status in enumerate(STATUSES):
        plain, form_r, _answered = send_both_ways(qnx, client, chid, coid, qnx.MsgReply, status)
        yield f"MS{case:02}", f"{status}: {plain}, {form_r}"


@measured(*ERRORS)
def test_any_error_arrives(qnx: Any, client: Client) -> Answers:
    """What MsgError gives is the errno of MsgSend."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for name, error in ERRORS.items():
        plain, form_r, answered = send_both_ways(qnx, client, chid, coid, qnx.MsgError, error)
        found = plain.replace("-1 ", "-1 (") + ")" if plain.startswith("-1 ") else plain
        yield name, f"{error_name(error)}: {found}; {form_r}; {answered}"


@measured("ME20", "ME21", "ME22")
def test_a_message_comes_again_after_erestart(qnx: Any, client: Client) -> Answers:
    """The client sends it by itself, and gets the answer to the second one."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid), b"hello")
    first = receive(qnx, chid)
    restarted = told(qnx.MsgError, first.rcvid, ERESTART)
    again = receive(qnx, chid)
    same = again.data == first.data
    yield "ME20", f"{restarted}; {'message again' if same else 'another message'} len {again.info.srcmsglen}"
    yield "ME21", "equal" if first.rcvid == again.rcvid else "differ"
    qnx.MsgReply(again.rcvid, 4)
    yield "ME22", outcome(call)


# rcvids.


def used(qnx: Any, rcvid: int, calls: Sequence[str]) -> str:
    """What the calls that take a rcvid say to one."""
    arguments: Dict[str, Tuple[Any, ...]] = {
        "MsgReply": (0,),
        "MsgError": (EPERM,),
        "MsgRead": (bytearray(4),),
        "MsgWrite": (b"data",),
        "MsgInfo": (),
    }
    return " ".join(told(getattr(qnx, call), rcvid, *arguments[call]) for call in calls)


ALL_CALLS = ("MsgReply", "MsgError", "MsgRead", "MsgWrite", "MsgInfo")


@measured("RV01", "RV02")
def test_a_rcvid_that_was_never_given_is_none(qnx: Any) -> Answers:
    """Nobody waits for an answer to it."""
    qnx.ChannelCreate(0)
    yield "RV01", " ".join(told(qnx.MsgReply, rcvid, 0) for rcvid in (0, 1, 0x10001, -1, 12345678))
    yield "RV02", used(qnx, 12345, ALL_CALLS[1:])


@measured("RV03", "RV04", "RV05", "RV06")
def test_messages_are_answered_in_any_order(qnx: Any, client: Client) -> Answers:
    """Two threads on one connection have a rcvid each, which is good for one answer."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    found: List[Received] = []
    calls = []
    for _ in range(2):
        calls.append(client.send(coid))
        found.append(receive(qnx, chid))
    infos = [one.info for one in found]
    equal = ["equal" if len(set(values)) == 1 else "differ" for values in zip(*((i.scoid, i.coid) for i in infos))]
    rcvids_differ, tids_differ = found[0].rcvid != found[1].rcvid, infos[0].tid != infos[1].tid
    yield "RV03", f"{yes(rcvids_differ)}; {' '.join(equal)}; {yes(tids_differ)}"
    yield "RV04", " ".join(told(qnx.MsgReply, one.rcvid, status) for one, status in ((found[1], 2), (found[0], 1)))
    yield "RV05", " ".join(map(outcome, calls))
    yield "RV06", used(qnx, found[0].rcvid, ALL_CALLS)


def send_twice(qnx: Any, coid: int) -> List[str]:
    """Send two messages from one thread."""
    return [told(qnx.MsgSend, coid, message) for message in (b"one", b"two")]


@measured("RV07", "RV08", "RV09")
def test_an_old_rcvid_beside_a_newer_one(qnx: Any, client: Client) -> Answers:
    """One thread sends twice, and the server has mixed up the rcvids."""
    chid = qnx.ChannelCreate(0)
    call = client.start(send_twice, client.attach(chid))
    old = receive_message(qnx, chid)
    qnx.MsgReply(old, 0)
    new = receive_message(qnx, chid)
    yield "RV07", "equal" if old == new else "differ"
    yield "RV08", told(qnx.MsgReply, old, 0)
    yield "RV09", told(qnx.MsgReply, new, 0)
    call.result()


@measured("RV10")
def test_nobody_is_there_to_be_answered(qnx: Any, start: Start, peer: Peer) -> Answers:
    """The client has died."""
    chid = qnx.ChannelCreate(0)
    client = Client(qnx, start, peer)
    client.send(client.attach(chid))
    rcvid = receive_message(qnx, chid)
    peer.kill()
    yield "RV10", eventually(lambda: told(qnx.MsgReply, rcvid, 0), "an answer")


@measured("RV11", "RV12")
def test_a_message_that_nobody_has_received_cannot_be_answered(qnx: Any, client: Client) -> Answers:
    """Not by the rcvid of an older one."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    call = client.send(coid, b"one")
    old = receive_message(qnx, chid)
    qnx.MsgReply(old, 0)
    call.result()
    call = client.send(coid, b"two").wait_until_blocked()
    yield "RV11", f"{told(qnx.MsgReply, old, 0)}; it is {state(call)}"
    found = receive(qnx, chid)
    qnx.MsgReply(found.rcvid, 0)
    yield "RV12", f"{found.data.decode()} {outcome(call)}"


# Reading and writing.

READS = ((20, 0), (4, 3), (20, 4), (5, 10), (5, 11), (5, 1_000_000), (0, 0), (5, 2**31 - 1))
WRITES = (
    (b"abcd", 0),
    (b"efgh", 6),
    (b"ijklmnopqr", 15),
    (b"vwxyz", 20),
    (b"vwxyz", 21),
    (b"", 0),
    (b"vwxyz", 1_000_000),
)


def send_for_a_part(qnx: Any, coid: int, message: bytes, room: int, whole: int) -> Tuple[int, str]:
    """Send a message whose reply may have the first part of a buffer only."""
    reply = bytearray(BLANK * whole)
    try:
        status = qnx.MsgSend(coid, message, memoryview(reply)[:room])
    except OSError as error:
        return -1, f"{failed(error)} '{reply.decode()}'"
    return status, f"'{reply.decode()}'"


def lengths(info: MessageInfo) -> str:
    return f"{info.msglen} {info.srcmsglen} {info.dstmsglen}"


def read_at(qnx: Any, rcvid: int, size: int, offset: int) -> str:
    """What MsgRead finds."""
    buffer = bytearray(size)
    count = qnx.MsgRead(rcvid, buffer, offset)
    return f"{count} '{buffer[:count].decode()}'"


@measured(*(f"RW{case:02}" for case in range(1, 14)), variant="where")
def test_a_server_reads_and_writes_before_it_answers(qnx: Any, client: Client, where: str) -> Answers:
    """Any part of the message can be read, and any part of the reply written, as often as needed."""
    chid = qnx.ChannelCreate(0)
    call = client.start(send_for_a_part, client.attach(chid), b"0123456789", 20, 24)
    found = receive(qnx, chid, room=4)
    rcvid = found.rcvid
    yield "RW01", lengths(found.info)
    yield "RW02", "; ".join(read_at(qnx, rcvid, *where_to) for where_to in READS)
    yield "RW03", told(qnx.MsgRead, rcvid, None)
    parts = [bytearray(size) for size in (3, 2, 7)]
    count = qnx.MsgReadv(rcvid, parts, 1)
    last = count - 5
    texts = [part.decode() for part in (parts[0], parts[1], parts[2][:last])]
    yield "RW04", f"{count} " + " ".join(f"'{text}'" for text in texts)
    yield "RW05", f"{told(qnx.MsgReadv, rcvid, [])} {told(qnx.MsgReadv, rcvid, [bytearray(4)], 11)}"
    info = qnx.MsgInfo(rcvid)
    yield "RW06", f"{lengths(info)} {info.flags}"
    yield "RW07", " ".join(told(qnx.MsgWrite, rcvid, *what) for what in WRITES)
    yield "RW08", told(qnx.MsgWrite, rcvid, None)
    yield "RW09", " ".join(told(qnx.MsgWritev, rcvid, [b"W", b"VU"], offset) for offset in (11, 19))
    yield "RW10", lengths(qnx.MsgInfo(rcvid))
    yield "RW11", told(qnx.MsgReply, rcvid, 5)
    status, text = call.result()
    assert status == 5, status
    yield "RW12", text
    yield "RW13", used(qnx, rcvid, ("MsgRead", "MsgWrite", "MsgInfo"))


@measured("RW20", "RW21", "RW22", "RW26", "RW27")
def test_what_was_written_and_what_is_answered(qnx: Any, client: Client) -> Answers:
    """A reply starts where the client's buffer does, whatever was written before."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)

    def begin(room: int, whole: int) -> Tuple[Call, Received]:
        return client.start(send_for_a_part, coid, b"message", room, whole), receive(qnx, chid)

    call, found = begin(10, 14)
    qnx.MsgWrite(found.rcvid, b"abcdefgh", 2)
    qnx.MsgReply(found.rcvid, 0, b"XYZ")
    yield "RW20", call.result()[1]
    call, found = begin(10, 14)
    qnx.MsgWrite(found.rcvid, b"abcdefgh", 2)
    qnx.MsgError(found.rcvid, EPERM)
    yield "RW21", call.result()[1]
    call, found = begin(0, 0)
    yield "RW22", told(qnx.MsgWrite, found.rcvid, b"data")
    info = qnx.MsgInfo(found.rcvid)
    fields = ("pid", "tid", "chid", "scoid", "coid", "priority", "msglen", "srcmsglen", "dstmsglen")
    yield "RW26", "".join(str(int(getattr(info, field) == getattr(found.info, field))) for field in fields)
    qnx.MsgReply(found.rcvid, 0)
    call.result()
    call, found = begin(5, 5)
    qnx.MsgReplyv(found.rcvid, 3, [b"ab", b"cde"])
    status, text = call.result()
    yield "RW27", f"{status} {text}"


# Threads and priorities.


@measured("TH01", "TH02")
def test_senders_wait_in_a_row(qnx: Any, client: Client) -> Answers:
    """They are received in the order in which they came, and answered in any."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    calls = [client.send(coid, b"s%d" % number).wait_until_blocked() for number in range(8)]
    found = [receive(qnx, chid) for _ in calls]
    yield "TH01", " ".join(one.data.decode() for one in found)
    for one in reversed(found):
        qnx.MsgReply(one.rcvid, int(one.data[1:]))
    yield "TH02", " ".join(map(outcome, calls))


def number_threads(qnx: Any) -> Answers:
    """The tids of two threads, of which the second begins when the first has ended."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    tids = []
    for _ in range(2):
        call = Task(qnx.MsgSend, coid, b"message")
        found = receive(qnx, chid)
        qnx.MsgReply(found.rcvid, 0)
        call.result()
        call.join()
        tids.append(str(found.info.tid))
    yield "TH03", " ".join(tids)


@measured("TH03")
def test_a_thread_has_the_number_of_one_that_has_ended(alone: Peer) -> Answers:
    """Threads are numbered from 1 in each process."""
    yield from played(alone, number_threads)


@measured("TH06", "TH07")
def test_a_message_outlives_the_thread_that_received_it(qnx: Any, start: Start, client: Client) -> Answers:
    """Another thread answers it."""
    chid = qnx.ChannelCreate(0)
    call = client.send(client.attach(chid))
    receiving = start(qnx.MsgReceive, chid, bytearray(10))
    rcvid = receiving.result()
    receiving.join()
    before = state(call)
    yield "TH06", f"{before}; {told(qnx.MsgReply, rcvid, 6)}"
    yield "TH07", outcome(call)


def send_at(qnx: Any, coid: int, priority: int) -> int:
    """Send a message, at a priority if there is one."""
    if priority:
        take_priority(qnx, priority)
    return int(qnx.MsgSend(coid, b"message"))


@measured("PP01", "PP02")
def test_a_message_has_the_priority_of_its_sender(qnx: Any, client: Client) -> Answers:
    """An ordinary thread's is 10."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for name, priority in (("PP01", 0), ("PP02", 12)):
        call = client.start(send_at, coid, priority)
        found = receive(qnx, chid)
        qnx.MsgReply(found.rcvid, 0)
        call.result()
        yield name, str(found.info.priority)


def own_priority(qnx: Any) -> str:
    """The priority of the calling thread: that of a message which it sends."""
    chid = qnx.ChannelCreate(0)
    receiving = Task(receive, qnx, chid)
    coid = qnx.ConnectAttach(0, 0, chid)
    answering = Task(lambda: qnx.MsgReply(receiving.result().rcvid, 0))
    qnx.MsgSend(coid, b"message")
    answering.result()
    return str(receiving.result().info.priority)


def take_priorities(qnx: Any) -> Answers:
    """The priority of a thread after each thing that it receives."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    call = Task(send_at, qnx, coid, 14)
    found = receive(qnx, chid)
    yield "QX30", own_priority(qnx)
    qnx.MsgReply(found.rcvid, 0)
    call.result()
    yield "QX31", own_priority(qnx)
    qnx.MsgSendPulse(coid, 8, 1, 1)
    receive(qnx, chid)
    yield "QX32", own_priority(qnx)
    fixed = qnx.ChannelCreate(NTO_CHF_FIXED_PRIORITY)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, fixed), 20, 1, 1)
    receive(qnx, fixed)
    yield "QX33", own_priority(qnx)
    told(qnx.MsgReceive, -1, None)
    yield "QX34", own_priority(qnx)
    qnx.MsgSendPulse(coid, -1, 1, 1)
    yield "QX35", str(receive(qnx, chid))


@measured("QX30", "QX31", "QX32", "QX33", "QX34", "QX35")
def test_a_receiver_takes_the_priority_of_what_it_receives(alone: Peer) -> Answers:
    """And keeps it until it receives again."""
    yield from played(alone, take_priorities)
