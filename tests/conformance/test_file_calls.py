"""What the drop-in sends for calls of the module os on descriptors, on each backend."""

import os
import struct
from errno import EINVAL, ENOSYS
from typing import Any, List

import pytest

from ha_qnx import (
    DCMD_CHR_ISATTY,
    EOK,
    IO_CONNECT,
    IO_DEVCTL,
    IO_READ,
    IO_SPACE,
    IO_WRITE,
    IO_XTYPE_OFFSET,
    dropin,
)

from .file_server import keep_file, take_path
from .marks import checks
from .peers import Peer
from .servers import Server, Start, StartPeer, opened
from .test_recovery import Recovering, ha_opened
from .waiting import eventually


@checks("B486")
def test_pread_and_pwrite_say_where(qnx: Any, start: Start, server: Server) -> None:
    """The offset stands behind the header; a negative one is refused, and no message sent."""
    fd = opened(qnx, start, server)
    with dropin.installed(qnx.backend):
        task = start(os.pread, fd, 10, 1 << 40)
        seen = server.answer(4, b"data")
        assert task.result() == b"data"
        assert seen.data == struct.pack("=HHIIIq", IO_READ, 16, 10, IO_XTYPE_OFFSET, 0, 1 << 40)
        assert seen.room == 10
        task = start(os.pwrite, fd, b"some data", 7)
        seen = server.answer(3)
        assert task.result() == 3
        assert seen.data == struct.pack("=HHIIIq", IO_WRITE, 16, 9, IO_XTYPE_OFFSET, 0, 7) + b"some data"
        for call, what in ((os.pread, 1), (os.pwrite, b"1")):
            assert start(call, fd, what, -1).errno() == EINVAL
        task = start(os.pread, fd, 10, 0)
        server.refuse(ENOSYS)
        assert task.errno() == ENOSYS


@checks("B487")
@pytest.mark.parametrize(("told", "messages"), [(9, 1), (10, 1), (8, 2), (0, 2)])
def test_ftruncate_asks_for_more_if_need_be(qnx: Any, start: Start, server: Server, told: int, messages: int) -> None:
    """A server that tells of a shorter file than is wanted gets a second message."""
    fd = opened(qnx, start, server)
    with dropin.installed(qnx.backend):
        task = start(os.ftruncate, fd, 9)
        expected = [
            struct.pack("=HHHhqq", IO_SPACE, 24, 0x6F, 0, 9, 0),
            struct.pack("=HHHhqq", IO_SPACE, 24, 0x6E, 0, 0, 9),
        ]
        for message in expected[:messages]:
            assert server.answer(EOK, struct.pack("=q", told)).data == message
        assert task.result() is None


@checks("B485")
def test_isatty_is_a_device_command(qnx: Any, start: Start, server: Server) -> None:
    """Whatever device answers it is a terminal; one that refuses is none."""
    fd = opened(qnx, start, server)
    with dropin.installed(qnx.backend):
        task = start(os.isatty, fd)
        seen = server.answer(EOK)
        assert task.result() is True
        assert (seen.data, seen.room) == (struct.pack("=HHIII", IO_DEVCTL, 16, DCMD_CHR_ISATTY, 0, 0), 16)
        task = start(os.isatty, fd)
        server.refuse(ENOSYS)
        assert task.result() is False


@checks("B486", "B369")
def test_a_pread_is_sent_again_to_the_next_server(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> None:
    """Its message says where to read, so that it may be sent twice."""
    first, second = Server(start_peer(), name), start_peer()

    def reopen(fd: int) -> Any:
        first.wait_until_gone()
        server = Server(second, name)
        reopened.append(server)
        task = start(qnx.ha_reopen, fd, first.path, os.O_RDWR)
        assert server.answer().type == IO_CONNECT
        is_open.append(task.result())
        return is_open[0]

    reopened: List[Server] = []
    is_open: List[int] = []
    fd = ha_opened(qnx, start, first, Recovering(reopen))
    with dropin.installed(qnx.backend):
        task = start(os.pread, fd, 4, 3)
        lost = first.take()
        first.kill()
        eventually(lambda: is_open, "the recovery")
        assert reopened[0].answer(4, b"data").data == lost.data
        assert task.result() == b"data"


@checks("D98", "D99", "B488")
def test_paths_are_asked_by_opening_them(qnx: Any, peer: Peer, name: str, tmp_path: Any) -> None:
    """What a server keeps looks as it does to the host."""
    path, store = f"/dev/{name}", tmp_path / "store"
    store.write_bytes(b"content")
    peer.start(keep_file, peer.run(take_path, path), str(store))
    with dropin.installed(qnx.backend):
        assert os.path.exists(path)
        assert not os.path.exists(f"{path}-of-nobody")
        assert [os.access(path, mode) for mode in (os.F_OK, os.R_OK | os.W_OK, os.X_OK)] == [True, True, False]
        os.truncate(path, 4)
        os.chmod(path, 0o640)
        status = os.stat(path)
        assert (status.st_size, status.st_mode & 0o777) == (4, 0o640)
        with open(path, "rb") as file:
            os.fsync(file)
            assert os.pread(file.fileno(), 9, 1) == b"ont"
            assert file.read() == b"cont"
