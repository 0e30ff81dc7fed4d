"""Paths: resmgr_attach and resmgr_detach, whom an open asks, in which order, and what if they die."""

import contextlib
import os
import struct
import threading
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    ECHILD,
    EINTR,
    EINVAL,
    EIO,
    ELOOP,
    ENAMETOOLONG,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    ENXIO,
    EPERM,
    EROFS,
    ESRCH,
    ETIMEDOUT,
    EXDEV,
)
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from ha_qnx import (
    EOK,
    ERESTART,
    FTYPE_ANY,
    FTYPE_NAME,
    IO_CLOSE,
    IO_CONNECT,
    IO_CONNECT_OPEN,
    IO_READ,
    RESMGR_FLAG_AFTER,
    RESMGR_FLAG_BEFORE,
    RESMGR_FLAG_DIR,
    RESMGR_FLAG_FTYPEALL,
    RESMGR_FLAG_FTYPEONLY,
    RESMGR_FLAG_OPAQUE,
    RESMGR_FLAG_SELF,
    MessageInfo,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import (
    KNOWN_FLAGS,
    ConnectMessage,
    Seen,
    Server,
    Start,
    StartPeer,
    answer,
    is_descriptor,
    next_number,
    opened,
    take,
)
from .waiting import Task, eventually

BEFORE, AFTER, DIR = RESMGR_FLAG_BEFORE, RESMGR_FLAG_AFTER, RESMGR_FLAG_DIR
OPAQUE, SELF = RESMGR_FLAG_OPAQUE, RESMGR_FLAG_SELF
COMBINE_CLOSE = 1

Serve = Callable[..., Server]


@pytest.fixture
def serve(lasting: Peer) -> Iterator[Serve]:
    """Makes servers of a path, each with a channel of its own: ``serve(path, flags)``, ``serve(path, flags, peer)``."""
    made: List[Server] = []

    def make(path: str, flags: int = 0, peer: Peer = lasting) -> Server:
        made.append(Server(peer))
        made[-1].id = made[-1].attach(path, flags)
        return made[-1]

    yield make
    for server in made:
        if server.peer is lasting:
            server.end()


@pytest.fixture
def path(name: str) -> str:
    """A path that nobody else has."""
    return f"/dev/{name}-path"


def connect_message(seen: Seen) -> ConnectMessage:
    """An _IO_CONNECT message."""
    assert seen.type == IO_CONNECT, seen
    return ConnectMessage.from_buffer_copy(seen.data)


def rest_of(seen: Seen) -> bytes:
    """What an _IO_CONNECT message says of the path below the one that is attached."""
    text = seen.data[40:]
    assert connect_message(seen).path_len == len(text)
    assert text.endswith(b"\0")
    return text[:-1]


def try_open(qnx: Any, path: str) -> int:
    """Open a path; the errno if that fails, 0 if it does not."""
    try:
        qnx.open(path, os.O_RDWR)
    except OSError as error:
        return error.errno or -1
    return 0


# Attaching, and what a server receives


@checks("B416", "B310", "B313")
def test_an_attached_path_leads_to_its_server(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """An open sends an _IO_CONNECT to the channel that has attached the path, and gives a connection to it."""
    server = serve(path)
    fd = opened(qnx, start, server, path=path)
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, fd, info) == fd
    assert (info.pid, info.chid) == (server.pid, server.chid)
    task = start(qnx.MsgSend, fd, b"question")
    assert server.answer(7).data == b"question"
    assert task.result() == 7


@checks("B422", "B311")
def test_the_message_of_open(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """The message has 41 bytes: 40 that tell what is opened and how, and the NUL of an empty rest of the path."""
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    seen = server.answer()
    task.result()
    message = connect_message(seen)
    assert (seen.size, seen.data[40:]) == (41, b"\0")
    assert (message.type, message.subtype, message.file_type) == (IO_CONNECT, IO_CONNECT_OPEN, FTYPE_ANY)
    assert (message.handle, message.ioflag & KNOWN_FLAGS, message.mode) == (server.id, 3, 0)
    assert (message.sflag, message.access, message.path_len, message.eflag) == (0x40, 3, 1, 0)
    assert (message.key, message.zero, message.extra_type, message.extra_len) == (0, 0, 0, 0)
    assert seen.room == message.reply_max > 2000


@checks("B423", "B312")
def test_permissions_are_sent_where_something_is_created(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """Without O_CREAT the mode is 0, whatever was given."""
    server = serve(path)
    for oflag, mode in ((os.O_RDWR, 0), (os.O_RDWR | os.O_CREAT, 0o640)):
        task = start(qnx.open, path, oflag, 0o640)
        assert connect_message(server.answer()).mode & 0o777 == mode
        task.result()


@checks("B423", "B312")
def test_an_access_mode_that_is_none_arrives_as_0(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """All bits of the access mode set make none of them plus one."""
    server = serve(path)
    task = start(qnx.open, path, os.O_ACCMODE)
    assert connect_message(server.answer()).ioflag & KNOWN_FLAGS == 0
    task.result()


@checks("B416", "B422")
def test_a_server_can_tell_its_paths_by_their_handles(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """The handle in the message is the number that resmgr_attach has returned; each attachment has its own."""
    server = serve(path)
    second = server.attach(f"{path}-2")
    assert second != server.id
    for opened_path, handle in ((path, server.id), (f"{path}-2", second)):
        task = start(qnx.open, opened_path, os.O_RDWR)
        assert connect_message(server.answer()).handle == handle
        task.result()


@checks("B416", "B421")
def test_the_number_of_an_attachment_is_the_lowest_that_is_free(serve: Serve, path: str) -> None:
    """A number that was given up by resmgr_detach is given out again."""
    server = serve(path)
    second = server.attach(f"{path}-2")
    assert server.detach(server.id) == 0
    assert server.attach(path) == server.id
    assert server.attach(f"{path}-3") > second


@checks("B419")
def test_the_flags_are_those_of_qnx() -> None:
    """The constants have the numbers of QNX's headers."""
    flags = (BEFORE, AFTER, OPAQUE, RESMGR_FLAG_FTYPEONLY, RESMGR_FLAG_FTYPEALL, DIR, SELF)
    assert flags == (1, 2, 4, 8, 0x10, 0x100, 0x200)


@checks("B420")
@pytest.mark.parametrize("form", ["{}/", "/dev/../{}", "/./{}", "/{}", "{}/x/..", "//{}//."], ids=repr)
def test_a_path_is_made_plain(qnx: Any, start: Start, serve: Serve, path: str, form: str) -> None:
    """A path that was attached in any form is opened by its plain one, and the other way round."""
    opened(qnx, start, serve(form.format(path)), path=path)
    server = serve(f"{path}-2", DIR)
    opened(qnx, start, server, path=form.format(f"{path}-2"))


def attach_from(qnx: Any, directory: str, path: str) -> int:
    """In another process: attach a path from a working directory, and answer one message; the channel."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        chid: int = qnx.ChannelCreate(0)
        qnx.resmgr_attach(chid, path)
    finally:
        os.chdir(before)
    Task(answer, qnx, chid)
    return chid


@checks("B420")
def test_relative_paths_begin_at_the_working_directory(
    qnx: Any, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is for resmgr_attach and for open, each in its own process; nothing has to exist there."""
    (tmp_path / "sub").mkdir()
    directory = os.path.realpath(tmp_path)
    chid = peer.run(attach_from, directory, "sub/./served")
    monkeypatch.chdir(tmp_path / "sub")
    info = MessageInfo()
    fd = qnx.open("../sub/served", os.O_RDWR)
    qnx.ConnectServerInfo(0, fd, info)
    assert (info.pid, info.chid) == (peer.pid, chid)


@checks("B420")
def test_a_path_comes_before_a_file(qnx: Any, start: Start, serve: Serve, tmp_path: Path) -> None:
    """What is attached hides a file of that path as long as it is attached; the file's neighbours are not touched."""
    directory = Path(os.path.realpath(tmp_path))
    for name in ("file", "neighbour"):
        (directory / name).write_text(name)
    server = serve(str(directory / "file"))
    fd = opened(qnx, start, server, path=str(directory / "file"))
    assert qnx.ConnectServerInfo(0, fd, MessageInfo()) == fd
    assert os.read(qnx.open(directory / "neighbour", os.O_RDONLY), 100) == b"neighbour"
    server.detach(server.id)
    assert os.read(qnx.open(directory / "file", os.O_RDONLY), 100) == b"file"


@checks("B420")
def test_a_path_may_have_any_character(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """What is special to a host's file system or shell is not in a path, nor is a letter beyond ASCII."""
    strange = f"{path} %2F*?~$;\\=+\N{LATIN SMALL LETTER E WITH ACUTE}"
    opened(qnx, start, serve(strange), path=strange)
    raw = os.fsencode(path) + b"\xff\xfe"
    opened(qnx, start, serve(os.fsdecode(raw)), path=raw)


@checks("B420")
@pytest.mark.parametrize("size", [200, 201, 399, 400, 600])
def test_a_path_may_be_long(qnx: Any, start: Start, serve: Serve, path: str, size: int) -> None:
    """A path of up to 600 characters can be attached and opened, and its beginning is not a path of its own."""
    long = path.ljust(size, "x")
    opened(qnx, start, serve(long), path=long)
    # Asked last is the host, which may know no names that are so long.
    assert try_open(qnx, long[:-1]) in (ENOENT, ENAMETOOLONG)


@checks("B420")
@pytest.mark.parametrize("call", ["resmgr_attach", "open"])
def test_an_empty_path_leads_nowhere(qnx: Any, path: str, call: str) -> None:
    """It can be attached, for clients that ask for just one type of file, and is not found."""
    if call == "open":
        assert try_open(qnx, "") == ENOENT
    else:
        chid = qnx.ChannelCreate(0)
        qnx.resmgr_attach(chid, "", 11, SELF)
        assert try_open(qnx, path) == ENOENT


@checks("B420")
def test_a_path_without_an_end_is_refused(qnx: Any, path: str) -> None:
    """A NUL in a path is EINVAL for resmgr_attach, which names the path."""
    with pytest.raises(OSError, match="NUL") as raised:
        qnx.resmgr_attach(qnx.ChannelCreate(0), f"{path}\0more")
    assert (raised.value.errno, raised.value.filename) == (EINVAL, f"{path}\0more")


@checks("B416")
@pytest.mark.parametrize("file_type", [-1, -2])
def test_a_type_of_file_is_not_negative(qnx: Any, path: str, file_type: int) -> None:
    """Such a file_type is EINVAL, and nothing is attached."""
    with fails_with(EINVAL):
        qnx.resmgr_attach(qnx.ChannelCreate(0), path, file_type, SELF)
    assert try_open(qnx, path) == ENOENT


@checks("B416")
def test_two_types_of_file_exclude_each_other(qnx: Any, path: str) -> None:
    """RESMGR_FLAG_FTYPEONLY and RESMGR_FLAG_FTYPEALL together are EINVAL."""
    with fails_with(EINVAL):
        qnx.resmgr_attach(qnx.ChannelCreate(0), path, 0, 0x1F)


@checks("B416")
@pytest.mark.parametrize("file_type", [0, 1, 4, 11])
@pytest.mark.parametrize("flags", [0, BEFORE | AFTER, RESMGR_FLAG_FTYPEALL])
def test_open_takes_any_type_of_file(
    qnx: Any, start: Start, serve: Serve, path: str, file_type: int, flags: int
) -> None:
    """Whatever file_type a server has attached a path with, an open of that path reaches it."""
    server = serve(f"{path}-other")
    server.attach(path, flags, file_type)
    opened(qnx, start, server, path=path)


@checks("B416", "B440")
def test_open_takes_no_name(qnx: Any, serve: Serve, path: str) -> None:
    """What is attached with the type of a name is not asked."""
    server = serve(f"{path}-other")
    server.attach(path, 0, FTYPE_NAME)
    with contextlib.suppress(OSError):
        qnx.open(path, os.O_RDWR)
    assert_not_asked(qnx, server)


def assert_not_asked(qnx: Any, server: Server) -> None:
    """A server has received nothing: what comes first is what is sent to it now."""
    coid = qnx.ConnectAttach(0, server.pid, server.chid)
    task = Task(qnx.MsgSend, coid, b"marker")
    seen = server.answer()
    assert seen.data == b"marker", seen
    task.result()


@checks("D50")
@open_point("D50")
def test_what_is_no_channel_serves_no_path(qnx: Any, path: str) -> None:
    """A chid that was never made, or whose channel is destroyed, is EINVAL."""
    chid = qnx.ChannelCreate(0)
    qnx.ChannelDestroy(chid)
    for number in (chid, 12345, -1):
        with fails_with(EINVAL):
            qnx.resmgr_attach(number, path)
    assert try_open(qnx, path) == ENOENT


@checks("D50")
@open_point("D50")
@pytest.mark.parametrize("flag", [0x20, 0x400, 0x8000, 1 << 31])
def test_an_unknown_flag_is_refused(qnx: Any, path: str, flag: int) -> None:
    """resmgr_attach and resmgr_detach with a flag that QNX does not know are EINVAL, and change nothing."""
    chid = qnx.ChannelCreate(0)
    with fails_with(EINVAL):
        qnx.resmgr_attach(chid, path, 0, SELF | flag)
    assert try_open(qnx, path) == ENOENT
    id = qnx.resmgr_attach(chid, path, 0, SELF)
    with fails_with(EINVAL):
        qnx.resmgr_detach(id, flag)
    assert qnx.resmgr_detach(id) == 0


# Names are no paths


@checks("B440", "D34", "B290")
@open_point("D34")
@pytest.mark.parametrize(
    "path",
    [
        "/dev/name",
        "/dev/name/",
        "/dev/name/local/{}",
        "/dev//name/./local/{}",
        "/dev/x/../name/{}",
        "/dev/name/global/{}",
    ],
)
def test_a_name_is_not_opened(qnx: Any, lasting: Peer, server: Server, name: str, path: str) -> None:
    """A path at or below /dev/name is EINVAL, and says what to do instead; the name is found by name_open."""
    path = path.format(name)
    calls: List[Callable[[], int]] = [
        lambda: qnx.open(path, os.O_RDWR),
        lambda: qnx.open(os.fsencode(path), os.O_RDWR),
        lambda: qnx.ha_open(path, os.O_RDWR, lambda coid, handle: -1),
        lambda: qnx.ha_creat(path, 0o666, lambda coid, handle: -1),
        lambda: qnx.ha_fopen(path, "r", lambda coid, handle: -1),
        lambda: qnx.ha_reopen(qnx.open(os.devnull, os.O_RDONLY), path, os.O_RDWR),
        lambda: qnx.resmgr_attach(qnx.ChannelCreate(0), path),
    ]
    for call in calls:
        with pytest.raises(OSError, match=r"name_open.*resmgr_attach") as raised:
            call()
        assert (raised.value.errno, raised.value.filename) == (EINVAL, path)
    qnx.name_open(name)
    assert_not_asked(qnx, server)


@checks("D34")
def test_what_only_looks_like_a_name_is_a_path(qnx: Any, start: Start, serve: Serve, name: str) -> None:
    """/dev/names, and a name somewhere else, are ordinary paths."""
    for path in (f"/dev/names/{name}", f"/other/dev/name/local/{name}", f"/dev/name-{name}"):
        opened(qnx, start, serve(path), path=path)


# Answers


@checks("B424")
@pytest.mark.parametrize("status", [0, 1, 5, 13, 0x7FFF, 0x10000])
@pytest.mark.parametrize("size", [0, 8, 100, 5000])
def test_a_status_is_consent(qnx: Any, start: Start, serve: Serve, path: str, status: int, size: int) -> None:
    """Whatever status a server answers to _IO_CONNECT, with data or without: the descriptor is there."""
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    server.answer(status, bytes(size))
    assert is_descriptor(task.result())


@checks("B424")
def test_a_status_of_minus_one_is_a_refusal(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """It means ENOENT."""
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    server.answer(-1)
    assert task.errno() == ENOENT


ERRORS = (
    ENOENT, EACCES, EBUSY, EPERM, EAGAIN, EINTR, ENOTDIR, ELOOP, EXDEV, ESRCH, ECHILD, ETIMEDOUT, EBADF, EINVAL, ENXIO,
    EROFS,
)  # fmt: skip


@checks("B424", "B314")
def test_the_error_of_a_server_is_that_of_open(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """With one server, open fails with the error that it answers, unchanged; no number is lost."""
    server, lowest = serve(path), next_number()
    for error in ERRORS:
        task = start(qnx.open, path, os.O_RDWR)
        server.refuse(error)
        assert task.errno() == error
    assert next_number() <= lowest


@checks("B425", "B314")
@pytest.mark.parametrize("second", [EOK, EACCES, ENOSYS])
def test_who_knows_no_open_is_asked_once_more(qnx: Any, start: Start, serve: Serve, path: str, second: int) -> None:
    """After ENOSYS comes the message with subtype 1, ioflag 0 and the mode, whose answer does not count: ENOENT."""
    server = serve(path, DIR)
    lowest = next_number()
    task = start(qnx.open, f"{path}/a/.", os.O_RDWR | os.O_CREAT)
    first = server.refuse(ENOSYS)
    again = server.refuse(second) if second else server.answer()
    assert task.errno() == ENOENT
    message = connect_message(again)
    assert (message.subtype, message.ioflag, message.mode) == (COMBINE_CLOSE, 0, connect_message(first).mode)
    assert (again.data[4:20], again.data[28:]) == (first.data[4:20], first.data[28:])
    assert next_number() <= lowest


@checks("B425", "B129")
def test_an_open_that_is_to_be_restarted_is_sent_again(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """ERESTART brings the same message again."""
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    assert server.refuse(ERESTART).data == server.refuse(ERESTART).data == server.answer().data
    assert is_descriptor(task.result())


@checks("B425", "B313")
def test_open_waits_for_its_answer(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """An open that nobody answers blocks; a late answer gives the descriptor."""
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR).wait_until_blocked()
    seen = server.take()
    task.wait_until_blocked()
    server.reply(seen)
    assert task.result() == seen.coid


# Below a path


@checks("B426")
@pytest.mark.parametrize(
    ("form", "error"),
    [("{}/", ENOTDIR), ("{}/.", ENOTDIR), ("{}/a", ENOENT), ("{}/a/b", ENOENT), ("{}/a/", ENOENT), ("{}y", ENOENT)],
    ids=repr,
)
def test_without_dir_only_the_path_itself_is_served(qnx: Any, serve: Serve, path: str, form: str, error: int) -> None:
    """The server is not asked for what lies below, nor for a directory."""
    server = serve(path)
    assert try_open(qnx, form.format(path)) == error
    assert_not_asked(qnx, server)


@checks("B426")
@pytest.mark.parametrize(
    ("form", "rest", "ending"),
    [
        ("{}", "", 0), ("{}/", "", 1), ("{}/a", "a", 0), ("{}/a/b", "a/b", 0), ("{}/a/b/", "a/b", 1), ("{}/.", "", 3),
        ("{}/a/.", "a", 3), ("{}/a/../b", "b", 0), ("{}//a", "a", 0), ("/dev/..{}/q", "q", 0), ("{}/a b", "a b", 0),
        ("{}/./a//", "a", 1), ("{}/ä", "ä", 0),
    ],
    ids=repr,
)  # fmt: skip
def test_with_dir_the_rest_of_the_path_is_in_the_message(
    qnx: Any, start: Start, serve: Serve, path: str, form: str, rest: str, ending: int
) -> None:
    """The server gets what lies below its path, made plain, and how the path ended that was asked for."""
    server = serve(path, DIR)
    task = start(qnx.open, form.format(path), os.O_RDWR)
    seen = server.answer()
    assert (os.fsdecode(rest_of(seen)), connect_message(seen).eflag) == (rest, ending)
    task.result()


@checks("B426")
@pytest.mark.parametrize("form", ["{}/..", "{}/../", "{}y", "{}/../nothing"], ids=repr)
def test_what_does_not_lie_below_is_not_asked_for(qnx: Any, serve: Serve, path: str, form: str) -> None:
    """A path that leads out of a directory again, or that only begins like it, is somebody else's."""
    server = serve(path, DIR)
    with contextlib.suppress(OSError):
        qnx.open(form.format(path), os.O_RDONLY)
    assert_not_asked(qnx, server)


# Several servers


ORDERS = [
    ((0, 0, 0), (2, 1, 0)),
    ((0, BEFORE, BEFORE), (1, 2, 0)),
    ((BEFORE, 0, BEFORE), (0, 2, 1)),
    ((AFTER, AFTER, 0), (2, 1, 0)),
    ((AFTER, 0, AFTER), (1, 2, 0)),
    ((0, AFTER, BEFORE), (2, 0, 1)),
    ((BEFORE, BEFORE, BEFORE), (0, 1, 2)),
    ((0, DIR, 0), (2, 1, 0)),
    ((DIR | AFTER, 0, DIR | BEFORE), (2, 1, 0)),
]


@checks("B427")
@pytest.mark.parametrize(("flags", "order"), ORDERS, ids=[repr(case[0]) for case in ORDERS])
def test_servers_are_asked_in_order(qnx: Any, start: Start, serve: Serve, path: str, flags: Any, order: Any) -> None:
    """First those with BEFORE, the oldest first; then the plain ones and then those with AFTER, the newest first."""
    servers = [serve(path, flag) for flag in flags]
    lowest = next_number()
    task = start(qnx.open, path, os.O_RDWR)
    for number in order:
        assert rest_of(servers[number].refuse(ENOENT)) == b""
    assert task.errno() == ENOENT
    assert next_number() <= lowest


@checks("B427", "B314")
@pytest.mark.parametrize("error", [ENOENT, ENOSYS, ESRCH, ENXIO])
def test_some_errors_go_on_to_the_next_server(qnx: Any, start: Start, serve: Serve, path: str, error: int) -> None:
    """The open succeeds when the next one agrees, with the number that it would have had from the first."""
    second, first = serve(path), serve(path)
    lowest = next_number()
    task = start(qnx.open, path, os.O_RDWR)
    first.refuse(error)
    if error == ENOSYS:
        first.refuse(error)
    seen = second.answer()
    assert task.result() == seen.coid <= lowest
    asked_again = start(qnx.MsgSend, task.result(), b"question")
    assert second.answer(3).data == b"question"
    assert asked_again.result() == 3


@checks("B427")
@pytest.mark.parametrize("error", [EACCES, EBUSY, EIO, ENOTDIR, EINTR, EAGAIN])
def test_other_errors_end_an_open(qnx: Any, start: Start, serve: Serve, path: str, error: int) -> None:
    """The next server is not asked."""
    second, first = serve(path), serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    first.refuse(error)
    assert task.errno() == error
    assert_not_asked(qnx, second)


@checks("B427")
def test_enosys_says_less_than_enoent(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """When one server knows no open and the next knows no such file, there is no such file."""
    second, first = serve(path), serve(path)
    task = start(qnx.open, path, os.O_RDWR)
    first.refuse(ENOSYS)
    first.refuse(ENOSYS)
    second.refuse(ENOENT)
    assert task.errno() == ENOENT


@checks("B427")
def test_an_older_server_serves_as_soon_as_the_newer_detaches(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """And not any more as soon as the newer one attaches again."""
    older, newer = serve(path), serve(path)
    opened(qnx, start, newer, path=path)
    newer.detach(newer.id)
    opened(qnx, start, older, path=path)
    newer.attach(path)
    opened(qnx, start, newer, path=path)


def wait_for_open(qnx: Any, chid: int) -> None:
    """In another process: exit when an open comes."""
    take(qnx, chid)
    os._exit(1)


@checks("B428", "B316")
@pytest.mark.parametrize("how", ["killed with the open", "exits at the open", "has destroyed its channel", "is dead"])
def test_a_dead_server_is_passed_over(
    qnx: Any, start: Start, start_peer: StartPeer, serve: Serve, path: str, how: str
) -> None:
    """The same open goes on to the next server, whatever has become of the first."""
    peer = start_peer()
    second, first = serve(path), serve(path, 0, peer)
    if how == "is dead":
        first.kill()
    elif how == "has destroyed its channel":
        first.destroy_channel()
    elif how == "exits at the open":
        peer.start(wait_for_open, first.chid)
    task = start(qnx.open, path, os.O_RDWR)
    if how == "killed with the open":
        first.take()
        first.kill()
    seen = second.answer()
    assert task.result() == seen.coid
    assert seen.type == IO_CONNECT


@checks("B428")
def test_a_stopped_server_is_waited_for(qnx: Any, start: Start, start_peer: StartPeer, serve: Serve, path: str) -> None:
    """A process that is stopped lives: the next server is not asked."""
    peer = start_peer()
    second, first = serve(path), serve(path, 0, peer)
    answering = peer.start(answer, first.chid)
    peer.stop()
    task = start(qnx.open, path, os.O_RDWR).wait_until_blocked()
    peer.resume()
    assert answering.result().type == IO_CONNECT
    assert is_descriptor(task.result())
    assert_not_asked(qnx, second)


@checks("B429", "B316")
def test_the_path_of_a_killed_server_is_gone(qnx: Any, start: Start, peer: Peer, serve: Serve, path: str) -> None:
    """Once the process is cleaned up, its path is not found; what was open is dead."""
    server = serve(path, 0, peer)
    fd = opened(qnx, start, server, path=path)
    server.kill()
    assert try_open(qnx, path) == ENOENT
    with fails_with(EBADF):
        qnx.read(fd, 10)


@checks("B429")
def test_the_only_server_has_destroyed_its_channel(qnx: Any, serve: Serve, path: str) -> None:
    """The path of a living process whose channel is gone is ESRCH, until it detaches it."""
    server = serve(path)
    server.destroy_channel()
    assert try_open(qnx, path) == ESRCH
    server.detach(server.id)
    assert try_open(qnx, path) == ENOENT


@checks("B429", "B425")
@pytest.mark.parametrize("taken", [False, True], ids=["send-blocked", "reply-blocked"])
def test_the_only_server_is_killed_with_the_open(
    qnx: Any, start: Start, peer: Peer, serve: Serve, path: str, taken: bool
) -> None:
    """The open fails with ESRCH, and the next one finds nobody."""
    server, lowest = serve(path, 0, peer), next_number()
    task = start(qnx.open, path, os.O_RDWR)
    if taken:
        server.take()
    else:
        task.wait_until_blocked()
    server.kill()
    assert task.errno() == ESRCH
    assert try_open(qnx, path) == ENOENT
    assert next_number() <= lowest


@checks("B430")
def test_the_deepest_path_is_asked_first(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """What lies above with DIR is asked when the deeper one has no such file, and for what it does not serve."""
    deep, above = serve(f"{path}/deep"), serve(path, DIR)
    opened(qnx, start, deep, path=f"{path}/deep")
    task = start(qnx.open, f"{path}/deep", os.O_RDWR)
    assert rest_of(deep.refuse(ENOENT)) == b""
    assert rest_of(above.answer()) == b"deep"
    task.result()
    task = start(qnx.open, f"{path}/deep/er", os.O_RDWR)
    assert rest_of(above.answer()) == b"deep/er"
    task.result()


@checks("B430")
def test_an_opaque_server_hides_what_lies_above(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """After its refusal only others on the same path are asked."""
    above, neighbour, opaque = serve(path, DIR), serve(f"{path}/deep"), serve(f"{path}/deep", OPAQUE)
    task = start(qnx.open, f"{path}/deep", os.O_RDWR)
    opaque.refuse(ENOENT)
    neighbour.refuse(ENOENT)
    assert task.errno() == ENOENT
    assert_not_asked(qnx, above)


@checks("B430", "D49")
@open_point("D49")
def test_the_host_is_the_last_that_is_asked(qnx: Any, start: Start, serve: Serve, tmp_path: Path) -> None:
    """When all servers know no such file, a file of the host is opened; but none is created, and none behind OPAQUE."""
    path = os.path.join(os.path.realpath(tmp_path), "file")
    server = serve(path)
    task = start(qnx.open, path, os.O_RDWR | os.O_CREAT)
    server.refuse(ENOENT)
    assert task.errno() == ENOENT
    Path(path).write_text("contents")
    task = start(qnx.open, path, os.O_RDWR)
    server.refuse(ENOENT)
    assert os.read(task.result(), 100) == b"contents"
    opaque = serve(path, OPAQUE)
    task = start(qnx.open, path, os.O_RDWR)
    opaque.refuse(ENOENT)
    server.refuse(ENOENT)
    assert task.errno() == ENOENT


# The same process


@checks("B431")
def test_a_process_does_not_ask_itself(qnx: Any, start: Start, path: str) -> None:
    """Without SELF, its own attachment is not there for a process, in any of its threads."""
    chid = qnx.ChannelCreate(0)
    qnx.resmgr_attach(chid, path)
    assert try_open(qnx, path) == ENOENT
    assert start(try_open, qnx, path).result() == ENOENT


@checks("B431")
def test_a_process_asks_itself_if_it_says_so(qnx: Any, start: Start, path: str) -> None:
    """With SELF, one of its threads opens what another one serves, and waits for it."""
    chid = qnx.ChannelCreate(0)
    qnx.resmgr_attach(chid, path, FTYPE_ANY, SELF)
    task = start(qnx.open, path, os.O_RDWR).wait_until_blocked()
    assert start(answer, qnx, chid).result().type == IO_CONNECT
    assert is_descriptor(task.result())


@checks("B431", "B427")
def test_a_process_that_does_not_ask_itself_asks_the_next(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """An own attachment without SELF hides nothing."""
    server = serve(path)
    chid = qnx.ChannelCreate(0)
    qnx.resmgr_attach(chid, path)
    opened(qnx, start, server, path=path)


def open_path(qnx: Any, path: str) -> int:
    """In another process: open a path; the process that serves it."""
    info = MessageInfo()
    qnx.ConnectServerInfo(0, qnx.open(path, os.O_RDWR), info)
    pid: int = info.pid
    return pid


@checks("B431")
def test_a_server_of_this_process_serves_others(qnx: Any, start: Start, peer: Peer, path: str) -> None:
    """SELF is for the own process only: another one opens the path anyway."""
    chid = qnx.ChannelCreate(0)
    qnx.resmgr_attach(chid, path)
    opening = peer.start(open_path, path)
    start(answer, qnx, chid).result()
    assert opening.result() == os.getpid()


# resmgr_detach


@checks("B421")
def test_who_is_connected_stays_so(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """After resmgr_detach nobody opens the path any more, and an open descriptor reaches its server as before."""
    server = serve(path)
    fd = opened(qnx, start, server, path=path)
    assert server.detach(server.id) == 0
    assert try_open(qnx, path) == ENOENT
    reading = start(qnx.read, fd, 4)
    assert server.answer(4, b"data").type == IO_READ
    assert reading.result() == b"data"
    closing = start(qnx.close, fd)
    assert server.answer().type == IO_CLOSE
    closing.result()
    assert server.attach(path) == server.id
    opened(qnx, start, server, path=path)


@checks("B421")
def test_a_path_can_be_detached_once(qnx: Any, path: str) -> None:
    """Again, and for a number that stands for nothing, resmgr_detach fails with ENOENT."""
    id = qnx.resmgr_attach(qnx.ChannelCreate(0), path)
    assert qnx.resmgr_detach(id) == 0
    for number in (id, 99, -1):
        with fails_with(ENOENT):
            qnx.resmgr_detach(number)


@checks("B421")
def test_an_attachment_belongs_to_its_process(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """The number of another process's attachment stands for nothing here."""
    server = serve(path)
    with fails_with(ENOENT):
        qnx.resmgr_detach(server.id + 1000)
    opened(qnx, start, server, path=path)


def fork_and_open(qnx: Any, path: str) -> int:
    """In another process: attach a path; a forked child tries to detach it, and to open it; the errno of the first."""
    chid = qnx.ChannelCreate(0)
    id = qnx.resmgr_attach(chid, path)
    child = os.fork()
    if not child:
        status = 0
        try:
            qnx.resmgr_detach(id)
        except OSError as error:
            status = error.errno or 0
        os._exit(status)
    _pid, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status)


@checks("B416", "B269")
def test_a_child_does_not_serve_what_its_parent_has_attached(qnx: Any, peer: Peer, path: str) -> None:
    """A forked child has none of its parent's attachments: it cannot detach them, and they end with the parent."""
    assert peer.run(fork_and_open, path) == ENOENT
    task = Task(qnx.open, path, os.O_RDWR).wait_until_blocked()
    peer.kill()
    assert task.errno() == ESRCH
    assert try_open(qnx, path) == ENOENT


# Bad luck


def attach_and_detach_for_ever(qnx: Any, path: str) -> None:
    """In another process: attach and detach a path until killed."""
    chid = qnx.ChannelCreate(0)
    while True:
        qnx.resmgr_detach(qnx.resmgr_attach(chid, path))


@checks("B428", "B429")
def test_a_server_may_die_while_it_attaches_and_detaches(
    qnx: Any, start: Start, start_peer: StartPeer, serve: Serve, path: str
) -> None:
    """Its entry is whole or not there at all: opens find the server that is alive."""
    for _death in range(6):
        peer = start_peer()
        peer.start(attach_and_detach_for_ever, path)
        task = start(qnx.open, path, os.O_RDWR)
        task.wait_until_blocked_or_done()  # The open has met the server, or missed it.
        peer.kill()
        with contextlib.suppress(OSError):
            task.result()
        assert try_open(qnx, path) == ENOENT
    opened(qnx, start, serve(path), path=path)


def race(qnx: Any, path: str, flags: int, log: str) -> None:
    """In another process: attach a path together with others; refuse the first open, and tell the log of it."""
    chid = qnx.ChannelCreate(0)
    qnx.resmgr_attach(chid, path, FTYPE_ANY, flags)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"attached\n")
    seen = take(qnx, chid)
    os.write(fd, b"%d\n" % flags)
    qnx.MsgError(seen.rcvid, ENOENT)
    os.close(fd)


@checks("B427")
def test_ten_servers_race_for_a_path(qnx: Any, start: Start, start_peer: StartPeer, path: str, tmp_path: Path) -> None:
    """Whoever comes first: each is asked once, those with BEFORE first and those with AFTER last."""
    log = tmp_path / "log"
    peers = [start_peer() for _ in range(3)]
    flags = [BEFORE, 0, AFTER, BEFORE, 0, AFTER, BEFORE, 0, AFTER, 0]
    racing = [peers[number % 3].start(race, path, flag, str(log)) for number, flag in enumerate(flags)]
    eventually(lambda: log.exists() and log.read_text().count("attached") == len(flags), "all servers")
    assert start(try_open, qnx, path).result() == ENOENT
    for server in racing:
        server.result()
    asked = log.read_text().replace("attached\n", "").split()
    assert asked == [str(flag) for flag in sorted(flags, key=[BEFORE, 0, AFTER].index)]


def attach_and_answer(qnx: Any, path: str, rounds: int) -> int:
    """In another process: attach, answer, detach, again and again; how many opens were answered."""
    chid = qnx.ChannelCreate(0)
    answered = 0
    stop = threading.Event()

    def receive() -> None:
        nonlocal answered
        while not stop.is_set():
            seen = take(qnx, chid)
            if seen.rcvid:
                qnx.MsgReply(seen.rcvid, EOK, b"")
                answered += seen.type == IO_CONNECT

    receiver = Task(receive)
    for _round in range(rounds):
        qnx.resmgr_detach(qnx.resmgr_attach(chid, path))
    stop.set()
    qnx.MsgSendPulse(qnx.ConnectAttach(0, 0, chid), -1, 0, 0)
    receiver.result()
    qnx.ChannelDestroy(chid)  # Who is still connected is not to wait for an answer.
    return answered


@checks("B427", "B429")
def test_opens_while_servers_come_and_go(
    qnx: Any, start: Start, start_peer: StartPeer, serve: Serve, path: str
) -> None:
    """An open reaches somebody or finds nobody, and with a server that stays it always reaches somebody."""
    staying = serve(path, AFTER)
    answering = staying.peer.start(answer_all, staying.chid)
    churning = [start_peer().start(attach_and_answer, path, 150) for _ in range(2)]
    while not all(churn.done for churn in churning):
        fd = qnx.open(path, os.O_RDWR)
        with contextlib.suppress(OSError):  # Its server may have destroyed its channel since.
            qnx.close(fd)
    qnx.MsgSend(qnx.ConnectAttach(0, staying.pid, staying.chid), b"stop")
    answering.result()


def answer_all(qnx: Any, chid: int) -> None:
    """In another process: answer whatever comes, until a message comes that is no I/O message."""
    while True:
        seen = take(qnx, chid)
        if seen.rcvid:
            qnx.MsgReply(seen.rcvid, EOK, b"")
            if not seen.type:
                return


# Recovery


@checks("B428", "B384")
def test_a_standby_takes_over(qnx: Any, start: Start, start_peer: StartPeer, serve: Serve, path: str) -> None:
    """ha_reopen of the path of a killed server reaches the next one that has attached it, under the same number."""
    peer = start_peer()
    standby, first = serve(path, AFTER), serve(path, 0, peer)
    calls: List[int] = []

    def recover(coid: int, _handle: object) -> int:
        calls.append(coid)
        number: int = qnx.ha_reopen(coid, path, os.O_RDWR)
        return number

    opening = start(qnx.ha_open, path, os.O_RDWR, recover)
    first.answer()
    fd = opening.result()
    first.kill()
    task = start(qnx.MsgSend, fd, b"question")
    assert standby.answer().type == IO_CONNECT
    assert standby.answer(5).data == b"question"
    assert (task.result(), calls) == (5, [fd])


@checks("B384", "B424", "D6")
@open_point("D6")
def test_a_refused_reopen_leaves_the_number_taken(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """After a reopen that all servers refuse, the old connection is dead, and nobody else gets its number."""
    second, first = serve(f"{path}-2"), serve(path)
    fd = opened(qnx, start, first, path=path)
    task = start(qnx.ha_reopen, fd, f"{path}-2", os.O_RDWR)
    second.refuse(ENOSYS)
    second.refuse(ENOSYS)
    assert task.errno() == ENOENT
    with fails_with(EBADF):
        qnx.MsgSend(fd, b"message")
    assert next_number() != fd
    task = start(qnx.ha_reopen, fd, path, os.O_RDWR)
    assert first.answer().coid == fd
    assert task.result() == fd


@checks("B433", "B328", "B196")
def test_the_server_hears_of_each_descriptor_that_is_closed(qnx: Any, start: Start, serve: Serve, path: str) -> None:
    """Each close sends _IO_CLOSE, 4 bytes with no room for a reply."""
    server = serve(path)
    for _ in range(2):
        fd = opened(qnx, start, server, path=path)
        task = start(qnx.close, fd)
        seen = server.answer()
        assert (struct.unpack("=HH", seen.data), seen.room) == ((IO_CLOSE, 4), 0)
        task.result()
