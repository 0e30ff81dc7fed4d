"""Servers and clients that die, exit, or become another program, and what the others see of it."""

import os
import resource
import signal
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

import pytest

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
    PULSE_CODE_DISCONNECT,
    Pulse,
)

from ..clients import Call, Client, Start, attach, detach, transact
from ..peers import Peer
from ..receiving import SHORT, receive_message
from ..servers import Server, StartPeer, create_channel
from ..waiting import DEADLINE
from .asking import Answers, measured
from .ledgers import Received, nothing_or, pulse_for, receive
from .notation import named, told, yes
from .parties import Party, outcome, said_at_last, state
from .watched import Watched

SIDE = NTO_SIDE_CHANNEL


class End:
    """How a process has ended, for its parent."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._is_known = False

    def __str__(self) -> str:
        """``exit 0``, ``signal 9``, ``still there``, or that nobody knows any more."""
        if self._is_known:
            return "-1 ECHILD"
        try:
            # Who is held by its server does not end; whoever ends may need a moment.
            status = self._peer.process.wait(2)
        except subprocess.TimeoutExpired:
            return "still there"
        self._is_known = True
        return f"exit {status}" if status >= 0 else f"signal {-status}"


# A server ends.


def end_by(_qnx: Any, how: str) -> None:
    """In another process: end."""
    if how == "exits":
        os._exit(3)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@pytest.fixture(params=["exits", "aborts", "is killed"])
def how(request: pytest.FixtureRequest) -> str:
    """How a server ends."""
    return str(request.param)


@measured("DS01", "DS02", "DS03", "DS04", "DS05", "DS06", "DS07", variant="how")
def test_a_server_ends(qnx: Any, start: Start, start_peer: StartPeer, how: str) -> Answers:
    """Those that wait for it are told that it is lost, all others that there is no connection."""
    server = start_peer()
    chids = [server.run(create_channel) for _ in range(2)]
    side, fd = (qnx.ConnectAttach(0, server.pid, chids[0], index) for index in (SIDE, 0))
    queued = start(qnx.MsgSend, side, b"message").wait_until_blocked()
    held_by = qnx.ConnectAttach(0, server.pid, chids[1])
    receiving = [server.start(receive_one, chids[1]) for _ in range(2)]
    held = [start(qnx.MsgSend, held_by, b"message") for _ in range(2)]
    for task in receiving:
        task.result()
    if how == "is killed":
        server.process.kill()
    else:
        server.begin(end_by, how)
    yield "DS01", outcome(queued)
    yield "DS02", str(End(server))
    yield "DS06", " ".join(map(outcome, held))
    yield "DS07", told(qnx.MsgSend, held_by, b"again")
    said = [told(qnx.MsgSend, coid, message) for coid, message in ((side, b"again"), (fd, b"again"), (side, b""))]
    yield "DS03", " ".join([*said, told(qnx.MsgSendPulse, side, 10, 1, 1)])
    yield "DS04", told(qnx.ConnectDetach, side)
    yield "DS05", f"{told(qnx.close, fd)} {told(qnx.close, fd)}"


def receive_one(qnx: Any, chid: int) -> int:
    """In another process: receive a message, and hold it."""
    return receive_message(qnx, chid)


def become_idle(_qnx: Any) -> None:
    """In another process: become a program that does nothing."""
    code = f"import signal; signal.alarm({int(2 * DEADLINE)}); signal.pause()"
    os.execv(sys.executable, [sys.executable, "-S", "-c", code])  # noqa: S606  # our own interpreter


@measured("DS10", "DS11")
def test_a_server_becomes_another_program(qnx: Any, start: Start, start_peer: StartPeer) -> Answers:
    """Its channels are gone."""
    server = start_peer()
    chid = server.run(create_channel)
    coid = qnx.ConnectAttach(0, server.pid, chid)
    receiving = [server.start(receive_one, chid) for _ in range(2)]
    calls = [start(qnx.MsgSend, coid, b"message") for _ in range(2)]
    for task in receiving:
        task.result()
    server.begin(become_idle)
    yield "DS10", " ".join(map(outcome, calls))
    # A host closes one thing after the other, and the clients may be faster.
    attached = said_at_last(lambda: qnx.ConnectAttach(0, server.pid, chid))
    yield "DS11", f"{told(qnx.MsgSend, coid, b'again')}; {attached}"


@measured("RP02")
def test_no_sender_of_a_server_that_dies_is_told_that_it_had_no_connection(
    qnx: Any, start: Start, start_peer: StartPeer
) -> Answers:
    """ESRCH says that the server may have had the message, EBADF that it had not."""
    said: List[str] = []
    for _ in range(3):
        server = start_peer()
        chid = server.run(create_channel)
        coid = qnx.ConnectAttach(0, server.pid, chid)
        receiving = [server.start(receive_one, chid) for _ in range(2)]
        calls = [start(qnx.MsgSend, coid, b"message") for _ in range(2)]
        for task in receiving:
            task.result()
        server.process.kill()
        said += map(outcome, calls)
    yield "RP02", f"{said.count('-1 EBADF')} {sum(not answer.startswith('-1') for answer in said)}"


# Numbers of connections to a server that died.


@measured(*(f"DN{case:02}" for case in range(1, 14)))
def test_the_number_of_a_dead_connection(alone: Peer, start_peer: StartPeer, other: Peer) -> Answers:
    """It stays taken until it is released, or given to another connection."""
    old, new = Server(start_peer()), Watched(other, flags=NTO_CHF_DISCONNECT)
    new.behave(status=4)
    client = Party(alone)

    def reach(server: Any, index: int) -> int:
        return int(client.make("ConnectAttach", 0, server.pid, server.chid, index, 0))

    control = reach(new, 0)
    dead, dead_side = reach(old, 4), reach(old, SIDE)
    others = [reach(old, index) for index in (10, 11, 12)]
    old.kill()

    found = reach(new, dead)
    yield "DN01", "another number" if found != dead else "the dead number"
    yield "DN02", yes(found > dead)
    yield "DN03", named(client.told("dup2", found, dead), dead, "the dead number")
    yield "DN04", f"{new.saw()}; {client.send(dead)}"
    yield "DN05", f"{client.told('close', found)}, {client.send(dead)}"
    yield "DN06", new.saw()
    three = (client.told("dup", dead_side), client.told("dup2", control, dead_side), client.told("dup2", dead_side, 50))
    yield "DN07", " ".join(three)
    detached = client.told("ConnectDetach", dead_side)
    yield "DN08", f"{detached} {yes(reach(new, SIDE) == dead_side)}"
    first, second, third = others
    yield "DN09", " ".join((client.told("dup", first), *(client.told("dup2", first, to) for to in (31, first))))
    calls = (("read", first, 1), ("write", first, b"x"), ("lseek", first, 0, os.SEEK_SET))
    yield "DN10", " ".join(client.told(*call) for call in calls)
    for name, release, coid in (("DN11", "close", first), ("DN12", "ConnectDetach", second)):
        released = client.told(release, coid)
        yield name, f"{released} {'same number' if reach(new, coid) == coid else 'another number'}"
    null = client.make("open", os.devnull, os.O_WRONLY)
    copied = named(client.told("dup2", null, third), third, "the dead number")
    yield "DN13", f"{copied} {client.told('write', third, b'x')}"
    new.stop()


# A process hears of servers that go.


def hear_of_deaths(qnx: Any) -> int:
    """The channel of a process that hears of them."""
    return int(qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT))


def next_death(qnx: Any, chid: int, names: Dict[int, str]) -> str:
    """Wait for the next pulse; the connections by their names."""
    pulse = receive(qnx, chid).pulse
    value = pulse.value.sival_int
    return f"pulse {pulse.code} {names.get(value, value)} {pulse.scoid}"


def is_a_death(said: str) -> str:
    return "pulse" if said.startswith("pulse -35 ") else said


@measured("DC00", "DC01", "DC02", "DC03", "DC04", "DC05", "DC06", "DC07", "DC08", "DC09")
def test_a_client_hears_of_servers_that_go(alone: Peer, start_peer: StartPeer) -> Answers:
    """A pulse for each connection that is lost, whatever became of the server."""
    chid = alone.run(hear_of_deaths)
    client = Party(alone)

    def reach(server: Any, index: int = 0, flags: int = 0) -> int:
        return int(client.make("ConnectAttach", 0, server.pid, server.chid, index, flags))

    def heard(names: Optional[Dict[int, str]] = None) -> str:
        return str(alone.run(next_death, chid, names or {}))

    server = Server(start_peer())
    fd, side = reach(server), reach(server, SIDE)
    server.kill()
    yield from zip(("DC00", "DC01"), sorted(heard({fd: "fd coid", side: "side coid"}) for _ in range(2)))
    yield "DC02", alone.run(nothing_or, chid)
    yield "DC03", f"{client.send(side)} {client.told('ConnectDetach', side)}"

    server = Server(start_peer())
    reach(server)
    server.destroy_channel()
    yield "DC04", is_a_death(heard())
    server.kill()
    yield "DC05", alone.run(nothing_or, chid)

    server = Server(start_peer())
    call = client.begin(reach(server))
    server.take()
    server.kill()
    yield "DC06", f"{outcome(call)}, {is_a_death(heard())}"

    own = client.make("ChannelCreate", 0)
    client.make("ConnectAttach", 0, 0, own)
    client.make("ChannelDestroy", own)
    yield "DC07", is_a_death(heard())

    server = Server(start_peer())
    client.make("ConnectDetach", reach(server))
    server.kill()
    yield "DC08", alone.run(nothing_or, chid)

    server = Server(start_peer())
    coids = {reach(server): "fd", reach(server, SIDE): "fd", reach(server, SIDE, NTO_COF_NOSHARE): "fd"}
    server.kill()
    for _ in coids:
        heard(coids)
    rest = alone.run(nothing_or, chid)
    yield "DC09", str(len(coids)) if rest == "nothing" else f"{len(coids)}, and {rest}"


# Numbers of clients.


def disconnected(qnx: Any, chid: int) -> Received:
    """Wait for the pulse of a client that has left."""
    found = receive(qnx, chid)
    assert found.rcvid == 0, f"a message rather than a pulse: {found}"
    return found


@measured("DI01", "DI02", "DI03", "DI04", "DI05", "DI06", "DI07", "DI08")
def test_the_number_of_a_client_that_has_left(qnx: Any, start: Start, other: Peer) -> Answers:
    """It stays taken until the server releases it."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client = Client(qnx, start, other)

    def enter() -> Tuple[int, int]:
        coid = client.attach(chid)
        call = client.send(coid)
        found = receive(qnx, chid)
        qnx.MsgReply(found.rcvid, 0)
        call.result()
        return coid, found.info.scoid

    def leave(coid: int) -> Pulse:
        client.detach(coid)
        return disconnected(qnx, chid).pulse

    coid, old = enter()
    pulse = leave(coid)
    yield "DI01", f"{pulse.code} {pulse.value.sival_int} {yes(pulse.scoid == old)}"
    coid, scoid = enter()
    yield "DI02", "equal" if scoid == old else "differ"
    yield "DI03", told(qnx.ConnectClientInfo, old)
    yield "DI04", f"{told(qnx.ConnectDetach, old)} {told(qnx.ConnectDetach, old)}"
    yield "DI05", told(qnx.ConnectDetach, scoid)
    pulse = leave(coid)
    yield "DI06", f"pulse {pulse.code} {'its' if pulse.scoid == scoid else 'another'} scoid"
    qnx.ConnectDetach(scoid)
    _coid, scoid = enter()
    yield "DI07", "equal" if scoid == old else "differ"
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    qnx.ConnectDetach(qnx.ConnectAttach(0, 0, chid))
    yield "DI08", str(disconnected(qnx, chid))


# A client ends.


@pytest.fixture(params=["plain", "unblock"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whether the channel asks to be told of clients that want to be freed."""
    return str(request.param)


class Witness:
    """A channel of this process, and clients that end."""

    def __init__(self, qnx: Any, kind: str, start_peer: StartPeer) -> None:
        self.qnx = qnx
        self.chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT | (NTO_CHF_UNBLOCK if kind == "unblock" else 0))
        self._start_peer = start_peer

    def client(self, *indexes: int) -> Tuple[Peer, List[int]]:
        """Another process, and its connections."""
        peer = self._start_peer()
        return peer, [peer.run(attach, os.getpid(), self.chid, index, 0) for index in indexes or (SIDE,)]

    def sender(self) -> Tuple[Peer, Call, int]:
        """Another process, whose main thread sends a message that is received."""
        peer, (coid,) = self.client()
        call = peer.begin(transact, coid, b"AA", 0)
        return peer, call, receive_message(self.qnx, self.chid)

    def heard(self, rcvid: int = -1) -> str:
        """Wait for the next pulse, or whatever it is; the number of a client that has left is released."""
        found = receive(self.qnx, self.chid)
        if found.rcvid:
            self.qnx.MsgReply(found.rcvid, 0)
        elif found.pulse.code == PULSE_CODE_DISCONNECT:
            self.qnx.ConnectDetach(found.pulse.scoid)
        return pulse_for(found, rcvid)

    def heard_all(self) -> str:
        """Tell what comes until the client is gone."""
        lines = [self.heard()]
        while not lines[-1].startswith("pulse -33 "):
            lines.append(self.heard())
        return ", ".join(lines)

    def nothing(self) -> str:
        """That nothing waits, or what does."""
        return nothing_or(self.qnx, self.chid)


@pytest.fixture
def witness(qnx: Any, kind: str, start_peer: StartPeer) -> Witness:
    """Who sees how clients end."""
    return Witness(qnx, kind, start_peer)


@measured("DK01", "DK02", "DK03", "DK04", "DK05", "DK06", "DK06b", variant="kind")
def test_a_client_is_killed(qnx: Any, witness: Witness, kind: str) -> Answers:
    """While its message is received, and while it is not."""
    peer, (coid,) = witness.client()
    peer.begin(transact, coid, b"AA", 0)
    found = receive(qnx, witness.chid)
    yield "DK01", str(found)
    end = End(peer)
    peer.process.kill()
    heard = witness.heard(found.rcvid)
    yield "DK02", f"{heard}, {end}"
    yield "DK03", told(qnx.MsgReply, found.rcvid, 0)
    then = witness.heard() if kind == "unblock" else witness.nothing()
    yield "DK04", f"{then}, {end}"
    yield "DK05", f"{told(qnx.MsgReply, found.rcvid, 0)} {told(qnx.MsgInfo, found.rcvid)}"

    peer, (coid,) = witness.client()
    peer.begin(transact, coid, b"AA", 0).wait_until_blocked()
    peer.process.kill()
    ended = str(End(peer))
    yield "DK06", f"{ended}, {witness.heard()}"
    yield "DK06b", witness.nothing()


def send_pulse_9(qnx: Any, coid: int, priority: int, value: int) -> int:
    """Send a pulse that says who it is."""
    return int(qnx.MsgSendPulse(coid, priority, value, value))


@measured("DK07", "DK08", "DK09", "DK10", "DK11", "DK12", "DK13", variant="kind")
def test_a_client_leaves(witness: Witness, kind: str) -> Answers:
    """It detaches, or exits."""
    peer, _coids = witness.client()
    peer.leave()
    heard = witness.heard()
    assert str(End(peer)) == "exit 0"
    yield "DK07", f"{heard}, {witness.nothing()}"

    peer, (coid,) = witness.client()
    peer.run(detach, coid)
    detached = witness.heard()
    coid, other = (peer.run(attach, os.getpid(), witness.chid, SIDE, 0) for _ in range(2))
    peer.run(detach, coid)
    first = witness.nothing()
    peer.run(detach, other)
    second = witness.heard()
    coid = peer.run(attach, os.getpid(), witness.chid, SIDE, 0)
    for priority, value in ((10, 9), (60, 10)):
        peer.run(send_pulse_9, coid, priority, value)
    peer.run(detach, coid)
    yield "DK11", ", ".join(witness.heard() for _ in range(3))
    peer.leave()
    assert str(End(peer)) == "exit 0"
    at_end = witness.nothing()
    yield "DK08", f"{detached}, at its end {at_end}"
    yield "DK09", f"{first}, {second}, at its end {at_end}"

    peer, (coid,) = witness.client()
    peer.run(send_pulse_9, coid, 10, 9)
    peer.leave()
    assert str(End(peer)) == "exit 0"
    yield "DK10", f"{witness.heard()}, {witness.heard()}, {witness.nothing()}"

    peer, _coids = witness.client(SIDE, 0)
    peer.leave()
    all_heard = witness.heard_all()
    ended = str(End(peer))
    yield "DK12", f"{all_heard}, {witness.nothing()}"
    yield "DK13", ended


@measured("DK14", "DK15", variant="kind")
def test_a_client_becomes_another_program(witness: Witness, kind: str) -> Answers:
    """Its side channels are gone."""
    peer, _coids = witness.client()
    peer.begin(become_idle)
    yield "DK14", witness.heard()
    peer.kill()
    yield "DK15", witness.nothing()


def handle_and_send(qnx: Any, coid: int) -> None:
    """In another process: send a message, and mind signals."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    told(qnx.MsgSend, coid, b"AA")


@measured("DK16", "DK17", "DK18", "DK19", "DK20", "DK21", "DK22", variant="kind")
def test_a_client_gets_a_signal(qnx: Any, witness: Witness, kind: str) -> Answers:
    """One that it handles and ends by, one that ends it, and those that stop it and let it go on."""
    peer, (coid,) = witness.client()
    call = peer.begin(handle_and_send, coid)
    peer.leave()
    rcvid = receive_message(qnx, witness.chid)
    call.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    heard = witness.heard(rcvid)
    yield "DK16", f"{heard}; MsgReply {told(qnx.MsgReply, rcvid, 0)}"
    then = witness.heard() if kind == "unblock" else witness.nothing()
    yield "DK17", f"{then}, {End(peer)}"

    peer, _sending, rcvid = witness.sender()
    end = End(peer)
    peer.signal(signal.SIGTERM)
    heard = witness.heard(rcvid)
    ended = str(end)
    yield "DK18", f"{heard}; {ended}; MsgReply {told(qnx.MsgReply, rcvid, 0)}"
    then = witness.heard() if kind == "unblock" else witness.nothing()
    yield "DK19", f"{then}, {end}"

    peer, sending, rcvid = witness.sender()
    sending.wait_until_blocked()
    peer.stop()
    yield "DK20", witness.nothing()
    peer.signal(signal.SIGCONT)
    sending.wait_until_blocked()
    yield "DK21", witness.nothing()
    answered = told(qnx.MsgReply, rcvid, 0)
    sending.result()
    peer.leave()
    yield "DK22", f"{answered} {End(peer)}"


def exit_at_once(_qnx: Any) -> None:
    """In another process."""
    os._exit(8)


@measured("LX01", "LX02", variant="kind")
def test_a_client_exits_while_a_thread_waits(qnx: Any, witness: Witness, kind: str) -> Answers:
    """As if it had been killed."""
    peer, (coid,) = witness.client()
    end = End(peer)
    peer.start(transact, coid, b"AA", 0)
    rcvid = receive_message(qnx, witness.chid)
    peer.begin(exit_at_once)
    heard = witness.heard(rcvid)
    yield "LX01", f"{heard}; {end}"
    answered = told(qnx.MsgReply, rcvid, 0)
    then = witness.heard() if kind == "unblock" else witness.nothing()
    yield "LX02", f"{answered}; {then}; {end}"


# Others that come between.


def take_and_hold(qnx: Any, chid: int) -> int:
    """In another process: receive a message, and hold it."""
    return receive_message(qnx, chid)


@measured("XO01")
def test_a_rcvid_is_good_in_one_process(qnx: Any, start: Start, other: Peer) -> Answers:
    """Another process has no message of that number."""
    chid = qnx.ChannelCreate(0)
    call = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), b"message")
    rcvid = receive_message(qnx, chid)
    said = told(other.run, answer_foreign, rcvid).replace("-1 ", "")
    yield "XO01", f"{said}; {state(call)}"
    qnx.MsgReply(rcvid, 0)
    call.result()


def answer_foreign(qnx: Any, rcvid: int) -> int:
    """In another process: answer a message of another process."""
    return int(qnx.MsgReply(rcvid, 0))


def send_limited(qnx: Any, coid: int) -> int:
    """Send a message with a timeout."""
    qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, SHORT)
    return int(qnx.MsgSend(coid, b"message"))


@measured("XO02", "XO03", "XO04", "XO05")
def test_a_server_is_stopped(qnx: Any, start: Start, start_peer: StartPeer) -> Answers:
    """It goes on where it was."""
    server = Watched(start_peer())
    coid = qnx.ConnectAttach(0, server.pid, server.chid)
    server.behave(status=5)
    server.peer.stop()
    call = start(qnx.MsgSend, coid, b"message")
    yield "XO02", f"{state(call)}; {told(qnx.MsgSendPulse, coid, 10, 1, 1)}"
    server.peer.signal(signal.SIGCONT)
    yield "XO03", f"{outcome(call)}; {server.saw()}"
    server.peer.stop()
    yield "XO04", told(send_limited, qnx, coid)
    server.peer.signal(signal.SIGCONT)
    seen = server.saw()
    server.behave(status=4)
    yield "XO05", f"{seen}; {told(qnx.MsgSend, coid, b'message')}"


@measured("XO08", "XO09", "XO10")
def test_a_process_ends_that_is_server_and_client(qnx: Any, start: Start, start_peer: StartPeer) -> Answers:
    """Its clients are told first, then its servers."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer = start_peer()
    end = End(peer)
    served = peer.run(create_channel)
    for index in (0, SIDE):
        peer.run(attach, os.getpid(), chid, index, 0)
    coid = qnx.ConnectAttach(0, peer.pid, served)
    receiving = peer.start(take_and_hold, served)
    call = start(qnx.MsgSend, coid, b"message")
    receiving.result()
    peer.leave()
    first = receive(qnx, chid)
    yield "XO08", f"{first}; {outcome(call)}"
    attached = told(qnx.ConnectAttach, 0, peer.pid, served)
    yield "XO09", f"{attached}; {told(qnx.MsgSend, coid, b'again')}; {end}"
    if first.rcvid:
        qnx.MsgReply(first.rcvid, 0)
    then = receive(qnx, chid) if first.rcvid else nothing_or(qnx, chid)
    yield "XO10", f"{then}; {end}"


@measured("EC01")
def test_a_process_exits_and_nobody_answers(qnx: Any, start_peer: StartPeer) -> Answers:
    """What its server gets first."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer = start_peer()
    peer.run(attach, os.getpid(), chid, 0, 0)
    peer.leave()
    yield "EC01", str(receive(qnx, chid))
