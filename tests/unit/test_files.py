"""What read, write, lseek and fstat make of servers that answer strangely, and the layouts of what they answer."""

import os
import pathlib
import struct
from errno import EIO
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

import pytest
from ha_qnx.conformance.waiting import Task
from ha_qnx.fallback.kernel import SocketKernel

from ha_qnx import iomessages
from ha_qnx.files import OpenMode, RawFile
from ha_qnx.recovery import Recovery


class Answered(NamedTuple):
    """A connection whose server answers what a test says."""

    qnx: Recovery
    coid: int
    say: Callable[[int, bytes], None]


@pytest.fixture
def answered() -> Iterator[Answered]:
    """A server in a thread, whose answer to everything can be set."""
    qnx = Recovery("fallback", SocketKernel())
    chid = qnx.ChannelCreate(0)
    answer: List[Tuple[int, bytes]] = [(0, b"")]

    def serve() -> None:
        while True:
            try:
                rcvid = qnx.MsgReceive(chid, bytearray(100))
            except ProcessLookupError:
                return
            qnx.MsgReply(rcvid, *answer[0])

    def say(status: int, reply: bytes) -> None:
        answer[0] = (status, reply)

    server = Task(serve)
    coid = qnx.ConnectAttach(0, 0, chid, 0)
    yield Answered(qnx, coid, say)
    qnx.ConnectDetach(coid)
    qnx.ChannelDestroy(chid)
    server.result()


def error_of(call: Callable[[], object]) -> Optional[int]:
    with pytest.raises(OSError) as failure:  # noqa: PT011  # the errno is what is asked for
        call()
    return failure.value.errno


@pytest.mark.parametrize("reply", [b"", b"\7", b"\7\0\0\0", b"\7\0\0\0\0\0\0", struct.pack("=q", -5)], ids=repr)
def test_an_answer_to_lseek_without_a_position_is_an_error(answered: Answered, reply: bytes) -> None:
    """A reply that is shorter than a position, or is none, makes lseek fail with EIO rather than return rubbish."""
    answered.say(0, reply)
    assert error_of(lambda: answered.qnx.lseek(answered.coid, 0, os.SEEK_CUR)) == EIO


def test_a_status_of_minus_one_is_an_error_of_lseek(answered: Answered) -> None:
    """The one status that counts for lseek says that there is no position (B326)."""
    answered.say(-1, struct.pack("=q", 7))
    assert error_of(lambda: answered.qnx.lseek(answered.coid, 0, os.SEEK_CUR)) == EIO
    answered.say(-2, struct.pack("=q", 7))
    assert answered.qnx.lseek(answered.coid, 0, os.SEEK_CUR) == 7


@pytest.mark.parametrize("status", [-1, -100])
def test_a_negative_count_is_an_error(answered: Answered, status: int) -> None:
    """A server that reads or writes less than nothing: EIO, and no negative number reaches the caller."""
    answered.say(status, b"data")
    qnx, coid = answered.qnx, answered.coid
    calls: List[Callable[[], object]] = [
        lambda: qnx.read(coid, 10),
        lambda: qnx.readinto(coid, bytearray(10)),
        lambda: qnx.write(coid, b"data"),
    ]
    assert [error_of(call) for call in calls] == [EIO] * 3


def test_nobody_writes_more_than_there_was(answered: Answered) -> None:
    """A server that has written more than it got has written all of it, for small and for large data."""
    answered.say(1 << 20, b"")
    assert answered.qnx.write(answered.coid, b"data") == 4
    assert answered.qnx.write(answered.coid, bytes(100_000)) == 100_000


def test_a_read_without_data_returns_what_the_server_counts(answered: Answered) -> None:
    """Only the status counts the bytes; where no data came, there is nothing of another reply, but zeros."""
    answered.say(3, b"")
    assert answered.qnx.read(answered.coid, 10) == b"\0\0\0"


def test_a_connection_is_truncated_by_its_server(answered: Answered) -> None:
    """By one message, or two: a server that tells of a shorter file is asked for more (B487)."""
    how = OpenMode("r+b", 0)
    with how.layers(RawFile(answered.qnx, answered.coid, how, answered.coid, closefd=False)) as file:
        for told in (5, 0):
            answered.say(0, told.to_bytes(8, "little"))
            assert file.truncate(5) == 5


def test_a_status_makes_the_round_trip(tmp_path: pathlib.Path) -> None:
    """What stat_reply packs for a file, stat_of unpacks."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(-1_500_000_000, 1_700_000_000_123_456_789))
    status = os.stat(path)
    found = iomessages.stat_of(bytearray(iomessages.stat_reply(status)))
    names = [
        "st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_atime_ns", "st_mtime_ns", "st_ctime_ns",
        "st_blocks", "st_blksize", "st_atime", "st_mtime",
    ]  # fmt: skip
    assert {name: getattr(found, name) for name in names} == {name: getattr(status, name) for name in names}
    assert found[:2] == status[:2]


def test_a_status_of_6x_has_whole_seconds(answered: Answered, tmp_path: pathlib.Path) -> None:
    """The 72 bytes of struct stat that 6.x answers with are enough; their times are seconds."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, ns=(3_900_000_000, 7_200_000_000))
    answered.say(0, iomessages.stat_reply(os.stat(path))[:72])
    status = answered.qnx.fstat(answered.coid)
    assert (status.st_size, status.st_mode) == (7, os.stat(path).st_mode)
    assert (status.st_atime, status.st_mtime_ns) == (3.0, 7_000_000_000)


@pytest.mark.parametrize("size", [0, 40])
def test_an_answer_to_fstat_without_a_status_is_an_error(answered: Answered, size: int) -> None:
    """A reply that is too short to say what kind of file it is makes fstat fail with EIO."""
    answered.say(0, bytes(size))
    assert error_of(lambda: answered.qnx.fstat(answered.coid)) == EIO


def test_a_file_without_blocks_is_counted_in_its_own(tmp_path: pathlib.Path) -> None:
    """A server that fills in blocks of its own size only: st_blocks counts them in units of 512 bytes."""
    reply = iomessages.reply_buffer(iomessages.STAT_SIZE)
    struct.pack_into("=Qq", reply, 0, 1, 2)
    struct.pack_into("=IIIi", reply, 44, 0o100600, 1, 4096, 3)
    assert iomessages.stat_of(reply).st_blocks == 24
