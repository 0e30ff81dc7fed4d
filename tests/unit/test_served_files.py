"""What users do with the files of a server in a few lines."""

import os
import pathlib
from errno import EINVAL, ENOSYS
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from ha_qnx.conformance.expect import fails_with

import ha_qnx
from ha_qnx import Request, Service, dropin
from ha_qnx.iomessages import chmod_message, free_message, pread_message, stat_of, stat_reply, sync_message
from ha_qnx.ocb import Ocb

pytestmark = pytest.mark.usefixtures("shared_directory")

PATH = "/dev/kept"

# The module, whose calls are to be told what a type checker knows: that they return nothing.
os_: Any = os


class Keeper(Service):
    """A server that keeps a file of the host."""

    def __init__(self, store: pathlib.Path) -> None:
        super().__init__(PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.fd = os.open(store, os.O_RDWR | os.O_CREAT, 0o600)
        self.seen: List[Any] = []

    def read(self, request: Request, nbytes: int) -> bytes:
        self.seen.append(request.ocb.offset)
        request.ocb.data = request.ocb.offset
        return os.pread(self.fd, nbytes, request.ocb.offset)

    def write(self, request: Request, data: bytes) -> int:
        return os.pwrite(self.fd, data, request.ocb.offset)

    def size(self, request: Request) -> int:
        return os.fstat(self.fd).st_size

    def stat(self, request: Request) -> os.stat_result:
        return os.fstat(self.fd)

    def truncate(self, request: Request, size: int) -> None:
        os.ftruncate(self.fd, size)

    def fsync(self, request: Request) -> str:
        self.seen.append("fsync")
        return "is not looked at"

    def chmod(self, request: Request, mode: int) -> None:
        os.fchmod(self.fd, mode)

    def closed(self, ocb: Ocb) -> None:
        self.seen.append(("closed", ocb.data))


@pytest.fixture
def store(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "store"
    path.write_bytes(b"first line\nsecond line\n")
    return path


@pytest.fixture
def keeper(store: pathlib.Path) -> Iterator[Keeper]:
    """A server, and the drop-in, by which the calls of the module os reach it."""
    keeper = Keeper(store)
    with keeper.running(), dropin.installed():
        yield keeper
    os.close(keeper.fd)


@pytest.fixture
def fd(keeper: Keeper) -> Iterator[int]:
    fd = os.open(PATH, os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "call",
    [
        lambda fd: (os.pread(fd, 6, 11), os.pread(fd, 6, 99), os.read(fd, 5)),
        lambda fd: (os.pwrite(fd, b"SECOND", 11), os.read(fd, 5)),
        lambda fd: (os_.ftruncate(fd, 5), os.read(fd, 99)),
        lambda fd: (os_.ftruncate(fd, 99), os.fstat(fd).st_size),
        lambda fd: (os_.fchmod(fd, 0o640), os.fstat(fd).st_mode & 0o777),
        lambda fd: (os_.fsync(fd), os_.fdatasync(fd)),
        lambda fd: os.fstat(fd).st_mtime_ns,
        lambda fd: os.lseek(fd, -1, os.SEEK_END),
    ],
    ids=["pread", "pwrite", "cut", "lengthen", "chmod", "fsync", "stat", "size"],
)
def test_a_served_file_is_like_its_store(store: pathlib.Path, fd: int, call: Callable[[int], object]) -> None:
    """The same calls, on the connection and on a copy of the file, return the same, and leave the same behind."""
    twin = store.with_name("twin")
    twin.write_bytes(store.read_bytes())
    status = store.stat()
    os.utime(twin, ns=(status.st_atime_ns, status.st_mtime_ns))
    with open(twin, "r+b", buffering=0) as file:
        assert call(fd) == call(file.fileno())
    assert store.read_bytes() == twin.read_bytes()


def test_a_read_elsewhere_is_one_on_the_same_opening(keeper: Keeper, fd: int) -> None:
    """It sees its own offset; what it keeps in the OCB is there for all, and the position stays."""
    os.read(fd, 5)
    os.pread(fd, 5, 11)
    os.read(fd, 5)
    assert keeper.seen == [0, 11, 5]
    os.pread(fd, 5, 12)
    other = os.dup(fd)
    assert os.lseek(other, 0, os.SEEK_CUR) == 10
    os.close(other)
    assert keeper.seen == [0, 11, 5, 12]


def test_a_path_is_asked(keeper: Keeper, store: pathlib.Path) -> None:
    """By the calls that take a path, each an opening of its own."""
    os.truncate(PATH, 5)
    os.chmod(PATH, 0o640)
    assert (os.stat(PATH).st_size, os.path.getsize(PATH), os.path.isfile(PATH)) == (5, 5, True)
    assert pathlib.Path(PATH).stat().st_mode & 0o777 == 0o640
    assert [kind for kind in keeper.seen if kind == ("closed", None)] == keeper.seen
    assert store.read_bytes() == b"first"


def test_a_path_that_is_mapped_is_asked(store: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A map of paths leads stat and its like where it leads open, to files of the host, too."""
    with Keeper(store).running(), dropin.installed(
        paths={"/dev/a": PATH, "/dev/b": str(store), "/dev/c": "/dev/nobody"}
    ):
        assert [os.path.exists(f"/dev/{letter}") for letter in "abc"] == [True, True, False]
        for path in ("/dev/a", "/dev/b"):
            assert (os.stat(path).st_size, os.access(path, os.W_OK)) == (23, True)
        os.truncate("/dev/b", 5)
        assert os.stat("/dev/a").st_size == 5
        with pytest.raises(FileNotFoundError, match="'/dev/c'"):
            os.stat("/dev/c")


MESSAGES: List[Tuple[str, bytes]] = [
    ("stat", ha_qnx.IO_STAT.to_bytes(2, "little") + bytes(6)),
    ("truncate", free_message(5)),
    ("fsync", sync_message()),
    ("chmod", chmod_message(0o600)),
]


@pytest.mark.parametrize(("name", "message"), MESSAGES, ids=[name for name, _message in MESSAGES])
def test_what_a_class_does_not_offer_is_enosys(name: str, message: bytes) -> None:
    """It goes to no handler."""
    with Service(PATH, flags=ha_qnx.RESMGR_FLAG_SELF).running():
        connection = ha_qnx.connect(PATH, recover=None)
        with connection, fails_with(ENOSYS):
            ha_qnx.MsgSend(connection, message, bytearray(200))


@pytest.mark.parametrize(
    "message",
    [pread_message(5, 0)[:16], chmod_message(0)[:6], free_message(0)[:20], pread_message(5, 0)[:10]],
    ids=["pread", "chmod", "truncate", "read"],
)
def test_a_message_that_is_too_short_is_refused(keeper: Keeper, fd: int, message: bytes) -> None:
    """EINVAL, and no handler is called."""
    with fails_with(EINVAL):
        ha_qnx.MsgSend(fd, message)
    assert keeper.seen == []


def test_an_unknown_kind_of_read_is_refused(keeper: Keeper, fd: int) -> None:
    """ENOSYS, as resource managers do: it is no read at the position."""
    message = bytearray(pread_message(5, 0))
    message[8] = 3
    with fails_with(ENOSYS):
        ha_qnx.MsgSend(fd, message)
    assert keeper.seen == []


def test_a_status_of_ten_numbers_is_one() -> None:
    """Whoever makes one up tells whole seconds."""
    made = os.stat_result((0o100600, 1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert stat_of(bytearray(stat_reply(made)))[:] == made[:]
