"""Readiness: what ionotify sends and returns, the event that a server delivers for it, and how it recovers."""

import os
import signal
import struct
from errno import EAGAIN, EBADF, EBUSY, EINTR, EIO, ENOSYS, ESRCH, ETIMEDOUT
from pathlib import Path
from typing import Any, List

import pytest

from ha_qnx import (
    EOK,
    IO_NOTIFY,
    IO_NOTIFY64,
    NOTIFY_ACTION_CONDARM,
    NOTIFY_ACTION_POLL,
    NOTIFY_ACTION_POLLARM,
    NOTIFY_ACTION_TRANARM,
    NOTIFY_COND_EXTEN,
    NOTIFY_COND_INPUT,
    NOTIFY_COND_MASK,
    NOTIFY_COND_OBAND,
    NOTIFY_COND_OUTPUT,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    SIGEV_NONE,
    SIGEV_PULSE_INIT,
    SIGEV_PULSE_PRIO_INHERIT,
    SigEvent,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import assert_nothing_waits, receive_pulse
from .servers import Seen, Server, Start, StartPeer, next_number, opened, take
from .test_recovery import Recovering, give_up, ha_opened

SIDE = NTO_SIDE_CHANNEL
POLLARM, INPUT = NOTIFY_ACTION_POLLARM, NOTIFY_COND_INPUT
#: Which message is sent, where the event lies in it, and how long it is.
KIND, EVENT, LENGTH = (IO_NOTIFY64, 64, 96) if struct.calcsize("P") == 8 else (IO_NOTIFY, 12, 64)


def answer(conditions: int) -> bytes:
    """What a server answers to ionotify."""
    return struct.pack("=II", 0, conditions)


def event_in(seen: Seen) -> SigEvent:
    """The event that a server has received."""
    return SigEvent.from_buffer_copy(seen.data, 64 if seen.type == IO_NOTIFY64 else 12)


@pytest.fixture
def event(qnx: Any) -> SigEvent:
    """A pulse to a channel of this process; the value is the channel."""
    chid = qnx.ChannelCreate(0)
    made: SigEvent = SIGEV_PULSE_INIT(qnx.ConnectAttach(0, 0, chid), SIGEV_PULSE_PRIO_INHERIT, 7, chid)
    return made


@checks("B490")
@pytest.mark.parametrize(
    ("action", "flags"),
    [
        (NOTIFY_ACTION_POLLARM, NOTIFY_COND_INPUT),
        (NOTIFY_ACTION_POLL, NOTIFY_COND_OUTPUT),
        (NOTIFY_ACTION_TRANARM, NOTIFY_COND_OBAND),
        (NOTIFY_ACTION_CONDARM, NOTIFY_COND_MASK | 0x1065),
    ],
)
def test_a_server_is_asked(qnx: Any, start: Start, server: Server, event: SigEvent, action: int, flags: int) -> None:
    """By a message with the action, the conditions and the event, which the reply may be as long as."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, action, flags, event)
    seen = server.answer(EOK, answer(0))
    assert task.result() == 0
    kind, length, *asked = struct.unpack_from("=HHiI", seen.data)
    assert kind in (IO_NOTIFY, IO_NOTIFY64)
    assert asked == [action, flags]
    assert bytes(event_in(seen)) == bytes(event)
    assert (seen.size, seen.room, seen.coid) == (length, length, fd)


@open_point("D111")
@checks("B494")
def test_a_program_of_64_bits_sends_more(qnx: Any, start: Start, server: Server, event: SigEvent) -> None:
    """The event stands at the end, and nothing before it but what is asked."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, POLLARM, INPUT, event)
    seen = server.answer(EOK, answer(0))
    assert task.result() == 0
    assert struct.unpack_from("=HH", seen.data) == (KIND, LENGTH)
    assert seen.data[12:EVENT] == bytes(EVENT - 12)


@checks("B490")
def test_without_an_event_there_is_none(qnx: Any, start: Start, server: Server) -> None:
    """What takes an event back hands in one that does nothing."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, POLLARM, INPUT)
    assert event_in(server.answer(EOK, answer(0))).sigev_notify == SIGEV_NONE
    assert task.result() == 0


@checks("B490")
def test_arguments_have_to_be_some(qnx: Any, event: SigEvent) -> None:
    """Flags are bits, and may be negative as in C; an event is a SigEvent."""
    for arguments in (("1", POLLARM, INPUT), (1, "1", INPUT), (1, POLLARM, "1"), (1, POLLARM, INPUT, b"event")):
        with pytest.raises(TypeError):
            qnx.ionotify(*arguments)
    for flags in (1 << 32, -(1 << 31) - 1):
        with pytest.raises(ValueError, match="flags"):
            qnx.ionotify(1, POLLARM, flags, event)
    with fails_with(EBADF):
        qnx.ionotify(next_number(), POLLARM, NOTIFY_COND_EXTEN - (1 << 32), event)


@checks("B491")
@pytest.mark.parametrize("conditions", [0, INPUT, 1, NOTIFY_COND_MASK, NOTIFY_COND_EXTEN | 5])
def test_what_the_server_says_holds(qnx: Any, start: Start, server: Server, conditions: int) -> None:
    """The second word of its reply, a number without a sign."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, POLLARM, INPUT)
    server.answer(EOK, answer(conditions))
    assert task.result() == conditions


@checks("B491")
def test_a_reply_without_conditions_is_no_failure(qnx: Any, start: Start, server: Server) -> None:
    """Whatever its status is."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, POLLARM, INPUT)
    server.answer(9)
    assert task.result() != -1


@checks("B492")
@pytest.mark.parametrize("error", [ENOSYS, EIO, EAGAIN, EBUSY, EBADF])
def test_what_a_server_refuses_is_raised(qnx: Any, start: Start, server: Server, error: int) -> None:
    """As its errno."""
    fd = opened(qnx, start, server)
    task = start(qnx.ionotify, fd, POLLARM, INPUT)
    server.refuse(error)
    with fails_with(error):
        task.result()


def deliver(qnx: Any, seen: Seen) -> int:
    """In a server: let the event of a client act."""
    result: int = qnx.MsgDeliverEvent(seen.rcvid, event_in(seen))
    return result


@checks("B493", "B460")
def test_an_armed_event_is_delivered_later(qnx: Any, start: Start, server: Server, event: SigEvent) -> None:
    """By the rcvid of the message that handed it in, long answered, and as it was handed in."""
    chid = event.sigev_value.sival_int
    fd = opened(qnx, start, server)
    qnx.MsgRegisterEvent(event, fd)
    task = start(qnx.ionotify, fd, POLLARM, INPUT, event)
    seen = server.answer(EOK, answer(0))
    assert task.result() == 0
    assert_nothing_waits(qnx, chid)
    assert server.peer.run(deliver, seen) == 0
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.value.sival_int) == (7, chid)
    assert_nothing_waits(qnx, chid)


@checks("D111")
def test_a_file_of_the_host_is_not_asked(qnx: Any, tmp_path: Path, event: SigEvent) -> None:
    """ENOSYS: a host has select for its own."""
    fd = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with fails_with(ENOSYS):
        qnx.ionotify(fd, POLLARM, INPUT, event)


@checks("B492")
@pytest.mark.parametrize("bad", ["closed", "negative", "side channel"])
def test_what_is_not_open_has_no_conditions(qnx: Any, event: SigEvent, bad: str) -> None:
    """A number that is no descriptor: EBADF."""
    number = {"closed": next_number(), "negative": -1, "side channel": SIDE | 1000}[bad]
    with fails_with(EBADF):
        qnx.ionotify(number, POLLARM, INPUT, event)


@checks("B492", "B345")
@pytest.mark.parametrize(("state", "error"), [("idle", EBADF), ("waiting", ESRCH)])
def test_an_ordinary_connection_loses_its_server(
    qnx: Any, start: Start, peer: Peer, name: str, event: SigEvent, state: str, error: int
) -> None:
    """A server that is killed while it is asked: ESRCH; one that was dead before: EBADF."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    task = server.lose(state, lambda: start(qnx.ionotify, fd, POLLARM, INPUT, event))
    with fails_with(error):
        task.result()


@checks("D111", "B369")
@pytest.mark.parametrize("state", ["idle", "waiting"])
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_the_next_server_is_asked_again(
    qnx: Any, start: Start, start_peer: StartPeer, event: SigEvent, index: int, state: str
) -> None:
    """A server that is killed when it is asked, or before: the next one arms the event, and delivers it."""
    first, second = Server(start_peer()), Server(start_peer())

    def reconnect(coid: int) -> Any:
        first.wait_until_gone()
        return qnx.ha_ReConnectAttach(coid, 0, second.pid, second.chid, index, 0)

    recovering = Recovering(reconnect)
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, index, 0, recovering)
    task = first.lose(state, lambda: start(qnx.ionotify, coid, POLLARM, INPUT, event))
    seen = second.answer(EOK, answer(0))
    assert task.result() == 0
    assert (bytes(event_in(seen)), seen.coid) == (bytes(event), coid)
    assert recovering.calls == [(coid, None)]
    assert second.peer.run(deliver, seen) == 0
    assert receive_pulse(qnx, event.sigev_value.sival_int).code == 7


@checks("D111", "B364", "B367")
def test_what_is_not_recovered_is_raised(qnx: Any, start: Start, peer: Peer, name: str, event: SigEvent) -> None:
    """A recovery function that gives up leaves the error; what the server answers does not call it."""
    server = Server(peer, name)
    recovering = Recovering(give_up)
    fd = ha_opened(qnx, start, server, recovering)
    task = start(qnx.ionotify, fd, POLLARM, INPUT, event)
    server.refuse(ENOSYS)
    with fails_with(ENOSYS):
        task.result()
    assert recovering.count == 0
    task = start(qnx.ionotify, fd, POLLARM, INPUT, event)
    server.take()
    server.kill()
    with fails_with(ESRCH):
        task.result()
    assert recovering.count == 1


@checks("B492", "B209")
def test_a_timeout_ends_the_asking(qnx: Any, start: Start, server: Server) -> None:
    """TimerTimeout limits ionotify like any other call that sends a message."""
    fd = opened(qnx, start, server)

    def limited() -> Any:
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
        return qnx.ionotify(fd, POLLARM, INPUT)

    with fails_with(ETIMEDOUT):
        start(limited).result()


def ask_interrupted(qnx: Any, pid: int, chid: int) -> List[int]:
    """In another process: ask, until a signal whose handler returns ends it; the errno."""
    handled: List[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))
    coid = qnx.ConnectAttach(0, pid, chid, 0)
    try:
        qnx.ionotify(coid, POLLARM, INPUT)
    except OSError as error:
        handled.append(error.errno or 0)
    return handled


@checks("B492", "B180", "D19")
def test_a_signal_handler_ends_the_asking(qnx: Any, start: Start, peer: Peer) -> None:
    """A signal whose handler ran while ionotify waited ends it with EINTR, after the handler."""
    chid = qnx.ChannelCreate(0)
    remote = peer.begin(ask_interrupted, os.getpid(), chid)
    start(take, qnx, chid).result()
    remote.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert remote.result() == [signal.SIGUSR1, EINTR]
