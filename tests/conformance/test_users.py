"""Servers and clients of different users, who meet in a runtime directory that was set up for them."""

import contextlib
import importlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from errno import EACCES, EEXIST, ELOOP, ENOENT, EPERM, ESRCH
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from ha_qnx import NTO_SIDE_CHANNEL, SIGEV_PULSE_INIT, MessageInfo, Service

from .clients import transact
from .cradle import Born, PeerPool
from .expect import fails_with
from .marks import checks
from .receiving import receive_values
from .servers import Server, attach, attach_both, attach_path, create_channel
from .waiting import eventually

# Users and groups that exist on no machine in particular: the host knows them by number only.
SERVES, CLIENT, INTRUDER, STRANGER = 64001, 64002, 64003, 64004
CLIENTS, SERVERS, STAFF = 64101, 64102, 64103
#: The groups that each belongs to.
GROUPS: Dict[int, Tuple[int, ...]] = {
    0: (), SERVES: (CLIENTS, SERVERS), CLIENT: (CLIENTS, STAFF), INTRUDER: (CLIENTS, SERVERS), STRANGER: (STAFF,),
}  # fmt: skip

As = Callable[..., Born]


def become(_qnx: Any, user: int, groups: List[int], directory: str) -> None:
    """In another process: be another user, before anything was made."""
    importlib.import_module("ha_qnx.fallback.runtime")  # Which another user may be unable to read where Python is.
    os.environ["HA_QNX_RUNTIME"] = directory
    os.umask(0o077)  # What others may do is no matter of chance.
    os.setgroups(groups)
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


@pytest.fixture
def shared() -> Iterator[pathlib.Path]:
    """A runtime directory whose clients are members of one group, and whose servers of another one."""
    if sys.platform.startswith(("qnx", "nto")):
        pytest.skip("a target has no runtime directory")
    if os.geteuid():
        pytest.skip("only root can be several users")
    above = pathlib.Path(tempfile.mkdtemp(prefix="ha"))
    above.chmod(0o755)
    set_up(above / "run", "--clients", str(CLIENTS), "--servers", str(SERVERS))
    yield above / "run"
    shutil.rmtree(above)


def set_up(directory: pathlib.Path, *options: str) -> None:
    command = [sys.executable, "-m", "ha_qnx", "doctor", "--setup", str(directory), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # our own command


def room(shared: pathlib.Path, name: str) -> pathlib.Path:
    """One of the rooms in a runtime directory."""
    (own,) = shared.iterdir()
    return own / name


@pytest.fixture
def as_user(shared: pathlib.Path, backends: Tuple[str, str], pool: PeerPool) -> Iterator[As]:
    """Starts a process of some user: a server's, or with ``is_client`` one with the backend of clients."""
    peers: List[Born] = []

    def start(user: int, is_client: bool = False) -> Born:
        peers.append(pool.take(backends[0 if is_client else 1]))
        peers[-1].run(become, user, list(GROUPS[user]), str(shared))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


def name_open(qnx: Any, name: str) -> int:
    coid: int = qnx.name_open(name)
    return coid


def open_path(qnx: Any, path: str, oflag: int) -> int:
    fd: int = qnx.open(path, oflag)
    return fd


def attach_by_numbers(qnx: Any, pid: int, chid: int) -> int:
    coid: int = qnx.ConnectAttach(0, pid, chid, NTO_SIDE_CHANNEL, 0)
    return coid


def server_of(qnx: Any, coid: int) -> int:
    info = MessageInfo()
    qnx.ConnectServerInfo(0, coid, info)
    return int(info.pid)


def pulse(qnx: Any, coid: int, code: int, value: int) -> None:
    qnx.MsgSendPulse(coid, -1, code, value)


def credentials(qnx: Any, scoid: int) -> Tuple[int, int, List[int]]:
    cred = qnx.ConnectClientInfo(scoid, 8).cred
    return cred.euid, cred.egid, list(cred.grouplist[: cred.ngroups])


def do(_qnx: Any, call: str, *args: Any) -> Any:
    """In another process: a call of ``os``."""
    return getattr(os, call)(*args)


def impersonate(_qnx: Any, directory: str, address: str, full: bool = False) -> None:
    """In another process: listen in the place of a channel; never to accept, if the backlog is to be full."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.path.join(directory, address))
    os.chmod(os.path.join(directory, address), 0o666)  # noqa: S103  # a trap is open to all
    listener.listen(0)
    _kept.append(listener)
    if full:
        with contextlib.suppress(BlockingIOError):
            while True:
                _kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                _kept[-1].setblocking(False)
                _kept[-1].connect(os.path.join(directory, address))


_kept: List[socket.socket] = []


# Meeting.


@checks("D105", "B72", "D107")
@pytest.mark.parametrize(("server", "client"), [(SERVES, CLIENT), (0, CLIENT), (SERVES, 0), (SERVES, SERVES)])
def test_users_meet(as_user: As, name: str, server: int, client: int) -> None:
    """By name, path and numbers; messages of any length and pulses arrive; the kernel vouches for who they are."""
    serving, asking = Server(as_user(server), name), as_user(client, is_client=True)
    coid = asking.run(name_open, name)
    for size in (0, 10, 3_000, 300_000):
        sent = asking.start(transact, coid, b"q" * size, size)
        seen = serving.answer(reply=b"a" * size)
        assert seen.size == size
        assert sent.result() == (0, b"a" * size)
    groups = sorted(set(GROUPS[client]) | {client}) if client else None
    uid, gid, found = serving.peer.run(credentials, seen.scoid)
    assert (uid, gid) == (client, client)
    assert groups is None or set(GROUPS[client]) <= set(found) <= set(groups)
    asking.run(pulse, coid, 5, 6)
    assert serving.take().pulse.value.sival_int == 6
    numbers = asking.run(attach_by_numbers, serving.pid, serving.chid)
    assert asking.run(server_of, numbers) == serving.pid
    opening = asking.start(open_path, serving.path, os.O_RDWR)
    serving.answer()
    assert opening.result() < NTO_SIDE_CHANNEL


@checks("D105")
def test_who_is_not_in_the_group_stays_outside(as_user: As, name: str) -> None:
    """EACCES for whatever he tries."""
    serving, stranger = Server(as_user(SERVES), name), as_user(STRANGER, is_client=True)
    for call in ((name_open, name), (attach_by_numbers, serving.pid, serving.chid), (create_channel,), (attach, name)):
        with fails_with(EACCES):
            stranger.run(*call)


@checks("D105", "D106")
def test_who_may_only_connect_attaches_nothing(as_user: As, name: str) -> None:
    """EPERM; a channel of one's own is no attachment."""
    client = as_user(CLIENT)
    with fails_with(EPERM):
        client.run(attach, name)
    chid = client.run(create_channel)
    with fails_with(EPERM):
        client.run(attach_path, chid, f"/dev/{name}")


@checks("D105")
def test_without_a_group_of_servers_only_the_owner_attaches(shared: pathlib.Path, as_user: As, name: str) -> None:
    """And everybody connects, where no group of clients is named."""
    set_up(shared)
    with fails_with(EPERM):
        as_user(SERVES).run(attach, name)
    Server(as_user(0), name)
    assert as_user(STRANGER, is_client=True).run(name_open, name) & NTO_SIDE_CHANNEL


@checks("D106")
def test_the_name_of_another_user_cannot_be_taken(as_user: As, name: str) -> None:
    """EEXIST while his server lives, EPERM once it is dead; it is his again, and root may have it."""
    intruder, serving = as_user(INTRUDER, is_client=True), Server(as_user(SERVES), name)
    with fails_with(EEXIST):
        intruder.run(attach, name)
    serving.kill()
    with fails_with(EPERM):
        intruder.run(attach, name)
    with fails_with(ENOENT):
        intruder.run(name_open, name)
    again = Server(as_user(SERVES), name)
    assert intruder.run(server_of, intruder.run(name_open, name)) == again.pid
    again.kill()
    assert intruder.run(server_of, (Server(as_user(0), name), intruder.run(name_open, name))[1])
    with fails_with(EEXIST):
        as_user(SERVES).run(attach, name)


@checks("D106")
def test_a_name_that_was_given_up_is_free_for_all_servers(as_user: As, name: str) -> None:
    """Nothing is left of it."""
    Server(as_user(SERVES), name).end()
    serving = Server(as_user(INTRUDER), name)
    client = as_user(CLIENT, is_client=True)
    assert client.run(server_of, client.run(name_open, name)) == serving.pid


@checks("D106")
@pytest.mark.parametrize("user", [INTRUDER, 0])
def test_the_path_of_another_user_cannot_be_attached(as_user: As, name: str, user: int) -> None:
    """EPERM while his server lives, though on one path there may be several; root may have what dead ones have left."""
    serving, other = Server(as_user(SERVES), name), as_user(user)
    chid = other.run(create_channel)
    with fails_with(EPERM):
        other.run(attach_path, chid, serving.path)
    serving.kill()
    if user:
        with fails_with(EPERM):
            other.run(attach_path, chid, serving.path)
    else:
        assert other.run(attach_path, chid, serving.path) >= 0
    client = as_user(CLIENT, is_client=True)
    if user:
        with fails_with(ENOENT):
            client.run(open_path, serving.path, os.O_RDWR)


@checks("D106")
def test_long_names_and_paths_are_met_by_other_users(as_user: As, name: str) -> None:
    """Those that are kept in pieces; no umask keeps others from them."""
    long = name + "n" * 500
    serving, client = Server(as_user(SERVES), long), as_user(CLIENT, is_client=True)
    assert client.run(name_open, long) & NTO_SIDE_CHANNEL
    opening = client.start(open_path, serving.path, os.O_RDWR)
    serving.answer()
    assert opening.result() >= 0


# Attacks by those who may connect, or attach.


@checks("D106")
def test_a_client_sees_and_changes_nothing(shared: pathlib.Path, as_user: As, name: str) -> None:
    """No names and no paths are listed, no lock can be taken, no entry removed, renamed or replaced."""
    serving, client = Server(as_user(SERVES), name), as_user(CLIENT)
    intruder = as_user(INTRUDER)
    names, paths, channels = (room(shared, which) for which in ("names", "paths", "channels"))
    for user in (client, intruder):
        for listed in (names, paths):
            with fails_with(EACCES):
                user.run(do, "listdir", str(listed))
        with fails_with(EACCES):
            user.run(do, "open", str(names / name), os.O_RDONLY)
        entries = [*names.iterdir(), *channels.iterdir(), *paths.glob("*/*"), *paths.iterdir()]
        assert len(entries) >= 6
        for entry in entries:
            for call in (("unlink", str(entry)), ("rename", str(entry), str(channels / "x")), ("rmdir", str(entry))):
                with pytest.raises(OSError):  # noqa: PT011  # which, is the host's business
                    user.run(do, *call)
    opening = client.start(open_path, serving.path, os.O_RDWR)
    serving.answer()
    assert opening.result() >= 0


@checks("D108")
def test_nobody_listens_in_the_place_of_a_dead_server(shared: pathlib.Path, as_user: As, name: str) -> None:
    """A socket of another user, where that of a name's or a path's owner was, is none of its."""
    serving, client, intruder = Server(as_user(SERVES), name), as_user(CLIENT, is_client=True), as_user(INTRUDER)
    channels = room(shared, "channels")
    (sock,) = channels.iterdir()
    # He has even got the number of the dead process: so it looks if the entries name his own.
    theirs = sock.name.split(".", 1)[1]
    address = f"{intruder.pid}.{theirs}"
    serving.kill()
    sock.unlink()
    for file in (room(shared, "names") / name, *room(shared, "paths").glob("*/*[0-9]")):
        replaced = file.read_text().replace(sock.name, address)
        file.write_text(replaced)
        link = file.with_name(file.name + "=")
        link.unlink()
        link.symlink_to(replaced.strip())
        os.lchown(link, SERVES, SERVES)
    intruder.run(impersonate, str(channels), address)
    with fails_with(ENOENT):
        client.run(name_open, name)
    with fails_with(ENOENT):
        client.run(open_path, serving.path, os.O_RDWR)


@checks("D108")
@pytest.mark.parametrize("full", [False, True])
def test_nobody_listens_under_the_numbers_of_another_process(shared: pathlib.Path, as_user: As, full: bool) -> None:
    """ConnectAttach finds the process that has the number, whatever others call their sockets."""
    serving, client, intruder = Server(as_user(SERVES)), as_user(CLIENT, is_client=True), as_user(INTRUDER)
    channels = str(room(shared, "channels"))
    for token in ("0" * 16, "7" * 16, "f" * 16):
        intruder.run(impersonate, channels, f"{serving.pid}.{serving.chid}.{token}", full)
        intruder.run(impersonate, channels, f"{serving.pid}.{serving.chid + 1}.{token}")
    assert client.run(server_of, client.run(attach_by_numbers, serving.pid, serving.chid)) == serving.pid
    with fails_with(ESRCH):
        client.run(attach_by_numbers, serving.pid, serving.chid + 1)


@checks("D106")
@pytest.mark.parametrize("kind", ["link", "symlink"])
def test_no_link_leads_a_server_to_a_file_of_its_user(shared: pathlib.Path, as_user: As, name: str, kind: str) -> None:
    """Who may attach puts a link in the place of a name: the server does not write to where that leads."""
    precious = shared.parent / "precious"
    precious.write_text("precious")
    os.chown(precious, SERVES, SERVES)
    place = room(shared, "names") / name
    getattr(os, kind)(precious, place)
    serving = as_user(SERVES)
    if kind == "link":
        assert serving.run(attach, name) > 0
    else:
        with fails_with(ELOOP):
            serving.run(attach, name)
    assert precious.read_text() == "precious"


@checks("D106")
@pytest.mark.parametrize("user", [0, CLIENT])
def test_what_is_put_in_the_place_of_a_name_keeps_nobody_waiting(
    shared: pathlib.Path, as_user: As, name: str, user: int
) -> None:
    """A FIFO, a directory or a link: there is no such name."""
    intruder, client = as_user(INTRUDER), as_user(user, is_client=True)
    names = str(room(shared, "names"))
    intruder.run(do, "mkfifo", f"{names}/{name}", 0o666)
    intruder.run(do, "mkdir", f"{names}/{name}-d")
    intruder.run(do, "symlink", "/etc/passwd", f"{names}/{name}-l")
    for asked in (name, f"{name}-d", f"{name}-l"):
        opened = client.start(name_open, asked)
        eventually(lambda opened=opened: opened.done, "name_open")  # type: ignore[misc]
        assert opened.errno() in (ENOENT, EACCES)


# At the door.


@checks("D105")
@pytest.mark.parametrize(
    ("which", "mode"),
    [
        (".", 0o770),
        (".", 0o757),
        ("own", 0o777),
        ("channels", 0o777),
        ("names", 0o733),
        ("paths", 0o722),
        ("..", 0o777),
    ],
)
def test_a_directory_that_others_could_change_is_refused(
    shared: pathlib.Path, as_user: As, name: str, which: str, mode: int
) -> None:
    """EPERM for all: what lies there would belong to whoever comes first."""
    place = {".": shared, "..": shared.parent, "own": room(shared, "x").parent}.get(which) or room(shared, which)
    place.chmod(mode)
    for user in (SERVES, 0):
        with fails_with(EPERM):
            as_user(user).run(attach_both, f"{name}-{user}")


@checks("D105")
def test_a_room_of_another_user_is_refused(shared: pathlib.Path, as_user: As, name: str) -> None:
    """EPERM: all of it belongs to the owner of the directory, or to root."""
    os.chown(room(shared, "names"), INTRUDER, SERVERS)
    with fails_with(EPERM):
        as_user(SERVES).run(attach, name)


@checks("D105")
def test_a_directory_that_was_not_set_up_is_its_owners(as_user: As, shared: pathlib.Path, name: str) -> None:
    """EPERM for every other user, though he can enter it."""
    shutil.rmtree(room(shared, "x").parent)
    os.chown(shared, SERVES, CLIENTS)
    Server(as_user(SERVES), name)
    for user in (CLIENT, INTRUDER):
        with pytest.raises(OSError) as raised:  # noqa: PT011  # which, depends on how far he gets
            as_user(user, is_client=True).run(name_open, name)
        assert raised.value.errno in (EPERM, EACCES, ENOENT)


# Service.


class Guarded(Service):
    """A file of four bytes, and an echo."""

    def message(self, request: Any) -> Any:
        return bytes(request.data)

    def read(self, request: Any, nbytes: int) -> bytes:
        return b"data"[request.ocb.offset :][:nbytes]

    def write(self, request: Any, data: bytes) -> Optional[int]:
        return len(data)


def serve_guarded(qnx: Any, name: str, mode: int, group: Optional[int]) -> None:
    """In another process: a service of this user's."""
    ready = threading.Event()
    service = Guarded(name, f"/dev/{name}", mode=mode, group=group, backend=qnx)
    service.ready = ready.set  # type: ignore[method-assign]
    threading.Thread(target=service.serve, daemon=True).start()
    assert ready.wait(10)


def use(qnx: Any, name: str, oflag: int) -> bytes:
    """In another process: open, read and close; or send to the name, where there is no mode of opening."""
    if oflag < 0:
        coid, reply = qnx.name_open(name), bytearray(5)
        try:
            qnx.MsgSend(coid, b"hello", reply)
        finally:
            qnx.name_close(coid)
        return bytes(reply)
    fd = qnx.open(f"/dev/{name}", oflag)
    try:
        data: bytes = qnx.read(fd, 10)
        return data
    finally:
        qnx.close(fd)


@checks("D107")
@pytest.mark.parametrize("user", [SERVES, CLIENT, INTRUDER, 0])
def test_a_service_has_an_owner_a_group_and_a_mode(as_user: As, name: str, user: int) -> None:
    """As a file has: each user opens it as his class may; the name needs both rights. Root may all."""
    as_user(SERVES).run(serve_guarded, name, 0o640, STAFF)
    peer = as_user(user, is_client=True)
    may_read, may_write = user != INTRUDER, user in (SERVES, 0)
    for oflag, may in ((os.O_RDONLY, may_read), (os.O_RDWR, may_write), (-1, may_write)):
        if may:
            assert peer.run(use, name, oflag) in (b"data", b"hello")
        else:
            with fails_with(EACCES):
                peer.run(use, name, oflag)


@checks("D107")
def test_what_was_opened_for_writing_is_not_read(as_user: As, name: str) -> None:
    """EACCES, where a service has a mode."""
    as_user(SERVES).run(serve_guarded, name, 0o666, None)
    with fails_with(EACCES):
        as_user(CLIENT, is_client=True).run(use, name, os.O_WRONLY)


def prepare_event(qnx: Any) -> Tuple[int, int]:
    """In another process: a channel of its own, and a connection to it for events."""
    chid = qnx.ChannelCreate(0)
    return chid, qnx.ConnectAttach(0, 0, chid)


def receive_and_deliver(qnx: Any, chid: int, coid: int, value: int) -> None:
    """In another process: receive a message, answer it, and deliver an event to its client."""
    rcvid = qnx.MsgReceive(chid, bytearray(64))
    qnx.MsgReply(rcvid, 0)
    qnx.MsgDeliverEvent(rcvid, SIGEV_PULSE_INIT(coid, 10, 1, value))


@checks("D105", "B460")
@pytest.mark.parametrize("user", [0, SERVES], ids=["root", "server's user"])
def test_events_are_delivered_to_clients_of_other_users(as_user: As, user: int) -> None:
    """A server of root, or of a user of its own, tells its clients."""
    server, client = as_user(user), as_user(CLIENT, is_client=True)
    chid = server.run(create_channel)
    own, coid = client.run(prepare_event)
    serving = server.start(receive_and_deliver, chid, coid, 42)
    client.run(transact, client.run(attach_by_numbers, server.pid, chid), b"subscribe", 8)
    serving.result()
    assert client.run(receive_values, own, 1) == [42]
