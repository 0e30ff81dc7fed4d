"""The drop-in: the ordinary calls on connections are what they are on files, and on all else they are the originals."""

# ruff: noqa: SIM115  # how files are opened and closed is what is tested here

import builtins
import contextlib
import gc
import io
import linecache
import logging
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from errno import EBADF, EEXIST, EINVAL, ENOENT
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from ha_qnx.conformance.file_server import keep_file, take_path
from ha_qnx.conformance.peers import Peer
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually, is_asleep
from ha_qnx.fallback.kernel import SocketKernel

import ha_qnx
from ha_qnx import IO_READ, dropin
from ha_qnx.connection import ATTEMPTS, connect
from ha_qnx.recovery import Recovery

PATH = "/dev/kept"
CONTENT = b"first line\nsecond line\nthird line\n"

CALLS = [
    "open", "read", "readv", "pread", "write", "writev", "pwrite", "sendfile", "lseek", "fstat", "isatty", "ftruncate",
    "fsync", "fdatasync", "fchmod", "close", "closerange", "dup", "dup2", "stat", "lstat", "access", "truncate",
    "chmod",
]  # fmt: skip


@pytest.fixture
def qnx() -> Recovery:
    """A backend of the test's own: the default one keeps to the runtime directory that it found first."""
    return Recovery("fallback", SocketKernel())


class LastingServer(NamedTuple):
    """A server that no test kills, in a runtime directory of its own."""

    runtime: str
    store: pathlib.Path


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LastingServer]:
    """A server in another process that keeps a file under the name."""
    directory = tmp_path_factory.mktemp("lasting")
    made = LastingServer(str(directory / "run"), directory / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HA_QNX_RUNTIME", made.runtime)
        server = Peer("fallback")
    server.start(keep_file, server.run(take_path, PATH), str(made.store))
    yield made
    server.close()


@pytest.fixture
def store(lasting: LastingServer, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The file that the server keeps, with the usual content."""
    monkeypatch.setenv("HA_QNX_RUNTIME", lasting.runtime)
    lasting.store.write_bytes(CONTENT)
    return lasting.store


@pytest.fixture
def both(qnx: Recovery, store: pathlib.Path) -> Iterator[Tuple[str, str]]:
    """A connection's path and that of a file of the host with the same content, while the drop-in is installed."""
    twin = store.with_name("twin")
    twin.write_bytes(CONTENT)
    with dropin.installed(qnx):
        yield PATH, str(twin)


@contextlib.contextmanager
def opened(path: str, flags: int = os.O_RDWR) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)


def outcome(call: Callable[[], object]) -> Tuple[str, object]:
    """What a call returns or raises, to be compared."""
    try:
        return "returned", call()
    except OSError as error:
        return type(error).__name__, error.errno
    except Exception as error:
        return type(error).__name__, None


def read_into_parts(fd: int) -> object:
    parts = [bytearray(3), bytearray(4)]
    return os.readv(fd, parts), parts


def sent(fd: int) -> object:
    """Bytes that sendfile has copied from a descriptor, and to it."""
    with tempfile.TemporaryFile() as other:
        counts = [
            os.sendfile(other.fileno(), fd, None, 5), os.sendfile(other.fileno(), fd, 11, 6),
            os.sendfile(other.fileno(), fd, 0, 0), os.sendfile(other.fileno(), fd, 999, 9), os.sendfile(fd, fd, 0, 2),
        ]  # fmt: skip
        return counts, os.pread(other.fileno(), 99, 0), os.sendfile(fd, other.fileno(), 5, 3), os.lseek(fd, 0, 1)


class Index:
    """A number that is none of Python's own."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


# The modules, to be called with what a type checker would refuse.
os_: Any = os
builtins_: Any = builtins

DEEDS: Dict[str, Callable[[int], object]] = {
    "read": lambda fd: os_.read(fd, 5),
    "write None": lambda fd: os_.write(fd, None),
    "read to the end": lambda fd: (os_.read(fd, 1000), os_.read(fd, 1000)),
    "read nothing": lambda fd: os_.read(fd, 0),
    "read less than nothing": lambda fd: os_.read(fd, -1),
    "read no number": lambda fd: os_.read(fd, "1"),
    "read an index": lambda fd: os_.read(fd, Index(3)),
    "readv": read_into_parts,
    "readv into nothing": lambda fd: os_.readv(fd, []),
    "readv into bytes": lambda fd: os_.readv(fd, [b"12"]),
    "write": lambda fd: os_.write(fd, b"FIRST"),
    "write nothing": lambda fd: os_.write(fd, b""),
    "write a view": lambda fd: os_.write(fd, memoryview(b"FIRST")[1:3]),
    "write text": lambda fd: os_.write(fd, "text"),
    "writev": lambda fd: os_.writev(fd, [b"FI", b"", bytearray(b"RST")]),
    "lseek": lambda fd: (os_.lseek(fd, 6, os.SEEK_SET), os_.lseek(fd, 2, os.SEEK_CUR), os_.lseek(fd, -1, os.SEEK_END)),
    "lseek before the start": lambda fd: os_.lseek(fd, -1, os.SEEK_SET),
    "lseek from nowhere": lambda fd: os_.lseek(fd, 0, 99),
    "lseek no number": lambda fd: os_.lseek(fd, "1", 0),
    "seek and read": lambda fd: (os_.lseek(fd, 6, os.SEEK_SET), os_.read(fd, 4), os_.lseek(fd, 0, os.SEEK_CUR)),
    "fstat": lambda fd: (os_.fstat(fd).st_size, os_.fstat(fd).st_mode & 0o170000, os_.fstat(fd).st_nlink),
    "pread": lambda fd: (os_.pread(fd, 5, 6), os_.pread(fd, 0, 0), os_.pread(fd, 9, 99), os_.lseek(fd, 0, os.SEEK_CUR)),
    "pread before the start": lambda fd: os_.pread(fd, 5, -1),
    "pread less than nothing": lambda fd: os_.pread(fd, -1, 0),
    "pread no number": lambda fd: os_.pread(fd, 5, "1"),
    "pwrite": lambda fd: (os_.pwrite(fd, b"SECOND", 11), os_.read(fd, 5), os_.pwrite(fd, b"", 0)),
    "pwrite before the start": lambda fd: os_.pwrite(fd, b"1", -1),
    "pwrite None": lambda fd: os_.pwrite(fd, None, 0),
    "pwrite text": lambda fd: os_.pwrite(fd, "text", 0),
    "ftruncate": lambda fd: (os_.ftruncate(fd, 5), os_.fstat(fd).st_size, os_.lseek(fd, 0, os.SEEK_CUR)),
    "ftruncate to more": lambda fd: (os_.ftruncate(fd, 99), os_.pread(fd, 99, 90)),
    "ftruncate to less than nothing": lambda fd: os_.ftruncate(fd, -1),
    "truncate a number": lambda fd: (os_.truncate(fd, 5), os_.stat(fd).st_size),
    "truncate a file object": lambda fd: (os_.read(fd, 7), os_.fdopen(fd, "r+", closefd=False).truncate()),
    "fsync": lambda fd: (os_.fsync(fd), os_.fdatasync(fd)),
    "fsync a file object": lambda fd: os_.fsync(os_.fdopen(fd, "rb", closefd=False)),
    "fsync no number": lambda fd: os_.fsync("1"),
    "fchmod": lambda fd: (os_.fchmod(fd, 0o640), os_.stat(fd).st_mode, os_.chmod(fd, 0o600), os_.fstat(fd).st_mode),
    "isatty": lambda fd: os_.isatty(fd),
    "sendfile": sent,
    "close": lambda fd: os_.close(fd),
    "close by name": lambda fd: os_.close(fd=fd),
    "close twice": lambda fd: (os_.close(fd), os_.close(fd)),
    "dup and close": lambda fd: (os_.close(os_.dup(fd)), os_.read(fd, 5)),
    "dup and read": lambda fd: (os_.read(fd, 3), os_.read(os_.dup(fd), 3), os_.read(fd, 3)),
    "dup is private": lambda fd: os_.get_inheritable(os_.dup(fd)),
    "dup2": lambda fd: (os_.dup2(fd, fd + 50) - fd, os_.read(fd + 50, 5), os_.close(fd + 50)),
    "dup2 is inherited": lambda fd: (os_.get_inheritable(os_.dup2(fd, fd + 51)), os_.close(fd + 51)),
    "dup2 is not inherited": lambda fd: (os_.get_inheritable(os_.dup2(fd, fd + 52, False)), os_.close(fd + 52)),
    "dup2 onto itself": lambda fd: (os_.dup2(fd, fd) - fd, os_.read(fd, 5)),
    "fdopen": lambda fd: os_.fdopen(fd, "r").read(),
    "fdopen to write": lambda fd: [os_.fdopen(fd, "w", closefd=False).write("FIRST"), os_.lseek(fd, 0, os.SEEK_CUR)],
    "fdopen in a wrong mode": lambda fd: os_.fdopen(fd, "rw"),
    "open": lambda fd: [line.strip() for line in builtins_.open(fd, newline="\n")],
    "open without buffer": lambda fd: builtins_.open(fd, "rb", buffering=0).read(7),
    "open and keep": lambda fd: (builtins_.open(fd, "rb", closefd=False).close(), os_.read(fd, 5)),
    "open and close": lambda fd: (builtins_.open(fd, "rb").close(), os_.read(fd, 5)),
    "open without buffer for text": lambda fd: builtins_.open(fd, buffering=0),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deed", DEEDS)
def test_a_descriptor_is_like_that_of_a_file(both: Tuple[str, str], store: pathlib.Path, deed: str) -> None:
    """What is done with a connection and with a file has the same results, the same errors, and the same effect."""
    outcomes = []
    for path in both:
        with opened(path) as fd:
            outcomes.append(outcome(lambda: DEEDS[deed](fd)))
    assert outcomes[0] == outcomes[1]
    assert store.read_bytes() == pathlib.Path(both[1]).read_bytes()


def appended(file: Any) -> object:
    return file.tell(), file.write("more"), file.close()


def updated(file: Any) -> object:
    return file.read(3), file.write("XX"), file.seek(0), file.read()


def paths_to(path: str) -> Dict[str, Callable[[], object]]:
    """Everything that opens a path."""
    return {
        "open": lambda: builtins_.open(path).read(),
        "io.open": lambda: io.open(path, "rb").read(),  # noqa: UP020  # it is one of the ways
        "bytes": lambda: open(os.fsencode(path), encoding="ascii").readline(),
        "path": lambda: pathlib.Path(path).read_text(),
        "path's open": lambda: pathlib.Path(path).open("rb").read(4),
        "path's write": lambda: pathlib.Path(path).write_bytes(b"FIRST"),
        "append": lambda: appended(builtins_.open(path, "a")),
        "update": lambda: (lambda file: (file.read(3), file.write("XX"), file.seek(0), file.read()))(
            builtins_.open(path, "r+")
        ),
        "opener": lambda: builtins_.open(path, opener=lambda name, flags: os.open(name, flags)).read(),
        "opener that fails": lambda: builtins_.open(path, opener=lambda _name, _flags: -1),
        "opener without descriptor": lambda: builtins_.open(path, opener=lambda _n, _f: "fd"),
        "not closing a path": lambda: builtins_.open(path, closefd=False),
        "wrong mode": lambda: builtins_.open(path, "q"),
        "exclusively": lambda: builtins_.open(path, "x"),
        "for nobody": lambda: builtins_.open(path, encoding="no such encoding"),
        "dir_fd": lambda: os.read(os.open(path, os.O_RDONLY, dir_fd=-7), 3),
        "flags of no type": lambda: os_.open(path, "r"),
        "log": lambda: logged(path),
        "exists": lambda: [call(path) for call in (os.path.exists, os.path.isfile, os.path.isdir, os.path.islink)],
        "size": lambda: (os.path.getsize(path), os.stat(path).st_size, os.lstat(path).st_size),
        "path's stat": lambda: (pathlib.Path(path).exists(), pathlib.Path(path).stat().st_size),
        "stat of bytes": lambda: os.stat(os.fsencode(path)).st_size,
        "access": lambda: [os.access(path, mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.R_OK | os.W_OK, os.X_OK)],
        "truncate": lambda: (os_.truncate(path, 5), os.stat(path).st_size, os_.truncate(path, 9)),
        "truncate to less than nothing": lambda: os.truncate(path, -1),
        "chmod": lambda: (os_.chmod(path, 0o640), os.stat(path).st_mode, os_.chmod(path, 0o600)),
        "linecache": lambda: linecache.getlines(path),
        "copy": lambda: copied(path),
    }


def copied(path: str) -> object:
    """A copy of what is at a path."""
    with tempfile.TemporaryDirectory() as directory:
        copy = shutil.copyfile(path, os.path.join(directory, "copy"))
        return pathlib.Path(copy).read_bytes()


def logged(path: str) -> None:
    handler = logging.FileHandler(path)
    handler.emit(logging.LogRecord("name", logging.INFO, "path", 1, "a line", (), None))
    handler.close()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", paths_to(""))
def test_a_path_is_opened_like_that_of_a_file(both: Tuple[str, str], store: pathlib.Path, way: str) -> None:
    """Whichever way a name and a file are opened, results, errors and effects are the same."""
    outcomes = [outcome(paths_to(path)[way]) for path in both]
    if way == "exclusively":
        # Whether there is a file already, a server knows; this one has nothing against it.
        assert outcomes[1] == ("FileExistsError", EEXIST)
        return
    assert outcomes[0] == outcomes[1]
    assert store.read_bytes() == pathlib.Path(both[1]).read_bytes()


def test_a_file_object_looks_like_one(both: Tuple[str, str]) -> None:
    """Type, name, mode and layers are those that open() gives to a file."""
    for mode in ("r", "w", "a", "r+", "rb", "wb", "ab", "r+b", "w+b", "a+b"):
        files: List[Any] = [open(path, mode) for path in both]
        kinds = [(type(file), file.mode, type(getattr(file, "buffer", file))) for file in files]
        raws = [getattr(file, "buffer", file).raw for file in files]
        assert kinds[0] == kinds[1]
        assert raws[0].mode == raws[1].mode
        assert files[0].name == PATH
        assert isinstance(files[0].fileno(), int)
        for file in files:
            file.close()


def test_names_and_documentation_stay(qnx: Recovery) -> None:
    """A replacement is called like the original, and has its documentation."""
    originals = {name: (getattr(os, name).__name__, getattr(os, name).__doc__) for name in CALLS}
    with dropin.installed(qnx):
        assert {name: (getattr(os, name).__name__, getattr(os, name).__doc__) for name in CALLS} == originals
        assert open.__name__ == "open"


def test_uninstall_gives_the_originals_back() -> None:
    """After uninstall every call is the very object that it was before; a second uninstall does nothing."""
    before = [*(getattr(os, name) for name in CALLS), io.open, builtins.open, vars(pathlib).get("_NormalAccessor")]
    dropin.install()
    assert all(call is not original for call, original in zip((getattr(os, name) for name in CALLS), before))
    assert io.open is builtins.open is not before[-2]
    dropin.uninstall()
    dropin.uninstall()
    after = [*(getattr(os, name) for name in CALLS), io.open, builtins.open, vars(pathlib).get("_NormalAccessor")]
    assert all(one is other for one, other in zip(before, after))


@pytest.mark.parametrize(
    "arguments", [{"paths": "/a=/b"}, {"paths": {"/a": 5}}, {"recover_within": "5"}], ids=lambda found: str(found)
)
def test_what_cannot_be_installed_with_is_refused(qnx: Recovery, arguments: Dict[str, Any]) -> None:
    """A text is no map of paths, and no time; the ordinary calls stay as they are."""
    before = builtins.open
    with pytest.raises(TypeError, match=next(iter(arguments))):
        dropin.install(qnx, **arguments)
    assert builtins.open is before


def test_it_is_installed_once(qnx: Recovery) -> None:
    """A second install is a RuntimeError and changes nothing."""
    with dropin.installed(qnx):
        read = os.read
        with pytest.raises(RuntimeError, match="installed already"):
            dropin.install()
        assert os.read is read


def test_a_map_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an unusable HA_QNX_PATHS, install is a ValueError that quotes it, and nothing is replaced."""
    monkeypatch.setenv("HA_QNX_PATHS", "/dev/ser1")
    read = os.read
    with pytest.raises(ValueError, match="'/dev/ser1'"):
        dropin.install()
    assert os.read is read


def test_what_calls_can_do_is_still_known(qnx: Recovery) -> None:
    """The sets that tell of it have the replacements, too, and are as before in the end."""
    names = ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
    before = {name: getattr(os, name) for name in names}
    could = {(name, call) for name in names for call in CALLS if getattr(os, call) in before[name]}
    with dropin.installed(qnx):
        assert {(name, call) for name in names for call in CALLS if getattr(os, call) in getattr(os, name)} == could
    assert {name: getattr(os, name) for name in names} == before


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", {}),
        ("/dev/ser1=/dev/a", {"/dev/ser1": "/dev/a"}),
        ("/a=/b,/c=/d,", {"/a": "/b", "/c": "/d"}),
        ("/a=/b=c", {"/a": "/b=c"}),
    ],
)
def test_a_map_of_paths_is_read(text: str, paths: Dict[str, str]) -> None:
    """Pairs with an equals sign between them, separated by commas."""
    assert dropin.parse_paths(text) == paths


@pytest.mark.parametrize("text", ["x", "/a", "a=/b", "/a=b", "/a=/b,c"])
def test_what_is_no_map_of_paths_is_refused(text: str) -> None:
    """An entry without an equals sign, or whose paths are not absolute, is a ValueError."""
    with pytest.raises(ValueError, match="HA_QNX_PATHS"):
        dropin.parse_paths(text)


def test_a_path_stands_for_another(qnx: Recovery, store: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A mapped path opens what it is mapped to, a name or a file; a path below it is itself."""
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with dropin.installed(qnx, paths={"/dev/ser1": PATH, "/dev/ser2": str(other)}):
        assert pathlib.Path("/dev/ser1").read_bytes() == CONTENT
        assert pathlib.Path("/dev/ser2").read_bytes() == b"other"
        with opened("/dev/ser1") as fd:
            assert os.read(fd, 5) == CONTENT[:5]
        assert outcome(lambda: open("/dev/ser1/x")) == ("FileNotFoundError", ENOENT)


def test_other_descriptors_take_the_original_path(
    qnx: Recovery, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """On descriptors and paths that are none of ours, the originals are called with what the caller has passed."""
    called: List[str] = []
    here = threading.get_ident()

    def noting(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() == here:
                called.append(name)
            return original(*args, **kwargs)

        call.__name__ = name
        return call

    gc.collect()  # What earlier tests have left must not be closed meanwhile.
    for name in CALLS:
        monkeypatch.setattr(os, name, noting(name))
    with dropin.installed(qnx):
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        os.write(fd, b"data")
        os.writev(fd, [b"more"])
        os.lseek(fd, 0, os.SEEK_SET)
        os.read(fd, 2)
        os.readv(fd, [bytearray(2)])
        os.fstat(fd)
        os.pwrite(fd, os.pread(fd, 2, 0), 0)
        os.sendfile(fd, fd, 0, 1)
        os.isatty(fd)
        os.ftruncate(fd, 3)
        os.fsync(fd)
        os.fdatasync(fd)
        os.fchmod(fd, 0o600)
        os.stat(tmp_path / "file")
        os.lstat(str(tmp_path / "file"))
        os.access(os.fsencode(tmp_path / "file"), os.R_OK)
        os.truncate(tmp_path / "file", 2)
        os.chmod(tmp_path / "file", 0o400)
        os.dup2(os.dup(fd), fd + 60)
        os.close(fd + 60)
        os.close(fd)
    assert called == [
        "open", "write", "writev", "lseek", "read", "readv", "fstat", "pread", "pwrite", "sendfile", "isatty",
        "ftruncate", "fsync", "fdatasync", "fchmod", "stat", "lstat", "access", "truncate", "chmod", "dup", "dup2",
        "close", "close",
    ]  # fmt: skip


def test_a_file_of_the_host_that_the_backend_has_opened_is_one(qnx: Recovery, tmp_path: pathlib.Path) -> None:
    """What qnx.open gave for an ordinary path can be read, and be made a file object, like any descriptor."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with dropin.installed(qnx):
        fd = qnx.open(path, os.O_RDONLY)
        assert os.read(fd, 6) == CONTENT[:6]
        with os.fdopen(fd) as file:
            assert isinstance(file.buffer.raw, io.FileIO)  # type: ignore[attr-defined]  # typeshed: IO
            assert file.read().encode() == CONTENT[6:]


def test_connections_from_before_and_beside_are_found(qnx: Recovery, store: pathlib.Path) -> None:
    """A connection that was made before install, and one that is made past it by the backend's calls, are ours."""
    before = qnx.open(PATH, os.O_RDWR)
    with dropin.installed(qnx):
        beside = qnx.open(PATH, os.O_RDWR)
        assert os.read(before, 5) == os.read(beside, 5) == CONTENT[:5]
        copy = qnx.dup(beside)
        assert os.read(copy, 5) == CONTENT[5:10]
        for fd in (before, beside, copy):
            os.close(fd)
    for fd in (before, beside, copy):
        assert outcome(lambda: os.fstat(fd)) == ("OSError", EBADF)  # noqa: B023


def test_a_number_that_is_closed_is_nobodys(both: Tuple[str, str]) -> None:
    """A file that gets the number of a closed connection is a file."""
    with opened(both[0]) as fd:
        os.close(fd)
        with opened(both[1]) as again:
            assert again == fd
            assert os.read(again, 5) == CONTENT[:5]
            assert os.lseek(again, 0, os.SEEK_CUR) == 5


def test_a_file_takes_the_place_of_a_connection(both: Tuple[str, str]) -> None:
    """dup2 of a file onto a connection, and of a connection onto a file: each number is then what was put there."""
    with opened(both[0]) as connection, opened(both[1]) as file:
        os.lseek(file, 11, os.SEEK_SET)
        assert os.dup2(file, connection) == connection
        assert os.read(connection, 6) == b"second"
        assert os.lseek(file, 0, os.SEEK_CUR) == 17
        with opened(both[0]) as other:
            os.dup2(other, file)
            assert os.read(file, 5) == CONTENT[:5]
            assert os.lseek(connection, 0, os.SEEK_CUR) == 17


def test_messages_and_files_mix(qnx: Recovery, both: Tuple[str, str]) -> None:
    """While the drop-in is installed, the backend's own calls on a connection go on as without it."""
    with opened(both[0]) as fd:
        reply = bytearray(5)
        message = struct.pack("=HHIII", IO_READ, 16, 5, 0, 0)
        assert qnx.MsgSend(fd, memoryview(message), memoryview(reply)) == 5
        assert reply == CONTENT[:5]
        assert qnx.MsgSendv(fd, [message], [bytearray(5)]) == 5
        assert os.read(fd, 5) == CONTENT[10:15]


def test_a_path_object_is_shown_as_its_text(both: Tuple[str, str]) -> None:
    """The name of a file and the file of an error are what they are under open() and os.open."""
    for path in both:
        with open(pathlib.Path(path)) as file:
            assert file.name == path
        for fail in (lambda missing: open(missing), lambda missing: os.open(missing, os.O_RDONLY)):
            with pytest.raises(FileNotFoundError) as failure:
                fail(pathlib.Path(path + "-missing"))
            assert failure.value.filename == path + "-missing"


def test_a_warning_about_buffers_names_who_opens(both: Tuple[str, str]) -> None:
    """Line buffering of bytes is none: the warning is about the line of the caller."""
    with pytest.warns(RuntimeWarning, match="line buffering") as warned, open(both[0], "rb", 1):
        pass
    assert [warning.filename for warning in warned] == [__file__]


def test_a_forgotten_file_warns(both: Tuple[str, str]) -> None:
    """A file object that nobody has closed is closed when it goes, with a ResourceWarning."""
    for mode, buffering in (("r", -1), ("rb", -1), ("rb", 0)):
        file = open(both[0], mode, buffering)
        fd = file.fileno()
        with pytest.warns(ResourceWarning, match="unclosed file"):
            del file
        assert outcome(lambda: os.fstat(fd)) == ("OSError", EBADF)  # noqa: B023


def read_unbuffered(fd: int) -> object:
    with open(fd, "rb", buffering=0, closefd=False) as file:
        return file.read(10)


@pytest.mark.parametrize(
    "call",
    [
        lambda fd: os.read(fd, 10),
        lambda fd: os.write(fd, b"data") and b"data",
        lambda fd: os.readv(fd, [bytearray(10)]) and b"data",
        lambda fd: os.writev(fd, [b"da", b"ta"]) and b"data",
        read_unbuffered,
    ],
    ids=["read", "write", "readv", "writev", "file"],
)
def test_a_call_that_a_signal_interrupts_begins_anew(qnx: Recovery, call: Callable[[int], object]) -> None:
    """PEP 475 holds: the handler runs while the call waits, and the call does in the end what it was to do."""
    handled: List[int] = []
    chid = qnx.ChannelCreate(0)
    main = threading.main_thread().native_id or 0

    def serve() -> int:
        qnx.MsgReceive(chid, bytearray(100))
        eventually(lambda: is_asleep(main), "the main thread to wait")
        os.kill(os.getpid(), signal.SIGUSR1)
        return qnx.MsgReply(qnx.MsgReceive(chid, bytearray(100)), 4, b"data")

    before = signal.signal(signal.SIGUSR1, lambda number, _frame: handled.append(number))
    try:
        with dropin.installed(qnx):
            fd = qnx.ConnectAttach(0, 0, chid, 0)
            server = Task(serve)
            assert call(fd) == b"data"
            assert server.result() == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
        qnx.ConnectDetach(fd)
        qnx.ChannelDestroy(chid)
    assert handled == [signal.SIGUSR1]


class Keeper:
    """A server for a file that can be killed and started again."""

    def __init__(self, store: pathlib.Path) -> None:
        self._store = str(store)
        self.begin()

    def begin(self) -> None:
        self._peer = Peer("fallback")
        self._peer.start(keep_file, self._peer.run(take_path, PATH), self._store)

    def end(self) -> None:
        self._peer.close()


@pytest.fixture
def keeper(tmp_path: pathlib.Path) -> Iterator[Keeper]:
    store = tmp_path / "store"
    store.write_bytes(CONTENT)
    made = Keeper(store)
    yield made
    made.end()


@pytest.mark.parametrize("how", ["original", "dup", "dup2"])
def test_what_is_opened_recovers_with_its_duplicates(qnx: Recovery, keeper: Keeper, how: str) -> None:
    """With recover_within, every descriptor goes on at its position when the server was killed in between."""
    with dropin.installed(qnx, recover_within=DEADLINE), opened(PATH) as fd:
        os.lseek(fd, 6, os.SEEK_SET)
        used = fd if how == "original" else os.dup(fd) if how == "dup" else os.dup2(fd, fd + 50)
        assert os.read(used, 4) == b"line"
        for _death in range(2):
            keeper.end()
            keeper.begin()
            assert os.read(used, 1000) == CONTENT[10:]
            os.lseek(used, -len(CONTENT) + 10, os.SEEK_END)
        if used != fd:
            os.close(used)


def test_duplicates_go_apart_when_they_are_recovered(qnx: Recovery, keeper: Keeper) -> None:
    """Two descriptors that shared a position each go on from there, by themselves: the new server knows no sharing."""
    with dropin.installed(qnx, recover_within=DEADLINE), opened(PATH) as fd, opened(PATH) as _other:
        copy = os.dup(fd)
        os.read(fd, 6)
        keeper.end()
        keeper.begin()
        assert os.read(fd, 4) == b"line"
        assert os.read(copy, 4) == b"line"
        assert os.read(fd, 7) == os.read(copy, 7) == b"\nsecond"
        os.close(copy)


DELICATE_SERVER = """
import os
from ha_qnx.service import Service
class Server(Service):
    def write(self, request, data):
        if data == b"poison":
            os._exit(1)
Server("/dev/delicate").serve()
"""


def test_what_kills_every_server_is_given_up(start_program: Callable[..., Any]) -> None:
    """As with connect: after a few servers, what is written is taken for the reason, and the connection is lost."""
    servers, is_over = [start_program(DELICATE_SERVER)], threading.Event()

    def restart() -> None:
        while not is_over.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                servers[-1].process.wait(0.05)
                servers.append(start_program(DELICATE_SERVER))

    restarting = Task(restart)
    connect("/dev/delicate", wait=DEADLINE).close()
    with dropin.installed(ha_qnx.backend(), recover_within=DEADLINE), opened("/dev/delicate") as fd:
        with pytest.raises(ProcessLookupError):
            os.write(fd, b"poison")
        assert len(servers) <= ATTEMPTS + 2
    is_over.set()
    restarting.result()


def test_a_lost_connection_can_be_closed(qnx: Recovery, keeper: Keeper) -> None:
    """What was made HA-aware for the program can be closed when the server is gone: nothing is left open anywhere."""
    with dropin.installed(qnx, recover_within=DEADLINE):
        fd, file = os.open(PATH, os.O_RDWR), open(PATH)
        keeper.end()
        os.close(fd)
        file.close()
        keeper.begin()
        assert outcome(lambda: os.read(fd, 1)) == ("OSError", EBADF)


def test_without_recovery_a_lost_connection_is_an_error(qnx: Recovery, keeper: Keeper) -> None:
    """Without recover_within, what the program opens is ordinary: when the server is gone, its calls fail."""
    with dropin.installed(qnx), opened(PATH) as fd:
        keeper.end()
        assert outcome(lambda: os.read(fd, 1)) == ("OSError", EBADF)
        assert outcome(lambda: os.close(fd)) == ("OSError", EBADF)
        assert outcome(lambda: os.close(fd)) == ("OSError", EBADF)


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND], ids=["trunc", "append"])
def test_a_file_is_not_made_anew_by_a_recovery(
    qnx: Recovery, keeper: Keeper, tmp_path: pathlib.Path, flags: int
) -> None:
    """What was emptied when it was opened is not emptied again; what was opened to append appends."""
    with dropin.installed(qnx, recover_within=DEADLINE), opened(PATH, os.O_WRONLY | os.O_CREAT | flags) as fd:
        assert os.write(fd, b"one ") == 4
        keeper.end()
        keeper.begin()
        assert os.write(fd, b"two") == 3
    before = b"" if flags == os.O_TRUNC else CONTENT
    assert (tmp_path / "store").read_bytes() == before + b"one two"


def test_wrong_descriptors_are_refused_as_ever(both: Tuple[str, str]) -> None:
    """What is no number, and what is not open, fails as without the drop-in."""
    wrong: List[Any] = ["fd", 7.5, -1, 1 << 40, None, []]
    for bad in wrong:
        with_it = [outcome(lambda: getattr(os, name)(bad, b"1")) for name in ("write", "dup2")]  # noqa: B023
        with_it.append(outcome(lambda: os_.close(bad)))  # noqa: B023  # that is the point
        assert all(kind in ("TypeError", "OSError", "OverflowError") for kind, _number in with_it), (bad, with_it)
    assert outcome(lambda: os.read(True, -1)) == ("OSError", EINVAL)
    with opened(both[0]) as fd:
        assert outcome(lambda: os.dup2(fd, -1)) == ("OSError", EBADF)
        assert os.read(fd, 5) == CONTENT[:5]
