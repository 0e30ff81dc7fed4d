"""What the host is made to do: lanes, windows, waits, and writes that do not kill."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Iterator

import pytest
from ha_qnx.conformance.waiting import Task
from ha_qnx.fallback import host


@pytest.fixture(params=[False, True], ids=["linux", "portable"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do it the host's way, and the portable way."""
    if not sys.platform.startswith("linux") and not request.param:
        pytest.fail("the direct way needs Linux: run this test there")
    monkeypatch.setattr(host, "PORTABLE", request.param)
    return bool(request.param)


@pytest.fixture
def lane(way: bool) -> Iterator[host.Ends]:
    ends = host.open_lane()
    yield ends
    for fd in ends:
        with contextlib.suppress(OSError):
            os.close(fd)


def test_a_lane_carries_both_ways(lane: host.Ends) -> None:
    """What one side writes, the other reads."""
    os.write(lane.client_write, b"message")
    assert os.read(lane.server_read, 100) == b"message"
    os.write(lane.server_write, b"reply")
    assert os.read(lane.client_read, 100) == b"reply"


def test_a_lane_ends_when_the_server_is_gone(lane: host.Ends) -> None:
    """Reading gives nothing, writing is a BrokenPipeError."""
    os.close(lane.server_read)
    os.close(lane.server_write)
    assert os.read(lane.client_read, 100) == b""
    with pytest.raises(BrokenPipeError):
        host.quiet_write(lane.client_write, b"message")


def test_a_thread_that_reads_can_be_woken(lane: host.Ends) -> None:
    """It reads the frame, or the end of the lane."""
    read: Any = []
    thread = threading.Thread(target=lambda: read.append(os.read(lane.client_read, 100)))
    thread.start()
    host.wake_reader(lane.client_read, b"wake")
    thread.join(10)
    assert read in ([b"wake"], [b""])


def test_the_client_can_see_whether_its_message_was_taken(lane: host.Ends) -> None:
    """Where it cannot, it is told so."""
    os.write(lane.client_write, b"message")
    before = host.unread(lane.client_write)
    os.read(lane.server_read, 100)
    after = host.unread(lane.client_write)
    assert (before, after) in ((7, 0), (None, None))
    assert (before is None) == host.PORTABLE


def test_looking_takes_nothing() -> None:
    """The bytes that were looked at are still there."""
    peek = host.Peek()
    read, write = os.pipe()
    os.write(write, b"abcdef")
    os.set_blocking(read, False)
    assert peek(read, 3) == peek(read, 3) == b"abc"
    assert os.read(read, 100) == b"abcdef"
    assert peek(read, 3) == b""
    os.close(read)
    os.close(write)


def test_a_window_is_shared_memory(way: bool) -> None:
    """What one side writes, the other reads; a copy of the descriptor is enough."""
    ours = host.Window.create(1 << 20)
    theirs = host.Window.adopt(os.dup(ours.fd), 1 << 20)
    data = os.urandom(300_000)
    ours.write(5, memoryview(data))
    target = bytearray(300_000)
    theirs.read_into(5, memoryview(target))
    assert target == data
    theirs.close()
    ours.close()


def test_a_window_is_not_smaller_than_announced(way: bool) -> None:
    """Else it is refused."""
    window = host.Window.create(1000)
    for size in (0, 1001):
        with pytest.raises(ValueError, match="smaller"):
            host.Window.adopt(window.fd, size)
    window.close()


def test_a_window_that_shrinks_is_an_error_not_a_signal(tmp_path: Any) -> None:
    """A file that is not sealed is read, not mapped."""
    fd = os.open(tmp_path / "window", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 10_000)
    window = host.Window.adopt(fd, 10_000)
    os.ftruncate(fd, 100)
    with pytest.raises(ValueError, match="smaller"):
        window.read_into(0, memoryview(bytearray(10_000)))
    window.close()


@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL", "handler"])
def test_a_write_to_nobody_does_not_kill(disposition: str) -> None:
    """Whatever the program does about SIGPIPE, and it sees none of ours."""
    program = f"""
import os, signal
from ha_qnx.fallback import host
seen = []
handler = lambda *_: seen.append(1)
signal.signal(signal.SIGPIPE, {"handler" if disposition == "handler" else "signal." + disposition})
read, write = os.pipe()
os.close(read)
for _ in range(3):
    try:
        host.quiet_write(write, b"x")
    except BrokenPipeError:
        continue
    raise SystemExit("no error")
assert not seen and not signal.sigpending() and not signal.pthread_sigmask(signal.SIG_BLOCK, [])
print("alive")
"""
    result = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, timeout=30)  # noqa: S603  # ours
    assert (result.returncode, result.stdout) == (0, b"alive\n")


def test_a_wait_ends_at_its_deadline_and_not_before() -> None:
    """Both kinds of wait say so by 0."""
    read, write = os.pipe()
    for is_main in (True, False):
        deadline = time.monotonic() + 0.02
        assert host.wait_readable(read, deadline, is_main) == 0
        assert time.monotonic() >= deadline
    os.write(write, b"x")
    assert host.wait_readable(read, None, True) == host.wait_readable(read, None, False) == 1
    os.close(read)
    os.close(write)


def test_descriptors_of_ours_are_moved_out_of_the_way() -> None:
    """The low numbers stay free, and nothing is inherited."""
    low = os.open(os.devnull, os.O_RDONLY)
    high = host.out_of_the_way(low)
    assert high > low
    assert not os.get_inheritable(high)
    assert os.open(os.devnull, os.O_RDONLY) == low
    os.close(low)
    os.close(high)


def test_a_descriptor_that_is_another_file_by_now_is_left_alone() -> None:
    """Closing ours does not close what has its number."""
    read, write = os.pipe()
    inode = os.fstat(read).st_ino
    os.close(read)
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == read
    host.close_ours(read, inode)
    os.fstat(other)
    os.close(other)
    host.close_ours(write, os.fstat(write).st_ino)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)


class TestPollers:
    """Both pollers, by the same interface."""

    @pytest.fixture
    def poller(self, way: bool) -> host.Poller:
        poller = host.open_poller()
        assert isinstance(poller, host.PollPoller if way else host.EpollPoller)
        return poller

    @pytest.fixture
    def pipe(self) -> Iterator["tuple[int, int]"]:
        read, write = os.pipe()
        yield read, write
        os.close(read)
        with contextlib.suppress(OSError):
            os.close(write)

    def test_news_is_told(self, poller: host.Poller, pipe: "tuple[int, int]") -> None:
        """With the descriptor and what happened, in every kind of wait."""
        read, write = pipe
        poller.register(read)
        assert list(poller.news()) == []
        os.write(write, b"x")
        expected = [(read, host.READABLE)]
        assert list(poller.news()) == list(poller.wait(None, False)) == list(poller.wait(None, True)) == expected
        assert list(poller.wait_for_ever(None, 16)) == list(poller.wait_interruptibly()) == expected

    def test_an_end_is_told(self, poller: host.Poller, pipe: "tuple[int, int]") -> None:
        """Also of a descriptor that is muted."""
        read, write = pipe
        poller.register(read)
        os.write(write, b"x")
        poller.mute(read)
        assert list(poller.news()) == []
        os.close(write)
        ((fd, event),) = poller.news()
        assert fd == read
        assert event & host.GONE

    def test_what_was_muted_is_told_again(self, poller: host.Poller, pipe: "tuple[int, int]") -> None:
        """Unmuting brings back what lies there."""
        read, write = pipe
        poller.register(read)
        os.write(write, b"x")
        poller.mute(read)
        poller.unmute(read)
        assert list(poller.news()) == [(read, host.READABLE)]

    def test_what_was_told_can_be_told_again(self, poller: host.Poller, pipe: "tuple[int, int]") -> None:
        """Nothing that lies unread is lost for good."""
        read, write = pipe
        poller.register(read, once=True)
        os.write(write, b"x")
        assert list(poller.news()) == [(read, host.READABLE)]
        poller.tell_again()
        assert list(poller.news()) == [(read, host.READABLE)]

    def test_what_is_not_watched_is_not_told(self, poller: host.Poller, pipe: "tuple[int, int]") -> None:
        """Taking a descriptor out twice does no harm."""
        read, write = pipe
        poller.register(read)
        os.write(write, b"x")
        poller.unregister(read)
        poller.unregister(read)
        assert list(poller.news()) == []

    def test_a_thread_that_waits_is_told_of_what_is_watched_later(
        self, poller: host.Poller, pipe: "tuple[int, int]"
    ) -> None:
        """Whether it comes then or lies there already."""
        read, write = pipe
        waiting = Task(poller.wait, None, False).wait_until_blocked()
        poller.register(read)
        os.write(write, b"x")
        assert list(waiting.result()) == [(read, host.READABLE)]
        poller.mute(read)
        waiting = Task(poller.wait, None, False).wait_until_blocked()
        poller.unmute(read)
        assert list(waiting.result()) == [(read, host.READABLE)]

    def test_a_signal_handler_ends_the_wait_of_the_main_thread(
        self, poller: host.Poller, pipe: "tuple[int, int]"
    ) -> None:
        """The wait is told after the handler has run."""
        poller.register(pipe[0])
        ran = threading.Event()
        before = signal.signal(signal.SIGALRM, lambda _number, _frame: ran.set())
        # Again and again, since the first may come before the wait has begun.
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        try:
            with pytest.raises(InterruptedError):
                poller.wait(None, True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert ran.is_set()
