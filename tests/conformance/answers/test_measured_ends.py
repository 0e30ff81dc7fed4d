"""Channels that are destroyed and connections that are detached while somebody waits on them."""

from typing import Any, List

import pytest

from ha_qnx import (
    NTO_CHF_DISCONNECT,
    NTO_CHF_THREAD_DEATH,
    NTO_CHF_UNBLOCK,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    MessageInfo,
)

from ..clients import Client, Start
from ..peers import Peer
from ..waiting import Task
from .asking import Answers, measured
from .ledgers import Ledger, nothing_or, receive
from .notation import PULSE_SIZE, listed, low, told, yes
from .parties import make, outcome, played, state

SIDE = NTO_SIDE_CHANNEL


def pulse(qnx: Any, coid: int) -> int:
    """Send a pulse."""
    return int(qnx.MsgSendPulse(coid, 10, 1, 1))


def send_without_reply(qnx: Any, coid: int, message: bytes) -> int:
    """Send a message that has room for no reply."""
    return int(qnx.MsgSend(coid, message))


def flags_of(qnx: Any, coid: int) -> int:
    """The flags of a connection, as ConnectServerInfo has them."""
    info = MessageInfo()
    qnx.ConnectServerInfo(0, coid, info)
    return int(info.flags)


def create_again(qnx: Any, chid: int) -> int:
    """Create channels until one has a number that was used before."""
    for _ in range(1000):
        again: int = qnx.ChannelCreate(0)
        if again >= chid:
            return again
    return -1


# A channel is destroyed.


@measured("CX01", "CX02", "CX03", "CX04", "CX05", "CX06", variant="where")
def test_clients_of_a_channel_that_is_destroyed(qnx: Any, client: Client, where: str) -> Answers:
    """Those that wait are told at once, the others when they use their connection."""

    def said(*calls: "tuple[Any, ...]") -> List[str]:
        return [told(client.run, *call) for call in calls]

    chid = qnx.ChannelCreate(0)
    coid, other = client.attach(chid), client.attach(chid)
    call = client.send(coid)
    before = state(call)
    qnx.ChannelDestroy(chid)
    yield "CX01", f"{before} then {outcome(call)}"
    lost = said((send_without_reply, coid, b"again"), (pulse, coid), (send_without_reply, other, b"again"))
    yield "CX02", "; ".join([*lost, told(client.detach, coid)])

    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    coid = client.attach(chid)
    calls = [client.send(coid) for _ in range(2)]
    for _ in calls:
        receive(qnx, chid)
    before = "blocked" if {state(call) for call in calls} == {"blocked"} else "not blocked"
    qnx.ChannelDestroy(chid)
    yield "CX03", f"{before} then {', '.join(map(outcome, calls))}"
    yield "CX04", told(client.run, send_without_reply, coid, b"again")

    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid, 0)
    qnx.ChannelDestroy(chid)
    idle = said((send_without_reply, coid, b"message"), (send_without_reply, coid, b""), (pulse, coid))
    yield "CX05", ", ".join(idle)
    yield "CX06", str(client.run(flags_of, coid))


@measured("CX07.thread")
def test_a_dead_connection_does_not_reach_a_new_channel(qnx: Any) -> Answers:
    """Not even one that has the old channel's number."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid, 0)
    qnx.ChannelDestroy(chid)
    again = create_again(qnx, chid)
    yield "CX07.thread", f"{'same' if again == chid else 'another'} chid, {told(qnx.MsgSend, coid, b'message')}"


@measured("CX10", "CX11", "CX12", "CX13")
def test_receivers_of_a_channel_that_is_destroyed(qnx: Any, start: Start) -> Answers:
    """They are told; what was queued is gone; and what is no channel cannot be received from."""
    chid = qnx.ChannelCreate(0)
    receiving = [start(call, chid, bytearray(PULSE_SIZE)) for call in (qnx.MsgReceive, qnx.MsgReceivePulse)]
    before = "blocked" if {state(call) for call in receiving} == {"blocked"} else "not blocked"
    qnx.ChannelDestroy(chid)
    yield "CX10", f"{before} then {', '.join(map(outcome, receiving))}"

    chid = qnx.ChannelCreate(0)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    qnx.ChannelDestroy(chid)
    again = create_again(qnx, chid)
    yield "CX11", f"{'same' if again == chid else 'another'} chid, {nothing_or(qnx, again)}"

    side = low(qnx.ConnectAttach(0, 0, again))
    none = listed(lambda other: qnx.MsgReceive(other, bytearray(PULSE_SIZE)), (-1, 0, 999, side), " ")
    yield "CX12", f"{none} {told(qnx.MsgReceivePulse, 999, bytearray(PULSE_SIZE))}"
    yield "CX13", told(qnx.MsgReceive, again | SIDE, bytearray(PULSE_SIZE))


# A thread ends.


def end_threads(qnx: Any) -> Answers:
    """Hear of threads that end, one of which has created the channel."""
    creating = Task(qnx.ChannelCreate, 0)
    chid = creating.result()
    creating.join()
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.MsgSendPulse(coid, 10, 5, 6)
    yield "CT01", f"ok, {receive(qnx, chid)}"
    hears = qnx.ChannelCreate(NTO_CHF_THREAD_DEATH)
    for name in ("CT02", "CT03"):
        qnx.MsgSendPulse(coid, 10, 1, 1)
        Task(receive, qnx, chid).join()
        yield name, str(receive(qnx, hears))


@measured("CT01", "CT02", "CT03")
def test_a_process_hears_of_its_threads(alone: Peer) -> Answers:
    """A channel outlives the thread that created it, and one that asked for it hears of threads that end."""
    yield from played(alone, end_threads)


# A connection is detached.


@measured("CB01", "CB02", "CB03", "CB04", "CB05", "CB05b", "CB06", "CB07", "CB08", "CB09", variant="where")
def test_a_connection_is_detached_under_a_sender(qnx: Any, client: Client, where: str) -> Answers:
    """A sender that nobody has received is freed at once; so is one that was, unless the server is asked first."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    ledger = Ledger(qnx, chid)
    coid = client.attach(chid)
    call = client.send(coid).wait_until_blocked()
    yield "CB01", f"{client.detach(coid)}: {outcome(call)}"
    yield "CB02", ledger.next()

    coid = client.attach(chid)
    call = client.send(coid)
    ledger.take()
    yield "CB03", f"{client.detach(coid)}: {outcome(call)}"
    yield "CB04", ledger.next()
    yield "CB05", ledger.answer()
    yield "CB05b", outcome(call)

    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK)
    ledger = Ledger(qnx, chid)
    coid, other = client.attach(chid), client.attach(chid, flags=NTO_COF_NOSHARE)
    call = client.send(coid)
    ledger.take()
    yield "CB06", f"{client.detach(coid)}: {state(call)}"
    yield "CB07", f"{yes(told(client.run, make, 'ConnectFlags', 0, coid, 0, 0) == '-1 EBADF')}; {ledger.next()}"
    answered = ledger.answer(3)
    yield "CB08", f"{outcome(call)}; {answered}; {ledger.next()}"
    client.detach(other)
    yield "CB09", ledger.next()


def attach_shared(client: Client, chid: int, how: str) -> int:
    """A connection, beside another one on the same channel or not."""
    if how == "shared":
        client.attach(chid)
    return client.attach(chid)


@measured("XD01", "XD02", "XD03", "XD04", variant="where_and_how")
def test_a_connection_that_is_shared_is_detached_under_a_sender(
    qnx: Any, start: Start, where_and_how: str, other: Peer
) -> Answers:
    """The server hears of the client's end only when its last connection goes."""
    where, _point, how = where_and_how.partition(".")
    client = Client(qnx, start, other if where == "process" else None)
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK)
    ledger = Ledger(qnx, chid)
    coid = attach_shared(client, chid, how)
    call = client.send(coid)
    ledger.take()
    yield "XD01", f"{client.detach(coid)}: {state(call)}"
    yield "XD02", f"{ledger.next()}; {told(client.run, send_without_reply, coid, b'again')}"
    lines = [ledger.answer(3)] + ([ledger.next()] if how == "plain" else [])
    yield "XD03", "; ".join([outcome(call), *lines, *remaining(ledger)])
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    ledger = Ledger(qnx, chid)
    coid = attach_shared(client, chid, how)
    call = client.send(coid)
    ledger.take()
    detached = client.detach(coid)
    yield "XD04", f"{detached}: {outcome(call)}; {ledger.next() if how == 'plain' else ledger.rest()}"


@pytest.fixture(params=["thread.plain", "thread.shared", "process.plain", "process.shared"])
def where_and_how(request: pytest.FixtureRequest) -> str:
    """Where the client is, and whether another connection of its leads to the same channel."""
    return str(request.param)


def remaining(ledger: Ledger) -> List[str]:
    """What else a server saw, if anything."""
    rest = ledger.rest()
    return [] if rest == "(nothing)" else [rest]


# Two senders, many times.


@measured("RP01")
def test_no_sender_is_told_that_it_never_had_a_connection(qnx: Any, start: Start) -> Answers:
    """ESRCH says that the server may have had the message, EBADF that it had not."""
    wrong = succeeded = 0
    for _ in range(15):
        chid = qnx.ChannelCreate(0)
        coid = qnx.ConnectAttach(0, 0, chid)
        calls = [start(qnx.MsgSend, coid, b"message") for _ in range(2)]
        for _ in calls:
            receive(qnx, chid)
        qnx.ChannelDestroy(chid)
        said = [outcome(call) for call in calls]
        wrong += said.count("-1 EBADF")
        succeeded += sum(not answer.startswith("-1") for answer in said)
    yield "RP01", f"{wrong} {succeeded}"
