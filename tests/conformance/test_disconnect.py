"""What a process hears of others that leave: clients, servers, and threads of its own."""

import contextlib
import os
import signal
import sys
import threading
from errno import EBADF, EINVAL, ESRCH
from typing import Any, Callable, List, Tuple

import pytest

from ha_qnx import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_THREAD_DEATH,
    NTO_CHF_UNBLOCK,
    NTO_COF_DEAD,
    NTO_COF_NOSHARE,
    NTO_SIDE_CHANNEL,
    PULSE_CODE_COIDDEATH,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_THREADDEATH,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
)

from .clients import Client, Start
from .expect import fails_with
from .marks import checks
from .peers import Peer
from .receiving import assert_nothing_waits, receive_message, receive_pulse
from .servers import create_channel
from .waiting import DEADLINE, Task, rounds

INDEXES = [NTO_SIDE_CHANNEL, 0]


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


@pytest.fixture(params=["near", "far"])
def server(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A server in this process, and then one in another process; it is told what to do as a client is."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


def exchange(qnx: Any, client: Client, coid: int, chid: int) -> MessageInfo:
    """Send a message, and answer it; what is known about it."""
    info = MessageInfo()
    sending = client.send(coid)
    qnx.MsgReply(receive_message(qnx, chid, None, info), 0)
    sending.result()
    return info


def receive_disconnect(qnx: Any, chid: int) -> int:
    """The scoid of the client that has left, which has to be the next thing the channel tells."""
    pulse = receive_pulse(qnx, chid)
    assert pulse.code == PULSE_CODE_DISCONNECT
    scoid: int = pulse.scoid
    return scoid


# Clients that leave.


@checks("B196")
@pytest.mark.parametrize("index", INDEXES, ids=["side-channel", "descriptor"])
def test_the_server_hears_of_a_client_that_detaches(qnx: Any, client: Client, index: int) -> None:
    """When a client detaches its only connection, the server gets one disconnect pulse with the client's scoid."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = client.attach(chid, index)
    scoid = exchange(qnx, client, coid, chid).scoid
    assert_nothing_waits(qnx, chid)
    client.detach(coid)
    assert receive_disconnect(qnx, chid) == scoid
    assert_nothing_waits(qnx, chid)


@checks("B196")
def test_the_server_hears_of_a_client_that_never_sent_anything(qnx: Any, client: Client) -> None:
    """A client that connects and detaches is told of, too."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client.detach(client.attach(chid))
    assert receive_disconnect(qnx, chid) & NTO_SIDE_CHANNEL
    assert_nothing_waits(qnx, chid)


@checks("B196")
def test_a_receiver_that_waits_hears_of_a_client_that_leaves(qnx: Any, start: Start, client: Client) -> None:
    """The pulse ends the wait of a receiver."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = client.attach(chid)
    scoid = exchange(qnx, client, coid, chid).scoid
    receiving = start(receive_disconnect, qnx, chid).wait_until_blocked()
    client.detach(coid)
    assert receiving.result() == scoid


def answer(qnx: Any, chid: int) -> int:
    """Receive a message and answer it; its priority."""
    info = MessageInfo()
    qnx.MsgReply(receive_message(qnx, chid, None, info), 7)
    return int(info.priority)


@checks("B30", "B196")
def test_who_has_heard_of_a_client_that_left_can_send(qnx: Any, start: Start, client: Client) -> None:
    """The thread that received the disconnect pulse has an ordinary priority: so has what it sends, and is answered."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client.detach(client.attach(chid))
    other = qnx.ChannelCreate(0)
    answering = start(answer, qnx, other)
    receive_disconnect(qnx, chid)
    assert qnx.MsgSend(qnx.ConnectAttach(0, 0, other), b"message", None) == 7
    assert 1 <= answering.result() <= 255


def exit_on_sigterm(_qnx: Any) -> None:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit())


@checks("B197")
@pytest.mark.parametrize("killed", [False, True], ids=["exit", "kill"])
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_the_server_hears_of_a_client_that_ends(qnx: Any, start: Start, peer: Peer, killed: bool, used: bool) -> None:
    """A client process that exits or is killed gives one disconnect pulse, however many connections it had."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    client = Client(qnx, start, peer)
    coids = [client.attach(chid, index) for index in INDEXES]
    scoids = {exchange(qnx, client, coid, chid).scoid for coid in coids if used}
    if killed:
        peer.kill()
    else:
        peer.run(exit_on_sigterm)
        peer.signal(signal.SIGTERM)
        peer.process.wait(DEADLINE)
    assert {receive_disconnect(qnx, chid)} >= scoids
    assert_nothing_waits(qnx, chid)


@checks("B198", "B59", "B46")
def test_a_client_leaves_with_its_last_connection(qnx: Any, client: Client) -> None:
    """While one of a client's connections is left there is no pulse, and that connection works; then there is one."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    first, second = (client.attach(chid, index) for index in INDEXES)
    scoid = exchange(qnx, client, first, chid).scoid
    client.detach(first)
    assert_nothing_waits(qnx, chid)
    assert exchange(qnx, client, second, chid).scoid == scoid
    client.detach(second)
    assert receive_disconnect(qnx, chid) == scoid
    assert_nothing_waits(qnx, chid)


@checks("B199", "B57")
def test_a_client_whose_connection_is_detached_while_it_waits_has_left(qnx: Any, client: Client) -> None:
    """Without NTO_CHF_UNBLOCK the waiting message fails with EBADF, and then the disconnect pulse comes."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = client.attach(chid)
    sending, info = client.send(coid), MessageInfo()
    rcvid = receive_message(qnx, chid, None, info)
    sending.wait_until_blocked()
    client.detach(coid)
    assert sending.errno() == EBADF
    assert receive_disconnect(qnx, chid) == info.scoid
    with fails_with(ESRCH):
        qnx.MsgReply(rcvid, 0)


@checks("B199", "B58")
def test_a_client_that_still_waits_has_not_left(qnx: Any, client: Client) -> None:
    """With NTO_CHF_UNBLOCK a message of a detached connection waits for its answer; the disconnect pulse comes then."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT | NTO_CHF_UNBLOCK)
    coid = client.attach(chid)
    scoid = exchange(qnx, client, coid, chid).scoid
    sending = client.send(coid)
    rcvid = receive_message(qnx, chid)
    sending.wait_until_blocked()
    client.detach(coid)
    pulse = receive_pulse(qnx, chid)
    assert (pulse.code, pulse.value.sival_int, pulse.scoid) == (PULSE_CODE_UNBLOCK, rcvid, scoid)
    assert_nothing_waits(qnx, chid)
    sending.wait_until_blocked()
    qnx.MsgReply(rcvid, 7)
    assert sending.result()[0] == 7
    assert receive_disconnect(qnx, chid) == scoid
    assert_nothing_waits(qnx, chid)


def send_pulse(qnx: Any, coid: int, priority: int) -> None:
    qnx.MsgSendPulse(coid, priority, 1, 1)


@checks("B200")
def test_a_client_that_leaves_is_told_of_before_everything_else(
    qnx: Any, start: Start, client: Client, start_peer: Callable[[], Peer]
) -> None:
    """The disconnect pulse is received before messages and pulses that waited already, whatever their priority."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    other = Client(qnx, start, start_peer())
    leaving, staying = client.attach(chid), other.attach(chid)
    scoid = exchange(qnx, client, leaving, chid).scoid
    sending = other.send(staying).wait_until_blocked()
    other.run(send_pulse, staying, 255)
    client.detach(leaving)
    assert receive_disconnect(qnx, chid) == scoid
    assert receive_pulse(qnx, chid).code == 1
    qnx.MsgReply(receive_message(qnx, chid), 7)
    assert sending.result()[0] == 7


@checks("B201", "B61", "B60")
def test_the_number_of_a_client_that_has_left_is_kept_until_it_is_released(
    qnx: Any, start: Start, start_peer: Callable[[], Peer]
) -> None:
    """Nobody gets the scoid of a client that has left before the server detaches it, once; the lowest is used again."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)

    def come_and_go() -> int:
        client = Client(qnx, start, start_peer())
        coid = client.attach(chid)
        scoid = exchange(qnx, client, coid, chid).scoid
        with fails_with(EINVAL):
            qnx.ConnectDetach(scoid)
        client.detach(coid)
        left = receive_disconnect(qnx, chid)
        assert left == scoid
        return left

    first, second = come_and_go(), come_and_go()
    assert first != second
    for scoid in (second, first):
        assert qnx.ConnectDetach(scoid) == 0
        with fails_with(EINVAL):
            qnx.ConnectDetach(scoid)
    assert come_and_go() == min(first, second)


@checks("B202")
def test_a_server_that_does_not_ask_is_not_told_of_clients_that_leave(qnx: Any, client: Client) -> None:
    """Without NTO_CHF_DISCONNECT there is no pulse, and the client's number is free without a word of the server."""
    chid = qnx.ChannelCreate(0)
    scoids = []
    for _ in range(2):
        coid = client.attach(chid)
        scoids.append(exchange(qnx, client, coid, chid).scoid)
        client.detach(coid)
        assert_nothing_waits(qnx, chid)
    assert scoids[0] == scoids[1]


@checks("B202")
def test_a_server_that_does_not_ask_is_not_told_of_clients_that_die(qnx: Any, start: Start, peer: Peer) -> None:
    """Nor is there a pulse for a client that was killed while it waited."""
    chid = qnx.ChannelCreate(0)
    client = Client(qnx, start, peer)
    coid = client.attach(chid)
    client.send(coid)
    rcvid = receive_message(qnx, chid)
    peer.kill()
    assert_nothing_waits(qnx, chid)
    with fails_with(ESRCH):
        qnx.MsgReply(rcvid, 0)


def end_on_sigpipe(_qnx: Any) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@checks("B202")
def test_a_client_that_came_and_went_does_no_harm(qnx: Any, start: Start, peer: Peer) -> None:
    """A server that SIGPIPE would end takes note of a client only after it has left, and serves the next one."""
    peer.run(end_on_sigpipe)
    chid = peer.run(create_channel)
    qnx.ConnectDetach(qnx.ConnectAttach(0, peer.pid, chid))
    sending = start(qnx.MsgSend, qnx.ConnectAttach(0, peer.pid, chid), b"message", None)
    assert peer.start(answer, chid).result() > 0
    assert sending.result() == 7


# Servers that leave.


def destroy_channel(qnx: Any, chid: int) -> None:
    qnx.ChannelDestroy(chid)


def receive_deaths(qnx: Any, chid: int, count: int) -> List[Tuple[int, int, int]]:
    """Code, value and scoid of the next pulses, in the order of the values."""
    pulses = [receive_pulse(qnx, chid) for _ in range(count)]
    return sorted((pulse.value.sival_int, pulse.code, pulse.scoid) for pulse in pulses)


@checks("B203", "B204", "B205")
@pytest.mark.parametrize("asked", ["before", "after"])
def test_a_client_hears_of_a_channel_that_is_destroyed(qnx: Any, server: Client, asked: str) -> None:
    """Of every connection to a channel that is destroyed, a client that asked gets a pulse: its coid, and scoid -1.

    The connection is dead, but its number is taken until it is detached. It does not matter whether the client asked
    before it connected or after, nor whether connections share what they go by.
    """
    chid = server.run(create_channel)
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT) if asked == "before" else 0
    kinds = [(index, flags) for index in INDEXES for flags in (0, 0, NTO_COF_NOSHARE, NTO_COF_NOSHARE)]
    coids = sorted(qnx.ConnectAttach(0, server.pid, chid, index, flags) for index, flags in kinds)
    own = own or qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    assert_nothing_waits(qnx, own)
    server.run(destroy_channel, chid)
    assert receive_deaths(qnx, own, len(coids)) == [(coid, PULSE_CODE_COIDDEATH, -1) for coid in coids]
    assert_nothing_waits(qnx, own)
    info = MessageInfo()
    for coid in coids:
        assert qnx.ConnectServerInfo(0, coid, info) == coid
        assert info.flags & NTO_COF_DEAD
        with fails_with(EBADF):
            qnx.MsgSend(coid, b"message", None)
        assert qnx.ConnectDetach(coid) == 0


def replace(qnx: Any, coid: int) -> None:
    """Put a file under the number of a connection to a channel that is gone."""
    with open(os.devnull) as file:
        qnx.dup2(file.fileno(), coid)


def reconnect(qnx: Any, coid: int) -> None:
    """Put a connection to another channel there, as a recovery function does."""
    qnx.ha_ReConnectAttach(coid, 0, 0, qnx.ChannelCreate(0), coid & NTO_SIDE_CHANNEL, 0)


LEAVING = {
    "ConnectDetach": lambda qnx, coid: qnx.ConnectDetach(coid),
    "name_close": lambda qnx, coid: qnx.name_close(coid),
    "ha_ConnectDetach": lambda qnx, coid: qnx.ha_ConnectDetach(coid),
    "close": lambda qnx, coid: qnx.close(coid),
    "dup2": replace,
    "reconnect": reconnect,
}


@checks("B505")
@pytest.mark.parametrize("met", ["met", "unmet"])
@pytest.mark.parametrize("leaving", LEAVING)
@pytest.mark.parametrize("own", ["channel", "name"])
def test_a_death_is_told_of_though_the_connection_ends_before_anybody_receives(
    qnx: Any, server: Client, name: str, own: str, leaving: str, met: str
) -> None:
    """The pulse is on its way from the moment the channel is gone, as are those of its other connections."""
    hearing = qnx.name_attach(name).chid if own == "name" else qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    chid = server.run(create_channel)
    index = 0 if leaving in ("close", "dup2") else NTO_SIDE_CHANNEL
    coids = sorted(qnx.ConnectAttach(0, server.pid, chid, index) for _ in range(2))
    server.run(destroy_channel, chid)
    if met == "met":
        with fails_with(EBADF):
            qnx.MsgSend(coids[0], b"message", None)
    with contextlib.suppress(OSError):  # What it says of a connection that is dead is told elsewhere.
        LEAVING[leaving](qnx, coids[0])
    assert receive_deaths(qnx, hearing, 2) == [(coid, PULSE_CODE_COIDDEATH, -1) for coid in coids]
    qnx.ConnectDetach(coids[1])
    assert_nothing_waits(qnx, hearing)


@checks("B505", "B203")
@pytest.mark.parametrize("leaving", LEAVING)
def test_the_death_of_a_process_is_told_of_though_the_connection_ends(qnx: Any, peer: Peer, leaving: str) -> None:
    """Of a server that is killed, too, a client that ends its connection before it receives is told."""
    hearing = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    index = 0 if leaving in ("close", "dup2") else NTO_SIDE_CHANNEL
    coid = qnx.ConnectAttach(0, peer.pid, peer.run(create_channel), index)
    peer.kill()
    with contextlib.suppress(OSError):
        LEAVING[leaving](qnx, coid)
    assert receive_deaths(qnx, hearing, 1) == [(coid, PULSE_CODE_COIDDEATH, -1)]
    assert_nothing_waits(qnx, hearing)


@checks("B505")
def test_a_copy_of_a_dead_connection_is_not_told_of(qnx: Any, server: Client) -> None:
    """Only the connections are told of that were there when the channel went: none that dup has tried to make since."""
    hearing = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    chid = server.run(create_channel)
    coid = qnx.ConnectAttach(0, server.pid, chid, 0)
    server.run(destroy_channel, chid)
    with contextlib.suppress(OSError):
        qnx.close(qnx.dup(coid))
    assert receive_deaths(qnx, hearing, 1) == [(coid, PULSE_CODE_COIDDEATH, -1)]
    assert_nothing_waits(qnx, hearing)


def receive(qnx: Any, chid: int) -> int:
    return receive_message(qnx, chid)


@checks("B203", "B204")
@pytest.mark.parametrize("blocked", [False, True], ids=["idle", "reply-blocked"])
def test_a_client_hears_of_a_server_that_dies(qnx: Any, start: Start, peer: Peer, blocked: bool) -> None:
    """When a server is killed, a client that asked gets a pulse, also if it waits for an answer, which is ESRCH."""
    chid = peer.run(create_channel)
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    coids = sorted(qnx.ConnectAttach(0, peer.pid, chid, index) for index in INDEXES)
    sending = start(qnx.MsgSend, coids[0], b"message", None) if blocked else None
    if sending:
        peer.run(receive, chid)
    waiting = start(receive_deaths, qnx, own, 2).wait_until_blocked()
    peer.kill()
    assert waiting.result() == [(coid, PULSE_CODE_COIDDEATH, -1) for coid in coids]
    if sending:
        assert sending.errno() == ESRCH
    assert_nothing_waits(qnx, own)


@checks("B203")
def test_only_connections_that_exist_are_told_of(qnx: Any, server: Client) -> None:
    """A connection that was detached before, or goes to a channel that lives on, gives no pulse."""
    chid, living = server.run(create_channel), server.run(create_channel)
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    detached, coid, _alive = (qnx.ConnectAttach(0, server.pid, number) for number in (chid, chid, living))
    qnx.ConnectDetach(detached)
    server.run(destroy_channel, chid)
    assert receive_deaths(qnx, own, 1) == [(coid, PULSE_CODE_COIDDEATH, -1)]
    assert_nothing_waits(qnx, own)


@checks("B203", "B58")
def test_a_connection_that_was_detached_while_a_message_waits_is_not_told_of(
    qnx: Any, start: Start, peer: Peer
) -> None:
    """Messages on detached connections still wait when their server dies: only a connection that is left is told of."""
    chid = peer.run(create_channel, NTO_CHF_UNBLOCK)
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    coids = [qnx.ConnectAttach(0, peer.pid, chid) for _ in range(30)]
    other = qnx.ConnectAttach(0, peer.pid, chid)
    sending = [start(qnx.MsgSend, coid, b"message", None) for coid in coids]
    for _ in coids:
        peer.run(receive, chid)
    for coid, task in zip(coids, sending):
        task.wait_until_blocked()
        qnx.ConnectDetach(coid)
        task.wait_until_blocked()
    told = start(receive_deaths, qnx, own, 1).wait_until_blocked()
    peer.kill()
    assert {task.errno() for task in sending} <= {EBADF, ESRCH}
    assert told.result() == [(other, PULSE_CODE_COIDDEATH, -1)]
    assert_nothing_waits(qnx, own)


def receive_until(qnx: Any, chid: int, code: int) -> List[Tuple[int, int]]:
    """Code and value of the pulses of a channel, up to one with a certain code."""
    told: List[Tuple[int, int]] = []
    while True:
        pulse = receive_pulse(qnx, chid)
        if pulse.code == code:
            return told
        told.append((pulse.code, pulse.value.sival_int))


def come_and_go_beside_a_receiver(qnx: Any, count: int) -> List[Tuple[int, List[int], List[Tuple[int, int]]]]:
    """In each round: attach and detach connections in several threads while their channel ends and pulses come.

    Returns:
        For each round: how many of the threads have come to their end, the connections, and the pulses.
    """
    sys.setswitchinterval(1e-6)
    own = qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    outcomes = []
    for _ in rounds(count):
        chid = qnx.ChannelCreate(0)
        coids = [qnx.ConnectAttach(0, 0, chid) for _ in range(200)]
        receiving = Task(receive_until, qnx, own, 1)
        ready = threading.Barrier(5)

        def go(part: List[int], chid: int = chid, ready: threading.Barrier = ready) -> bool:
            ready.wait(DEADLINE)
            for coid in part:
                qnx.MsgSend_r(coid, b"message", bytearray(1))
                qnx.ConnectDetach(coid)
            return True

        leaving = [Task(go, coids[number::4]) for number in range(4)]
        ready.wait(DEADLINE)
        qnx.ChannelDestroy(chid)
        ended = sum(task.result() for task in leaving)
        coid = qnx.ConnectAttach(0, 0, own)
        qnx.MsgSendPulse(coid, 1, 1, 0)
        outcomes.append((ended, coids, receiving.result()))
        qnx.ConnectDetach(coid)
    return outcomes


@checks("B203", "B204")
def test_a_process_hears_of_deaths_while_its_threads_come_and_go(peer: Peer) -> None:
    """Threads that detach dead connections disturb no receiver: a connection is told of once or, if detached, not."""
    for ended, coids, told in peer.run(come_and_go_beside_a_receiver, 40):
        assert ended == 4
        assert {code for code, _value in told} <= {PULSE_CODE_COIDDEATH}
        values = [value for _code, value in told]
        assert len(set(values)) == len(values)
        assert set(values) <= set(coids)


@checks("B203")
def test_a_death_that_came_before_the_question_is_not_told_of(qnx: Any, peer: Peer) -> None:
    """A client that asks after it has met the death of its server gets no pulse for it."""
    coid = qnx.ConnectAttach(0, peer.pid, peer.run(create_channel))
    peer.kill()
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message", None)
    assert_nothing_waits(qnx, qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT))


@checks("B206")
def test_a_client_that_does_not_ask_is_not_told_of_a_server_that_dies(qnx: Any, peer: Peer) -> None:
    """Without NTO_CHF_COID_DISCONNECT a client learns that its server is dead when it next sends: EBADF."""
    chid = peer.run(create_channel)
    own = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    peer.kill()
    assert_nothing_waits(qnx, own)
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message", None)


# Threads that end.


def tell_of_threads(qnx: Any, flags: int) -> List[Tuple[int, List[Tuple[int, int, int]]]]:
    """The tids of threads that send a message and end, and what a channel with these flags is told of each."""
    deaths, chid = qnx.ChannelCreate(flags), qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    told = []
    for _ in range(3):
        info = MessageInfo()
        task = Task(qnx.MsgSend, coid, b"message", None)
        rcvid = receive_message(qnx, chid, None, info)
        assert_nothing_waits(qnx, deaths)
        qnx.MsgReply(rcvid, 0)
        task.result()
        told.append((info.tid, receive_deaths(qnx, deaths, 1) if flags else []))
    assert_nothing_waits(qnx, deaths)
    return told


@checks("B207", "B103")
def test_a_process_hears_of_its_threads_that_end(qnx: Any, peer: Peer) -> None:
    """With NTO_CHF_THREAD_DEATH, a thread of the process that ends gives a pulse with its tid, and scoid -1."""
    for tid, deaths in peer.run(tell_of_threads, NTO_CHF_THREAD_DEATH):
        assert deaths == [(tid, PULSE_CODE_THREADDEATH, -1)]


@checks("B207")
def test_a_process_that_does_not_ask_is_not_told_of_its_threads(qnx: Any, peer: Peer) -> None:
    """Without NTO_CHF_THREAD_DEATH the end of a thread gives no pulse."""
    assert [deaths for _tid, deaths in peer.run(tell_of_threads, 0)] == [[], [], []]
