"""Signals: which calls they end, and what the server is told of them.

Python runs signal handlers in the main thread, so that is where the calls are made, in a process of its own.
"""

import os
import pathlib
import signal
from errno import EINTR, EPERM, ETIMEDOUT
from typing import Any, List, Tuple

import pytest

from ha_qnx import (
    ERESTART,
    NTO_CHF_UNBLOCK,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    PULSE_CODE_UNBLOCK,
)

from ..clients import Call, attach, transact
from ..peers import Peer
from ..receiving import PULSE_SIZE, SHORT, receive_message
from ..servers import Server, StartPeer
from ..waiting import eventually
from .asking import Answers, measured
from .ledgers import Ledger, nothing_or, pulse_for, receive
from .notation import told, yes
from .parties import outcome, state

SIGNAL = signal.SIGUSR1


def note_signals(_qnx: Any, path: str) -> None:
    """In another process: write down each signal by a byte in a file."""

    def note(_number: int, _frame: object) -> None:
        with open(path, "ab") as file:
            file.write(b"x")

    signal.signal(SIGNAL, note)


def heed_signals(_qnx: Any) -> None:
    """In another process: ignore one signal, and leave another one as it is, which is to be ignored, too."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def let_calls_go_on(_qnx: Any, go_on: bool) -> None:
    """In another process: whether calls that the signal interrupts are to go on."""
    signal.siginterrupt(SIGNAL, not go_on)


def send(qnx: Any, coid: int) -> int:
    """Send a message of two bytes."""
    return int(qnx.MsgSend(coid, b"hi"))


def send_limited(qnx: Any, coid: int) -> int:
    """Send a message that is soon to be answered."""
    qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 8 * SHORT)
    return send(qnx, coid)


def receive_here(qnx: Any, call: str) -> int:
    """Wait for something that does not come."""
    return int(getattr(qnx, call)(qnx.ChannelCreate(0), bytearray(PULSE_SIZE)))


class Sender:
    """A process whose main thread sends, and gets signals."""

    def __init__(self, peer: Peer, notes: pathlib.Path) -> None:
        self.peer = peer
        self._notes = notes
        notes.touch()
        peer.run(note_signals, str(notes))

    def attach(self, chid: int) -> int:
        """Connect to a channel of this process."""
        coid: int = self.peer.run(attach, os.getpid(), chid, 0, 0)
        return coid

    def send(self, coid: int) -> Call:
        """Begin to send a message."""
        return self.peer.begin(send, coid)

    def interrupt(self, number: int = SIGNAL) -> None:
        """Send it a signal."""
        self.peer.signal(number)

    def handled(self) -> int:
        """How many signals it has handled so far."""
        return self._notes.stat().st_size

    def handled_anew(self) -> int:
        """How many since the last time."""
        count = self.handled()
        self._notes.write_bytes(b"")
        return count


@pytest.fixture
def sender(peer: Peer, tmp_path: pathlib.Path) -> Sender:
    """Another process, which notes signals."""
    return Sender(peer, tmp_path / "signals")


@pytest.fixture(params=["plain", "unblock"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whether the channel asks to be told of clients that want to be freed."""
    return str(request.param)


def flags_of(kind: str) -> int:
    return NTO_CHF_UNBLOCK if kind == "unblock" else 0


# A signal while a message is under way.


@measured("SI01", "SI02", "SI03", "SI04", variant="kind")
def test_a_signal_while_a_message_is_under_way(qnx: Any, sender: Sender, kind: str) -> Answers:
    """It ends the call, unless the message is received and the server is to be asked."""
    chid = qnx.ChannelCreate(flags_of(kind))
    ledger, coid = Ledger(qnx, chid), sender.attach(chid)
    call = sender.send(coid).wait_until_blocked()
    sender.interrupt()
    said = outcome(call)
    yield "SI01", f"{yes(sender.handled_anew())}, {said}"
    yield "SI02", ledger.rest()
    call = sender.send(coid)
    ledger.take()
    call.wait_until_blocked()
    sender.interrupt()
    yield "SI03", state(call)
    yield "SI04", ledger.next() if kind == "unblock" else ledger.rest()
    ledger.answer()


@measured("SI10.plain")
def test_a_message_whose_sender_was_interrupted_cannot_be_answered(qnx: Any, sender: Sender) -> Answers:
    """The sender waits no longer."""
    chid = qnx.ChannelCreate(0)
    ledger, call = Ledger(qnx, chid), sender.send(sender.attach(chid))
    ledger.take()
    call.wait_until_blocked()
    sender.interrupt()
    outcome(call)
    yield "SI10.plain", ledger.answer()


@measured("SI05.unblock", "SI06.unblock", "SI07.unblock", "SI08.unblock", "SI09.unblock")
def test_the_server_answers_an_interrupted_sender(qnx: Any, sender: Sender) -> Answers:
    """However often it was interrupted, the server is told once, and what it answers is what the sender gets."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    ledger, coid = Ledger(qnx, chid), sender.attach(chid)
    log: List[str] = []

    def interrupted() -> Call:
        call = sender.send(coid)
        ledger.take()
        call.wait_until_blocked()
        sender.interrupt()
        log.append(ledger.next())
        return call

    call = interrupted().wait_until_blocked()
    sender.interrupt()
    call.wait_until_blocked()
    yield "SI05.unblock", ledger.rest()
    log[:] = [ledger.answer(7)]
    yield "SI06.unblock", outcome(call)
    sender.handled_anew()
    for name, error in (("SI07.unblock", EINTR), ("SI08.unblock", -1)):
        call = interrupted()
        log.append(ledger.refuse(error))
        yield name, f"{outcome(call)}, {sender.handled_anew()}"
    call = interrupted()
    log.append(ledger.refuse(ERESTART))
    yield "SI09.unblock", f"{state(call)}, {'; '.join(log)}"
    ledger.take()
    ledger.answer()
    call.result()


@measured("SI11", "SI12", "SI13", "SI14", "SI15", "SI17", "SI18")
def test_which_signals_end_a_call(qnx: Any, sender: Sender) -> Answers:
    """Those that are handled, in the thread that waits; not those that are ignored."""
    chid = qnx.ChannelCreate(0)
    coid = sender.attach(chid)
    sender.peer.run(heed_signals)

    def ignored(call: Call) -> str:
        for number in (signal.SIGUSR2, signal.SIGCHLD):
            sender.interrupt(number)
        return state(call)

    def received() -> Call:
        call = sender.send(coid)
        receive_message(qnx, chid)
        return call.wait_until_blocked()

    call = received()
    yield "SI11", ignored(call)
    sender.interrupt()
    yield "SI12", outcome(call)
    for name, receiving in (("SI13", "MsgReceive"), ("SI14", "MsgReceivePulse")):
        call = sender.peer.begin(receive_here, receiving).wait_until_blocked()
        if name == "SI13":
            yield "SI15", ignored(call)
        sender.interrupt()
        yield name, outcome(call)
    sender.peer.run(let_calls_go_on, True)
    call = received()
    sender.interrupt()
    yield "SI17", outcome(call)
    sender.peer.run(let_calls_go_on, False)
    sender.handled_anew()
    beside = sender.peer.start(transact, coid, b"message", 0)
    rcvid = receive_message(qnx, chid)
    beside.wait_until_blocked()
    sender.interrupt()
    count = eventually(sender.handled, "the handler to run")
    yield "SI18", f"{count}, {state(beside)}"
    qnx.MsgReply(rcvid, 0)
    beside.result()


@measured("XS03")
def test_a_name_asks_before_a_sender_is_freed(qnx: Any, sender: Sender, name: str) -> Answers:
    """The channel of a name has NTO_CHF_UNBLOCK."""
    attached = qnx.name_attach(name)
    ledger, call = Ledger(qnx, attached.chid), sender.send(sender.attach(attached.chid))
    ledger.take()
    call.wait_until_blocked()
    sender.interrupt()
    seen = ledger.next()
    yield "XS03", f"{state(call)}; {seen}"
    ledger.answer()


# The unblock pulse.


@measured("SP01", "SP02", "SP03", "SP04", "SP05", "SP06")
def test_the_pulse_that_asks_for_an_answer(qnx: Any, sender: Sender) -> Answers:
    """It names the message, which says so itself as long as it is not answered."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    call = sender.send(sender.attach(chid))
    found = receive(qnx, chid)
    yield "SP01", str(qnx.MsgInfo(found.rcvid).flags)
    call.wait_until_blocked()
    sender.interrupt()
    yield "SP02", str(eventually(lambda: qnx.MsgInfo(found.rcvid).flags, "the message to say so"))
    asked = receive(qnx, chid)
    pulse = asked.pulse
    whose = f"{yes(pulse.value.sival_int == found.rcvid)} {yes(pulse.scoid == found.info.scoid)}"
    yield "SP03", f"{asked.rcvid} {pulse.type} {pulse.subtype} {pulse.code} {whose}"
    yield "SP04", str(qnx.MsgInfo(found.rcvid).flags)
    yield "SP05", f"{qnx.MsgRead(found.rcvid, bytearray(10))} {told(qnx.MsgReply, found.rcvid, 3)}"
    yield "SP06", outcome(call)


@measured("SP07", "SP08", "SP15")
def test_an_answer_takes_the_pulse_back(qnx: Any, sender: Sender) -> Answers:
    """As long as nobody has received it; it waits among the others."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    coid = sender.attach(chid)

    def asked() -> Tuple[Call, int]:
        call = sender.send(coid)
        rcvid = receive_message(qnx, chid)
        call.wait_until_blocked()
        sender.interrupt()
        eventually(lambda: qnx.MsgInfo(rcvid).flags, "the message to say so")
        return call, rcvid

    for name, answer, value in (("SP07", qnx.MsgReply, 4), ("SP08", qnx.MsgError, EPERM)):
        call, rcvid = asked()
        answer(rcvid, value)
        yield name, f"{outcome(call)}; {nothing_or(qnx, chid)}"
    own = qnx.ConnectAttach(0, 0, chid)
    call = sender.send(coid)
    rcvid = receive_message(qnx, chid)
    call.wait_until_blocked()
    for code, priority in ((1, 10), (2, 9), (3, 11)):
        qnx.MsgSendPulse(own, priority, code, 0)
    sender.interrupt()
    eventually(lambda: qnx.MsgInfo(rcvid).flags, "the message to say so")
    yield "SP15", " ".join(str(receive(qnx, chid).pulse.code) for _ in range(4))
    qnx.MsgReply(rcvid, 0)
    call.result()


@measured("SP09", "SP10", "SP11", "SP12", "SP13", "SP14")
def test_a_timeout_asks_for_an_answer(qnx: Any, sender: Sender) -> Answers:
    """As a signal does."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    coid = sender.attach(chid)

    def expired() -> Tuple[Call, int, str]:
        call = sender.peer.begin(send_limited, coid)
        rcvid = receive_message(qnx, chid)
        return call, rcvid, pulse_for(receive(qnx, chid), rcvid)

    call, rcvid, asked = expired()
    yield "SP09", f"{asked}; {state(call)}"
    yield "SP10", str(qnx.MsgInfo(rcvid).flags)
    qnx.MsgError(rcvid, ETIMEDOUT)
    yield "SP11", outcome(call)
    call, rcvid, _asked = expired()
    qnx.MsgReply(rcvid, 9)
    yield "SP12", outcome(call)
    yield "SP13", nothing_or(qnx, chid)
    call, rcvid, _asked = expired()
    qnx.MsgError(rcvid, -1)
    yield "SP14", outcome(call)


@measured("TS31", "TS32")
def test_a_signal_after_a_timeout(qnx: Any, sender: Sender) -> Answers:
    """The server has been asked already."""
    chid = qnx.ChannelCreate(NTO_CHF_UNBLOCK)
    call = sender.peer.begin(send_limited, sender.attach(chid))
    rcvid = receive_message(qnx, chid)
    asked = pulse_for(receive(qnx, chid), rcvid)
    call.wait_until_blocked()
    sender.interrupt()
    call.wait_until_blocked()
    yield "TS31", f"{asked}, {nothing_or(qnx, chid)}"
    qnx.MsgError(rcvid, EINTR)
    yield "TS32", outcome(call)


# Servers that have been asked, and go.


@measured("XO06", "XO07")
def test_a_server_goes_that_was_asked_for_an_answer(sender: Sender, start_peer: StartPeer) -> Answers:
    """Its client is told that it is lost."""
    for name in ("XO06", "XO07"):
        server = Server(start_peer(), flags=NTO_CHF_UNBLOCK)
        coid = sender.peer.run(attach, server.pid, server.chid, 0, 0)
        call = sender.send(coid)
        server.take()
        call.wait_until_blocked()
        sender.interrupt()
        assert server.take().pulse.code == PULSE_CODE_UNBLOCK
        if name == "XO06":
            server.destroy_channel()
        else:
            server.kill()
        said = outcome(call)
        yield name, f"{said}, {sender.handled_anew()}"
