"""Device commands: what devctl sends, what it returns, and how it recovers."""

import functools
import os
import signal
import struct
from errno import EBADF, EINTR, EIO, ENOSYS, ENOTTY, ESRCH, ETIMEDOUT
from pathlib import Path
from typing import Any, List

import pytest

from ha_qnx import (
    DCMD_ALL_GETFLAGS,
    DCMD_ALL_SETFLAGS,
    DCMD_CHR_ISATTY,
    DCMD_MISC,
    DIOF,
    DION,
    DIOT,
    DIOTF,
    EOK,
    HA_RECOVERY_ICOUNT,
    IO_DEVCTL,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    NTO_TIMEOUT_SEND,
)

from .marks import checks
from .peers import Peer
from .servers import Server, Start, StartPeer, next_number, opened, take
from .test_recovery import Recovering, give_up, ha_opened
from .waiting import eventually

SIDE = NTO_SIDE_CHANNEL
NONE, GET, SET, CHANGE = DION(DCMD_MISC, 1), DIOF(DCMD_MISC, 2, 4), DIOT(DCMD_MISC, 3, 4), DIOTF(DCMD_MISC, 4, 4)


def header(dcmd: int, nbytes: int) -> bytes:
    """What every device command begins with."""
    return struct.pack("=HHIII", IO_DEVCTL, 16, dcmd, nbytes, 0)


def answer(data: bytes = b"", info: int = 0) -> bytes:
    """What a server answers to a device command."""
    return struct.pack("=IiII", 0, info, len(data), 0) + data


@checks("B485")
def test_commands_are_made_of_their_parts() -> None:
    """As QNX's macros make them: those that libc sends by itself are so."""
    assert DIOF(1, 1, 4) == DCMD_ALL_GETFLAGS
    assert DIOT(1, 2, 4) == DCMD_ALL_SETFLAGS
    assert DION(3, 24) == DCMD_CHR_ISATTY
    assert DIOTF(5, 0xFF, 0x3FFF) == 0xFFFF05FF
    for arguments in ((5, 1, 1 << 14), (256, 1, 4), (5, -1, 4)):
        with pytest.raises(ValueError, match="must be"):
            DIOF(*arguments)
    with pytest.raises(TypeError):
        DIOF(5, 1, "int")  # type: ignore[arg-type]  # it is refused


@checks("B480")
@pytest.mark.parametrize(
    ("dcmd", "sent", "room"),
    [(NONE, b"", 16), (GET, b"", 22), (SET, b"abcdef", 16), (CHANGE, b"abcdef", 22), (0x0512 | 1 << 31, b"abcdef", 16)],
    ids=["none", "from", "to", "both", "no size"],
)
def test_a_command_says_which_way_its_data_goes(
    qnx: Any, start: Start, server: Server, dcmd: int, sent: bytes, room: int
) -> None:
    """As many bytes as there are, whatever size the command has."""
    fd = opened(qnx, start, server)
    task = start(qnx.devctl, fd, dcmd, b"abcdef")
    seen = server.answer(EOK, answer())
    assert task.result() == (0, 0, b"abcdef")
    assert (seen.data, seen.room, seen.coid) == (header(dcmd, 6) + sent, room, fd)


@checks("B480")
def test_negative_commands_are_those_of_c(qnx: Any, start: Start, server: Server) -> None:
    """A dcmd is an int in C, and so may be negative; out of its range, it is a ValueError."""
    fd = opened(qnx, start, server)
    task = start(qnx.devctl, fd, SET - (1 << 32), bytearray(b"abcd"))
    assert server.answer(EOK, answer()).data == header(SET, 4) + b"abcd"
    assert task.result() == (0, 0, b"abcd")
    for dcmd in (1 << 32, -(1 << 31) - 1):
        with pytest.raises(ValueError, match="dcmd"):
            qnx.devctl(fd, dcmd)
    for arguments in ((fd, "1"), (fd, 1, "text"), ("1", 1)):
        with pytest.raises(TypeError):
            qnx.devctl(*arguments)


@checks("B481")
def test_info_and_data_come_back(qnx: Any, start: Start, server: Server) -> None:
    """The info is a signed number; more data than there is room for is cut, of less the rest stays as it was."""
    fd = opened(qnx, start, server)
    for data, buffer in ((b"0123", b"0123"), (b"012345", b"0123"), (b"01", b"01cd"), (b"", b"abcd")):
        task = start(qnx.devctl, fd, CHANGE, b"abcd")
        server.answer(EOK, answer(data, -5))
        assert task.result() == (0, -5, buffer)


@checks("B481")
def test_a_mebibyte_goes_both_ways(qnx: Any, start: Start, server: Server) -> None:
    """Data may be longer than the size that a command can say."""
    fd = opened(qnx, start, server)
    data = os.urandom(1 << 20)
    task = start(qnx.devctl, fd, CHANGE, data)
    seen = server.take()
    assert seen.size == 16 + len(data)
    server.reply(seen, EOK, answer(data[::-1]))
    assert task.result() == (0, 0, data[::-1])


@checks("D95")
@pytest.mark.parametrize("reply", [b"", bytes(4), bytes(7)], ids=["nothing", "4 bytes", "7 bytes"])
def test_no_info_is_0(qnx: Any, start: Start, server: Server, reply: bytes) -> None:
    """A reply that is too short for one tells none."""
    fd = opened(qnx, start, server)
    task = start(qnx.devctl, fd, CHANGE, b"abcd")
    server.answer(EOK, reply)
    assert task.result() == (0, 0, b"abcd")


@checks("B482", "D95")
@pytest.mark.parametrize(("error", "status"), [(EIO, EIO), (EBADF, EBADF), (ENOTTY, ENOTTY), (ENOSYS, ENOTTY)])
def test_what_a_server_refuses_is_returned(qnx: Any, start: Start, server: Server, error: int, status: int) -> None:
    """As its errno, and not raised; a server that knows no such message knows no such command."""
    fd = opened(qnx, start, server)
    task = start(qnx.devctl, fd, CHANGE, b"abcd")
    server.refuse(error)
    assert task.result() == (status, 0, b"abcd")


@checks("B483")
def test_a_status_is_negated(qnx: Any, start: Start, server: Server) -> None:
    """Whoever answers by another status than 0 is told so."""
    fd = opened(qnx, start, server)
    for status in (7, -7):
        task = start(qnx.devctl, fd, GET, bytes(4))
        server.answer(status, answer(b"0123", 1))
        assert task.result() == (-status, 1, b"0123")


@checks("D96")
def test_a_file_of_the_host_knows_no_command(qnx: Any, tmp_path: Path) -> None:
    """Not even a command that its ioctl might have."""
    fd = qnx.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert qnx.devctl(fd, DCMD_CHR_ISATTY) == (ENOTTY, 0, b"")
    assert qnx.devctl(fd, CHANGE, b"abcd") == (ENOTTY, 0, b"abcd")


@checks("B484")
@pytest.mark.parametrize("bad", ["closed", "negative", "side channel"])
def test_what_is_not_open_takes_no_command(qnx: Any, bad: str) -> None:
    """A number that is no descriptor: EBADF, which is returned."""
    number = {"closed": next_number(), "negative": -1, "side channel": SIDE | 1000}[bad]
    assert qnx.devctl(number, GET, bytes(4)) == (EBADF, 0, bytes(4))


@checks("B484", "B345")
@pytest.mark.parametrize(("state", "status"), [("idle", EBADF), ("waiting", ESRCH)])
def test_an_ordinary_connection_loses_its_server(
    qnx: Any, start: Start, peer: Peer, name: str, state: str, status: int
) -> None:
    """A server that is killed while the command waits: ESRCH; one that was dead before: EBADF."""
    server = Server(peer, name)
    fd = opened(qnx, start, server)
    task = server.lose(state, lambda: start(qnx.devctl, fd, GET, bytes(4)))
    assert task.result() == (status, 0, bytes(4))


@checks("D97", "B369", "B402")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_a_command_is_sent_again_to_the_next_server(qnx: Any, start: Start, start_peer: StartPeer, index: int) -> None:
    """A server that is killed while it has the command: the next one gets the same, and its answer is returned."""
    first, second = Server(start_peer()), Server(start_peer())

    def reconnect(coid: int) -> Any:
        first.wait_until_gone()
        return qnx.ha_ReConnectAttach(coid, 0, second.pid, second.chid, index, 0)

    recovering = Recovering(reconnect)
    coid = qnx.ha_ConnectAttach(0, first.pid, first.chid, index, 0, recovering)
    task = start(qnx.devctl, coid, CHANGE, b"abcd")
    lost = first.take()
    first.kill()
    answered = second.answer(EOK, answer(b"done", 3))
    assert task.result() == (0, 3, b"done")
    assert (answered.data, answered.coid) == (lost.data, lost.coid)
    assert recovering.calls == [(coid, None)]


@checks("D97", "B364", "B367")
def test_what_is_not_recovered_is_returned(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """A recovery function that gives up leaves the error; what the server answers does not call it."""
    server = Server(peer, name)
    recovering = Recovering(give_up)
    fd = ha_opened(qnx, start, server, recovering)
    task = start(qnx.devctl, fd, GET, bytes(4))
    server.refuse(ENOSYS)
    assert (task.result()[0], recovering.count) == (ENOTTY, 0)
    task = start(qnx.devctl, fd, GET, bytes(4))
    server.take()
    server.kill()
    assert (task.result()[0], recovering.count) == (ESRCH, 1)


@checks("D97", "B389")
def test_a_command_that_gets_through_counts(qnx: Any, start: Start, start_peer: StartPeer) -> None:
    """HA_RECOVERY_ICOUNT begins anew after a command, as after any message."""
    servers = [Server(start_peer()) for _ in range(3)]
    reached: List[Server] = servers[:1]

    def reconnect(coid: int) -> Any:
        reached[-1].wait_until_gone()
        reached.append(servers[len(reached)])
        return qnx.ha_ReConnectAttach(coid, 0, reached[-1].pid, reached[-1].chid, SIDE, 0)

    def has_reached(count: int) -> bool:
        return len(reached) == count

    coid = qnx.ha_ConnectAttach(0, servers[0].pid, servers[0].chid, SIDE, 0, Recovering(reconnect))
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ICOUNT, 1)
    for number in (1, 2):
        task = start(qnx.devctl, coid, GET, bytes(4))
        reached[-1].take()
        reached[-1].kill()
        eventually(functools.partial(has_reached, number + 1), "the recovery")
        reached[-1].answer(EOK, answer(b"done"))
        assert task.result() == (0, 0, b"done")


@checks("B484", "B209")
def test_a_timeout_ends_a_command(qnx: Any, start: Start, server: Server) -> None:
    """TimerTimeout limits devctl like any other call that sends a message, and is returned."""
    fd = opened(qnx, start, server)

    def limited() -> Any:
        qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, 1_000_000)
        return qnx.devctl(fd, GET, bytes(4))

    assert start(limited).result() == (ETIMEDOUT, 0, bytes(4))


def command_interrupted(qnx: Any, pid: int, chid: int) -> List[int]:
    """In another process: a device command, until a signal whose handler returns ends it; its status."""
    handled: List[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))
    status = qnx.devctl(qnx.ConnectAttach(0, pid, chid, 0), GET, bytes(4))[0]
    return [*handled, status]


@checks("B484", "B180", "D19")
def test_a_signal_handler_ends_a_command(qnx: Any, start: Start, peer: Peer) -> None:
    """A signal whose handler ran while devctl waited makes it return EINTR, after the handler."""
    chid = qnx.ChannelCreate(0)
    remote = peer.begin(command_interrupted, os.getpid(), chid)
    start(take, qnx, chid).result()
    remote.wait_until_blocked()
    peer.signal(signal.SIGUSR1)
    assert remote.result() == [signal.SIGUSR1, EINTR]
