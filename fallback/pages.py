"""Messages by way of memory, between two that look before they sleep.

Where client and server both look (``spinning``), a lane gets a page beside its pipes: memory that both have mapped. A
message lies in it instead of in the pipe while a thread of the server looks there, and an answer while the client does.
The pipes remain the way of all else, and the only one that wakes. In order:

1.  A server's thread that looks, since its queue is empty, *offers*: it puts a number into LISTENS that was not there
    before. It does so in the lane that was answered last.
2.  A client that finds a number there puts its frame into the page, and behind that the number into SENT. With that the
    message counts as received, as on QNX where a thread waits for it.
3.  Who looks finds the number in SENT, and tells by TAKEN that it has it. If there is other news, the message is queued
    with that: what came first or has the higher priority is received first, and a client that has gone is noticed.
4.  Who stops looking says so (LISTENS is odd), looks a last time, and sets LISTENS to 0. A client looks there after it
    has sent: if the number is there no more, TAKEN decides whether the message is on its way or goes into the pipe.
5.  The answer goes the same way if the client has said in AWAKE that it looks for it, to ANSWERED. A client that stops
    sets AWAKE to 0 and looks a last time. A server that finds it so after it has answered writes LOOK into the pipe.
6.  Memory does not tell that the other side has died; the pipe does. So who has sent looks there once, and, as long as
    it looks, again and again. If the server had gone before it could take the message, that did not go out.

In 4 and 5, each side writes one word and then reads the other's. No processor does that in order without being told to,
so both sides stand at a fence in between. All else needs stores and loads to be seen in order, as they are on x86-64;
elsewhere there are no pages.

It is for a channel at which one thread receives. Nothing that the other side writes into the page is relied upon: sizes
are read once, and what is copied out is looked at in the same way as if it had come by the pipe.
"""

import contextlib
import fcntl
import mmap
import os
import select
import stat
import sys
import threading
import time
from threading import get_ident
from typing import Callable, ContextManager, Iterable, List, Mapping, Optional, Protocol, Sequence, Union

from . import host, limits, spinning, wire
from .forking import forks_wait

Buffer = Union[bytearray, memoryview]
Read = Callable[[Buffer], Optional[int]]
Write = Callable[[bytes], Optional[int]]

_IS_POSSIBLE = not host.PORTABLE and os.uname().machine == "x86_64" and sys.maxsize > 1 << 32
#: Whether this process takes pages from its clients, and offers them to its servers.
ARE_USED = bool(spinning.NANOSECONDS) and _IS_POSSIBLE

# The words of a page. The first are written by the server, the others, in a cache line of their own, by the client.
_LISTENS, _TAKEN, _ANSWERED, _ANSWER_SIZE = range(4)
_SENT, _SENT_SIZE, _AWAKE, _HEARD = range(16, 20)
_WORDS = 32

_LOOK_FRAME = wire.reply.pack(wire.LOOK, 0, 0, 0, 0)
# So many looks at a page for each one at what else there may be, which takes as long.
_LOOKS = range(24)
# As many as it takes to answer a message at once, before there are others.
_FIRST_LOOKS = range(80)
_FRAME_MAX, _GONE, _READABLE = wire.FRAME_MAX, host.GONE, host.READABLE
_now = time.monotonic_ns


class _Memory:
    """A mapped page: its words, and where frames lie."""

    def __init__(self, fd: int) -> None:
        whole = memoryview(mmap.mmap(fd, wire.PAGE_SIZE))
        self.words = whole[: 8 * _WORDS].cast("Q")
        self.message = whole[wire.PAGE_MESSAGE : wire.PAGE_MESSAGE + _FRAME_MAX]
        self.answer = whole[wire.PAGE_ANSWER : wire.PAGE_ANSWER + _FRAME_MAX]
        # Taking a lock is a step that no processor takes before the stores that precede it can be seen.
        self.fence = threading.Lock()


def _open_page() -> int:
    fd = os.memfd_create("ha_qnx page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, wire.PAGE_SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _map_passed(fd: int) -> _Memory:
    """Map what a client has passed, if nobody can take the memory away again.

    Raises:
        OSError: the host does not map it.
        ValueError: it is no such memory.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size < wire.PAGE_SIZE:
        raise ValueError("no page")
    if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
        raise ValueError("a page that may become smaller")
    return _Memory(fd)


# The client's side.


class ClientLane(Protocol):
    """What is known here of a client's end of a lane."""

    read_fd: int
    address: object
    buffer: bytearray
    write_inode: int
    write: Write
    read_into: Read
    c_read: spinning.CRead
    page: "Optional[Page]"


class ClientTrunk(Protocol):
    """What is known here of a trunk, and asked of it."""

    takes_pages: bool
    is_waited_on: Optional[Callable[[], bool]]

    def channel_flags(self) -> Optional[int]:
        """The flags of the channel; None as long as the server has not taken note of the connection."""

    def pass_on(self, frame: bytes, descriptors: Sequence[int]) -> None:
        """Send the server a frame with descriptors."""


def offer_later(lane: ClientLane, trunk: ClientTrunk) -> None:
    """Give a lane a page when it has been used for a while, if the server takes one: it has said so by then."""
    left, write = limits.PAGE_AFTER, lane.write

    def write_and_count(frame: bytes) -> Optional[int]:
        nonlocal left
        left -= 1
        if left <= 0:
            lane.write = write
            with contextlib.suppress(OSError):  # It does without one.
                _give_page(lane, trunk)
        return write(frame)

    lane.write = write_and_count


def _give_page(lane: ClientLane, trunk: ClientTrunk) -> None:
    # Two threads of one process do not run at the same time.
    if trunk.is_waited_on is not None or trunk.channel_flags() is None or not trunk.takes_pages:
        return
    with forks_wait:
        fd = _open_page()
        try:
            page = Page(lane, _Memory(fd))
            trunk.pass_on(wire.lane.pack(wire.PAGE, 0, 0, lane.write_inode), [fd])
        finally:
            os.close(fd)
    lane.page, lane.write, lane.read_into, lane.c_read = page, page.write, page.read_into, page.c_read


class Page:
    """The client's side of a page."""

    def __init__(self, lane: ClientLane, memory: _Memory) -> None:
        self._words, self._message, self._answer, self._fence = (
            memory.words, memory.message, memory.answer, memory.fence,
        )  # fmt: skip
        self._write = lane.write
        self._read_into = host.reader(lane.read_fd)
        self._buffer = lane.buffer
        poll = select.poll()
        poll.register(lane.read_fd, select.POLLIN)
        self._poll = poll.poll
        self._spinner = spinning.Spinner()
        #: The number of a message whose answer is looked for here, and of the last one of which it is no longer.
        self.number = 0
        self._left = 0

    def write(self, frame: bytes) -> Optional[int]:
        """Send a message: by the page if somebody looks there, else by the pipe.

        Raises:
            BrokenPipeError: nobody can receive it any more.
        """
        words = self._words
        number = words[_LISTENS]
        if not number or number & 1:
            return self._write(frame)
        size = len(frame)
        self._message[:size] = frame
        words[_SENT_SIZE] = size
        words[_AWAKE] = number
        words[_SENT] = number
        with self._fence:
            pass
        if words[_LISTENS] != number and not self._is_taken(number):
            words[_AWAKE] = 0
            return self._write(frame)
        self.number = number
        news = self._poll(0)
        if news and news[0][1] & _GONE and words[_TAKEN] != number:
            raise BrokenPipeError
        return size

    def _is_taken(self, number: int) -> bool:
        """Whether who has just stopped looking has the message; it is about to say so."""
        words = self._words
        while words[_LISTENS] == number + 1:
            news = self._poll(0)
            if news and news[0][1] & _GONE:
                break
            time.sleep(0)
        return words[_TAKEN] == number

    def read_into(self, buffer: Buffer) -> Optional[int]:
        """Wait for an answer in any thread but the main one."""
        number = self.number
        if number:
            # What comes most often, written out.
            words = self._words
            for _look in _FIRST_LOOKS:
                if words[_ANSWERED] == number:
                    self._spinner.misses = 0
                    return self._take(number, buffer)
        return self._look(buffer, False) or self._read_into(buffer)

    def c_read(self, fd: int, address: object, size: object) -> int:
        """Wait for an answer in the main thread; as read(2)."""
        count = self._look(self._buffer, True)
        if not count:
            count = host.c_read(fd, address, size)
        return count

    def _look(self, buffer: Buffer, is_main: bool) -> int:
        """Look for an answer; how much has come by the page. What has not is in the pipe, or will be."""
        spinner, number = self._spinner, self.number
        if spinner.sleeps_at_once(is_main):
            return self.leave(buffer) if number else 0
        words, poll, end = self._words, self._poll, 0
        while True:
            if number:
                for _look in _LOOKS if end else _FIRST_LOOKS:
                    if words[_ANSWERED] == number:
                        spinner.misses = 0
                        return self._take(number, buffer)
            if poll(0):
                spinner.misses = 0
                break
            if not end:
                end = _now() + spinning.NANOSECONDS
            elif _now() >= end:
                spinner.missed()
                break
        return self.leave(buffer) if number else 0

    def leave(self, buffer: Buffer) -> int:
        """Look for the answer no longer, but for a last time; how much there is."""
        number, words = self.number, self._words
        if words[_ANSWERED] != number:
            words[_AWAKE] = 0
            with self._fence:
                pass
            if words[_ANSWERED] != number:
                self._left, self.number = number, 0
                return 0
        return self._take(number, buffer)

    def _take(self, number: int, buffer: Buffer) -> int:
        words = self._words
        size: int = min(words[_ANSWER_SIZE], _FRAME_MAX, len(buffer))
        buffer[:size] = self._answer[:size]
        words[_HEARD] = number
        self.number = 0
        return size

    def late_answer(self, buffer: bytearray) -> int:
        """What the pipe says is to be found here, if that is the answer that is waited for: how much it is; or 0."""
        number, self._left = self._left, 0
        if not number or self._words[_ANSWERED] != number:
            return 0
        return self._take(number, buffer)


# The server's side.


class ServedLane(Protocol):
    """What is known here of the server's end of a lane, and asked of it."""

    read_fd: int
    write_fd: int
    idle: bool
    gone: bool
    is_plain: bool
    filled: int
    rcvid: int
    buffer: bytearray
    window: Optional[host.Window]
    write: Write
    read_into: Read
    page: "Optional[ServedPage]"

    def set_aside(self) -> None:
        """Queue the message that lies in the page."""


class Awake:
    """How the threads of a channel look before they sleep."""

    def __init__(self, poller: host.Poller, lanes: Mapping[int, ServedLane], lock: ContextManager[object]) -> None:
        self._lanes, self._lock = lanes, lock
        self.spinner = spinning.Spinner()
        self.glance = poller.glance
        self._wait_for_ever, self._wait_interruptibly = poller.wait_for_ever, poller.wait_interruptibly
        #: Which lane was answered last, of those that have a page.
        self.latest = -1
        # Which thread receives; and whether there are others.
        self._thread = 0
        self.are_several = False

    def wait_for_ever(self, timeout: None = None, most: int = 16) -> host.News:
        """As the poller's, after looking."""
        return self._look(False) or self._wait_for_ever(timeout, most)

    def wait_interruptibly(self) -> host.News:
        """As the poller's, after looking."""
        return self._look(True) or self._wait_interruptibly()

    def look(self, is_main: bool, deadline: Optional[float]) -> Optional[host.News]:
        """Look at what the poller tells."""
        self.note_thread()
        return self.spinner.spin(self.glance, is_main, deadline)

    def note_thread(self) -> None:
        """Take note of who receives."""
        if self._thread != get_ident():
            self.are_several = self._thread != 0
            self._thread = get_ident()

    def _look(self, is_main: bool) -> Optional[host.News]:
        lane = self._lanes.get(self.latest)
        page = lane.page if lane is not None and lane.idle else None
        self.note_thread()
        if page is None or lane is None or self.are_several:
            return self.spinner.spin(self.glance, is_main, None)
        if self.spinner.sleeps_at_once(is_main):
            return None
        news: Optional[host.News] = None
        words = page.words
        try:
            number = page.offer()
            for _look in _FIRST_LOOKS:
                if words[_SENT] == number:
                    self.spinner.misses = 0
                    break
            else:
                news = page.look(self)
        finally:
            is_there = page.stop()
        if not is_there:
            return news
        news = news or self.glance()
        if not news:
            return page.news
        with self._lock:
            lane.set_aside()
        return news

    def adopt(self, lanes: "Iterable[ServedLane]", inode: int, passed: List[int]) -> bool:
        """Take a page that a client has passed for one of its lanes; whether it was one to be expected."""
        if not ARE_USED or not passed:
            return False
        fd = passed.pop(0)
        try:
            memory = _map_passed(fd)
        except (OSError, ValueError):
            return False
        finally:
            host.close_passed(fd)
        for lane in lanes:
            if lane.is_plain and lane.window is None and lane.page is None and os.fstat(lane.read_fd).st_ino == inode:
                lane.page = page = ServedPage(self, lane, memory)
                lane.write, lane.read_into = page.write, page.read_into
        return True


class ServedPage:
    """The server's side of a page."""

    def __init__(self, awake: Awake, lane: ServedLane, memory: _Memory) -> None:
        self.words, self._message, self._answer, self._fence = (
            memory.words, memory.message, memory.answer, memory.fence,
        )  # fmt: skip
        # Not the lane itself, whose descriptors are closed with the last reference to it.
        self._awake, self._fd = awake, lane.read_fd
        self._write, self._read_into = lane.write, lane.read_into
        poll = select.poll()
        poll.register(lane.write_fd, 0)
        self._poll = poll.poll
        self.news: host.News = [(lane.read_fd, _READABLE)]
        self._number = 0
        # The number by which a message may lie here that nobody has read yet, and that of the one that was received.
        self.offered = 0
        self._answers = 0

    def offer(self) -> int:
        """Say that somebody looks here, who will ``stop``; the number with which a message is to come."""
        self.offered = self._number = self._number + 2
        self.words[_LISTENS] = self._number
        return self._number

    def look(self, awake: Awake) -> Optional[host.News]:
        """Look for a message, and for what else comes, which is returned."""
        words, number, glance, spinner = self.words, self.offered, awake.glance, awake.spinner
        end = _now() + spinning.NANOSECONDS
        while True:
            news = glance()
            if news or awake.are_several:  # Another thread has begun to wait, and is served first (B263).
                spinner.misses = 0
                return news
            for _look in _LOOKS:
                if words[_SENT] == number:
                    spinner.misses = 0
                    return None
            if _now() >= end:
                spinner.missed()
                return None

    def stop(self) -> bool:
        """Look no longer, but for a last time; whether a message is there."""
        words, number = self.words, self.offered
        if not number:
            return False
        if words[_SENT] != number:
            words[_LISTENS] = number + 1
            with self._fence:
                pass
            if words[_SENT] != number:
                self.offered = words[_LISTENS] = 0
                return False
        words[_TAKEN] = number
        words[_LISTENS] = 0
        return True

    def settle(self, lane: ServedLane) -> None:
        """Queue the message that an exception has kept from being received, if it still lies here."""
        if lane.filled or lane.rcvid:
            self.offered = 0
        elif self.offered and self.stop():
            lane.set_aside()

    def read_into(self, buffer: Buffer) -> Optional[int]:
        """Take the message that is there, or read from the pipe."""
        number, words = self.offered, self.words
        if number and words[_SENT] == number:
            size: int = min(words[_SENT_SIZE], _FRAME_MAX)
            if size <= len(buffer):
                buffer[:size] = self._message[:size]
                self._answers, self.offered = number, 0
                return size
        self._answers = 0
        return self._read_into(buffer)

    def write(self, frame: bytes) -> Optional[int]:
        """Answer: by the page if the client looks there, else by the pipe.

        Raises:
            BrokenPipeError: the client has gone.
        """
        words, number = self.words, self._answers
        self._awake.latest = self._fd
        if not number or words[_AWAKE] != number:
            return self._write(frame)
        self._answers = 0
        size = len(frame)
        self._answer[:size] = frame
        words[_ANSWER_SIZE] = size
        words[_ANSWERED] = number
        # Usually it hears soon, which says that it is there, and awake.
        for _look in _LOOKS:
            if words[_HEARD] == number:
                return size
        with self._fence:
            pass
        try:
            if words[_AWAKE] != number:
                self._write(_LOOK_FRAME)
            elif self._poll(0):
                raise BrokenPipeError
        except BrokenPipeError:
            if words[_HEARD] != number:
                raise
        return size
