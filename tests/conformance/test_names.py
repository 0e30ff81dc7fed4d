"""Names: name_attach, name_detach, name_open and name_close, and who gets the name of a server that died."""

import contextlib
import os
import signal
import struct
from errno import EACCES, EBADF, EBUSY, EEXIST, EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOSYS, ESRCH
from pathlib import Path
from typing import Any

import pytest

from ha_qnx import (
    EBADFSYS,
    EOK,
    FTYPE_NAME,
    IO_CONNECT,
    IO_CONNECT_OPEN,
    NAME_FLAG_ATTACH_GLOBAL,
    NAME_FLAG_DETACH_SAVEDPP,
    NTO_CHF_COID_DISCONNECT,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
)

from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import ConnectMessage, Server, Start, StartPeer, answer, attach, fork_an_idle_child, take
from .waiting import eventually


def opened_name(qnx: Any, start: Start, server: Server, name: str) -> int:
    """A connection to a name, whose server has agreed."""
    task = start(qnx.name_open, name)
    assert server.answer().type == IO_CONNECT
    coid: int = task.result()
    return coid


# name_attach


@checks("B286")
def test_a_name_leads_to_its_channel(qnx: Any, start: Start, server: Server, name: str) -> None:
    """A client that opens a name reaches the channel that name_attach has made."""
    assert server.chid > 0
    coid = opened_name(qnx, start, server, name)
    task = start(qnx.MsgSend, coid, b"question", None)
    seen = server.answer(5)
    assert (seen.data, seen.chid) == (b"question", server.chid)
    assert task.result() == 5


def send_for_a_moment(qnx: Any, coid: int) -> int:
    """Send a message, and give up very soon after it was received."""
    qnx.TimerTimeout(NTO_TIMEOUT_REPLY, 1_000_000)
    status: int = qnx.MsgSend(coid, b"message")
    return status


@checks("B287")
def test_the_channel_of_a_name_hears_of_clients_that_give_up(qnx: Any, start: Start, server: Server, name: str) -> None:
    """name_attach sets NTO_CHF_UNBLOCK: the server gets a pulse with the rcvid, and its answer is what counts."""
    coid = opened_name(qnx, start, server, name)
    task = start(send_for_a_moment, qnx, coid)
    seen = server.take()
    pulse = server.take().pulse
    assert (pulse.code, pulse.value.sival_int) == (PULSE_CODE_UNBLOCK, seen.rcvid)
    server.reply(seen, 3)
    assert task.result() == 3


@checks("B287")
def test_the_channel_of_a_name_hears_of_servers_that_go(qnx: Any, name: str) -> None:
    """name_attach sets NTO_CHF_COID_DISCONNECT, which one channel of a process can have."""
    attached = qnx.name_attach(name)
    with fails_with(EBUSY):
        qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT)
    qnx.name_detach(attached)
    assert qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT) > 0


@checks("B288")
def test_a_process_can_have_two_names(qnx: Any, name: str) -> None:
    """The channel of a second name does not have NTO_CHF_COID_DISCONNECT: the flag is free when the first name goes."""
    first = qnx.name_attach(f"{name}-1")
    second = qnx.name_attach(f"{name}-2")
    assert first.chid != second.chid
    qnx.name_detach(first)
    assert qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT) > 0


@checks("B289")
@pytest.mark.parametrize("path", [None, "", "/absolute"])
@pytest.mark.parametrize("call", ["name_attach", "name_open"])
def test_a_name_is_relative_and_not_empty(qnx: Any, call: str, path: object) -> None:
    """No path, an empty one and an absolute one are EINVAL, and no channel is left."""
    chid = qnx.ChannelCreate(0)
    qnx.ChannelDestroy(chid)
    with fails_with(EINVAL):
        getattr(qnx, call)(path)
    assert qnx.ChannelCreate(0) == chid


@checks("B290")
@pytest.mark.parametrize("path", ["..", "../name", "a/../b", "a/.."])
def test_a_name_does_not_lead_upwards(qnx: Any, path: str) -> None:
    """A name with a component '..' is EINVAL."""
    with fails_with(EINVAL):
        qnx.name_attach(path)


@checks("B290")
def test_dots_in_a_name_are_ordinary(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """Only a whole component '..' is refused: a name may begin with dots and have some inside."""
    opened_name(qnx, start, Server(peer, f"..{name}...v1.0.."), f"..{name}...v1.0..")


@checks("B291")
def test_names_may_have_slashes(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> None:
    """A name with a slash is another one than those of its parts, and is found by name_open and by open."""
    outer, inner = Server(start_peer(), name), Server(start_peer(), f"{name}/inner")
    opened_name(qnx, start, outer, name)
    opened_name(qnx, start, inner, f"{name}/inner")
    task = start(qnx.open, inner.path, os.O_RDWR)
    assert inner.answer().type == IO_CONNECT
    task.result()


@checks("B291")
def test_a_name_may_have_long_components(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """A name is a path: what limits a file name limits each of its components, not the whole."""
    long = "/".join((name, "a" * 200, "b" * 200, "c" * 200))
    opened_name(qnx, start, Server(peer, long), long)


@checks("B291")
def test_a_name_may_have_any_character(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """What is special to a host's file system or shell is not in a name, nor is a letter beyond ASCII."""
    strange = f"{name} %2F*?~$;\\\N{LATIN SMALL LETTER E WITH ACUTE}"
    opened_name(qnx, start, Server(peer, strange), strange)


@checks("B292")
def test_a_global_name_is_no_local_one(qnx: Any, name: str) -> None:
    """What name_attach is asked to register globally is not found locally, be there a name service or not."""
    with contextlib.suppress(OSError):
        qnx.name_attach(name, NAME_FLAG_ATTACH_GLOBAL)
    with fails_with(ENOENT):
        qnx.name_open(name)


@checks("B293")
def test_a_process_cannot_attach_a_name_twice(qnx: Any, start: Start, name: str) -> None:
    """name_attach of a name that this process has is EEXIST, and the name works on."""
    attached = qnx.name_attach(name)
    with fails_with(EEXIST):
        qnx.name_attach(name)
    task = start(qnx.name_open, name)
    start(answer, qnx, attached.chid).result()
    assert task.result() > 0


@checks("B293")
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_two_live_servers_cannot_have_one_name(qnx: Any, peer: Peer, name: str, stopped: bool) -> None:
    """name_attach of a name that another process has is EEXIST, even if that process is stopped."""
    Server(peer, name)
    if stopped:
        peer.stop()
    with fails_with(EEXIST):
        qnx.name_attach(name)


@checks("B294")
def test_a_failed_name_attach_leaves_no_channel(qnx: Any, peer: Peer, name: str) -> None:
    """The channel that was made for a name is destroyed again, and its flag is free, when the name is taken."""
    Server(peer, name)
    chid = qnx.ChannelCreate(0)
    qnx.ChannelDestroy(chid)
    with fails_with(EEXIST):
        qnx.name_attach(name)
    assert qnx.ChannelCreate(NTO_CHF_COID_DISCONNECT) == chid


def contend(qnx: Any, name: str, witness: str, rounds: int) -> int:
    """In another process: take and release a name, again and again, and see to it that nobody else has it."""
    successes = 0
    for _round in range(rounds):
        try:
            attached = qnx.name_attach(name)
        except FileExistsError:
            continue
        os.mkdir(witness)  # Fails if another process is here, too.
        os.rmdir(witness)
        qnx.name_detach(attached)
        successes += 1
    return successes


@checks("B293", "B296")
def test_a_name_that_changes_hands_is_never_in_two(start_peer: StartPeer, name: str, tmp_path: Path) -> None:
    """Three processes that take and release a name as fast as they can never have it at the same time."""
    peers = [start_peer() for _ in range(3)]
    contests = [peer.start(contend, name, str(tmp_path / "witness"), 150) for peer in peers]
    assert sum(contest.result() for contest in contests) > 0


# A server that died


@checks("B295", "B305")
def test_the_name_of_a_killed_server_is_gone(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """After a SIGKILL the server's name is not found: neither by name_open nor by open."""
    server = Server(peer, name)
    opened_name(qnx, start, server, name)
    server.kill()
    with fails_with(ENOENT):
        qnx.name_open(name)
    with fails_with(ENOENT):
        qnx.open(server.path, os.O_RDWR)


@checks("B295")
def test_a_successor_takes_the_name_of_a_killed_server_at_once(
    qnx: Any, start: Start, start_peer: StartPeer, name: str
) -> None:
    """The first attempt of a successor succeeds, and new clients reach the successor."""
    first, second = Server(start_peer(), name), start_peer()
    first.kill()
    successor = Server(second, name)
    coid = opened_name(qnx, start, successor, name)
    start(qnx.MsgSend, coid, b"question", None)
    assert successor.answer().data == b"question"


@checks("B295")
def test_a_name_is_free_before_its_dead_server_is_reaped(qnx: Any, peer: Peer, name: str) -> None:
    """The name goes with the process; it does not wait until the parent has taken note."""
    Server(peer, name)
    peer.signal(signal.SIGKILL)
    os.waitid(os.P_PID, peer.pid, os.WEXITED | os.WNOWAIT)
    assert qnx.name_attach(name).path == name


@checks("B305", "B314")
def test_a_name_is_not_found_before_its_dead_server_is_reaped(qnx: Any, peer: Peer, name: str) -> None:
    """name_open and open of the name of a zombie fail with ENOENT."""
    server = Server(peer, name)
    peer.signal(signal.SIGKILL)
    os.waitid(os.P_PID, peer.pid, os.WEXITED | os.WNOWAIT)
    with fails_with(ENOENT):
        qnx.name_open(name)
    with fails_with(ENOENT):
        qnx.open(server.path, os.O_RDWR)


@checks("B295", "B293")
def test_one_of_several_successors_gets_the_name(start_peer: StartPeer, name: str) -> None:
    """When several processes want the name of a killed server, one gets it and the others are told EEXIST."""
    first = Server(start_peer(), name)
    peers = [start_peer() for _ in range(3)]
    first.kill()
    attempts = [peer.start(attach, name) for peer in peers]
    errors = []
    for attempt in attempts:
        try:
            assert attempt.result() > 0
        except OSError as error:
            errors.append(error.errno)
    assert errors == [EEXIST] * 2


@checks("B295", "B269")
def test_a_child_does_not_hold_the_name_of_its_killed_parent(qnx: Any, peer: Peer, name: str) -> None:
    """A forked child of the server has no part in the name, which is free when the server is killed."""
    peer.run(attach, name)
    child = peer.run(fork_an_idle_child)
    try:
        with fails_with(EEXIST):
            qnx.name_attach(name)
        peer.kill()
        assert qnx.name_attach(name).path == name
    finally:
        os.kill(child, signal.SIGKILL)


# name_detach


def attach_and_detach(qnx: Any, name: str, blocked: int) -> int:
    """In another process: take a name, agree to one client, wait for its message, and detach the name."""
    attached = qnx.name_attach(name)
    answer(qnx, attached.chid)
    for _message in range(blocked):
        take(qnx, attached.chid)
    result: int = qnx.name_detach(attached)
    return result


@checks("B296")
def test_name_detach_ends_the_name_and_its_channel(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """name_detach returns 0; the name is free, a waiting client gets ESRCH, and later sends get EBADF."""
    detaching = peer.start(attach_and_detach, name, 1)
    coid = eventually(lambda: _try_to_open(qnx, name), "the name")
    task = start(qnx.MsgSend, coid, b"message", None)
    assert detaching.result() == 0
    assert task.errno() == ESRCH
    with fails_with(EBADF):
        qnx.MsgSend(coid, b"message")
    with fails_with(ENOENT):
        qnx.name_open(name)
    assert qnx.name_attach(name).chid > 0


def _try_to_open(qnx: Any, name: str) -> Any:
    with contextlib.suppress(FileNotFoundError):
        return qnx.name_open(name)
    return None


@checks("B296")
def test_name_detach_destroys_the_channel(qnx: Any, name: str) -> None:
    """The channel of a detached name exists no more."""
    attached = qnx.name_attach(name)
    assert qnx.name_detach(attached) == 0
    with fails_with(ESRCH):
        qnx.MsgReceive(attached.chid, bytearray(100))
    with fails_with(EINVAL):
        qnx.ChannelDestroy(attached.chid)


@checks("B296")
def test_a_name_can_be_detached_once(qnx: Any, name: str) -> None:
    """A second name_detach is EINVAL and does not touch whoever has the name by then."""
    attached = qnx.name_attach(name)
    qnx.name_detach(attached)
    qnx.name_attach(name)
    with fails_with(EINVAL):
        qnx.name_detach(attached)
    with fails_with(EEXIST):
        qnx.name_attach(name)


@checks("B297")
def test_name_detach_can_keep_the_channel(qnx: Any, start: Start, name: str) -> None:
    """With NAME_FLAG_DETACH_SAVEDPP the name goes, and clients that are connected stay so."""
    attached = qnx.name_attach(name)
    coid = qnx.ConnectAttach(0, 0, attached.chid)
    assert qnx.name_detach(attached, NAME_FLAG_DETACH_SAVEDPP) == 0
    with fails_with(ENOENT):
        qnx.name_open(name)
    task = start(qnx.MsgSend, coid, b"message", None)
    assert start(answer, qnx, attached.chid, 4).result().data == b"message"
    assert task.result() == 4
    assert qnx.ChannelDestroy(attached.chid) == 0


# name_open


@checks("B298")
def test_name_open_returns_the_lowest_free_side_channel(qnx: Any, start: Start, server: Server, name: str) -> None:
    """The connection has bit 30 set, and a number that was given up is used again."""
    first, second = opened_name(qnx, start, server, name), opened_name(qnx, start, server, name)
    assert first & NTO_SIDE_CHANNEL
    assert second > first
    qnx.ConnectDetach(first)
    assert opened_name(qnx, start, server, name) == first


@checks("B300", "B301", "B303", "D25")
@open_point("D25")
def test_name_open_asks_the_server(qnx: Any, start: Start, server: Server, name: str) -> None:
    """The server gets an _IO_CONNECT message of subtype _IO_CONNECT_OPEN; name_open waits for its EOK."""
    task = start(qnx.name_open, name)
    seen = server.take()
    message = ConnectMessage.from_buffer_copy(seen.data)
    assert (message.type, message.subtype, message.file_type) == (IO_CONNECT, IO_CONNECT_OPEN, FTYPE_NAME)
    assert seen.size == 40 + message.path_len
    task.wait_until_blocked()
    server.reply(seen, EOK)
    assert task.result() == seen.coid


@checks("B302", "D25")
@open_point("D25")
@pytest.mark.parametrize("error", [EACCES, EIO, EBUSY])
def test_a_server_can_refuse_a_client(qnx: Any, start: Start, server: Server, name: str, error: int) -> None:
    """What the server answers by MsgError is what name_open fails with; no connection is left."""
    task = start(qnx.name_open, name)
    coid = server.refuse(error).coid
    assert task.errno() == error
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT
    assert opened_name(qnx, start, server, name) == coid


@checks("D25")
@open_point("D25")
@pytest.mark.parametrize("status", [1, -1, ENOSYS])
def test_a_server_that_does_not_know_the_question_is_found(
    qnx: Any, start: Start, server: Server, name: str, status: int
) -> None:
    """A status other than EOK says that the server took _IO_CONNECT for a message of its own: EBADFSYS."""
    task = start(qnx.name_open, name)
    server.answer(status)
    assert task.errno() == EBADFSYS


@checks("B304", "D25")
@open_point("D25")
def test_the_type_of_a_connect_message_fits_into_4_bytes(qnx: Any, start: Start, server: Server, name: str) -> None:
    """A server with a small buffer gets type and subtype, and can tell _IO_CONNECT from its own messages."""
    task = start(qnx.name_open, name)
    seen = server.take(4)
    assert struct.unpack("=HH", seen.data) == (IO_CONNECT, IO_CONNECT_OPEN)
    server.reply(seen)
    assert task.result() == seen.coid


@checks("B305")
def test_a_name_that_nobody_has_is_not_found(qnx: Any, name: str) -> None:
    """name_open and open of an unknown name fail with ENOENT."""
    with fails_with(ENOENT):
        qnx.name_open(name)
    with fails_with(ENOENT):
        qnx.open(f"/dev/name/local/{name}", os.O_RDWR)


@checks("B306")
@pytest.mark.parametrize("call", ["name_attach", "name_open"])
def test_a_name_has_a_longest_length(qnx: Any, call: str) -> None:
    """A name that is longer than any path is ENAMETOOLONG."""
    with fails_with(ENAMETOOLONG):
        getattr(qnx, call)("x" * 5000)


@checks("B316", "D25")
@open_point("D25")
def test_name_open_fails_when_the_server_dies_before_it_answers(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """A server that is killed while it has the _IO_CONNECT message makes name_open fail with ESRCH."""
    server = Server(peer, name)
    task = start(qnx.name_open, name)
    coid = server.take().coid
    server.kill()
    assert task.errno() == ESRCH
    with fails_with(EINVAL):
        qnx.ConnectDetach(coid)


@checks("B307")
def test_name_close_says_nothing_to_the_server(qnx: Any, start: Start, server: Server, name: str) -> None:
    """name_close is ConnectDetach: no _IO_CLOSE comes, only the disconnect pulse."""
    task = start(qnx.name_open, name)
    seen = server.answer()
    assert qnx.name_close(task.result()) == 0
    pulse = server.take().pulse
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, seen.scoid)


@checks("B307", "B54")
def test_what_is_not_open_cannot_be_closed_by_name_close(qnx: Any, start: Start, peer: Peer, name: str) -> None:
    """name_close of a connection that is closed already is EINVAL."""
    coid = opened_name(qnx, start, Server(peer, name), name)
    qnx.name_close(coid)
    with fails_with(EINVAL):
        qnx.name_close(coid)


@checks("B308")
def test_a_process_is_one_client_however_often_it_opens_a_name(
    qnx: Any, start: Start, server: Server, name: str
) -> None:
    """Several connections of a process to one name have numbers of their own, and one scoid at the server."""
    tasks, seen = [], []
    for _ in range(3):
        tasks.append(start(qnx.name_open, name))
        seen.append(server.answer())
    assert len({task.result() for task in tasks}) == 3
    assert len({message.scoid for message in seen}) == 1
    for task in tasks[:2]:
        qnx.name_close(task.result())
    start(qnx.MsgSend, tasks[2].result(), b"still here", None)
    assert server.answer().data == b"still here"


@checks("B309")
def test_a_server_gets_exactly_what_is_sent_to_its_name(qnx: Any, start: Start, server: Server, name: str) -> None:
    """Nothing is added to a message, whatever it begins with; the reply comes back as it is, too."""
    coid = opened_name(qnx, start, server, name)
    buffer = bytearray(3)
    task = start(qnx.MsgSend, coid, b"\x00\x02\x00\xffmessage", buffer)
    seen = server.answer(2, b"\x16\x01\x00")
    assert (seen.data, seen.size, seen.room) == (b"\x00\x02\x00\xffmessage", 11, 3)
    assert (task.result(), bytes(buffer)) == (2, b"\x16\x01\x00")
