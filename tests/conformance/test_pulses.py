"""Pulses: MsgSendPulse, MsgReceivePulse, and the order in which pulses and messages are received."""

import os
import threading
from ctypes import c_void_p, sizeof
from errno import EAGAIN, EBADF, EFAULT, EINVAL, EPERM, ESRCH, ETIMEDOUT
from typing import Any, Iterator, List, Tuple

import pytest

from ha_qnx import (
    CLOCK_MONOTONIC,
    NTO_CHF_FIXED_PRIORITY,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_RECEIVE,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    SIGEV_PULSE_INIT,
    Itimer,
    MessageInfo,
    Pulse,
)

from .clients import Client, Start, take_priority
from .cradle import PeerPool
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import PULSE_SIZE, assert_nothing_waits, receive_message, receive_pulse, receive_values
from .servers import create_channel
from .waiting import DEADLINE, eventually


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


def send_pulses(qnx: Any, pid: int, chid: int, *pulses: Tuple[int, int, int]) -> List[int]:
    """Send pulses, each a priority, a code and a value, on one new connection."""
    coid = qnx.ConnectAttach(0, pid, chid)
    return [qnx.MsgSendPulse(coid, *pulse) for pulse in pulses]


def send(qnx: Any, pid: int, chid: int, message: bytes = b"message") -> int:
    """Send a message on a new connection."""
    status: int = qnx.MsgSend(qnx.ConnectAttach(0, pid, chid), message, None)
    return status


# What arrives.


@checks("B234", "B243", "B244")
def test_a_pulse_carries_a_code_and_a_value(qnx: Any, client: Client) -> None:
    """A pulse arrives with type and subtype 0, its code, and its value, any signed number of 32 bits."""
    chid = qnx.ChannelCreate(0)
    sent = [(5, 0), (6, 1), (0, -1), (127, 2**31 - 1), (7, -(2**31))]
    assert client.run(send_pulses, os.getpid(), chid, *((10, *pulse) for pulse in sent)) == [0] * len(sent)
    pulses = [receive_pulse(qnx, chid) for _ in sent]
    assert [(pulse.type, pulse.subtype) for pulse in pulses] == [(0, 0)] * len(sent)
    assert [(pulse.code, pulse.value.sival_int) for pulse in pulses] == sent


def send_addresses(qnx: Any, pid: int, chid: int, addresses: List[int]) -> None:
    """Send pulses that carry addresses."""
    coid = qnx.ConnectAttach(0, pid, chid)
    for address in addresses:
        assert qnx.MsgSendPulsePtr(coid, 10, 5, address) == 0


# The last one has room in a ``void *``, and more than a number's.
ADDRESSES = [0, 1, 1 << 31, (1 << 8 * sizeof(c_void_p)) - 2]


@checks("B243")
def test_a_pulse_carries_an_address(qnx: Any, client: Client) -> None:
    """All of it arrives."""
    chid = qnx.ChannelCreate(0)
    client.run(send_addresses, os.getpid(), chid, ADDRESSES)
    pulses = [receive_pulse(qnx, chid) for _ in ADDRESSES]
    assert [(pulse.code, pulse.value.sival_ptr or 0) for pulse in pulses] == [(5, address) for address in ADDRESSES]


@checks("B243")
def test_a_number_is_all_there_is_of_its_value(qnx: Any, client: Client) -> None:
    """Nothing of an address that was sent before is left in it."""
    chid = qnx.ChannelCreate(0)
    client.run(send_addresses, os.getpid(), chid, ADDRESSES[-1:])
    pulse = receive_pulse(qnx, chid)
    client.run(send_pulses, os.getpid(), chid, (10, 5, 7))
    assert qnx.MsgReceive(chid, pulse) == 0
    assert pulse.value.sival_ptr == 7


@checks("B243")
def test_the_event_of_a_timer_carries_an_address(qnx: Any) -> None:
    """All of it arrives."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    event = SIGEV_PULSE_INIT(coid, 10, 5)
    event.sigev_value.sival_ptr = ADDRESSES[-1]
    timer = qnx.TimerCreate(CLOCK_MONOTONIC, event)
    qnx.TimerSettime(timer, 0, Itimer(1))
    assert receive_pulse(qnx, chid).value.sival_ptr == ADDRESSES[-1]
    qnx.TimerDestroy(timer)


@checks("B240", "B241", "B242")
@pytest.mark.parametrize(
    ("sent", "arrives"),
    [(0, 0), (127, 127), (-1, -1), (-128, -128), (128, -128), (255, -1), (256, 0), (1000, -24), (-129, 127)],
)
def test_the_low_8_bits_of_a_code_arrive(qnx: Any, sent: int, arrives: int) -> None:
    """A code is a signed number of 8 bits: what is above that is cut off, and the system's codes can be sent, too."""
    chid = qnx.ChannelCreate(0)
    assert qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, sent, 1) == 0
    assert receive_pulse(qnx, chid).code == arrives


def send_message_and_pulse(qnx: Any, pid: int, chid: int) -> None:
    coid = qnx.ConnectAttach(0, pid, chid)
    qnx.MsgSend(coid, b"message", None)
    qnx.MsgSendPulse(coid, 10, 1, 1)


@checks("B234")
def test_a_pulse_names_its_client_as_a_message_does(qnx: Any, client: Client) -> None:
    """The scoid of a pulse is that of the messages on the same connection."""
    chid, info = qnx.ChannelCreate(0), MessageInfo()
    sending = client.start(send_message_and_pulse, os.getpid(), chid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    sending.result()
    assert receive_pulse(qnx, chid).scoid == info.scoid
    assert info.scoid & NTO_SIDE_CHANNEL


@checks("B233", "B234", "B257")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivev", "MsgReceivePulse"])
def test_a_pulse_ends_the_wait_of_a_receiver(qnx: Any, start: Start, client: Client, call: str) -> None:
    """Each call that receives returns 0 for a pulse that arrives while it waits."""
    chid, pulse = qnx.ChannelCreate(0), Pulse()
    receiver = start(getattr(qnx, call), chid, [pulse] if call == "MsgReceivev" else pulse).wait_until_blocked()
    assert client.run(send_pulses, os.getpid(), chid, (10, 3, 4)) == [0]
    assert receiver.result() == 0
    assert (pulse.code, pulse.value.sival_int) == (3, 4)


@checks("B255", "B410")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivev", "MsgReceivePulse"])
def test_a_pulse_leaves_the_info_alone(qnx: Any, call: str) -> None:
    """The record for the sender of a message is not written to for a pulse."""
    chid, pulse, info = qnx.ChannelCreate(0), Pulse(), MessageInfo(pid=1234, scoid=77, msglen=99, flags=3)
    before = bytes(info)
    send_pulses(qnx, 0, chid, (10, 1, 1))
    assert getattr(qnx, call)(chid, [pulse] if call == "MsgReceivev" else pulse, info) == 0
    assert bytes(info) == before


@checks("B113", "B260")
def test_a_pulse_cannot_be_answered(qnx: Any) -> None:
    """There is nothing to answer under the rcvid 0."""
    chid = qnx.ChannelCreate(0)
    send_pulses(qnx, 0, chid, (10, 1, 1))
    receive_pulse(qnx, chid)
    with fails_with(ESRCH):
        qnx.MsgReply(0, 0)


# Where they wait.


@checks("B233", "B235")
def test_pulses_wait_until_they_are_received(qnx: Any, client: Client) -> None:
    """MsgSendPulse returns at once though nobody receives; the channel keeps the pulses."""
    chid = qnx.ChannelCreate(0)
    assert client.run(send_pulses, os.getpid(), chid, *((10, 1, value) for value in range(100))) == [0] * 100
    assert receive_values(qnx, chid, 100) == list(range(100))


@checks("B233", "B250")
def test_a_pulse_does_not_wait_for_a_server_that_receives_nothing(qnx: Any, start: Start, peer: Peer) -> None:
    """However much was given up on a connection, MsgSendPulse returns at once, if only to say that there is no room."""
    coid = qnx.ConnectAttach(0, peer.pid, peer.run(create_channel))
    for _ in range(1000):
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
        assert qnx.MsgSend_r(coid, b"message", bytearray(1)) == -ETIMEDOUT
    assert start(qnx.MsgSendPulse_r, coid, 10, 1, 1).result() in (0, -EAGAIN)


@checks("B239")
def test_equal_pulses_are_counted(qnx: Any, client: Client) -> None:
    """A pulse that is sent five times is received five times."""
    chid = qnx.ChannelCreate(0)
    client.run(send_pulses, os.getpid(), chid, *[(10, 1, 7)] * 5)
    assert receive_values(qnx, chid, 5) == [7] * 5
    assert_nothing_waits(qnx, chid)


def send_until_refused(qnx: Any, pid: int, chid: int, most: int) -> int:
    """Send pulses that nobody receives; how many were accepted before the first refusal."""
    coid = qnx.ConnectAttach(0, pid, chid)
    for value in range(most):
        try:
            qnx.MsgSendPulse(coid, 10, 1, value)
        except BlockingIOError:
            return value
    return most


def receive_in_order(qnx: Any, chid: int, count: int) -> None:
    pulse = Pulse()
    for value in range(count):
        assert qnx.MsgReceive(chid, pulse) == 0
        assert pulse.value.sival_int == value


@checks("B233", "B235", "B250")
def test_a_refused_pulse_is_eagain_and_no_accepted_one_is_lost(qnx: Any, start: Start, client: Client) -> None:
    """If more pulses wait than can be held, MsgSendPulse fails with EAGAIN, and works again when they are received."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    accepted = client.run(send_until_refused, os.getpid(), chid, 50_000)
    assert accepted >= 100
    start(receive_in_order, qnx, chid, accepted).result(4 * DEADLINE)
    assert_nothing_waits(qnx, chid)
    qnx.MsgSendPulse(coid, 10, 1, -1)
    assert receive_values(qnx, chid, 1) == [-1]


@checks("B261")
def test_a_pulse_outlives_its_sender(qnx: Any, peer: Peer) -> None:
    """The pulses of a process that was killed right after it sent them are received."""
    chid = qnx.ChannelCreate(0)
    peer.run(send_pulses, os.getpid(), chid, (10, 1, 1), (10, 1, 2), (10, 1, 3))
    peer.kill()
    assert receive_values(qnx, chid, 3) == [1, 2, 3]
    assert_nothing_waits(qnx, chid)


@checks("B235")
def test_pulses_outlive_the_connection_they_were_sent_on(qnx: Any) -> None:
    """A pulse is received though its connection was detached in the meantime."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.MsgSendPulse(coid, 10, 1, 8)
    qnx.ConnectDetach(coid)
    assert receive_values(qnx, chid, 1) == [8]


def send_from_threads(qnx: Any, pid: int, chid: int, threads: int, each: int) -> None:
    coid = qnx.ConnectAttach(0, pid, chid)

    def send_some(first: int) -> None:
        for value in range(first, first + each):
            qnx.MsgSendPulse(coid, 10, 1, value)

    senders = [threading.Thread(target=send_some, args=(number * each,)) for number in range(threads)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


@checks("B235", "B237")
def test_no_pulse_of_several_threads_is_lost(qnx: Any, client: Client) -> None:
    """Threads send pulses on one connection at the same time: all arrive, those of each thread in their order."""
    chid = qnx.ChannelCreate(0)
    client.run(send_from_threads, os.getpid(), chid, 4, 200)
    values = receive_values(qnx, chid, 800)
    assert sorted(values) == list(range(800))
    by_thread = [[value for value in values if value // 200 == number] for number in range(4)]
    assert by_thread == [list(range(number * 200, number * 200 + 200)) for number in range(4)]


# In which order they are received.


@checks("B236")
def test_the_highest_priority_is_received_first(qnx: Any, client: Client) -> None:
    """Of the pulses that wait, the one of the highest priority is received next."""
    chid = qnx.ChannelCreate(NTO_CHF_FIXED_PRIORITY)
    client.run(send_pulses, os.getpid(), chid, (10, 1, 10), (255, 1, 255), (1, 1, 1), (11, 1, 11), (9, 1, 9))
    assert receive_values(qnx, chid, 5) == [255, 11, 10, 9, 1]


@checks("B237")
def test_equal_priorities_are_received_in_the_order_they_were_sent(qnx: Any, client: Client) -> None:
    """Pulses of one priority keep their order, also if they come on different connections."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for value in range(0, 20, 2):
        qnx.MsgSendPulse(coid, 10, 1, value)
        client.run(send_pulses, os.getpid(), chid, (10, 2, value + 1))
    assert receive_values(qnx, chid, 20) == list(range(20))


def send_twice(qnx: Any, pid: int, chid: int) -> None:
    coid = qnx.ConnectAttach(0, pid, chid)
    qnx.MsgSend(coid, b"first", None)
    qnx.MsgSend(coid, b"second", None)


@checks("B238", "D14")
def test_messages_and_pulses_wait_in_one_queue(qnx: Any, client: Client) -> None:
    """A pulse passes a message of lower priority; at the same priority, what was sent first is received first."""
    chid, info = qnx.ChannelCreate(NTO_CHF_FIXED_PRIORITY), MessageInfo()
    sending = client.start(send_twice, os.getpid(), chid)
    rcvid = receive_message(qnx, chid, None, info)
    priority = info.priority
    send_pulses(qnx, 0, chid, (priority, 1, 1))
    qnx.MsgReply(rcvid, 0)
    sending.wait_until_blocked()
    send_pulses(qnx, 0, chid, (priority - 1, 1, 2), (priority, 1, 3), (priority + 1, 1, 4))
    assert receive_values(qnx, chid, 2) == [4, 1]
    qnx.MsgReply(receive_message(qnx, chid), 0)
    sending.result()
    assert receive_values(qnx, chid, 2) == [3, 2]


def send_message_and_three_pulses(qnx: Any, priority: int, pid: int, chid: int) -> None:
    """Send, by a thread of a certain priority, a message, and pulses below, at and above that priority."""
    take_priority(qnx, priority)
    send(qnx, pid, chid)
    send_pulses(qnx, pid, chid, (priority - 1, 1, 0), (-1, 1, 1), (priority + 1, 1, 2))


@checks("B245")
@pytest.mark.parametrize("priority", [5, 10, 30])
def test_the_priority_of_the_calling_thread_can_be_asked_for(qnx: Any, client: Client, priority: int) -> None:
    """Priority -1 sends a pulse with the priority that the thread's messages have."""
    chid, info = qnx.ChannelCreate(NTO_CHF_FIXED_PRIORITY), MessageInfo()
    sending = client.start(send_message_and_three_pulses, priority, os.getpid(), chid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    assert info.priority == priority
    sending.result()
    assert receive_values(qnx, chid, 3) == [2, 1, 0]


@checks("B98", "D14")
@open_point("D14")
def test_a_thread_has_priority_10(qnx: Any, peer: Peer) -> None:
    """The messages of a thread that nobody gave another priority have that of QNX's user threads, 10."""
    chid, info = qnx.ChannelCreate(0), MessageInfo()
    sending = peer.start(send, os.getpid(), chid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    sending.result()
    assert info.priority == 10


REALTIME = 23


def become_realtime(_qnx: Any) -> None:
    """Let the host give the calling thread a real-time priority."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME))


def send_as_realtime(qnx: Any, pid: int, chid: int) -> None:
    """Send a message by a thread with a real-time priority."""
    become_realtime(qnx)
    send(qnx, pid, chid)


@checks("B98", "D14")
@open_point("D14")
def test_a_realtime_thread_has_its_own_priority(qnx: Any, peer: Peer) -> None:
    """A thread that the host gave a real-time priority has that in its calls."""
    try:
        peer.start(become_realtime).result()
    except OSError as error:
        if error.errno != EPERM:
            raise
        pytest.skip("there is no right to real-time priorities here")
    chid, info = qnx.ChannelCreate(NTO_CHF_FIXED_PRIORITY), MessageInfo()
    sending = peer.start(send_as_realtime, os.getpid(), chid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    assert info.priority == REALTIME
    sending.result()


@checks("B246", "B247", "B407", "D30")
@open_point("D30")
@pytest.mark.parametrize("priority", [256, 512, 266, -2, -256, 2**31 - 1, -(2**31)])
def test_a_priority_has_to_be_one(qnx: Any, priority: int) -> None:
    """A pulse of a priority outside 0 to 255 is EINVAL and is not sent."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    with fails_with(EINVAL):
        qnx.MsgSendPulse(coid, priority, 1, 1)
    assert_nothing_waits(qnx, chid)


@checks("B246", "D30")
@open_point("D30")
def test_a_priority_of_0_is_taken_as_1(qnx: Any) -> None:
    """A pulse of priority 0 comes after one of 2 and before none: it has the lowest there is."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for priority in (0, 2, 1):
        qnx.MsgSendPulse(coid, priority, 1, priority)
    assert receive_values(qnx, chid, 3) == [2, 0, 1]


@checks("B246")
def test_a_connection_that_is_none_counts_before_a_priority_that_is_none(qnx: Any) -> None:
    """Both wrong is EBADF."""
    with fails_with(EBADF):
        qnx.MsgSendPulse(NTO_SIDE_CHANNEL | 3000, 256, 1, 1)


# Who gets them, and who does not.


@checks("B248")
@pytest.mark.parametrize("index", [NTO_SIDE_CHANNEL, 0], ids=["side-channel", "descriptor"])
def test_a_pulse_needs_a_connection_that_lives(qnx: Any, index: int) -> None:
    """MsgSendPulse on what is no connection, is detached, or has lost its channel is EBADF."""
    chid = qnx.ChannelCreate(0)
    never, detached, dead = index + 0x3FFF_0000, *(qnx.ConnectAttach(0, 0, chid, index) for _ in range(2))
    qnx.ConnectDetach(detached)
    qnx.ChannelDestroy(chid)
    for coid in (-1, never, detached, dead):
        with fails_with(EBADF):
            qnx.MsgSendPulse(coid, 10, 1, 1)


@checks("B451")
@pytest.mark.parametrize("sizes", [(PULSE_SIZE, 0), (PULSE_SIZE + 4, 0), (PULSE_SIZE, PULSE_SIZE)])
def test_a_pulse_is_received_into_the_first_part(qnx: Any, sizes: Tuple[int, int]) -> None:
    """MsgReceivePulsev leaves the other parts and the info alone, and messages where they are."""
    chid, info = qnx.ChannelCreate(0), MessageInfo(pid=1234)
    parts = [bytearray(b"." * size) for size in sizes]
    send_pulses(qnx, 0, chid, (10, 3, 99), (10, 4, 100))
    assert qnx.MsgReceivePulsev(chid, parts, info) == 0
    pulse = Pulse.from_buffer(parts[0])
    assert (pulse.code, pulse.value.sival_int, info.pid) == (3, 99, 1234)
    assert bytes(parts[0][PULSE_SIZE:]) + bytes(parts[1]) == b"." * (sum(sizes) - PULSE_SIZE)
    assert receive_values(qnx, chid, 1) == [100]


@checks("B451")
@pytest.mark.parametrize(
    "sizes", [(8, PULSE_SIZE - 8), (PULSE_SIZE - 1, 1), (1, PULSE_SIZE - 1), (8, 0), (0, PULSE_SIZE), ()]
)
def test_a_pulse_is_lost_whose_first_part_is_too_small(qnx: Any, sizes: Tuple[int, ...]) -> None:
    """MsgReceivePulsev fails with EFAULT, and the next pulse is the next."""
    chid = qnx.ChannelCreate(0)
    parts = [bytearray(b"." * size) for size in sizes]
    send_pulses(qnx, 0, chid, (10, 3, 99), (10, 4, 100))
    with fails_with(EFAULT):
        qnx.MsgReceivePulsev(chid, parts)
    assert b"".join(parts) == b"." * sum(sizes)
    assert receive_values(qnx, chid, 1) == [100]


@checks("B252")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivePulse"])
@pytest.mark.parametrize("room", [PULSE_SIZE - 1, 0])
def test_a_pulse_that_has_no_room_is_lost(qnx: Any, call: str, room: int) -> None:
    """A receiver whose buffer is smaller than a pulse gets EFAULT; the pulse is gone, the next one is not."""
    chid = qnx.ChannelCreate(0)
    send_pulses(qnx, 0, chid, (10, 1, 1), (10, 1, 2))
    with fails_with(EFAULT):
        getattr(qnx, call)(chid, bytearray(room))
    assert receive_values(qnx, chid, 1) == [2]
    assert_nothing_waits(qnx, chid)


@checks("B252")
def test_a_waiting_receiver_without_room_loses_the_pulse(qnx: Any, start: Start, client: Client) -> None:
    """The same holds for a pulse that arrives while the receiver waits; its sender notices nothing."""
    chid = qnx.ChannelCreate(0)
    receiver = start(qnx.MsgReceive, chid, bytearray(4)).wait_until_blocked()
    assert client.start(send_pulses, os.getpid(), chid, (10, 1, 1)).result() == [0]
    assert receiver.errno() == EFAULT
    assert_nothing_waits(qnx, chid)


@checks("B254")
def test_a_pulse_goes_into_the_first_part(qnx: Any) -> None:
    """Of several parts, only the first one is used for a pulse, and has to have room for all of it."""
    chid = qnx.ChannelCreate(0)
    send_pulses(qnx, 0, chid, (10, 1, 1), (10, 1, 2))
    with fails_with(EFAULT):
        qnx.MsgReceivev(chid, [bytearray(PULSE_SIZE - 1), bytearray(100)])
    pulse, rest = Pulse(), bytearray(b"untouched")
    assert qnx.MsgReceivev(chid, [pulse, rest]) == 0
    assert (pulse.value.sival_int, bytes(rest)) == (2, b"untouched")


@checks("B256", "B258")
@pytest.mark.parametrize("first", ["message", "receiver"])
def test_messages_wait_for_another_call(qnx: Any, start: Start, client: Client, first: str) -> None:
    """MsgReceivePulse waits though messages are queued, which stay for MsgReceive; the client is SEND-blocked."""
    chid, pulse, message = qnx.ChannelCreate(0), Pulse(), bytearray(20)
    if first == "message":
        sending = client.start(send, os.getpid(), chid, b"for MsgReceive").wait_until_blocked()
        receiver = start(qnx.MsgReceivePulse, chid, pulse).wait_until_blocked()
    else:
        receiver = start(qnx.MsgReceivePulse, chid, pulse).wait_until_blocked()
        sending = client.start(send, os.getpid(), chid, b"for MsgReceive").wait_until_blocked()
    receiver.wait_until_blocked()
    send_pulses(qnx, 0, chid, (1, 1, 5))
    assert (receiver.result(), pulse.value.sival_int) == (0, 5)
    rcvid = receive_message(qnx, chid, message)
    assert message.startswith(b"for MsgReceive")
    qnx.MsgReply(rcvid, 3)
    assert sending.result() == 3


@checks("B259")
@pytest.mark.parametrize("first", ["MsgReceive", "MsgReceivePulse"])
def test_who_receives_everything_is_served_first(qnx: Any, start: Start, client: Client, first: str) -> None:
    """A pulse goes to a thread in MsgReceive, if there is one, and only then to one in MsgReceivePulse."""
    chid = qnx.ChannelCreate(0)
    pulses = {"MsgReceive": Pulse(), "MsgReceivePulse": Pulse()}
    receivers = {
        call: start(getattr(qnx, call), chid, pulses[call]).wait_until_blocked()
        for call in sorted(pulses, reverse=first == "MsgReceivePulse")
    }
    client.run(send_pulses, os.getpid(), chid, (10, 1, 1))
    assert receivers["MsgReceive"].result() == 0
    receivers["MsgReceivePulse"].wait_until_blocked()
    client.run(send_pulses, os.getpid(), chid, (10, 1, 2))
    assert receivers["MsgReceivePulse"].result() == 0
    assert [pulses[call].value.sival_int for call in ("MsgReceive", "MsgReceivePulse")] == [1, 2]


def send_pulse(qnx: Any, coid: int) -> None:
    qnx.MsgSendPulse(coid, 10, 1, 1)


def receive_into(qnx: Any, chid: int, room: int) -> int:
    rcvid: int = qnx.MsgReceive(chid, bytearray(room))
    return rcvid


def receive_with_limit(qnx: Any, chid: int, room: int) -> int:
    qnx.TimerTimeout(NTO_TIMEOUT_RECEIVE, 300_000_000)
    rcvid: int = qnx.MsgReceive(chid, bytearray(room))
    return rcvid


def keep_the_last(qnx: Any, chid: int, messages: int) -> int:
    """Answer so many messages, and receive one more."""
    for _ in range(messages):
        qnx.MsgReply(qnx.MsgReceive(chid, None), 0)
    return int(qnx.MsgReceive(chid, None))


def send_many(qnx: Any, coid: int, messages: int) -> None:
    for _ in range(messages):
        qnx.MsgSend(coid, b"message")


@checks("B256", "B259", "D85")
@pytest.mark.parametrize("pauses", [False, True])
def test_who_receives_pulses_is_served_after_many_messages(
    qnx: Any, start: Start, client: Client, pauses: bool
) -> None:
    """Messages that come one upon the other do not keep pulses from the thread in MsgReceivePulse, once one lasts."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    pulse = Pulse()
    receiver = start(qnx.MsgReceivePulse, chid, pulse).wait_until_blocked()
    other = start(keep_the_last, qnx, chid, 200).wait_until_blocked()
    client.run(send_many, coid, 200)
    if pauses:
        other.wait_until_blocked()
        receiver.wait_until_blocked()
    sending = client.send(coid)
    rcvid = other.result()
    client.run(send_pulse, coid)
    assert receiver.result() == 0
    qnx.MsgReply(rcvid, 0)
    sending.result()


@checks("B256", "B259")
@pytest.mark.parametrize("end", ["message", "pulse", "no-room", "timeout"])
def test_who_receives_pulses_is_served_when_the_other_has_left(
    qnx: Any, start: Start, client: Client, end: str
) -> None:
    """In whatever way a call to MsgReceive ends, the next pulse goes to the thread in MsgReceivePulse beside it."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    room = 0 if end == "no-room" else PULSE_SIZE
    if end == "timeout":
        other = start(receive_with_limit, qnx, chid, room).wait_until_blocked_or_done()
    else:
        other = start(receive_into, qnx, chid, room).wait_until_blocked()
    pulse = Pulse()
    receiver = start(qnx.MsgReceivePulse, chid, pulse).wait_until_blocked()
    if end == "message":
        sending = client.send(coid)
        qnx.MsgReply(other.result(), 0)
        sending.result()
    elif end == "timeout":
        assert other.errno() == ETIMEDOUT
    else:
        client.run(send_pulse, coid)
        if end == "pulse":
            assert other.result() == 0
        else:
            assert other.errno() == EFAULT
    receiver.wait_until_blocked()
    client.run(send_pulse, coid)
    assert receiver.result() == 0


@checks("B256", "B262")
def test_a_pulse_is_received_once(qnx: Any, start: Start, client: Client) -> None:
    """Of several threads in MsgReceivePulse, each pulse ends the wait of exactly one."""
    chid = qnx.ChannelCreate(0)
    pulses = [Pulse() for _ in range(3)]
    receivers = [start(qnx.MsgReceivePulse, chid, pulse).wait_until_blocked() for pulse in pulses]
    client.run(send_pulses, os.getpid(), chid, (10, 1, 1), (10, 1, 2))
    eventually(lambda: sum(receiver.done for receiver in receivers) >= 2, "two pulses to be received")
    (last,) = (receiver.wait_until_blocked() for receiver in receivers if not receiver.done)
    client.run(send_pulses, os.getpid(), chid, (10, 1, 3))
    assert last.result() == 0
    assert sorted(pulse.value.sival_int for pulse in pulses) == [1, 2, 3]
