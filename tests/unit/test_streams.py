"""File objects of ha_fopen against those of open(): the same operations, the same results, the same content."""

import io
import os
import pathlib
from typing import Any, Callable, Iterator, List, NamedTuple, Tuple

import pytest
from ha_qnx.conformance.file_server import keep_file, take_path
from ha_qnx.conformance.peers import Peer
from ha_qnx.fallback.kernel import SocketKernel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ha_qnx.recovery import Recovery

pytestmark = pytest.mark.slow

PATH = "/dev/kept"

MODES = ["r", "w", "a", "r+", "w+", "a+"]
NEWLINES = [None, "", "\n", "\r", "\r\n"]
TEXT = st.text("aé€\U0001f600\n\r ", max_size=30)

Operation = Tuple[str, Callable[[Any], object]]


class Kept(NamedTuple):
    """A file that a server keeps, and one of the host beside it."""

    qnx: Recovery
    store: pathlib.Path
    twin: pathlib.Path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A server in another process that keeps a file, and a backend that finds it."""
    directory = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HA_QNX_RUNTIME", str(directory / "run"))
        server = Peer("fallback")
        server.start(keep_file, server.run(take_path, PATH), str(directory / "store"))
        qnx = Recovery("fallback", SocketKernel())
        qnx.close(qnx.open(PATH, os.O_RDWR))
        yield Kept(qnx, directory / "store", directory / "twin")
    server.close()


def deed(what: str, call: Callable[..., Any], *args: Any) -> Operation:
    """An operation on a file, with a name that tells what failed."""
    return f"{what}{args}", lambda file: call(file, *args)


def read_into(file: Any, size: int) -> object:
    buffer = bytearray(size)
    return file.readinto(buffer), buffer


def positions(low: int) -> "st.SearchStrategy[int]":
    return st.integers(low, 40) | st.integers(low, 20_000)


def common_operations() -> "List[st.SearchStrategy[Operation]]":
    """What text and binary files have in common."""
    sizes = st.integers(-1, 40) | st.sampled_from([8191, 8192, 8193, 20_000])
    return [
        sizes.map(lambda size: deed("read", lambda file, n: file.read(n), size)),
        sizes.map(lambda size: deed("readline", lambda file, n: file.readline(n), size)),
        st.just(deed("readlines", lambda file: file.readlines())),
        st.just(deed("iterate", lambda file: [next(file, None), next(file, None)])),
        st.just(deed("tell", lambda file: file.tell())),
        st.just(deed("flush", lambda file: file.flush())),
        st.just(deed("close", lambda file: file.close())),
        st.just(deed("say", lambda file: [file.readable(), file.writable(), file.seekable(), file.isatty()])),
        st.just(deed("size", lambda file: file.seek(0, os.SEEK_END))),
    ]


def binary_operations() -> "st.SearchStrategy[Operation]":
    seeking = st.tuples(positions(-40), st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 3000]))
    return st.one_of(
        *common_operations(),
        seeking.map(lambda to: deed("seek", lambda file, *where: file.seek(*where), *to)),
        st.binary(max_size=40).map(lambda data: deed("write", lambda file, data: file.write(data), data)),
        st.integers(8000, 20_000).map(lambda n: deed("write much", lambda file, n: file.write(b"0123456789" * n), n)),
        st.integers(0, 40).map(lambda size: deed("readinto", read_into, size)),
        st.integers(0, 40).map(lambda size: deed("read1", lambda file, n: len(file.read1(n)) <= n, size)),
        st.lists(st.binary(max_size=9), max_size=3).map(
            lambda lines: deed("writelines", lambda file, lines: file.writelines(lines), lines)
        ),
        st.just(deed("write text", lambda file: file.write("text"))),
    )


def text_operations() -> "st.SearchStrategy[Operation]":
    seeking = st.tuples(positions(-3), st.sampled_from([os.SEEK_SET, os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, 3000]))
    return st.one_of(
        *common_operations(),
        seeking.map(lambda to: deed("seek", lambda file, *where: file.seek(*where), *to)),
        st.just(deed("return", lambda file: file.seek(file.tell()))),
        TEXT.map(lambda text: deed("write", lambda file, text: file.write(text), text)),
        st.integers(2000, 9000).map(lambda n: deed("write much", lambda file, n: file.write("zeile é\n" * n), n)),
        st.just(deed("write bytes", lambda file: file.write(b"bytes"))),
        st.just(deed("newlines", lambda file: file.newlines)),
        st.just(deed("reconfigure", lambda file: file.reconfigure(line_buffering=True))),
    )


def outcome(call: Callable[[Any], object], file: Any) -> Tuple[str, object]:
    """What an operation returns or raises, to be compared."""
    try:
        return "returned", call(file)
    except OSError as error:
        return type(error).__name__, error.errno
    except Exception as error:
        return type(error).__name__, None


def give_up(_coid: int, _handle: object) -> int:
    return -1


def compare(kept: Kept, content: bytes, operations: List[Operation], mode: str, **how: Any) -> None:
    """Do the same to both files, one operation after the other."""
    for path in (kept.store, kept.twin):
        path.write_bytes(content)
    ours = kept.qnx.ha_fopen(PATH, mode, give_up, **how)
    with ours, open(kept.twin, mode, **how) as theirs:
        # Asked first, because io.FileIO takes a file for one that cannot seek when its first seek fails.
        assert ours.seekable() == theirs.seekable()
        for what, call in operations:
            found, expected = outcome(call, ours), outcome(call, theirs)
            assert found == expected, what
        closing = [outcome(lambda file: file.close(), file) for file in (ours, theirs)]
        assert closing[0] == closing[1]
    assert kept.store.read_bytes() == kept.twin.read_bytes()


streams = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@streams
@given(
    content=st.binary(max_size=60) | st.integers(0, 4000).map(lambda n: b"line %d\n" * n),
    mode=st.sampled_from([f"{mode}b" for mode in MODES]),
    buffering=st.sampled_from([-1, 0, 2, 7, 100, 8192]),
    operations=st.lists(binary_operations(), max_size=12),
)
def test_a_binary_file_is_like_that_of_open(
    kept: Kept, content: bytes, mode: str, buffering: int, operations: List[Operation]
) -> None:
    """Whatever is done with a binary file on a connection gives what it gives on a file of the host."""
    compare(kept, content, operations, mode, buffering=buffering)


@streams
@given(
    content=TEXT | st.integers(0, 4000).map("größer %d\n".__mul__),
    mode=st.sampled_from(MODES),
    buffering=st.sampled_from([-1, 1, 2, 100]),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1", "ascii"]),
    errors=st.sampled_from([None, "strict", "replace", "ignore"]),
    newline=st.sampled_from(NEWLINES),
    operations=st.lists(text_operations(), max_size=12),
)
def test_a_text_file_is_like_that_of_open(
    kept: Kept, content: str, mode: str, buffering: int, encoding: str, errors: Any, newline: Any,
    operations: List[Operation],
) -> None:  # fmt: skip
    """Whatever is done with a text file, whatever its encoding and newline, gives what it gives on a file."""
    data = content.encode(encoding, "replace")
    compare(kept, data, operations, mode, buffering=buffering, encoding=encoding, errors=errors, newline=newline)


@given(
    mode=st.text("rwaxbt+q", max_size=4),
    buffering=st.integers(-2, 3),
    encoding=st.sampled_from([None, "ascii", "?"]),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore:line buffering:RuntimeWarning")
def test_a_mode_is_refused_as_open_refuses_it(kept: Kept, mode: str, buffering: int, encoding: Any) -> None:
    """What open() does not take, or not together, raises what open() raises; what it takes is the same kind of file."""
    path = kept.twin.with_name("other")
    how = {"buffering": buffering, "encoding": encoding}

    def opened_by(opening: Callable[..., Any], *args: Any) -> Tuple[str, object]:
        path.write_bytes(b"content")
        return outcome(lambda how: looks(opening(path, mode, *args, **how)), how)

    def looks(file: Any) -> object:
        with file:
            return "raw" if isinstance(file, io.RawIOBase) else type(file), file.mode

    assert opened_by(kept.qnx.ha_fopen, give_up) == opened_by(open)
