"""Processes that fork, and what the child has."""

import os
import signal
import sys
from errno import EPERM
from typing import Any, List, Tuple

from ha_qnx import NTO_CHF_DISCONNECT, NTO_COF_CLOEXEC, NTO_SIDE_CHANNEL

from ..peers import Peer
from ..servers import Server, StartPeer
from ..waiting import DEADLINE, Task
from .asking import Answers, measured
from .ledgers import receive
from .notation import PULSE_SIZE, told
from .parties import Party, played, state
from .watched import Watched

SIDE = NTO_SIDE_CHANNEL
_CHILD_LIMIT = int(2 * DEADLINE)


class Child:
    """A forked child that asks, and tells its parent; it ends by a status."""

    def __init__(self, asks: Any, *args: Any) -> None:
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            signal.alarm(_CHILD_LIMIT)
            status = 1
            try:
                os.write(theirs, "\n".join(asks(*args)).encode())
                status = 5
            finally:
                os._exit(status)
        os.close(theirs)
        self._pipe = ours

    def said(self) -> List[str]:
        """What it has found."""
        with open(self._pipe) as pipe:
            return pipe.read().split("\n")

    def end(self) -> str:
        """Wait for it."""
        _pid, status = os.waitpid(self.pid, 0)
        return f"exit {os.WEXITSTATUS(status)}" if os.WIFEXITED(status) else f"signal {os.WTERMSIG(status)}"


def ask_in_a_child(qnx: Any, chid: int, side: int, fd: int, cloexec: int) -> List[str]:
    """What a child finds that its parent had."""
    return [
        told(qnx.MsgReceive, chid, bytearray(PULSE_SIZE)),
        told(qnx.MsgSend, side, b"message"),
        " ".join(told(qnx.MsgSend, coid, b"message") for coid in (fd, cloexec)),
        " ".join(told(qnx.ConnectFlags, 0, coid, 0, 0) for coid in (fd, cloexec)),
        told(qnx.ChannelCreate, 0),
    ]


def fork_with_connections(qnx: Any, pid: int, chid: int) -> List[str]:
    """In another process: fork with a channel and three connections; what the child says, and its end."""
    own = qnx.ChannelCreate(0)
    side = qnx.ConnectAttach(0, pid, chid, SIDE, 0)
    fd = qnx.ConnectAttach(0, pid, chid, 0, 0)
    cloexec = qnx.ConnectAttach(0, pid, chid, 25, NTO_COF_CLOEXEC)
    for coid in (fd, cloexec):
        qnx.MsgSend(coid, b"message")
    child = Child(ask_in_a_child, qnx, own, side, fd, cloexec)
    said = child.said()
    return [*said, child.end()]


@measured("FK01", "FK02", "FK03", "FK04", "FK05", "FK06", "FK10", "FK11")
def test_what_a_child_has(alone: Peer, start_peer: StartPeer) -> Answers:
    """The descriptors of its parent, of which the servers are told, and nothing else."""
    server = Watched(start_peer(), flags=NTO_CHF_DISCONNECT)
    server.behave(status=1)
    said = alone.run(fork_with_connections, server.pid, server.chid)
    yield from zip(("FK01", "FK02", "FK03", "FK04", "FK06", "FK10"), said)
    seen = server.saw_at_last()
    at_end = seen if "pulse" in seen else f"{seen}; {server.saw_at_last()}"
    copies, end = split_log(at_end)
    yield "FK05", copies
    yield "FK11", end


def split_log(log: str) -> Tuple[str, str]:
    """What a server saw of copies, and what after them."""
    lines = log.split("; ")
    copies = [line for line in lines if line.startswith("io 115 ")]
    return "; ".join(copies), "; ".join(line for line in lines if line not in copies)


def fork_once(_qnx: Any) -> str:
    """In another process: fork; whether there is a child, which ends at once and is not waited for."""
    try:
        child = os.fork()
    except OSError as error:
        return told(raise_again, error)
    if not child:
        os._exit(0)
    return "ok"


def raise_again(error: OSError) -> None:
    raise error


@measured("FK13", "FK14")
def test_a_server_refuses_a_copy(alone: Peer, start_peer: StartPeer) -> Answers:
    """That of a descriptor of the parent, which the child has."""
    server = Watched(start_peer(), flags=NTO_CHF_DISCONNECT)
    client = Party(alone)
    client.send(client.make("ConnectAttach", 0, server.pid, server.chid, 4, 0))
    server.behave(error=EPERM)
    said, use = alone.run(fork_and_use, 4)
    yield "FK13", said
    copies, _end = split_log(server.saw())
    yield "FK14", copies
    assert use, "the child says nothing"


def use_in_a_child(qnx: Any, fd: int) -> List[str]:
    return [told(qnx.MsgSend, fd, b"message")]


def fork_and_use(qnx: Any, fd: int) -> Tuple[str, str]:
    """In another process: fork, and let the child use a connection; what fork says, and what the child."""
    try:
        child = Child(use_in_a_child, qnx, fd)
    except OSError as error:
        return told(raise_again, error), "no child"
    said = child.said()
    child.end()
    return "ok", said[0]


@measured("FK16", "FK17")
def test_a_server_is_silent_while_its_client_forks(alone: Peer, start_peer: StartPeer) -> Answers:
    """Whether fork waits for it."""
    server = Server(start_peer())
    party = Party(alone)
    fd = party.make("ConnectAttach", 0, server.pid, server.chid, 0, 0)
    call = alone.begin(fork_once)
    before = state(call)
    server.kill()
    yield "FK16", f"{call.result()} after it" if before == "blocked" else f"{before} at once"
    yield "FK17", party.send(fd)


def look_in_a_child(qnx: Any, coid: int) -> List[str]:
    found = told(qnx.ConnectServerInfo, 0, coid)
    return ["there" if found == str(coid) else "left out"]


def fork_with_a_dead_connection(qnx: Any, coid: int) -> Answers:
    """Fork, and look for a connection whose server is gone."""
    child = Child(look_in_a_child, qnx, coid)
    yield "FK15", child.said()[0]
    child.end()


@measured("FK15")
def test_dead_connections_are_left_out(alone: Peer, start_peer: StartPeer) -> Answers:
    """A child does not have them."""
    server = Server(start_peer())
    party = Party(alone)
    fd = party.make("ConnectAttach", 0, server.pid, server.chid, 0, 0)
    server.kill()
    party.send(fd)
    yield from played(alone, fork_with_a_dead_connection, fd)


@measured("XS02")
def test_a_process_with_threads_forks(alone: Peer) -> Answers:
    """Whether it can."""
    yield "XS02", alone.run(fork_beside_a_thread)


def fork_beside_a_thread(qnx: Any) -> str:
    """In another process: fork while another thread waits."""
    chid = qnx.ChannelCreate(0)
    waiting = Task(receive, qnx, chid).wait_until_blocked()
    said = fork_once(qnx)
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), 10, 1, 1)
    waiting.result()
    return said


# exec.


def exec_a_sender(qnx: Any, pid: int, chid: int) -> None:
    """In another process: send, and become a program that sends on one of the connections."""
    fd = qnx.ConnectAttach(0, pid, chid, 20, 0)
    qnx.ConnectAttach(0, pid, chid, 21, NTO_COF_CLOEXEC)
    qnx.ConnectAttach(0, pid, chid, SIDE, 0)
    qnx.ConnectFlags(0, fd, NTO_COF_CLOEXEC, 0)
    qnx.MsgSend(fd, b"AA")
    code = f"import os, ha_qnx; ha_qnx.backend({qnx.name!r}).MsgSend({fd}, b'BB'); os._exit(44)"
    os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606  # our own interpreter


@measured("EX01", "EX02")
def test_a_client_executes_a_program(qnx: Any, start_peer: StartPeer) -> Answers:
    """What is close-on-exec is closed, and so are side channels; the other descriptors stay."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    peer = start_peer()
    peer.begin(exec_a_sender, os.getpid(), chid)
    log: List[str] = []
    while not ("message B len 2" in log and log[-1].startswith("pulse -33")):
        found = receive(qnx, chid)
        log.append(str(found))
        if found.rcvid:
            qnx.MsgReply(found.rcvid, 0)
    yield "EX01", "; ".join(log)
    yield "EX02", f"exit {peer.process.wait(DEADLINE)}"
