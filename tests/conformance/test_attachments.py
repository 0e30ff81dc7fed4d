"""Attachments: how connections become HA-aware, share that, and stop being so."""

import gc
import os
import weakref
from errno import EBADF, EEXIST, EINTR, EINVAL, EIO, EPERM, ESRCH
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from ha_qnx import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_RESET_ACOUNT,
    HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_SUSPEND,
    HAREPLACERECOVERYFN,
    IO_CLOSE,
    IO_CONNECT,
    IO_DUP,
    NTO_CHF_DISCONNECT,
    NTO_SIDE_CHANNEL,
    PULSE_CODE_DISCONNECT,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import (
    KNOWN_FLAGS,
    ConnectMessage,
    Server,
    Start,
    StartPeer,
    answer,
    attach_both,
    is_descriptor,
    next_number,
    opened,
    path_of,
    take,
)
from .test_recovery import LocalServer, Recovering, give_up, ha_opened, lost, reconnecting, serve
from .waiting import Task

SIDE = NTO_SIDE_CHANNEL


@pytest.fixture
def local(qnx: Any) -> Iterator[LocalServer]:
    """A server in this process that answers."""
    made = LocalServer(qnx)
    yield made
    made.end()


def recovers(qnx: Any, coid: int, function: Recovering) -> bool:
    """Whether a send on a connection that is lost calls a recovery function."""
    before = function.count
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    return function.count > before


# ha_attach and ha_detach


@checks("B358")
def test_the_constants_are_those_of_the_header() -> None:
    """HAREPLACERECOVERYFN is 1; the commands of ha_connection_ctrl are 1 to 6."""
    assert HAREPLACERECOVERYFN == 1
    assert [
        HA_RECOVERY_ACOUNT,
        HA_RECOVERY_ICOUNT,
        HA_RECOVERY_SUSPEND,
        HA_RECOVERY_ENABLE,
        HA_RECOVERY_RESET_ICOUNT,
        HA_RECOVERY_RESET_ACOUNT,
    ] == [1, 2, 3, 4, 5, 6]


@checks("B359", "B360", "B361")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_ha_attach_makes_a_connection_ha_aware(qnx: Any, local: LocalServer, index: int) -> None:
    """ha_attach of an open connection returns 0; when the server is lost, the function is called with the handle."""
    function, handle = Recovering(give_up), object()
    coid = qnx.ConnectAttach(0, 0, local.chid, index)
    assert qnx.ha_attach(coid, function, handle) == 0
    assert qnx.MsgSend(coid, b"message") > 0
    assert function.calls == []
    local.end()
    assert recovers(qnx, coid, function)
    assert function.calls == [(coid, handle)]


@checks("B359")
def test_a_connection_that_is_dead_already_can_be_attached(qnx: Any) -> None:
    """What counts is that the connection exists: its server may be gone."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    qnx.ChannelDestroy(chid)
    function = Recovering(give_up)
    assert qnx.ha_attach(coid, function) == 0
    assert recovers(qnx, coid, function)


@checks("B371", "B370")
def test_the_recovery_function_and_its_handle_can_be_replaced(qnx: Any) -> None:
    """With HAREPLACERECOVERYFN the new function is called with the new handle, and the old one no more."""
    old, new, handle = Recovering(give_up), Recovering(give_up), object()
    coid = lost(qnx, old, "old handle")
    assert qnx.ha_attach(coid, new, handle, HAREPLACERECOVERYFN) == 0
    assert recovers(qnx, coid, new)
    assert (old.calls, new.calls) == ([], [(coid, handle)])


@checks("B371")
def test_a_first_recovery_function_may_be_attached_as_a_replacement(qnx: Any) -> None:
    """HAREPLACERECOVERYFN on a connection that has no function attaches the function."""
    function = Recovering(give_up)
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    assert qnx.ha_attach(coid, function, None, HAREPLACERECOVERYFN) == 0
    qnx.ChannelDestroy(chid)
    assert recovers(qnx, coid, function)


@checks("B372", "D1")
@open_point("D1")
def test_an_attached_connection_is_not_attached_again_by_mistake(qnx: Any) -> None:
    """Without HAREPLACERECOVERYFN a second ha_attach is EEXIST, and the first function and its handle stay."""
    first, second = Recovering(give_up), Recovering(give_up)
    coid = lost(qnx, first, "first")
    with fails_with(EEXIST):
        qnx.ha_attach(coid, second, "second")
    assert recovers(qnx, coid, first)
    assert (first.calls, second.calls) == ([(coid, "first")], [])


@checks("B373", "D2")
@open_point("D2")
@pytest.mark.parametrize("bad", ["closed descriptor", "detached", "never open", "negative"])
def test_what_is_not_open_cannot_be_attached(qnx: Any, bad: str) -> None:
    """ha_attach of a number that is no connection is EBADF, and nothing is attached."""
    detached = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    qnx.ConnectDetach(detached)
    numbers = {"closed descriptor": next_number(), "detached": detached, "never open": SIDE | 1000, "negative": -1}
    with fails_with(EBADF):
        qnx.ha_attach(numbers[bad], give_up)
    with fails_with(EBADF):
        qnx.ha_detach(numbers[bad])


@checks("B374")
def test_ha_detach_leaves_an_ordinary_connection(qnx: Any, local: LocalServer) -> None:
    """ha_detach returns 0; the connection stays open, and its loss is not recovered from."""
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, 0, local.chid, SIDE, 0, function)
    assert qnx.ha_detach(coid) == 0
    assert qnx.MsgSend(coid, b"message") > 0
    local.end()
    assert not recovers(qnx, coid, function)


@checks("B375")
def test_what_is_not_attached_cannot_be_detached(qnx: Any) -> None:
    """ha_detach of an ordinary connection is EBADF, a second one, too."""
    coid = qnx.ConnectAttach(0, 0, qnx.ChannelCreate(0))
    with fails_with(EBADF):
        qnx.ha_detach(coid)
    qnx.ha_attach(coid, give_up)
    qnx.ha_detach(coid)
    with fails_with(EBADF):
        qnx.ha_detach(coid)


@checks("B374", "B359")
def test_a_connection_can_be_attached_again_after_ha_detach(qnx: Any) -> None:
    """After ha_detach the connection takes another function, with limits and counts of its own."""
    first, second = Recovering(give_up), Recovering(give_up)
    coid = lost(qnx, first)
    qnx.ha_connection_ctrl(coid, HA_RECOVERY_ACOUNT, 0)
    qnx.ha_detach(coid)
    assert qnx.ha_attach(coid, second) == 0
    assert recovers(qnx, coid, second)
    assert first.count == 0


# The calls that make HA-aware connections

Maker = Callable[[Any, Server, Any, Any], int]
MAKERS: Dict[str, Maker] = {
    "ha_open": lambda qnx, server, rfn, rhdl: qnx.ha_open(server.path, os.O_WRONLY, rfn, rhdl),
    "ha_open64": lambda qnx, server, rfn, rhdl: qnx.ha_open64(server.path, os.O_WRONLY, rfn, rhdl),
    "ha_creat": lambda qnx, server, rfn, rhdl: qnx.ha_creat(server.path, 0o600, rfn, rhdl),
    "ha_creat64": lambda qnx, server, rfn, rhdl: qnx.ha_creat64(server.path, 0o600, rfn, rhdl),
    "ha_ConnectAttach": lambda qnx, server, rfn, rhdl: qnx.ha_ConnectAttach(
        0, server.pid, server.chid, SIDE, 0, rfn, rhdl
    ),
    "ha_ConnectAttach_r": lambda qnx, server, rfn, rhdl: qnx.ha_ConnectAttach_r(
        0, server.pid, server.chid, SIDE, 0, rfn, rhdl
    ),
}
BY_PATH = ["ha_open", "ha_open64", "ha_creat", "ha_creat64"]


def make(qnx: Any, start: Start, server: Server, call: str, function: Any, handle: Any = None) -> int:
    """Make an HA-aware connection by one of the calls that do."""
    task = start(MAKERS[call], qnx, server, function, handle)
    if call in BY_PATH:
        assert server.answer().type == IO_CONNECT
    coid: int = task.result()
    return coid


@checks("B378")
@pytest.mark.parametrize("call", MAKERS)
def test_the_calls_of_libha_make_ha_aware_connections(qnx: Any, start: Start, peer: Peer, name: str, call: str) -> None:
    """Each call that makes an HA-aware connection hands function and handle to ha_attach: a killed server shows it."""
    server, handle = Server(peer, name), object()
    function = Recovering(give_up)
    coid = make(qnx, start, server, call, function, handle)
    server.kill()
    assert recovers(qnx, coid, function)
    assert function.calls == [(coid, handle)]
    assert qnx.ha_detach(coid) == 0


@checks("B378", "B311", "B312")
@pytest.mark.parametrize("call", ["ha_creat", "ha_creat64"])
def test_ha_creat_opens_for_writing(qnx: Any, start: Start, server: Server, call: str) -> None:
    """The server sees a write-only open that creates and empties, with the permissions that were given."""
    start(MAKERS[call], qnx, server, give_up, None)
    message = ConnectMessage.from_buffer_copy(server.answer().data)
    assert message.ioflag & KNOWN_FLAGS == 2 | os.O_CREAT | os.O_TRUNC
    assert message.mode & 0o777 == 0o600


@checks("B378")
def test_files_of_the_host_can_be_ha_aware(qnx: Any, tmp_path: Path) -> None:
    """ha_open and ha_creat of an ordinary path open it as open does, and attach."""
    path = tmp_path / "file"
    created = qnx.ha_creat(path, 0o600, give_up)
    assert os.write(created, b"contents") == 8
    assert path.stat().st_mode & 0o777 == 0o600
    read = qnx.ha_open(path, os.O_RDONLY, give_up)
    assert os.read(read, 100) == b"contents"
    assert [qnx.ha_close(fd) for fd in (created, read)] == [0, 0]
    assert not is_descriptor(created)


@checks("B378")
@pytest.mark.parametrize("call", BY_PATH)
def test_an_open_that_fails_attaches_nothing(qnx: Any, start: Start, server: Server, name: str, call: str) -> None:
    """The error of open is that of ha_open and ha_creat, whether the server refuses or is gone."""
    number = next_number()
    task = start(MAKERS[call], qnx, server, give_up, None)
    server.refuse(EPERM)
    assert task.errno() == EPERM
    server.destroy_channel()
    assert start(MAKERS[call], qnx, server, give_up, None).errno() == ESRCH
    assert next_number() <= number
    with fails_with(EBADF):
        qnx.ha_detach(number)


@checks("B378", "B7")
def test_a_connectattach_that_fails_attaches_nothing(qnx: Any) -> None:
    """The error of ConnectAttach is that of ha_ConnectAttach; ha_ConnectAttach_r returns it, negative."""
    with fails_with(ESRCH):
        qnx.ha_ConnectAttach(0, 0, 9999, SIDE, 0, give_up)
    assert qnx.ha_ConnectAttach_r(0, 0, 9999, SIDE, 0, give_up) == -ESRCH


@checks("B379", "D4")
@open_point("D4")
@pytest.mark.parametrize("call", ["ha_open", "ha_creat", "ha_ConnectAttach"])
def test_a_failed_attach_leaves_no_connection(
    qnx: Any, start: Start, start_peer: StartPeer, name: str, call: str
) -> None:
    """When ha_attach refuses its part, here for an unknown flag, the new connection is closed; the error is raised."""
    peer = start_peer()
    chid = peer.run(attach_and_serve, name)
    calls: Dict[str, Callable[[], int]] = {
        "ha_open": lambda: qnx.ha_open(path_of(name), os.O_RDWR, give_up, None, 0x4000),
        "ha_creat": lambda: qnx.ha_creat(path_of(name), 0o666, give_up, None, 0x4000),
        "ha_ConnectAttach": lambda: qnx.ha_ConnectAttach(0, peer.pid, chid, 0, 0, give_up, None, 0x4000),
    }
    number = next_number()
    assert start(calls[call]).errno() == EINVAL
    assert next_number() <= number
    with fails_with(EBADF):
        qnx.ha_detach(number)


def attach_and_serve(qnx: Any, name: str) -> int:
    """In another process: take a name and a path, and answer all that comes."""
    chid = attach_both(qnx, name)
    Task(serve, qnx, chid)
    return chid


@checks("D4", "B379")
@open_point("D4")
@pytest.mark.parametrize("function", [None, 3, "name"])
def test_what_cannot_be_called_is_no_recovery_function(qnx: Any, function: object) -> None:
    """A recovery function that is not callable is a TypeError, and no connection is left."""
    chid = qnx.ChannelCreate(0)
    number = next_number()
    with pytest.raises(TypeError):
        qnx.ha_ConnectAttach(0, 0, chid, 0, 0, function)
    with pytest.raises(TypeError):
        qnx.ha_open(os.devnull, os.O_RDONLY, function)
    assert next_number() <= number
    coid = qnx.ConnectAttach(0, 0, chid)
    with pytest.raises(TypeError):
        qnx.ha_attach(coid, function)
    with fails_with(EBADF):
        qnx.ha_detach(coid)


# ha_close and ha_ConnectDetach


@checks("B376")
def test_ha_close_detaches_and_closes(qnx: Any, start: Start, server: Server) -> None:
    """The server gets _IO_CLOSE, the number is free, and nothing is attached to it."""
    fd = ha_opened(qnx, start, server, give_up)
    task = start(qnx.ha_close, fd)
    seen = server.answer()
    assert (seen.type, seen.coid, task.result()) == (IO_CLOSE, fd, 0)
    assert not is_descriptor(fd)
    with fails_with(EBADF):
        qnx.ha_detach(fd)


@checks("B376")
@pytest.mark.parametrize("call", ["ha_ConnectDetach", "ha_ConnectDetach_r"])
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_ha_connectdetach_detaches_from_the_library_and_the_server(
    qnx: Any, start: Start, call: str, index: int
) -> None:
    """The server gets the disconnect pulse and no message; the number is no connection any more."""
    chid = qnx.ChannelCreate(NTO_CHF_DISCONNECT)
    coid = qnx.ha_ConnectAttach(0, 0, chid, index, 0, give_up)
    assert getattr(qnx, call)(coid) == 0
    with fails_with(EINVAL):
        qnx.ConnectDetach(coid)
    with fails_with(EBADF):
        qnx.ha_detach(coid)
    assert start(take, qnx, chid).result().pulse.code == PULSE_CODE_DISCONNECT


@checks("B376", "D24")
@pytest.mark.parametrize("call", ["close", "ha_close"])
def test_closing_a_lost_descriptor_does_not_recover_it(
    qnx: Any, start: Start, peer: Peer, name: str, call: str
) -> None:
    """A descriptor is detached from the library first: that its _IO_CLOSE fails calls no recovery function."""
    server = Server(peer, name)
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    server.kill()
    assert start(getattr(qnx, call), fd).errno() == EBADF
    assert function.count == 0
    assert not is_descriptor(fd)


@checks("B376", "B55", "D24")
@pytest.mark.parametrize("call", ["ConnectDetach", "ha_ConnectDetach", "ha_ConnectDetach_r", "name_close"])
def test_detaching_a_lost_connection_does_not_recover_it(qnx: Any, call: str) -> None:
    """A connection whose server is gone can be detached by any of the calls, and no recovery function is called."""
    function = Recovering(give_up)
    coid = lost(qnx, function)
    assert getattr(qnx, call)(coid) == 0
    assert function.count == 0
    with fails_with(EBADF):
        qnx.ha_detach(coid)


@checks("B376", "B329")
def test_ha_close_frees_the_descriptor_though_the_server_refuses(qnx: Any, start: Start, server: Server) -> None:
    """Like close: the error is the server's, the descriptor is closed, and nothing is attached."""
    fd = ha_opened(qnx, start, server, give_up)
    task = start(qnx.ha_close, fd)
    server.refuse(EIO)
    assert task.errno() == EIO
    assert not is_descriptor(fd)
    with fails_with(EBADF):
        qnx.ha_detach(fd)


@checks("D24", "B330")
@open_point("D24")
@pytest.mark.parametrize("call", ["close", "ha_close"])
def test_a_close_that_is_interrupted_leaves_the_attachment(qnx: Any, start: Start, server: Server, call: str) -> None:
    """A descriptor that stays open because close was interrupted stays HA-aware."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    task = start(getattr(qnx, call), fd)
    server.refuse(EINTR)
    assert task.errno() == EINTR
    server.destroy_channel()
    assert recovers(qnx, fd, function)


@checks("B377", "D3")
@open_point("D3")
def test_ha_close_is_for_ha_aware_descriptors(qnx: Any, start: Start, server: Server) -> None:
    """ha_close of an ordinary descriptor is EBADF; the server hears nothing of it, and the descriptor stays open."""
    fd = opened(qnx, start, server)
    with fails_with(EBADF):
        start(qnx.ha_close, fd).result()
    task = start(qnx.MsgSend, fd, b"still here", None)
    assert server.answer(3).data == b"still here"
    assert task.result() == 3


@checks("B377", "D3")
@open_point("D3")
@pytest.mark.parametrize("index", [0, SIDE], ids=["descriptor", "side channel"])
def test_ha_connectdetach_is_for_ha_aware_connections(qnx: Any, local: LocalServer, index: int) -> None:
    """ha_ConnectDetach of an ordinary connection is EBADF, ha_ConnectDetach_r -EBADF; the connection stays open."""
    coid = qnx.ConnectAttach(0, 0, local.chid, index)
    with fails_with(EBADF):
        qnx.ha_ConnectDetach(coid)
    assert qnx.ha_ConnectDetach_r(coid) == -EBADF
    assert qnx.MsgSend(coid, b"message") > 0


@checks("D3")
@open_point("D3")
def test_ha_close_of_what_is_not_open_fails(qnx: Any) -> None:
    """ha_close and ha_ConnectDetach of a number that is no connection are EBADF."""
    for number in (next_number(), SIDE | 1000, -1):
        with fails_with(EBADF):
            qnx.ha_close(number)
        with fails_with(EBADF):
            qnx.ha_ConnectDetach(number)


# Duplicates


def ha_duplicated(qnx: Any, start: Start, server: Server, fd: int) -> int:
    """A duplicate made by ha_dup."""
    task = start(qnx.ha_dup, fd)
    assert server.answer().type == IO_DUP
    duplicate: int = task.result()
    return duplicate


@checks("B380")
def test_ha_dup_makes_an_ha_aware_duplicate(qnx: Any, start: Start, server: Server) -> None:
    """The duplicate has the lowest free number, and the function and the handle of the original."""
    handle = object()
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function, handle)
    lowest = next_number()
    duplicate = ha_duplicated(qnx, start, server, fd)
    assert duplicate <= lowest
    server.destroy_channel()
    assert recovers(qnx, duplicate, function)
    assert recovers(qnx, fd, function)
    assert function.calls == [(duplicate, handle), (fd, handle)]


@checks("B380", "B371")
def test_duplicates_share_their_recovery_function(qnx: Any, start: Start, server: Server) -> None:
    """Replacing the function and the handle of one duplicate replaces them for both."""
    old, new = Recovering(give_up), Recovering(give_up)
    fd = ha_opened(qnx, start, server, old)
    duplicate = ha_duplicated(qnx, start, server, fd)
    qnx.ha_attach(duplicate, new, "new handle", HAREPLACERECOVERYFN)
    server.destroy_channel()
    assert recovers(qnx, fd, new)
    assert recovers(qnx, duplicate, new)
    assert (old.calls, new.calls) == ([], [(fd, "new handle"), (duplicate, "new handle")])


@checks("B381")
@pytest.mark.parametrize("first", [0, 1], ids=["original", "duplicate"])
def test_a_duplicate_stays_ha_aware_when_the_other_is_closed(
    qnx: Any, start: Start, server: Server, first: int
) -> None:
    """Closing one of two duplicates leaves the other its recovery function."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    pair = fd, ha_duplicated(qnx, start, server, fd)
    task = start(qnx.ha_close, pair[first])
    server.answer()
    assert task.result() == 0
    server.destroy_channel()
    assert recovers(qnx, pair[1 - first], function)


@checks("B381", "B374")
def test_a_duplicate_stays_ha_aware_when_the_other_is_detached(qnx: Any, start: Start, server: Server) -> None:
    """ha_detach makes an ordinary connection of the one that it is given, not of its duplicate."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    duplicate = ha_duplicated(qnx, start, server, fd)
    assert qnx.ha_detach(fd) == 0
    server.destroy_channel()
    assert not recovers(qnx, fd, function)
    assert recovers(qnx, duplicate, function)


class Handle:
    """A handle whose end can be noticed."""


@checks("B381")
def test_the_recovery_data_goes_with_the_last_duplicate(qnx: Any, start: Start, server: Server) -> None:
    """Function and handle are kept until the last connection that has them is closed, and not longer."""
    handle = Handle()
    reference = weakref.ref(handle)
    fd = qnx.ha_ConnectAttach(0, server.pid, server.chid, 0, 0, give_up, handle)
    del handle
    duplicate = ha_duplicated(qnx, start, server, fd)
    for number, lives in ((fd, True), (duplicate, False)):
        task = start(qnx.ha_close, number)
        server.answer()
        task.result()
        gc.collect()
        assert (reference() is not None) == lives


@checks("B382")
def test_ha_dup_is_for_ha_aware_descriptors(qnx: Any, start: Start, server: Server) -> None:
    """ha_dup of an ordinary descriptor is EBADF, and the server hears nothing of it."""
    fd = opened(qnx, start, server)
    number = next_number()
    with fails_with(EBADF):
        start(qnx.ha_dup, fd).result()
    with fails_with(EBADF):
        qnx.ha_dup(number)
    assert next_number() <= number
    start(qnx.MsgSend, fd, b"next", None)
    assert server.answer().data == b"next"


@checks("B382", "B334", "B336")
def test_ha_dup_fails_as_dup_does(qnx: Any, start: Start, server: Server) -> None:
    """A server that refuses, and one that is gone: ha_dup has dup's error, leaves nothing, and does not recover."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    number = next_number()
    task = start(qnx.ha_dup, fd)
    server.refuse(EPERM)
    assert task.errno() == EPERM
    assert next_number() <= number
    server.destroy_channel()
    assert start(qnx.ha_dup, fd).errno() == ESRCH
    assert next_number() <= number
    assert function.count == 0
    with fails_with(EBADF):
        qnx.ha_detach(number)


@checks("B382", "B335")
def test_a_side_channel_cannot_be_duplicated_by_ha_dup(qnx: Any) -> None:
    """Like dup: ha_dup of an HA-aware side channel is EBADF."""
    coid = qnx.ha_ConnectAttach(0, 0, qnx.ChannelCreate(0), SIDE, 0, give_up)
    with fails_with(EBADF):
        qnx.ha_dup(coid)


@checks("B383", "D5")
@open_point("D5")
@pytest.mark.parametrize("call", ["dup", "dup2"])
def test_a_plain_duplicate_is_ordinary(qnx: Any, start: Start, server: Server, call: str) -> None:
    """What dup and dup2 make of an HA-aware descriptor is not HA-aware; the original still is."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    task = start(qnx.dup, fd) if call == "dup" else start(qnx.dup2, fd, next_number())
    assert server.answer().type == IO_DUP
    copy = task.result()
    with fails_with(EBADF):
        qnx.ha_detach(copy)
    server.destroy_channel()
    assert not recovers(qnx, copy, function)
    assert recovers(qnx, fd, function)


# Stale attachments


@checks("D24")
@open_point("D24")
@pytest.mark.parametrize(
    ("index", "call"), [(0, "ConnectDetach"), (0, "close"), (SIDE, "ConnectDetach"), (SIDE, "name_close")]
)
def test_ending_a_connection_drops_its_attachment(
    qnx: Any, start: Start, server: Server, index: int, call: str
) -> None:
    """A new connection that gets the number of one that was HA-aware is an ordinary one."""
    function = Recovering(give_up)
    coid = qnx.ha_ConnectAttach(0, server.pid, server.chid, index, 0, function)
    task = start(getattr(qnx, call), coid)
    if call == "close":
        server.answer()
    assert task.result() == 0
    with fails_with(EBADF):
        qnx.ha_detach(coid)
    assert qnx.ConnectAttach(0, server.pid, server.chid, index) == coid
    server.destroy_channel()
    assert not recovers(qnx, coid, function)


@checks("D24", "D17")
@open_point("D24")
@pytest.mark.parametrize("maker", ["ConnectAttach", "open", "dup", "dup2"])
def test_a_connection_under_a_stolen_number_is_ordinary(qnx: Any, start: Start, server: Server, maker: str) -> None:
    """An HA-aware descriptor is closed behind the library's back: the next connection of its number is ordinary."""
    other = opened(qnx, start, server)
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    os.close(fd)
    calls: Dict[str, Callable[[], Any]] = {
        "ConnectAttach": lambda: qnx.ConnectAttach(0, server.pid, server.chid, 0),
        "open": lambda: qnx.open(server.path, os.O_RDWR),
        "dup": lambda: qnx.dup(other),
        "dup2": lambda: qnx.dup2(other, fd),
    }
    task = start(calls[maker])
    if maker != "ConnectAttach":
        seen = server.answer()
        assert (seen.type, seen.coid) == (IO_CONNECT if maker == "open" else IO_DUP, fd)
    assert task.result() == fd
    server.destroy_channel()
    assert not recovers(qnx, fd, function)
    with fails_with(EBADF):
        qnx.ha_detach(fd)


@checks("D24")
@open_point("D24")
def test_dup2_drops_the_attachment_of_what_it_replaces(qnx: Any, start: Start, server: Server) -> None:
    """A descriptor that dup2 puts in the place of an HA-aware one is ordinary, whatever it is a copy of."""
    function = Recovering(give_up)
    fd, other = ha_opened(qnx, start, server, function), opened(qnx, start, server)
    task = start(qnx.dup2, other, fd)
    assert [server.answer().type for _ in range(2)] == [IO_CLOSE, IO_DUP]
    assert task.result() == fd
    server.destroy_channel()
    assert not recovers(qnx, fd, function)


@checks("D24")
@open_point("D24")
def test_dup2_of_a_file_drops_the_attachment_of_what_it_replaces(qnx: Any, start: Start, server: Server) -> None:
    """A file of the host that dup2 puts in the place of an HA-aware connection is not HA-aware."""
    fd = ha_opened(qnx, start, server, give_up)
    file = qnx.open(os.devnull, os.O_RDWR)
    task = start(qnx.dup2, file, fd)
    assert server.answer().type == IO_CLOSE
    assert task.result() == fd
    with fails_with(EBADF):
        qnx.ha_detach(fd)


@checks("D24", "B339")
@open_point("D24")
def test_dup2_onto_itself_keeps_the_attachment(qnx: Any, start: Start, server: Server) -> None:
    """Nothing ends when a descriptor is duplicated onto itself: it stays HA-aware."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    assert start(qnx.dup2, fd, fd).result() == fd
    server.destroy_channel()
    assert recovers(qnx, fd, function)


@checks("D24", "B340")
@open_point("D24")
def test_a_dup2_that_fails_early_keeps_the_attachment(qnx: Any, start: Start, server: Server) -> None:
    """When dup2 fails before it closes anything, what it was to replace stays open and HA-aware."""
    function = Recovering(give_up)
    fd = ha_opened(qnx, start, server, function)
    with fails_with(EBADF):
        qnx.dup2(next_number(), fd)
    server.destroy_channel()
    assert recovers(qnx, fd, function)


@checks("D24", "B384")
@open_point("D24")
@pytest.mark.parametrize("how", ["close and open", "ConnectDetach and ConnectAttach", "dup2"])
def test_in_its_own_recovery_function_a_connection_keeps_its_attachment(
    qnx: Any, start: Start, start_peer: StartPeer, name: str, how: str
) -> None:
    """A recovery function may end the connection and make it anew by plain calls, and it stays attached."""
    first, second = Server(start_peer(), name), start_peer()
    chid = second.run(attach_and_serve, f"{name}-2")
    path = path_of(f"{name}-2")

    def recover(coid: int) -> Any:
        if how == "dup2":
            fresh = qnx.open(path, os.O_RDWR)
            qnx.dup2(fresh, coid)
            qnx.close(fresh)
            return coid
        if how == "close and open":
            with fails_with(EBADF):
                qnx.close(coid)
            return qnx.open(path, os.O_RDWR)
        qnx.ConnectDetach(coid)
        return qnx.ConnectAttach(0, second.pid, chid, 0)

    function = Recovering(recover, give_up)
    fd = ha_opened(qnx, start, first, function)
    first.kill()
    assert start(qnx.MsgSend, fd, b"question", bytearray(10)).result() == second.pid
    second.kill()
    assert recovers(qnx, fd, function)
    assert function.calls == [(fd, None)] * 2


# A number closed behind the library's back


@checks("D17")
@pytest.mark.parametrize("call", ["MsgSend", "MsgSendv", "MsgSendPulse", "MsgSendPulsePtr"])
def test_a_number_that_was_closed_elsewhere_is_bad(qnx: Any, start: Start, server: Server, call: str) -> None:
    """A connection whose descriptor os.close has closed is EBADF; nothing of it reaches the server."""
    fd, other = opened(qnx, start, server), opened(qnx, start, server)
    os.close(fd)
    arguments = {
        "MsgSend": (b"message", bytearray(5)),
        "MsgSendv": ([b"message"], None),
        "MsgSendPulse": (10, 1, 1),
        "MsgSendPulsePtr": (10, 1, 1),
    }
    with fails_with(EBADF):
        start(getattr(qnx, call), fd, *arguments[call]).result()
    start(qnx.MsgSend, other, b"next", None)
    assert server.answer().data == b"next"


@checks("D17")
@pytest.mark.parametrize("call", ["MsgSend", "MsgSendv", "MsgSendPulse", "MsgSendPulsePtr", "close", "ConnectDetach"])
def test_what_has_a_connections_number_by_now_is_left_alone(
    qnx: Any, start: Start, server: Server, tmp_path: Path, call: str
) -> None:
    """A file that got the number of a connection is not written to, nor does the server hear of it."""
    other, fd = opened(qnx, start, server), opened(qnx, start, server)
    os.close(fd)
    path = tmp_path / "file"
    assert os.open(path, os.O_RDWR | os.O_CREAT) == fd
    arguments = {
        "MsgSend": (b"message", bytearray(5)),
        "MsgSendv": ([b"message"], None),
        "MsgSendPulse": (10, 1, 1),
        "MsgSendPulsePtr": (10, 1, 1),
    }
    with fails_with(EINVAL if call == "ConnectDetach" else EBADF):
        start(getattr(qnx, call), fd, *arguments.get(call, ())).result()
    assert os.path.samestat(os.fstat(fd), path.stat())
    assert path.read_bytes() == b""
    start(qnx.MsgSend, other, b"next", None)
    assert server.answer().data == b"next"


@checks("D17", "D2")
def test_what_has_a_connections_number_by_now_cannot_become_ha_aware(
    qnx: Any, start: Start, server: Server, tmp_path: Path
) -> None:
    """What took the place of a connection behind the library's back is none, and ha_attach says so."""
    fd = opened(qnx, start, server)
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), fd)
    with fails_with(EBADF):
        qnx.ha_attach(fd, lambda coid, _handle: coid)
    os.close(fd)


@checks("D17", "D24", "B376")
@pytest.mark.parametrize("call", ["ConnectDetach", "ha_ConnectDetach"])
def test_what_took_a_connections_place_is_not_recovered(
    qnx: Any, start: Start, server: Server, tmp_path: Path, call: str
) -> None:
    """Once a connection is detached under which there is something else, that has no recovery function either."""
    fd = opened(qnx, start, server)
    qnx.ha_attach(fd, lambda coid, _handle: coid)
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), fd)
    with fails_with(EINVAL):
        getattr(qnx, call)(fd)
    with fails_with(EBADF):
        qnx.ha_detach(fd)
    os.close(fd)


@checks("D17", "D24")
@pytest.mark.parametrize("call", ["open", "ha_open", "dup"])
def test_what_is_given_the_number_of_a_lost_connection_is_usable(
    qnx: Any, start: Start, server: Server, tmp_path: Path, call: str
) -> None:
    """A new descriptor is what it is, whatever had its number before and was closed behind the library's back."""
    fd = opened(qnx, start, server)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    source = os.open(path, os.O_RDONLY)
    os.close(fd)
    made = {
        "open": lambda: qnx.open(path, os.O_RDONLY),
        "ha_open": lambda: qnx.ha_open(path, os.O_RDONLY, Recovering(give_up)),
        "dup": lambda: qnx.dup(source),
    }[call]()
    assert made == fd
    assert qnx.read(made, 10) == b"content"
    qnx.close(made)
    os.close(source)


@checks("D17", "B384")
def test_a_descriptor_that_was_closed_elsewhere_recovers(qnx: Any, start: Start, server: Server) -> None:
    """An HA-aware descriptor that os.close has closed is reopened under its number, as after the loss of its server."""
    function = Recovering(lambda coid: qnx.ha_reopen(coid, server.path, os.O_RDWR))
    fd = ha_opened(qnx, start, server, function)
    os.close(fd)
    task = start(qnx.MsgSend, fd, b"question", None)
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT
    assert server.answer().type == IO_CONNECT
    seen = server.answer(4)
    assert (seen.data, seen.coid) == (b"question", fd)
    assert task.result() == 4
    assert function.count == 1


@checks("D17", "B385")
def test_what_took_a_connections_place_comes_first(qnx: Any, tmp_path: Path) -> None:
    """A connection that cannot be had again since its number is another's is EBADF, whether its server lives or not."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid, 0)
    qnx.ChannelDestroy(chid)
    with open(tmp_path / "file", "wb") as file:
        os.dup2(file.fileno(), coid)
    with fails_with(EBADF):
        qnx.ha_ReConnectAttach(coid, 0, 0, chid, 0, 0)
    os.close(coid)


@checks("D17", "B385")
def test_a_raw_connection_that_was_closed_elsewhere_recovers(qnx: Any, start: Start) -> None:
    """The same with ConnectAttach: the connection is attached anew under its number."""
    chid = qnx.ChannelCreate(0)
    function = Recovering(reconnecting(qnx, 0, chid))
    coid = qnx.ha_ConnectAttach(0, 0, chid, 0, 0, function)
    os.close(coid)
    task = start(qnx.MsgSend, coid, b"question", None)
    seen = start(answer, qnx, chid, 4).result()
    assert (seen.data, seen.coid, task.result()) == (b"question", coid, 4)
    assert function.count == 1


@checks("D17", "D6")
@open_point("D6")
def test_what_has_an_ha_aware_number_by_now_is_never_written_to(
    qnx: Any, start: Start, server: Server, tmp_path: Path
) -> None:
    """A file that got the number of an HA-aware descriptor stays as it is, also after a recovery that failed."""
    fd = ha_opened(qnx, start, server, Recovering(lambda coid: qnx.ha_reopen(coid, server.path, os.O_RDWR)))
    os.close(fd)
    path = tmp_path / "file"
    assert os.open(path, os.O_RDWR | os.O_CREAT) == fd
    for _ in range(3):
        with fails_with(EBADF):
            start(qnx.write, fd, b"data").result()
    assert os.path.samestat(os.fstat(fd), path.stat())
    assert path.read_bytes() == b""
