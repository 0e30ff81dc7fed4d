"""Names: name_attach, name_detach, name_open and name_close, and who gets the name of a server that died."""

import contextlib
import os
import signal
import struct
import sys
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
    ND_LOCAL_NODE,
    NTO_CHF_COID_DISCONNECT,
    NTO_COF_CLOEXEC,
    NTO_SIDE_CHANNEL,
    NTO_TIMEOUT_REPLY,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
    MessageInfo,
)

from .cradle import Born
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import (
    ConnectMessage,
    Server,
    Start,
    StartPeer,
    answer,
    attach,
    destroy_channel,
    fork_an_idle_child,
    take,
)
from .waiting import eventually


def asked(qnx: Any, start: Start, server: Server, name: str) -> bytes:
    """What the server of a name receives from who opens it: a message that is sent after name_open."""
    coid = qnx.name_open(name)
    task = start(qnx.MsgSend, coid, b"question")
    seen = server.answer()
    task.result()
    return seen.data


# name_attach


@checks("B286")
def test_a_name_leads_to_its_channel(qnx: Any, start: Start, server: Server, name: str) -> None:
    """A client that opens a name reaches the channel that name_attach has made."""
    assert server.chid > 0
    coid = qnx.name_open(name)
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
    coid = qnx.name_open(name)
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
@pytest.mark.parametrize("path", ["..", "../name", "a/../b", "a/..", "a.."])
def test_a_name_does_not_lead_upwards(qnx: Any, path: str) -> None:
    """A name with a component '..', or that ends as one does, is EINVAL to attach, and not found."""
    with fails_with(EINVAL):
        qnx.name_attach(path)
    with fails_with(ENOENT):
        qnx.name_open(path)


@checks("B290")
@pytest.mark.parametrize("path", ["{}/", "{}//", "./{}", ".//./{}/."], ids=repr)
def test_a_name_is_tidied(qnx: Any, peer: Peer, name: str, path: str) -> None:
    """Empty components and '.' are left out, by name_attach and name_open alike."""
    peer.run(attach, f"{name}/inner")
    with fails_with(EEXIST):
        qnx.name_attach(f"{path.format(name)}//inner/")
    assert qnx.name_attach(path.format(name)).chid > 0
    qnx.name_open(name)
    qnx.name_open(path.format(name))
    qnx.name_open(f"{name}/./inner//")


@checks("B289")
@pytest.mark.parametrize("path", [".", "./", ".//."])
def test_a_name_is_not_only_dots(qnx: Any, path: str) -> None:
    """What leaves nothing when it is tidied is no name: EINVAL."""
    for call in (qnx.name_attach, qnx.name_open):
        with fails_with(EINVAL):
            call(path)


@checks("B290")
@pytest.mark.parametrize("path", ["..{}...v1.0.", "{}/..b"])
def test_dots_in_a_name_are_ordinary(qnx: Any, peer: Peer, name: str, path: str) -> None:
    """A name may begin with dots and have some inside, and so may its components."""
    peer.run(attach, path.format(name))
    qnx.name_open(path.format(name))


@checks("B291")
def test_names_may_have_slashes(qnx: Any, start: Start, start_peer: StartPeer, name: str) -> None:
    """A name with a slash is another one than those of its parts; a part that nobody has is not found."""
    outer, inner = Server(start_peer(), name), Server(start_peer(), f"{name}/middle/inner")
    assert asked(qnx, start, outer, name) == b"question"
    assert asked(qnx, start, inner, f"{name}/middle/inner") == b"question"
    with fails_with(ENOENT):
        qnx.name_open(f"{name}/middle")


@checks("B291")
@checks("B357")
@pytest.mark.parametrize("size", [300, 1099])
def test_a_name_may_be_long(qnx: Any, peer: Peer, name: str, size: int) -> None:
    """A name may be longer than a file name of a host, and than QNX's PATH_MAX."""
    peer.run(attach, name.ljust(size, "x"))
    qnx.name_open(name.ljust(size, "x"))
    with fails_with(ENOENT):
        qnx.name_open(name.ljust(size - 1, "x"))


@checks("B291")
def test_a_name_may_have_any_character(qnx: Any, peer: Peer, name: str) -> None:
    """What is special to a host's file system or shell is not in a name, nor is a letter beyond ASCII."""
    strange = f"{name} %2F*?~$;\\\N{LATIN SMALL LETTER E WITH ACUTE}"
    peer.run(attach, strange)
    qnx.name_open(strange)


@checks("B292", "D40")
def test_a_global_name_needs_a_name_service(qnx: Any, peer: Peer, name: str) -> None:
    """Without one, name_attach and name_open of a global name are ENOENT; so they are for one that exists locally."""
    peer.run(attach, name)
    for call in (qnx.name_attach, qnx.name_open):
        with fails_with(ENOENT):
            call(name, NAME_FLAG_ATTACH_GLOBAL)


@checks("B292")
def test_a_global_name_is_no_local_one(qnx: Any, name: str) -> None:
    """What name_attach is asked to register globally is not found locally, be there a name service or not."""
    with contextlib.suppress(OSError):
        qnx.name_attach(name, NAME_FLAG_ATTACH_GLOBAL)
    with fails_with(ENOENT):
        qnx.name_open(name)


@checks("B293")
def test_a_process_cannot_attach_a_name_twice(qnx: Any, name: str) -> None:
    """name_attach of a name that this process has is EEXIST, and the name works on."""
    attached = qnx.name_attach(name)
    with fails_with(EEXIST):
        qnx.name_attach(name)
    coid = qnx.name_open(name)
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, coid, info) == coid
    assert info.chid == attached.chid


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
def test_the_name_of_a_killed_server_is_gone(qnx: Any, peer: Peer, name: str) -> None:
    """After a SIGKILL the server's name is not found."""
    peer.run(attach, name)
    qnx.name_open(name)
    peer.kill()
    with fails_with(ENOENT):
        qnx.name_open(name)


@checks("B305", "B293")
def test_a_name_whose_channel_is_destroyed_is_still_taken(qnx: Any, peer: Peer, name: str) -> None:
    """name_open fails with ESRCH, and name_attach with EEXIST, while the process lives that has destroyed it."""
    peer.run(destroy_channel, peer.run(attach, name))
    with fails_with(ESRCH):
        qnx.name_open(name)
    with fails_with(EEXIST):
        qnx.name_attach(name)


@checks("B295")
def test_a_successor_takes_the_name_of_a_killed_server_at_once(
    qnx: Any, start: Start, start_peer: StartPeer, name: str
) -> None:
    """The first attempt of a successor succeeds, and new clients reach the successor."""
    first, second = Server(start_peer(), name), start_peer()
    first.kill()
    successor = Server(second, name)
    assert asked(qnx, start, successor, name) == b"question"


@checks("B295")
def test_a_name_is_free_before_its_dead_server_is_reaped(qnx: Any, peer: Born, name: str) -> None:
    """The name goes with the process; it does not wait until the parent has taken note."""
    Server(peer, name)
    peer.become_a_zombie(by=signal.SIGKILL)
    assert qnx.name_attach(name).path == name


@checks("B305")
def test_a_name_is_not_found_before_its_dead_server_is_reaped(qnx: Any, peer: Born, name: str) -> None:
    """name_open of the name of a zombie fails with ENOENT."""
    peer.run(attach, name)
    peer.become_a_zombie(by=signal.SIGKILL)
    with fails_with(ENOENT):
        qnx.name_open(name)


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
    """In another process: take a name, wait for messages of clients, and detach the name."""
    attached = qnx.name_attach(name)
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
def test_name_open_returns_the_lowest_free_side_channel(qnx: Any, server: Server, name: str) -> None:
    """The connection has bit 30 set and is close-on-exec, and a number that was given up is used again."""
    first, second = qnx.name_open(name), qnx.name_open(name)
    assert first & NTO_SIDE_CHANNEL
    assert second > first
    assert qnx.ConnectFlags(0, first, 0, 0) & NTO_COF_CLOEXEC
    qnx.ConnectDetach(first)
    assert qnx.name_open(name) == first


@checks("B299", "B309")
def test_the_server_of_a_name_is_not_told(qnx: Any, start: Start, server: Server, name: str) -> None:
    """name_open sends nothing: what the server receives first is the first message."""
    assert asked(qnx, start, server, name) == b"question"


@checks("B299")
def test_a_server_can_open_its_own_name(qnx: Any, name: str) -> None:
    """name_open does not wait for anybody: a process with one thread can open a name of its own."""
    qnx.name_attach(name)
    assert qnx.name_open(name) & NTO_SIDE_CHANNEL


@checks("B63", "B33", "B308")
def test_the_server_of_a_name_can_be_connected_to_by_its_numbers(
    qnx: Any, start: Start, server: Server, name: str
) -> None:
    """ConnectServerInfo tells pid and chid, and ConnectAttach to these gives a descriptor of the same client."""
    helper, info = qnx.name_open(name), MessageInfo()
    assert qnx.ConnectServerInfo(0, helper, info) == helper
    assert (info.pid, info.chid) == (server.pid, server.chid)
    fd = qnx.ConnectAttach(info.nd, info.pid, info.chid, 0)
    assert 0 <= fd < NTO_SIDE_CHANNEL
    scoids = []
    for coid in (helper, fd):
        task = start(qnx.MsgSend, coid, b"question")
        scoids.append(server.answer().scoid)
        task.result()
    assert scoids[0] == scoids[1]
    qnx.name_close(helper)
    task = start(qnx.MsgSend, fd, b"still here")
    assert server.answer().data == b"still here"
    task.result()


# name_open where there is a global name service


@pytest.fixture
def gns(monkeypatch: pytest.MonkeyPatch, lasting: Peer) -> None:
    """Hosts behave as a target does that runs gns: this process, and not those that others are forked from.

    So one of these has to be there before.
    """
    if sys.platform.startswith(("qnx", "nto")):
        pytest.skip("a target runs gns, or does not; no variable changes that")
    monkeypatch.setenv("HA_QNX_GNS", "1")


@pytest.mark.usefixtures("gns")
@checks("B300", "B301", "B303", "D35")
@open_point("D35")
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


@pytest.mark.usefixtures("gns")
@checks("B302", "D35")
@open_point("D35")
@pytest.mark.parametrize("error", [EACCES, EIO, EBUSY])
def test_a_server_can_refuse_a_client(qnx: Any, start: Start, server: Server, name: str, error: int) -> None:
    """What the server answers by MsgError is what name_open fails with; no connection is left."""
    task = start(qnx.name_open, name)
    coid = server.refuse(error).coid
    assert task.errno() == error
    assert server.take().pulse.code == PULSE_CODE_DISCONNECT
    task = start(qnx.name_open, name)
    server.answer()
    assert task.result() == coid


@pytest.mark.usefixtures("gns")
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


@pytest.mark.usefixtures("gns")
@checks("B304", "D35")
@open_point("D35")
def test_the_type_of_a_connect_message_fits_into_4_bytes(qnx: Any, start: Start, server: Server, name: str) -> None:
    """A server with a small buffer gets type and subtype, and can tell _IO_CONNECT from its own messages."""
    task = start(qnx.name_open, name)
    seen = server.take(4)
    assert struct.unpack("=HH", seen.data) == (IO_CONNECT, IO_CONNECT_OPEN)
    server.reply(seen)
    assert task.result() == seen.coid


@checks("B305")
def test_a_name_that_nobody_has_is_not_found(qnx: Any, name: str) -> None:
    """name_open of an unknown name fails with ENOENT."""
    with fails_with(ENOENT):
        qnx.name_open(name)


@checks("B306")
@pytest.mark.parametrize("call", ["name_attach", "name_open"])
def test_a_name_has_a_longest_length(qnx: Any, call: str) -> None:
    """A name that is longer than any path is ENAMETOOLONG."""
    with fails_with(ENAMETOOLONG):
        getattr(qnx, call)("x" * 5000)


@pytest.mark.usefixtures("gns")
@checks("B302", "D35")
@open_point("D35")
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
    coid = qnx.name_open(name)
    task = start(qnx.MsgSend, coid, b"message")
    seen = server.answer()
    task.result()
    assert qnx.name_close(coid) == 0
    pulse = server.take().pulse
    assert (pulse.code, pulse.scoid) == (PULSE_CODE_DISCONNECT, seen.scoid)


@checks("B307", "B54")
def test_what_is_not_open_cannot_be_closed_by_name_close(qnx: Any, server: Server, name: str) -> None:
    """name_close of a connection that is closed already is EINVAL."""
    coid = qnx.name_open(name)
    qnx.name_close(coid)
    with fails_with(EINVAL):
        qnx.name_close(coid)


@checks("B308")
def test_a_process_is_one_client_however_often_it_opens_a_name(
    qnx: Any, start: Start, server: Server, name: str
) -> None:
    """Several connections of a process to one name have numbers of their own, and one scoid at the server."""
    coids = [qnx.name_open(name) for _ in range(3)]
    assert len(set(coids)) == 3
    scoids = set()
    for coid in coids:
        task = start(qnx.MsgSend, coid, b"message")
        scoids.add(server.answer().scoid)
        task.result()
    assert len(scoids) == 1
    for coid in coids[:2]:
        qnx.name_close(coid)
    start(qnx.MsgSend, coids[2], b"still here", None)
    assert server.answer().data == b"still here"


@checks("B309")
def test_a_server_gets_exactly_what_is_sent_to_its_name(qnx: Any, start: Start, server: Server, name: str) -> None:
    """Nothing is added to a message, whatever it begins with; the reply comes back as it is, too."""
    coid = qnx.name_open(name)
    buffer = bytearray(3)
    task = start(qnx.MsgSend, coid, b"\x00\x02\x00\xffmessage", buffer)
    seen = server.answer(2, b"\x16\x01\x00")
    assert (seen.data, seen.size, seen.room) == (b"\x00\x02\x00\xffmessage", 11, 3)
    assert (task.result(), bytes(buffer)) == (2, b"\x16\x01\x00")


@checks("B434", "D35")
def test_the_server_of_a_name_can_be_connected_to_by_number(qnx: Any, server: Server, name: str) -> None:
    """name_open gives a side channel, close-on-exec; what ConnectServerInfo says of it makes a descriptor."""
    found = qnx.name_open(name)
    assert found & NTO_SIDE_CHANNEL
    assert qnx.ConnectFlags(0, found, 0, 0) & NTO_COF_CLOEXEC
    info = MessageInfo()
    assert qnx.ConnectServerInfo(0, found, info) == found
    assert (info.nd, info.pid, info.chid) == (ND_LOCAL_NODE, server.pid, server.chid)
    coid = qnx.ConnectAttach(info.nd, info.pid, info.chid, 3, 0)
    assert 3 <= coid < NTO_SIDE_CHANNEL
    qnx.name_close(found)
    qnx.MsgSendPulse(coid, -1, 1, 2)
    pulse = server.take().pulse
    assert (pulse.code, pulse.value.sival_int) == (1, 2)


@checks("B435", "D6")
def test_a_name_is_found_again_under_the_old_number(qnx: Any, start_peer: StartPeer, name: str) -> None:
    """Once the next process has the name, ConnectDetach and ConnectAttach with the old number as index give it back."""
    peer = start_peer()
    first = Server(peer, name)
    coid = qnx.ConnectAttach(0, first.pid, first.chid, 3, 0)
    first.kill()
    first.wait_until_gone()
    second = Server(start_peer(), name)
    info = MessageInfo()
    found = qnx.name_open(name)
    qnx.ConnectServerInfo(0, found, info)
    qnx.ConnectDetach(coid)
    assert qnx.ConnectAttach(0, info.pid, info.chid, coid, 0) == coid
    qnx.name_close(found)
    qnx.MsgSendPulse(coid, -1, 1, 2)
    assert second.take().pulse.code == 1
