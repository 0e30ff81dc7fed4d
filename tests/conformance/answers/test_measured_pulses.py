"""Pulses: what they carry, in which order they are received, and what room they need."""

from typing import Any, Dict, List, Sequence, Tuple

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_THREAD_DEATH,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    MessageInfo,
    Pulse,
)

from ..clients import Client, Start, transact_at
from ..peers import Peer
from ..receiving import receive_message
from ..servers import Server, StartPeer
from ..waiting import Task, eventually
from .asking import Answers, measured
from .ledgers import Received, nothing_or, receive
from .notation import PULSE_SIZE, UNTOUCHED, told
from .parties import outcome, played, state

CODES = (0, 127, 128, 255, 256, -1, -32, -33, -35, -128, -129, 1000)
PRIORITIES = (-1, 0, 1, 255, 256, 257, 300, -2, 64, 512)
WAITED_FOR = {
    "PU20": -1,
    "PU21": 0,
    "PU22": 1,
    "PU23": 255,
    "PU24": 256,
    "PU25": 257,
    "PU26": 300,
    "PU27": -2,
    "PU28": 64,
    "PU29": 512,
}
SENT_FAR = {"XP00": 0, "XP01": 256, "XP02": 257, "XP03": 300, "XP04": -2, "XP05": 255, "XP06": 1}

Sent = Tuple[int, int, int]


def send_pulses(qnx: Any, coid: int, pulses: Sequence[Sent]) -> List[str]:
    """Send pulses, each a priority, a code and a value; what MsgSendPulse says."""
    return [told(qnx.MsgSendPulse, coid, *pulse) for pulse in pulses]


def one_of(found: Received) -> str:
    """A pulse by code and value, or a message by what it says."""
    if found.rcvid:
        return "msg:" + found.data.decode()
    return f"{found.pulse.code}/{found.pulse.value.sival_int}"


def all_of(qnx: Any, chid: int) -> List[Received]:
    """All that waits on a channel, in order. Messages are answered."""
    everything: List[Received] = []
    while True:
        try:
            found = receive(qnx, chid, None)
        except TimeoutError:
            return everything
        everything.append(found)
        if found.rcvid:
            qnx.MsgReply(found.rcvid, 0)


def arrived(qnx: Any, chid: int) -> str:
    """The same, told."""
    return " ".join(map(one_of, all_of(qnx, chid))) or "(empty)"


# What a pulse carries.


@measured("PU01", "PU02", "PU03", "PU04", "PU05")
def test_what_a_pulse_carries(qnx: Any, start: Start, client: Client) -> Answers:
    """It has a code, a value and the scoid of its client; the record of a message's sender is not for it."""
    chid = qnx.ChannelCreate(0)
    coid, sender = client.attach(chid), MessageInfo()
    call = client.send(coid)
    qnx.MsgReply(receive_message(qnx, chid, None, sender), 0)
    call.result()
    (sent,) = client.run(send_pulses, coid, [(10, 5, 77)])
    yield "PU01", sent
    buffer, info = bytearray([UNTOUCHED] * (PULSE_SIZE + 1)), MessageInfo(pid=UNTOUCHED, msglen=UNTOUCHED)
    before = bytes(info)
    rcvid = qnx.MsgReceive(chid, buffer, info)
    pulse = Pulse.from_buffer_copy(buffer)
    yield "PU02", f"{rcvid} {pulse.type} {pulse.subtype} {pulse.code} {pulse.value.sival_int}"
    whose = "of the connection" if pulse.scoid == sender.scoid else "of another"
    zeros = " ".join(str(byte) for byte in buffer[Pulse.code.offset + 1 : Pulse.code.offset + 4])
    behind = "untouched" if buffer[PULSE_SIZE] == UNTOUCHED else "written"
    yield "PU03", f"{whose}; {zeros}; {behind}"
    yield "PU04", "untouched" if bytes(info) == before else "written"
    receiving = start(qnx.MsgReceive, chid, buffer, info).wait_until_blocked()
    client.run(send_pulses, coid, [(10, 5, 77)])
    kind = "message" if receiving.result() else "pulse"
    yield "PU05", f"{kind}; {'untouched' if bytes(info) == before else 'written'}"


@measured("PU06", "PU07", "PU08", "PU09", "PU10", "PU11", "PU12", "PU13", "PU14")
def test_the_order_in_which_pulses_are_received(qnx: Any, client: Client) -> Answers:
    """By priority, and within one as they came; none is merged with another."""
    chid = qnx.ChannelCreate(0)
    coid, other = client.attach(chid), client.attach(chid)

    def sent(*pulses: Sent) -> str:
        return " ".join(client.run(send_pulses, coid, pulses))

    sent(*((10, number, number) for number in range(3)))
    yield "PU06", arrived(qnx, chid)
    priorities = (5, 20, 10, 20, 1, 63, 30, 10)
    sent(*((priority, number, priority) for number, priority in enumerate(priorities)))
    yield "PU07", arrived(qnx, chid)
    sent(*[(10, 7, 7)] * 5)
    client.run(send_pulses, other, [(10, 7, 7)])
    yield "PU08", arrived(qnx, chid)
    sent((10, 7, 7), (10, 8, 8), (10, 7, 7))
    yield "PU09", arrived(qnx, chid)
    yield "PU10", sent(*((10, code, number) for number, code in enumerate(CODES)))
    yield "PU11", arrived(qnx, chid)
    yield "PU12", sent(*((priority, number, priority) for number, priority in enumerate(PRIORITIES)))
    yield "PU13", arrived(qnx, chid)
    sent(*((10, number, value) for number, value in enumerate((0, -1, 2**31 - 1, -(2**31)))))
    yield "PU14", arrived(qnx, chid)


@measured(*WAITED_FOR)
def test_a_receiver_waits_for_a_pulse_of_a_priority(qnx: Any, start: Start, client: Client) -> Answers:
    """A priority that there is ends the wait; another one does not."""
    for name, priority in WAITED_FOR.items():
        chid = qnx.ChannelCreate(0)
        coid = client.attach(chid)
        receiving = start(qnx.MsgReceive, chid, bytearray(PULSE_SIZE)).wait_until_blocked()
        (sent,) = client.run(send_pulses, coid, [(priority, 1, 1)])
        yield name, f"{priority}: {sent}, receiver {'blocked' if receiving.is_blocked() else 'pulse'}"
        qnx.ChannelDestroy(chid)


@measured(*SENT_FAR)
def test_another_process_waits_for_a_pulse_of_a_priority(qnx: Any, start_peer: StartPeer) -> Answers:
    """The same, where the receiver is a server of its own."""
    server = Server(start_peer())
    coid = qnx.ConnectAttach(0, server.pid, server.chid)
    for number, (name, priority) in enumerate(SENT_FAR.items()):
        receiving = server.peer.start(receive_any, server.chid).wait_until_blocked()
        sent = told(qnx.MsgSendPulse, coid, priority, number, priority)
        if receiving.is_blocked():
            yield name, f"{priority}: {sent}; (nothing)"
            qnx.MsgSendPulse(coid, 10, 0, 0)
            receiving.result()
        else:
            yield name, f"{priority}: {sent}; pulse {'{} value {}'.format(*receiving.result())}"


def receive_any(qnx: Any, chid: int) -> Tuple[int, int]:
    """In another process: wait for a pulse; its code and value."""
    pulse = Pulse()
    qnx.MsgReceive(chid, pulse)
    return pulse.code, pulse.value.sival_int


@measured("PU15", "PU16")
def test_pulses_on_connections_that_are_none(qnx: Any) -> Answers:
    """That is looked at before the priority."""
    detached = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    qnx.ConnectDetach(detached)
    none = (99_999, -1, NTO_SIDE_CHANNEL + 900_000, detached)
    yield "PU15", " ".join(told(qnx.MsgSendPulse, coid, 10, 1, 1) for coid in none)
    yield "PU16", told(qnx.MsgSendPulse, none[0], 256, 1, 1)


@measured("PU17", "PU18", "PU19", "PU30")
def test_a_pulse_without_room_is_lost(qnx: Any) -> Answers:
    """It has to fit into the first part."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    send_pulses(qnx, coid, [(10, 1, 1), (10, 2, 2)])
    yield "PU17", told(qnx.MsgReceive, chid, bytearray(PULSE_SIZE - 1))
    yield "PU18", arrived(qnx, chid)
    send_pulses(qnx, coid, [(10, 1, 1)])
    refused = told(qnx.MsgReceivePulse, chid, bytearray(4))
    yield "PU19", f"{refused}; {arrived(qnx, chid)}"
    send_pulses(qnx, coid, [(10, 1, 1)])
    refused = told(qnx.MsgReceivev, chid, [bytearray(4), bytearray(60)])
    yield "PU30", f"{refused}; {arrived(qnx, chid)}"


@measured("XS00", "XS01")
def test_a_pulse_comes_to_a_receiver_without_room(qnx: Any, start: Start) -> Answers:
    """The receiver is told, and the pulse is lost."""
    for name, call in (("XS00", qnx.MsgReceive), ("XS01", qnx.MsgReceivePulse)):
        chid = qnx.ChannelCreate(0)
        receiving = start(call, chid, bytearray(8)).wait_until_blocked()
        sent = told(qnx.MsgSendPulse, qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
        yield name, f"{sent}; {outcome(receiving)}; {nothing_or(qnx, chid)}"


# Pulses and messages.


@measured("PM01", "PM02", "PM03", "PM04")
def test_pulses_and_messages_are_one_queue(qnx: Any, client: Client) -> Answers:
    """The higher priority comes first, and what came first within one; MsgReceivePulse passes messages over."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)

    def pulse(priority: int, code: int) -> None:
        client.run(send_pulses, coid, [(priority, code, code)])

    pulse(10, 1)
    calls = [client.send(coid, b"A").wait_until_blocked()]
    pulse(10, 2)
    calls.append(client.send(coid, b"B").wait_until_blocked())
    pulse(15, 3)
    pulse(5, 4)
    yield "PM01", arrived(qnx, chid)
    for priority, message in ((8, b"low8"), (12, b"high12")):
        calls.append(client.start(transact_at, priority, coid, message, 0).wait_until_blocked())
    pulse(10, 1)
    yield "PM02", arrived(qnx, chid)
    calls.append(client.send(coid, b"A").wait_until_blocked())
    pulse(10, 1)
    buffer = bytearray(PULSE_SIZE)
    qnx.MsgReceivePulse(chid, buffer)
    yield "PM03", one_of(Received(0, buffer, MessageInfo()))
    yield "PM04", arrived(qnx, chid)
    for call in calls:
        call.result()


@measured("PM05", "PM06", "PM07", "PM08")
def test_who_gets_a_pulse(qnx: Any, start: Start, client: Client) -> Answers:
    """A receiver of pulses gets no message, and MsgReceive is served before MsgReceivePulse."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    receiving = start(qnx.MsgReceivePulse, chid, bytearray(PULSE_SIZE)).wait_until_blocked()
    sending = client.send(coid)
    yield "PM05", f"{state(receiving)} {state(sending)}"
    client.run(send_pulses, coid, [(10, 1, 1)])
    said = outcome(receiving)
    yield "PM06", f"{'pulse' if said == '0' else 'no pulse'} {said}"
    qnx.MsgReply(receive_message(qnx, chid), 0)
    sending.result()
    for name, order in (("PM07", ("MsgReceivePulse", "MsgReceive")), ("PM08", ("MsgReceive", "MsgReceivePulse"))):
        waiting = {call: start(getattr(qnx, call), chid, bytearray(PULSE_SIZE)).wait_until_blocked() for call in order}
        client.run(send_pulses, coid, [(10, 1, 1)])
        yield name, next_done(waiting)
        client.run(send_pulses, coid, [(10, 1, 1)])
        for task in waiting.values():
            task.result()


def next_done(waiting: Dict[str, Task]) -> str:
    """Which of those that wait has returned; only one does."""
    eventually(lambda: any(task.done for task in waiting.values()), "a receiver to return")
    return " ".join(name for name, task in waiting.items() if not task.is_blocked())


@measured("PM09", "PM10", "PM11")
def test_who_has_waited_least_is_served_first(qnx: Any, start: Start, client: Client) -> Answers:
    """Of several threads that wait, the last one is the first."""
    for name, call, sends in (
        ("PM09", "MsgReceive", "message"),
        ("PM10", "MsgReceive", "pulse"),
        ("PM11", "MsgReceivePulse", "pulse"),
    ):
        chid = qnx.ChannelCreate(0)
        coid = client.attach(chid)
        # The first message and the first pulse on a connection are told of in two steps on a host: of a way, and of
        # what comes on it. Between the two, another thread may have waited least.
        used = client.send(coid)
        qnx.MsgReply(receive_message(qnx, chid), 0)
        used.result()
        client.run(send_pulses, coid, [(10, 1, 1)])
        qnx.MsgReceivePulse(chid, bytearray(PULSE_SIZE))
        waiting = {
            str(number): start(getattr(qnx, call), chid, bytearray(PULSE_SIZE)).wait_until_blocked()
            for number in range(3)
        }
        order = []
        while waiting:
            sending = client.send(coid) if sends == "message" else None
            if sending is None:
                client.run(send_pulses, coid, [(10, 1, 1)])
            chosen = next_done(waiting)
            order.append(chosen)
            rcvid = waiting.pop(chosen).result()
            if sending is not None:
                qnx.MsgReply(rcvid, 0)
                sending.result()
        yield name, " ".join(order) if sends == "message" else order[0]


# Pulses of the system.


QUEUED = ((63, 1, 0), (10, 2, 0), (5, 3, 0))


def hear_of_a_server(qnx: Any, pid: int, chid: int) -> Tuple[int, int]:
    """A channel with pulses on it that hears of the death of a server, and the connection to that."""
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    coid = qnx.ConnectAttach(0, pid, chid)
    send_pulses(qnx, qnx.ConnectAttach(0, 0, own), QUEUED)
    return own, coid


def queue_a_thread_death(qnx: Any) -> Answers:
    """Pulses, and a thread that ends."""
    own = qnx.ChannelCreate(NTO_CHF_THREAD_DEATH)
    coid = qnx.ConnectAttach(0, 0, own)
    chid = qnx.ChannelCreate(0)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    send_pulses(qnx, coid, QUEUED)
    Task(receive, qnx, chid).join()
    yield "XP11", " ".join(str(one.pulse.code) for one in all_of(qnx, own))


@measured("XP10")
def test_the_death_of_a_server_is_queued(alone: Peer, start_peer: StartPeer) -> Answers:
    """The pulse that tells of it has the priority of an ordinary thread."""
    server = Server(start_peer())
    own, coid = alone.run(hear_of_a_server, server.pid, server.chid)
    server.kill()
    yield "XP10", alone.run(codes_after_a_death, own, coid)


def codes_after_a_death(qnx: Any, own: int, coid: int) -> str:
    """What waits on a channel, once the client knows of the death."""
    eventually(lambda: told(qnx.MsgSend, coid, b"message") == "-1 EBADF", "the server to be lost")
    return " ".join(str(one.pulse.code) for one in all_of(qnx, own))


@measured("XP11")
def test_the_end_of_a_thread_is_queued(alone: Peer) -> Answers:
    """The pulse that tells of it is one of those that wait."""
    yield from played(alone, queue_a_thread_death)


@measured("XP12", "XP13")
def test_the_end_of_a_client_is_queued(qnx: Any, client: Client) -> Answers:
    """The pulse that tells of it comes before all others; nothing tells of its beginning."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = client.attach(chid)
    leaving = client.attach(chid, flags=NTO_COF_NOSHARE)
    yield "XP13", nothing_or(qnx, chid)
    call = client.send(coid).wait_until_blocked()
    client.run(send_pulses, coid, [(63, 1, 1)])
    client.detach(leaving)
    first = receive(qnx, chid)
    rest = all_of(qnx, chid)
    yield "XP12", " ".join("msg" if one.rcvid else str(one.pulse.code) for one in (first, *rest))
    call.result()
