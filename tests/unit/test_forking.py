"""fork while other threads are in the middle of something: each step after it is taken, whatever becomes of others."""

import gc
import os
import pickle
import signal
import threading
import weakref
from errno import EBADF, ESRCH
from typing import Any, Callable, List, Tuple

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task
from ha_qnx.fallback import host
from ha_qnx.fallback.forking import Held, all_of, forks_wait
from ha_qnx.fallback.kernel import SocketKernel

from ha_qnx import backends, strategies

LONG = 100_000


def in_a_child(call: Callable[[], Any]) -> Any:
    """What a call returns in a forked child, or its exception's name and words."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(int(DEADLINE))
        outcome: Any = None
        try:
            outcome = call()
        except BaseException as error:
            outcome = repr(error)
        os.write(theirs, pickle.dumps(outcome))
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the child ended without a word"
    return pickle.loads(data)  # noqa: S301  # our own child's


def serve(kernel: SocketKernel, chid: int, count: int) -> None:
    """Answer so many messages with as much as they have brought."""
    buffer = bytearray(LONG)
    while count:
        rcvid = kernel.MsgReceive(chid, buffer)
        if rcvid:
            kernel.MsgReply(rcvid, 0, bytes(buffer[: kernel.MsgInfo(rcvid).srcmsglen]))
            count -= 1


@pytest.fixture
def served() -> Tuple[SocketKernel, SocketKernel, int, int]:
    """A server's kernel and a client's, the channel, and a connection."""
    server, client = SocketKernel(), SocketKernel()
    chid = server.ChannelCreate(0)
    return server, client, chid, client.ConnectAttach(0, os.getpid(), chid, 0)


@pytest.mark.skipif(host.PORTABLE, reason="there, a window is no memory that somebody can look at")
def test_a_thread_inside_a_window_keeps_nothing_open(
    served: Tuple[SocketKernel, SocketKernel, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view of a window's memory that is there during a fork keeps none of the parent's lanes open in the child."""
    server, client, chid, coid = served
    inside, forked = threading.Event(), threading.Event()
    read_into = host.Window.read_into

    def read_slowly(window: host.Window, offset: int, target: memoryview) -> None:
        if threading.current_thread() is not threading.main_thread() and not inside.is_set():
            assert window._memory is not None
            with memoryview(window._memory):
                inside.set()
                assert forked.wait(DEADLINE)
        read_into(window, offset, target)

    monkeypatch.setattr(host.Window, "read_into", read_slowly)
    answering = Task(serve, server, chid, 2)
    sending = Task(client.MsgSend, coid, bytes(LONG), bytearray(LONG))
    assert inside.wait(DEADLINE)

    def ours() -> List[str]:
        paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [os.readlink(path) for path in paths if os.path.exists(path)]

    left = in_a_child(ours)
    forked.set()
    lanes = {os.readlink(f"/proc/self/fd/{lane.read_fd}") for lane in client._connections[coid]._lanes}
    assert lanes
    assert not lanes & set(left)
    assert sending.result() == 0
    client.MsgSend(coid, b"x")
    answering.result()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_step_that_fails_keeps_no_other_from_being_taken(
    served: Tuple[SocketKernel, SocketKernel, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks in the child's hook: its calls work, and know nothing of the parent's."""
    _server, client, _chid, coid = served

    def break_down(*_arguments: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(client._table, "close_in_child", break_down)
        chid = in_a_child(lambda: (client.ChannelCreate(0), client._table.is_ours(coid)))
    assert chid == (1, True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fork_that_cannot_be_prepared_leaves_no_lock_taken(
    served: Tuple[SocketKernel, SocketKernel, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a signal handler raises before the fork costs nobody a lock."""
    _server, client, _chid, _coid = served

    def break_down() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(client._table, "prepare_fork", break_down)
        assert in_a_child(lambda: client.ChannelCreate(0)) == 1
    assert Task(client.ChannelCreate, 0).result() == 1


def test_a_kernel_that_nobody_has_any_more_releases_what_it_holds_during_a_fork() -> None:
    """What was taken before a fork is released after it, though the kernel's last reference has gone in between."""
    kernels: List[SocketKernel] = []

    def collect() -> None:
        if kernels:
            kernels.clear()
            gc.collect()

    def is_free() -> bool:
        if forks_wait.acquire(blocking=False):
            forks_wait.release()
            return True
        return False

    # Before those of the kernel, and so called after the fork before they are.
    os.register_at_fork(after_in_parent=collect, after_in_child=collect)
    kernels.append(SocketKernel())
    gone = weakref.ref(kernels[0])
    in_a_child(os.getpid)
    gc.collect()
    assert gone() is None
    assert Task(is_free).result()


@pytest.mark.usefixtures("shared_directory")
@pytest.mark.parametrize("name", ["fallback", "native", "hybrid"])
def test_a_child_that_waits_for_a_server_leaves_the_number_of_its_connection_free(name: str) -> None:
    """Nothing that the library opens meanwhile gets the number, though it is the lowest one."""
    qnx = backends.backend(name)
    attempts: List[int] = []

    def serve_one() -> int:
        chid = qnx.ChannelCreate(0)
        Task(lambda: qnx.MsgReply(qnx.MsgReceive(chid, bytearray(8)), 7))
        return chid

    def recover(lost: int, _handle: object) -> int:
        attempts.append(lost)
        if len(attempts) == 1:
            raise OSError(ESRCH, "no server yet")
        return qnx.ha_ReConnectAttach(lost, 0, 0, serve_one(), lost, 0)

    first = qnx.ChannelCreate(0)
    coid = qnx.ha_ConnectAttach(0, 0, first, 0, 0, strategies.wait_for(recover, DEADLINE))
    qnx.ChannelDestroy(first)
    assert in_a_child(lambda: (qnx.MsgSend(coid, b"x"), len(attempts))) == (7, 2)
    qnx.ha_ConnectDetach(coid)


def test_all_steps_are_taken() -> None:
    """The first that fails keeps no other from being taken, and what one has raised is raised."""
    taken: List[int] = []

    def fail() -> None:
        taken.append(1)
        raise OSError(EBADF, "x")

    with pytest.raises(OSError, match="x"):
        all_of([lambda: taken.append(0), fail, lambda: taken.append(2)])
    assert taken == [0, 1, 2]


def test_what_is_held_is_released_once() -> None:
    """A lock that could not be had is none of those that are released."""

    class Interrupted:
        def acquire(self) -> bool:
            raise KeyboardInterrupt

        def release(self) -> None:
            raise AssertionError("it was not acquired")

    held, lock = Held(), threading.Lock()
    with pytest.raises(KeyboardInterrupt):
        held.take([lock, Interrupted()])
    assert lock.locked()
    held.release()
    held.release()
    assert not lock.locked()


def test_threads_that_fork_at_once_release_each_their_own() -> None:
    """A lock that one has waited for while another released what it held is released in its turn."""
    held, lock = Held(), threading.Lock()

    def fork() -> None:
        held.take([lock])
        held.release()

    held.take([lock])
    other = Task(fork)
    other.wait_until_blocked()
    held.release()
    other.result()
    assert not lock.locked()
