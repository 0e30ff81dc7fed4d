"""The runtime directory: where it is, whether it is safe, and who has a name."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from typing import Any, Callable, List

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, eventually
from ha_qnx.fallback import wire
from ha_qnx.fallback.door import UnsafeDirectoryError
from ha_qnx.fallback.runtime import (
    ChannelAddress,
    Runtime,
    directory_path,
    is_ending,
    is_zombie,
    names_in,
    plain_name,
    wire_directory,
)

import ha_qnx
from ha_qnx.connection import connect
from ha_qnx.errors import leads_upwards

ADDRESS = ChannelAddress(os.getpid(), 1, "0123456789abcdef")


def test_the_environment_names_the_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """HA_QNX_RUNTIME comes first, then XDG_RUNTIME_DIR, then a directory of the user's own below the temporary one."""
    monkeypatch.setenv("HA_QNX_RUNTIME", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert directory_path() == str(tmp_path / "chosen")
    monkeypatch.delenv("HA_QNX_RUNTIME")
    assert directory_path() == str(tmp_path / "ha_qnx")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert directory_path().endswith(f"ha_qnx-{os.getuid()}")


def test_the_directory_is_made_for_its_owner_only(runtime_directory: pathlib.Path) -> None:
    """Its mode is 0700, whatever the umask."""
    before = os.umask(0)
    try:
        Runtime()
    finally:
        os.umask(before)
    made = [runtime_directory, *runtime_directory.rglob("*")]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 5


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o702, 0o720])
def test_a_directory_that_others_can_write_to_is_refused(runtime_directory: pathlib.Path, mode: int) -> None:
    """The error says what to do."""
    runtime_directory.mkdir()
    runtime_directory.chmod(mode)
    with pytest.raises(UnsafeDirectoryError, match=r"others may write.*chmod 700.*HA_QNX_RUNTIME") as raised:
        Runtime()
    assert raised.value.filename == str(runtime_directory)


def test_a_directory_that_others_can_only_read_is_accepted(runtime_directory: pathlib.Path) -> None:
    """What lies in it is private anyway."""
    runtime_directory.mkdir()
    runtime_directory.chmod(0o755)
    Runtime()


def test_a_directory_of_somebody_else_is_refused(
    runtime_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says whose it is."""
    runtime_directory.mkdir(mode=0o700)
    owner = runtime_directory.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    with pytest.raises(UnsafeDirectoryError, match=f"belongs to user {owner}, not to you"):
        Runtime()


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_refused(runtime_directory: pathlib.Path, tmp_path: pathlib.Path, kind: str) -> None:
    """A symbolic link might lead anywhere."""
    if kind == "file":
        runtime_directory.write_text("")
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        runtime_directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError) as raised:  # noqa: PT011  # mkdir says it in its own words
        Runtime()
    assert raised.value.errno in (errno.ENOTDIR, errno.EEXIST)


def test_an_address_is_read_as_it_is_written() -> None:
    """What is no address is None."""
    assert ChannelAddress.parse(str(ADDRESS)) == ADDRESS
    for text in ("", "1.2", "1.2.3.4", "a.2.c", "1.b.c", "1.2.", "1.2./etc", "-1.2.c"):
        assert ChannelAddress.parse(text) is None


def test_an_address_without_a_token_stands_for_its_numbers() -> None:
    """With one, it stands for one channel only."""
    assert ChannelAddress(ADDRESS.pid, ADDRESS.chid).matches(ADDRESS)
    assert not ChannelAddress(ADDRESS.pid, ADDRESS.chid, "00").matches(ADDRESS)
    assert not ChannelAddress(ADDRESS.pid, ADDRESS.chid + 1).matches(ADDRESS)


def test_a_name_is_found_where_it_was_claimed() -> None:
    """Names with slashes are names too, and so are names longer than a host's file names."""
    runtime = Runtime()
    names = ("plain", "a/b", "ünï.c~d-e_f", "%2F", "l" * 200, "l" * 201, "ü" * 300)
    addresses = {name: ChannelAddress(1, number, "ab") for number, name in enumerate(names)}
    claims = [runtime.claim_name(name, addresses[name]) for name in names]
    assert {name: runtime.find_name(name) for name in names} == addresses
    for claim in claims:
        claim.release()
    for name in names:
        with pytest.raises(FileNotFoundError):
            runtime.find_name(name)


def test_a_name_has_one_owner() -> None:
    """A second claim fails until the first is released."""
    runtime = Runtime()
    claim = runtime.claim_name("name", ADDRESS)
    with pytest.raises(FileExistsError):
        runtime.claim_name("name", ADDRESS)
    claim.release()
    runtime.claim_name("name", ADDRESS).release()


def test_a_name_that_nobody_claimed_is_not_found() -> None:
    """Neither is one whose file says nothing."""
    runtime = Runtime()
    with pytest.raises(FileNotFoundError):
        runtime.find_name("name")
    pathlib.Path(wire_directory(), "names", "name").write_bytes(b"\xff rubbish")
    with pytest.raises(FileNotFoundError):
        runtime.find_name("name")


HOLD_NAME = """
import os, signal
from ha_qnx.fallback.runtime import ChannelAddress, Runtime
claim = Runtime().claim_name("name", ChannelAddress(os.getpid(), 1, "00"))
print("held", flush=True)
signal.pause()
"""


def test_the_claim_of_a_killed_process_is_free_at_once() -> None:
    """Of many that want it then, exactly one gets it."""
    owner = subprocess.Popen([sys.executable, "-c", HOLD_NAME], stdout=subprocess.PIPE)  # noqa: S603  # ours
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"held\n"
    runtime = Runtime()
    with pytest.raises(FileExistsError):
        runtime.claim_name("name", ADDRESS)
    owner.kill()
    owner.communicate(timeout=60)
    claims: List[Any] = []
    barrier = threading.Barrier(8)

    def claim() -> None:
        barrier.wait(20)
        with contextlib.suppress(FileExistsError):
            claims.append(runtime.claim_name("name", ADDRESS))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(claims) == 1
    assert runtime.find_name("name") == ADDRESS
    claims[0].release()


def test_a_name_can_be_claimed_while_others_release_it() -> None:
    """An owner that goes between a successor's look and its claim takes nothing along."""
    runtime = Runtime()
    errors: List[BaseException] = []

    def contend() -> None:
        try:
            for _ in range(200):
                try:
                    claim = runtime.claim_name("name", ADDRESS)
                except FileExistsError:
                    continue
                assert runtime.find_name("name") == ADDRESS
                claim.release()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    runtime.claim_name("name", ADDRESS).release()


def test_the_sockets_of_dead_processes_are_removed() -> None:
    """Those of live ones stay."""
    runtime = Runtime()
    process = subprocess.Popen([sys.executable, "-c", ""])  # ours
    process.wait(20)
    dead = ChannelAddress(process.pid, 1, "00")
    for address in (dead, ADDRESS):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(runtime.socket_path(address))
        sock.close()
    runtime.remove_stale_channels()
    assert runtime.channels() == [ADDRESS]


def test_a_socket_at_which_somebody_listens_stays() -> None:
    """A process of another PID namespace seems not to exist, and is alive."""
    runtime = Runtime()
    address = ChannelAddress(999_999_999, 1, "0" * 16)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(runtime.socket_path(address))
        listener.listen()
        runtime.remove_stale_channels()
        assert runtime.channels() == [address]
    runtime.remove_stale_channels()
    assert runtime.channels() == []


def test_a_name_whose_file_was_removed_is_not_taken_from_its_successor(runtime_directory: pathlib.Path) -> None:
    """Who gives a name up removes his own file and no other."""
    runtime = Runtime()
    first = runtime.claim_name("name", ChannelAddress(os.getpid(), 1, "a" * 16))
    (runtime_directory / f"wire-{wire.VERSION}" / "names" / "name").unlink()
    successor = ChannelAddress(os.getpid(), 2, "b" * 16)
    second = runtime.claim_name("name", successor)
    first.release()
    assert runtime.find_name("name") == successor
    second.release()
    with pytest.raises(FileNotFoundError):
        runtime.find_name("name")


@pytest.mark.parametrize("name", ["a" * 200 + ".", "a" * 400 + ".", "a" * 199 + "/."], ids=len)
def test_a_name_may_end_with_a_dot_anywhere(name: str) -> None:
    """Cut into pieces, its last one is no directory."""
    runtime = Runtime()
    address = ChannelAddress(os.getpid(), 1, "a" * 16)
    claim = runtime.claim_name(name, address)
    assert runtime.find_name(name) == address
    room = os.path.join(runtime.path, f"wire-{wire.VERSION}", "names")
    assert list(names_in(room)) == [(name, address)]
    claim.release()


@pytest.mark.parametrize("room", ["", "channels", "names", "paths"])
def test_a_room_that_others_can_write_to_is_refused(runtime_directory: pathlib.Path, room: str) -> None:
    """Like the directory itself."""
    Runtime()
    unsafe = runtime_directory / f"wire-{wire.VERSION}" / room
    unsafe.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError, match="others may write") as raised:
        Runtime()
    assert pathlib.Path(raised.value.filename) == unsafe


def test_a_long_path_is_no_obstacle_where_the_host_can_shorten_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Elsewhere the error says what to do."""
    monkeypatch.setenv("HA_QNX_RUNTIME", str(tmp_path / ("long" * 40)))
    runtime = Runtime()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(runtime.socket_path(ADDRESS))
    sock.close()
    assert runtime.channels() == [ADDRESS]
    monkeypatch.setattr(os.path, "isdir", lambda _path: False)
    with pytest.raises(OSError, match="set HA_QNX_RUNTIME") as raised:
        runtime.socket_path(ADDRESS)
    assert raised.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("name", [None, "", "/x", ".", "./", "nul\0"], ids=repr)
def test_what_is_no_name_is_refused(name: Any) -> None:
    """It is EINVAL."""
    with pytest.raises(OSError, match="name") as raised:
        plain_name(name)
    assert raised.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["a//b", "a/b/", "./a/b", "a/./b"])
def test_a_name_is_tidied(name: str) -> None:
    """Empty components, and those that are ``.``, are taken out."""
    assert plain_name(name) == "a/b"


@pytest.mark.parametrize(("name", "upwards"), [("..", True), ("a..", True), ("a../b", True), ("..a", False)])
def test_a_name_does_not_lead_upwards(name: str, upwards: bool) -> None:
    """One with a component that is ``..``, or ends so, can be nobody's."""
    assert leads_upwards(name) is upwards


def test_a_name_is_a_str() -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match="bytes"):
        plain_name(b"name")


def test_a_zombie_is_told_from_a_live_process() -> None:
    """It has ended and is not yet reaped."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert is_zombie(child)
    os.waitpid(child, 0)
    assert not is_zombie(child)
    assert not is_zombie(os.getpid())


FIRST_THREAD_ENDS = """
import ctypes, platform, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows it")
def test_a_process_whose_first_thread_has_ended_is_not_ending(start_program: Callable[..., Any]) -> None:
    """Not while another one is at work; when it is killed, it is."""
    program = start_program(FIRST_THREAD_ENDS)
    eventually(lambda: is_zombie(program.pid), "the first thread to end")
    assert not is_ending(program.pid)
    os.kill(program.pid, signal.SIGKILL)
    assert is_ending(program.pid)


def test_the_temporary_directory_is_the_one_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the library in C, which has no other if that does not exist: else the twins would not meet."""
    for name in ("HA_QNX_RUNTIME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "/nowhere")
    assert directory_path() == f"/nowhere/ha_qnx-{os.getuid()}"


# What a server does about a directory that is removed under it.

TWINS = ["fallback", "native"]
BACKENDS = [*TWINS, "hybrid"]

SERVER = """
import logging, os, sys
import ha_qnx
from ha_qnx.service import Service
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
class Server(Service):
    def message(self, request):
        return b"%d" % os.getpid()
    def ready(self):
        print("ready", flush=True)
    def pulse(self, code, value):
        self.stop()
Server(*sys.argv[2:], backend=ha_qnx.backend(sys.argv[1])).serve(name_timeout=0)
"""


def told_by(server: Any, servers: str) -> str:
    """What a server says of itself: in its log, or the C library on standard error."""
    return str(server.errors if servers == "native" else server.output)


# Clients and servers.
PAIRS = [(backend, "fallback") for backend in BACKENDS] + [("fallback", "native"), ("native", "native")]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody looks")
@pytest.mark.parametrize("removed", ["all", "the entries"])
@pytest.mark.parametrize(("backend", "servers"), PAIRS)
def test_a_server_enters_again_what_was_removed(
    libha: str,
    monkeypatch: pytest.MonkeyPatch,
    start_program: Callable[..., Any],
    backend: str,
    servers: str,
    removed: str,
) -> None:
    """Clients find it by its name and by its path, another server does not get the name, and it says so."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    server = start_program(SERVER, servers, "name", "/dev/path")
    eventually(lambda: "ready" in server.output, "the server")
    directory = pathlib.Path(directory_path())
    if removed == "all":
        shutil.rmtree(directory)
    else:
        entries = [entry for entry in directory.rglob("*") if not entry.is_dir()]
        for entry in entries:
            entry.unlink()
    qnx = ha_qnx.backend(backend)
    for target in ("name", "/dev/path"):
        with connect(target, wait=DEADLINE, recover=None, backend=qnx) as connection:
            assert connection.ask(b"x") == b"%d" % server.pid
    with fails_with(errno.EEXIST):
        qnx.name_attach("name")
    for what in ("channel 1", "the name 'name'", "the path '/dev/path'"):
        assert f"{what} was removed from {directory}, and is there again" in told_by(server, servers)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert server.terminate() == 0
    assert not [entry for entry in directory.rglob("*") if not entry.is_dir() and str(server.pid) in entry.name]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody looks")
@pytest.mark.parametrize("servers", TWINS)
def test_a_server_whose_name_is_anothers_by_now_says_so_and_leaves_it_alone(
    libha: str, monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any], servers: str
) -> None:
    """Once; when the other one has left, it has its name again."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    first = start_program(SERVER, servers, "name")
    eventually(lambda: "ready" in first.output, "the first server")
    first.process.send_signal(signal.SIGSTOP)
    (pathlib.Path(wire_directory()) / "names" / "name").unlink()
    second = start_program(SERVER, servers, "name")
    eventually(lambda: "ready" in second.output, "the second server")
    first.process.send_signal(signal.SIGCONT)
    eventually(lambda: "the name 'name' was removed from " in told_by(first, servers), "the line in the log")
    with connect("name", recover=None) as connection:
        assert connection.ask(b"x") == b"%d" % second.pid
    second.kill()
    with connect("name", wait=DEADLINE, recover=None) as connection:
        assert connection.ask(b"x") == b"%d" % first.pid
        connection.pulse(0)
    assert first.process.wait(DEADLINE) == 0
    assert told_by(first, servers).count(", and cannot be found: ") == 1


@pytest.mark.parametrize("servers", TWINS)
def test_the_directory_of_a_living_server_is_locked(
    libha: str,
    runtime_directory: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    start_program: Callable[..., Any],
    servers: str,
) -> None:
    """So systemd-tmpfiles leaves it alone, with all that lies in it."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    monkeypatch.setenv("HA_QNX_RUNTIME", str(runtime_directory))
    server = start_program(SERVER, servers, "name")
    eventually(lambda: "ready" in server.output, "the server")
    fd = os.open(directory_path(), os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert server.terminate() == 0
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_a_directory_that_is_anothers_by_now_is_refused(
    runtime_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may have put one of his own in place of what was removed."""
    runtime = Runtime()
    runtime.claim_name("name", ADDRESS)
    shutil.rmtree(runtime_directory)
    runtime_directory.mkdir()
    runtime_directory.chmod(0o777)
    with pytest.raises(UnsafeDirectoryError):
        runtime.claim_name("other", ADDRESS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_who_looks_for_the_name_of_a_dead_server_removes_its_file(
    libha: str, monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any], backend: str
) -> None:
    """A successor that takes it at that moment gets it all the same."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    server = start_program(SERVER, "fallback", "name")
    eventually(lambda: "ready" in server.output, "the server")
    server.kill()
    file = pathlib.Path(wire_directory()) / "names" / "name"
    assert file.exists()
    with fails_with(errno.ENOENT):
        ha_qnx.backend(backend).name_open("name")
    assert not file.exists()


TAKING = """
import contextlib, os, subprocess, sys, threading
import ha_qnx
from ha_qnx.fallback.runtime import ChannelAddress, Runtime, wire_directory
qnx, runtime, is_over = ha_qnx.backend(sys.argv[1]), Runtime(), threading.Event()
left = subprocess.Popen([sys.executable, "-c", ""])
left.wait()
dead = ChannelAddress(left.pid, 1, "0123456789abcdef")
file = os.path.join(wire_directory(), "names", "name")

def remove():
    while not is_over.is_set():
        runtime.remove_dead_name("name", dead)

removing = [threading.Thread(target=remove) for _thread in range(2)]
for thread in removing:
    thread.start()
try:
    for _round in range(200):
        with open(file + ".new", "w") as new:
            new.write(str(dead))
        os.rename(new.name, file)
        name = qnx.name_attach("name")
        assert runtime.find_name("name").pid == os.getpid()
        qnx.name_detach(name)
    print("done")
finally:
    is_over.set()
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["fallback", "native"])
def test_a_name_can_be_taken_while_others_remove_what_a_dead_server_left(
    libha: str, monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any], backend: str
) -> None:
    """Their lock is held for a moment, and takes the name from nobody."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    program = start_program(TAKING, backend)
    program.process.wait(DEADLINE)
    assert (program.output, program.errors) == ("done\n", "")
