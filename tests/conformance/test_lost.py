"""Lost connections: who sees EBADF and who sees ESRCH."""

import os
import resource
import signal
import sys
from errno import EBADF, EINVAL, ESRCH, ETIMEDOUT
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple, Union

import pytest

from ha_qnx import NTO_COF_DEAD, NTO_SIDE_CHANNEL, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND, MessageInfo

from .clients import Client, Start
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .receiving import PATIENCE, receive_message
from .servers import fork_an_idle_child
from .waiting import DEADLINE, Task, eventually


@pytest.fixture(params=["near", "far"])
def server(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A server in this process, and then one in another process; it is told what to do as a client is."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


# Every call that sends a message, with what it sends and where its reply goes.
SENDS = [
    ("MsgSend", b"message", None),
    ("MsgSendv", [b"mes", b"sage"], None),
    ("MsgSendsv", b"message", None),
    ("MsgSendvs", [b"mes", b"sage"], None),
    ("MsgSendnc", b"message", None),
    ("MsgSendvnc", [b"mes", b"sage"], None),
    ("MsgSendsvnc", b"message", None),
    ("MsgSendvsnc", [b"mes", b"sage"], None),
    # The paths that a backend may have for what is common and for what is large.
    ("MsgSend", b"message", bytearray(10)),
    ("MsgSend", bytes(100_000), bytearray(100_000)),
]
INDEXES = [NTO_SIDE_CHANNEL, 0]

every_send = pytest.mark.parametrize(
    "sent", SENDS, ids=[*(call for call, _smsg, _rmsg in SENDS[:8]), "MsgSend-bytes", "MsgSend-large"]
)
every_index = pytest.mark.parametrize("index", INDEXES, ids=["side-channel", "descriptor"])

Sent = Tuple[str, Any, Any]


def send_as(qnx: Any, coid: int, sent: Sent) -> int:
    """One of the calls that send."""
    call, smsg, rmsg = sent
    status: int = getattr(qnx, call)(coid, smsg, rmsg)
    return status


def assert_dead(qnx: Any, coid: int) -> None:
    """Every call that sends fails with EBADF on this connection."""
    for sent in SENDS:
        with fails_with(EBADF):
            send_as(qnx, coid, sent)
    with fails_with(EBADF):
        qnx.MsgSendPulse(coid, 10, 1, 1)


def create_channel(qnx: Any) -> int:
    chid: int = qnx.ChannelCreate(0)
    return chid


def destroy_channel(qnx: Any, chid: int) -> None:
    qnx.ChannelDestroy(chid)


def receive(qnx: Any, chid: int, count: int) -> List[int]:
    """Receive messages and leave them without an answer."""
    return [receive_message(qnx, chid) for _ in range(count)]


def answer(qnx: Any, chid: int, count: int) -> None:
    """Receive messages and answer each with status 0."""
    for _ in range(count):
        qnx.MsgReply(receive_message(qnx, chid), 0)


def connect(qnx: Any, server: Union[Client, Peer], chid: int, index: int, used: bool) -> int:
    """A connection, which has carried a message if it is used."""
    coid: int = qnx.ConnectAttach(0, server.pid, chid, index)
    if used:
        answering = server.start(answer, chid, 1)
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, PATIENCE)
        qnx.MsgSend(coid, b"hello", None)
        answering.result()
    return coid


def connect_twice(
    qnx: Any, server: Union[Client, Peer], chid: int, index: int = NTO_SIDE_CHANNEL
) -> List[Tuple[int, Sent]]:
    """For each of the calls that send, a connection that is new and one that was used."""
    return [(connect(qnx, server, chid, index, used), sent) for used in (False, True) for sent in SENDS]


def send_every_way(qnx: Any, start: Start, server: Union[Client, Peer], chid: int) -> List[Task]:
    """Begin to send by each of the calls on such connections."""
    return [start(send_as, qnx, coid, sent) for coid, sent in connect_twice(qnx, server, chid)]


# Ways for a server to end.


def exit_on_sigterm(_qnx: Any) -> None:
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit())


def leave_no_core(_qnx: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def by_kill(server: Peer) -> None:
    server.kill()


def by_exit(server: Peer) -> None:
    server.run(exit_on_sigterm)
    server.signal(signal.SIGTERM)
    server.process.wait(DEADLINE)


def by_abort(server: Peer) -> None:
    server.run(leave_no_core)
    server.signal(signal.SIGABRT)
    server.process.wait(DEADLINE)


every_end = pytest.mark.parametrize("end", [by_kill, by_exit, by_abort], ids=["kill", "exit", "abort"])


# EBADF: the message was not sent.


@checks("B158", "B179")
@every_send
@every_index
def test_a_connection_has_to_be_attached(qnx: Any, sent: Sent, index: int) -> None:
    """A message on a number that was never attached is EBADF."""
    with fails_with(EBADF):
        send_as(qnx, index + 0x3FFF_0000, sent)


@checks("B159")
@every_send
@every_index
def test_a_connection_must_not_be_detached(qnx: Any, sent: Sent, index: int) -> None:
    """A message on a connection that this process has detached is EBADF."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), index)
    qnx.ConnectDetach(coid)
    with fails_with(EBADF):
        send_as(qnx, coid, sent)


@checks("B160")
@every_send
@pytest.mark.parametrize("coid", [-1, -(2**31)])
def test_a_negative_number_is_no_connection(qnx: Any, sent: Sent, coid: int) -> None:
    """A message on a negative number is EBADF."""
    with fails_with(EBADF):
        send_as(qnx, coid, sent)


@checks("B162", "B171", "B248", "B414")
@every_index
def test_the_channel_of_an_idle_connection_is_destroyed(qnx: Any, server: Client, index: int) -> None:
    """A connection is dead when its server has destroyed the channel, whether it has been used or not: EBADF.

    That is so for the call that notices it first, whichever that is, and for all later ones.
    """
    chid = server.run(create_channel)
    connections = connect_twice(qnx, server, chid, index)
    server.run(destroy_channel, chid)
    for coid, sent in connections:
        with fails_with(EBADF):
            send_as(qnx, coid, sent)
        assert_dead(qnx, coid)


@checks("B163", "B171", "B248", "B414")
@every_end
@every_index
def test_the_server_of_an_idle_connection_dies(qnx: Any, peer: Peer, index: int, end: Callable[[Peer], None]) -> None:
    """A connection is dead when its server process has ended, in whatever way: EBADF, for each of the calls."""
    connections = connect_twice(qnx, peer, peer.run(create_channel), index)
    end(peer)
    for coid, sent in connections:
        with fails_with(EBADF):
            send_as(qnx, coid, sent)
        assert_dead(qnx, coid)


# ESRCH: the server was lost while it had the message, or the message waited for it.


@checks("B164", "B179", "B414")
@every_end
def test_the_server_of_send_blocked_clients_dies(
    qnx: Any, start: Start, peer: Peer, end: Callable[[Peer], None]
) -> None:
    """A message that was not received when the server process ended is ESRCH, in whatever way it was sent."""
    tasks = send_every_way(qnx, start, peer, peer.run(create_channel))
    for task in tasks:
        task.wait_until_blocked()
    end(peer)
    assert [task.errno() for task in tasks] == [ESRCH] * len(tasks)


@checks("B165", "B179", "B414")
@every_end
def test_the_server_of_reply_blocked_clients_dies(
    qnx: Any, start: Start, peer: Peer, end: Callable[[Peer], None]
) -> None:
    """A message that was received and not answered when the server process ended is ESRCH."""
    chid = peer.run(create_channel)
    tasks = send_every_way(qnx, start, peer, chid)
    peer.run(receive, chid, len(tasks))
    assert not any(task.done for task in tasks)
    end(peer)
    assert [task.errno() for task in tasks] == [ESRCH] * len(tasks)


@checks("B166", "B414")
@pytest.mark.parametrize("received", [False, True], ids=["send-blocked", "reply-blocked"])
def test_the_channel_of_blocked_clients_is_destroyed(qnx: Any, start: Start, server: Client, received: bool) -> None:
    """A message that waits, or waits for its answer, when the server destroys the channel is ESRCH."""
    chid = server.run(create_channel)
    tasks = send_every_way(qnx, start, server, chid)
    if received:
        server.run(receive, chid, len(tasks))
    for task in tasks:
        task.wait_until_blocked()
    server.run(destroy_channel, chid)
    assert [task.errno() for task in tasks] == [ESRCH] * len(tasks)


@checks("B163", "B164", "B165", "D13")
def test_the_child_of_a_killed_server_keeps_nobody_waiting(qnx: Any, start: Start, peer: Peer) -> None:
    """A server that is killed is lost at once, for idle, SEND- and REPLY-blocked clients, though its child lives."""
    chid = peer.run(create_channel)
    idle, held, waiting, later = (connect(qnx, peer, chid, NTO_SIDE_CHANNEL, True) for _ in range(4))
    tasks = [start(qnx.MsgSend, held, b"held", None)]
    peer.run(receive, chid, 1)
    tasks.append(start(qnx.MsgSend, waiting, b"waiting", None).wait_until_blocked())
    child = peer.run(fork_an_idle_child)
    try:
        tasks.append(start(qnx.MsgSend, later, b"later", None).wait_until_blocked())
        peer.kill()
        assert [task.errno() for task in tasks] == [ESRCH] * 3
        assert_dead(qnx, idle)
    finally:
        os.kill(child, signal.SIGKILL)


def send_with_timeout(qnx: Any, coid: int, nanoseconds: int) -> int:
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, nanoseconds)
    status: int = qnx.MsgSend(coid, b"message", None)
    return status


@checks("B165", "B173")
def test_a_lost_server_is_no_timeout(qnx: Any, start: Start, peer: Peer) -> None:
    """A call with a timeout that has not expired fails like any other when its server dies."""
    chid = peer.run(create_channel)
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    task = start(send_with_timeout, qnx, coid, PATIENCE)
    peer.run(receive, chid, 1)
    peer.kill()
    assert task.errno() == ESRCH


def serve_and_log(qnx: Any, chid: int, log: str) -> None:
    """Write down every message, then answer it."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    message = bytearray(20)
    while True:
        rcvid = qnx.MsgReceive(chid, message)
        os.write(fd, message)
        qnx.MsgReply(rcvid, 0)


def send_until_lost(qnx: Any, coid: int, who: int, most: int) -> Tuple[int, int, Optional[int]]:
    """Who sent, how many messages were answered, and the errno of the one that was not."""
    for number in range(most):
        try:
            qnx.MsgSend(coid, b"%9d %9d\n" % (who, number), None)
        except OSError as error:
            return who, number, error.errno
    return who, most, None


@checks("B179", "D15")
@open_point("D15")
@pytest.mark.parametrize("_attempt", range(3))
def test_ebadf_means_that_the_message_was_not_sent(
    qnx: Any, start: Start, peer: Peer, tmp_path: Path, _attempt: int
) -> None:
    """When a busy server is killed its clients get EBADF or ESRCH, and with EBADF it has never had the message."""
    log = tmp_path / "log"
    chid = peer.run(create_channel)
    for _thread in range(2):
        peer.start(serve_and_log, chid, str(log))
    coid = qnx.ConnectAttach(0, peer.pid, chid)
    clients = [start(send_until_lost, qnx, coid, who, 1_000_000) for who in range(3)]
    eventually(lambda: log.exists() and log.stat().st_size >= 2000, "the server to log a hundred messages")
    peer.kill()
    outcomes = [client.result() for client in clients]
    logged = {tuple(map(int, line.split())) for line in log.read_text().splitlines()}
    for who, answered, number in outcomes:
        assert number in (EBADF, ESRCH)
        assert {(who, message) for message in range(answered)} <= logged
        assert number == ESRCH or (who, answered) not in logged


# After a failure.


@checks("B168", "B169")
@pytest.mark.parametrize("blocked", [False, True], ids=["after-ebadf", "after-esrch"])
@every_index
def test_a_dead_connection_keeps_its_number_until_it_is_detached(
    qnx: Any, start: Start, peer: Peer, index: int, blocked: bool
) -> None:
    """After EBADF or ESRCH every use is EBADF, the number stays taken, and ConnectDetach frees it, once."""
    chid = peer.run(create_channel)
    coid = connect(qnx, peer, chid, index, used=True)
    task = start(qnx.MsgSend, coid, b"message", None) if blocked else None
    if task:
        peer.run(receive, chid, 1)
    peer.kill()
    if task:
        assert task.errno() == ESRCH
    assert_dead(qnx, coid)
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, coid, info) == coid
    assert info.flags & NTO_COF_DEAD
    own = qnx.ChannelCreate(0)
    assert qnx.ConnectAttach(0, 0, own, index) != coid
    assert qnx.ConnectDetach(coid) == 0
    with fails_with(EINVAL):
        qnx.ConnectDetach(coid)


@checks("B170")
@pytest.mark.parametrize("received", [False, True], ids=["send-blocked", "reply-blocked"])
def test_another_thread_detaches_the_connection_of_blocked_clients(
    qnx: Any, start: Start, server: Client, received: bool
) -> None:
    """A message that waits, or waits for its answer, when its connection is detached is EBADF."""
    chid = server.run(create_channel)
    connections = connect_twice(qnx, server, chid)
    # Two threads on each connection.
    tasks = [start(send_as, qnx, coid, sent) for coid, sent in connections * 2]
    if received:
        server.run(receive, chid, len(tasks))
    for task in tasks:
        task.wait_until_blocked()
    for coid, _sent in connections:
        assert qnx.ConnectDetach(coid) == 0
    assert [task.errno() for task in tasks] == [EBADF] * len(tasks)


def attach_name(qnx: Any, name: str) -> int:
    chid: int = qnx.name_attach(name).chid
    return chid


@checks("B172")
def test_a_restarted_server_has_to_be_connected_to_anew(qnx: Any, start_peer: Callable[[], Peer], name: str) -> None:
    """A connection to a server that was killed stays dead when its successor has the name; a new one works."""
    server = start_peer()
    server.run(attach_name, name)
    coid = qnx.name_open(name)
    server.kill()
    assert_dead(qnx, coid)
    successor = start_peer()
    answering = successor.start(answer, successor.run(attach_name, name), 1)
    again = qnx.name_open(name)
    assert qnx.MsgSend(again, b"message", None) == 0
    answering.result()
    assert_dead(qnx, coid)


# Servers: clients that are gone.

ANSWERS = {
    "MsgReply": (0, b"reply"),
    "MsgReplyv": (0, [b"re", b"ply"]),
    "MsgError": (5,),
    "MsgRead": (bytearray(4),),
    "MsgReadv": ([bytearray(4)],),
    "MsgWrite": (b"data",),
    "MsgWritev": ([b"data"],),
    "MsgInfo": (),
}
every_answer = pytest.mark.parametrize("call", sorted(ANSWERS))


def answer_by(qnx: Any, rcvid: int, call: str) -> Any:
    """One of the calls that need a client that waits for its answer."""
    return getattr(qnx, call)(rcvid, *ANSWERS[call])


def send(qnx: Any, pid: int, chid: int) -> None:
    qnx.MsgSend(qnx.ConnectAttach(0, pid, chid), b"message", None)


@checks("B174", "B119")
@pytest.mark.parametrize("call", ["MsgReply", "MsgReplyv", "MsgError", "MsgRead", "MsgWrite", "MsgInfo"])
def test_a_killed_client_cannot_be_answered(qnx: Any, peer: Peer, call: str) -> None:
    """The message of a client that was killed is gone: ESRCH, for whatever is done with it first."""
    chid = qnx.ChannelCreate(0)
    peer.start(send, os.getpid(), chid)
    rcvid = receive_message(qnx, chid)
    peer.kill()
    with fails_with(ESRCH):
        answer_by(qnx, rcvid, call)


@checks("B174")
@every_answer
def test_a_client_that_has_detached_cannot_be_answered(qnx: Any, start: Start, call: str) -> None:
    """The message of a client whose connection was detached is gone: ESRCH."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    client = start(qnx.MsgSend, coid, b"message", None)
    rcvid = receive_message(qnx, chid)
    client.wait_until_blocked()
    qnx.ConnectDetach(coid)
    assert client.errno() == EBADF
    with fails_with(ESRCH):
        answer_by(qnx, rcvid, call)


@checks("B174", "B118", "B181")
@every_answer
def test_a_client_that_has_timed_out_cannot_be_answered(qnx: Any, start: Start, call: str) -> None:
    """The message of a client that waits no more, on a channel without NTO_CHF_UNBLOCK, is gone: ESRCH."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    client = start(send_with_timeout, qnx, coid, 30_000_000)
    rcvid = receive_message(qnx, chid)
    assert client.errno() == ETIMEDOUT
    with fails_with(ESRCH):
        answer_by(qnx, rcvid, call)


@checks("B174", "B116")
@every_answer
def test_a_client_that_has_its_answer_cannot_be_answered(qnx: Any, start: Start, call: str) -> None:
    """A message that was answered is gone: ESRCH."""
    chid = qnx.ChannelCreate(0)
    client = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), b"message", None)
    rcvid = receive_message(qnx, chid)
    qnx.MsgReply(rcvid, 0)
    client.result()
    with fails_with(ESRCH):
        answer_by(qnx, rcvid, call)


def errno_of_answer(qnx: Any, rcvid: int, call: str) -> Optional[int]:
    try:
        answer_by(qnx, rcvid, call)
    except OSError as error:
        return error.errno
    return None


@checks("B124", "B412")
def test_a_rcvid_means_nothing_in_another_process(qnx: Any, start: Start, peer: Peer) -> None:
    """A message can be answered by the process that received it, and by no other one: ESRCH."""
    chid = qnx.ChannelCreate(0)
    client = start(qnx.MsgSend, qnx.ConnectAttach(0, 0, chid), b"message", None)
    rcvid = receive_message(qnx, chid)
    assert [peer.run(errno_of_answer, rcvid, call) for call in ANSWERS] == [ESRCH] * len(ANSWERS)
    qnx.MsgReply(rcvid, 5)
    assert client.result() == 5


# Numbers that are none.


@checks("B175", "B109", "B408")
@pytest.mark.parametrize("call", ["MsgReceive", "MsgReceivev", "MsgReceivePulse"])
@pytest.mark.parametrize("kind", ["never-made", "destroyed", "negative", "zero"])
def test_only_a_channel_can_be_received_from(qnx: Any, call: str, kind: str) -> None:
    """Receiving from a number that is no channel of this process is ESRCH."""
    destroyed = qnx.ChannelCreate(0)
    qnx.ChannelDestroy(destroyed)
    chid = {"never-made": destroyed + 1000, "destroyed": destroyed, "negative": -1, "zero": 0}[kind]
    with fails_with(ESRCH):
        getattr(qnx, call)(chid, [bytearray(100)] if call == "MsgReceivev" else bytearray(100))


@checks("B175", "B110")
def test_a_channel_of_another_process_cannot_be_received_from(qnx: Any, peer: Peer) -> None:
    """The number of another process's channel is no channel here: ESRCH."""
    own = qnx.ChannelCreate(0)
    theirs = next(chid for chid in (peer.run(create_channel) for _ in range(100)) if chid > own)
    with fails_with(ESRCH):
        qnx.MsgReceive(theirs, bytearray(100))


@checks("B176", "B54")
@every_index
@pytest.mark.parametrize("detached", [False, True], ids=["never-made", "detached"])
def test_what_is_no_connection_cannot_be_detached(qnx: Any, index: int, detached: bool) -> None:
    """ConnectDetach of a number that is no connection is EINVAL, not EBADF."""
    coid = index + 0x3FFF_0000
    if detached:
        coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), index)
        qnx.ConnectDetach(coid)
    for number in (coid, -1):
        with fails_with(EINVAL):
            qnx.ConnectDetach(number)


@checks("B177", "B38", "B39")
@every_index
def test_what_does_not_exist_cannot_be_connected_to(qnx: Any, peer: Peer, index: int) -> None:
    """ConnectAttach to a channel or a process that does not exist, or no longer, is ESRCH."""
    chid, remaining = (peer.run(create_channel) for _ in range(2))
    peer.run(destroy_channel, chid)
    own = qnx.ChannelCreate(0)
    qnx.ChannelDestroy(own)
    for pid, missing in ((peer.pid, chid), (peer.pid, remaining + 1000), (peer.pid, -1), (0, own), (0, own + 1000)):
        with fails_with(ESRCH):
            qnx.ConnectAttach(0, pid, missing, index)
    peer.kill()
    for pid in (peer.pid, -5):
        with fails_with(ESRCH):
            qnx.ConnectAttach(0, pid, remaining, index)


@checks("B178", "B70")
@every_index
def test_the_flags_of_what_is_no_connection_cannot_be_asked_for(qnx: Any, index: int) -> None:
    """ConnectFlags of a number that is no connection is EBADF."""
    detached = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0), index)
    qnx.ConnectDetach(detached)
    for coid in (detached, index + 0x3FFF_0000, -1):
        with fails_with(EBADF):
            qnx.ConnectFlags(0, coid, 0, 0)
