"""The client's side: trunks, lanes and connections.

A *trunk* is the stream socket between this process and one channel. It carries no messages. Its end tells each side
that the other is gone, and it passes the lanes. All connections of this process to one channel share a trunk, so the
server sees one client (B46), unless NTO_COF_NOSHARE asks for one of its own.

A *lane* is a pair of pipes with at most one message outstanding: the message goes one way, the reply comes the other.
A connection owns its lanes. A thread that sends takes an idle one or opens another, so threads never wait for each
other, and nothing needs to be sorted out when replies arrive.

What becomes of a message on its lane is in exchange.py, and which number a connection has, in table.py.
"""

import contextlib
import fcntl
import io
import math
import operator
import os
import socket
import threading
import time
from errno import EAGAIN, EBADF, EINTR, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from ha_qnx.constants import NTO_CHF_UNBLOCK, NTO_COF_CLOEXEC
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import door, host, limits, pages, spinning, wire
from .deliveries import Inlets, Said
from .forking import all_of, forks_wait
from .pulse_pipes import open_pipe, put_in_wider
from .runtime import ChannelAddress
from .threads import Thread


class RefusedError(BlockingIOError):
    """A server has no room for another connection, or for so many threads on one."""


class Trunk:
    """The socket between this process and one channel."""

    def __init__(
        self,
        sock: socket.socket,
        address: ChannelAddress,
        shared: bool,
        retire: "Callable[[Trunk], None]",
        said: Said,
        inlets: Inlets,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.inode = os.fstat(self.fd).st_ino
        self.address = address
        self.shared = shared
        # If the channel is one of this process: what tells whether a thread receives, and what lets it hear of what has
        # ended here.
        self.is_waited_on: Optional[Callable[[], bool]] = None
        self.tell_channel: Optional[Callable[[], None]] = None
        # What the server has made of it, if that is this process (Client).
        self.far_end: Any = None
        self.retire = retire
        self.scoid = 0
        #: Whether it did when this process was last about to fork.
        self.stands_at_fork = True
        self.connections: Set[Connection] = set()
        self._channel_flags: Optional[int] = None
        self.takes_pages = False
        self._refused_for: Optional[int] = None
        # Whether a message was lost on it: what is sent after that does not go out (B168).
        self.has_lost_message = False
        # Why the server has refused lanes, or the whole trunk, of which nobody has been told yet.
        self._refusals: List[int] = []
        self._news = b""
        # What comes with the next frame, and where events go.
        self._passed: List[int] = []
        self._inlets = inlets
        # The first is used. There is another if a signal handler sent a pulse while the first one was made.
        self._pulse_pipes: List[int] = []
        self._pulse_inodes: Dict[int, int] = {}
        # Whether the server had no room for it.
        self._pulses_are_refused = False
        try:
            self._say_hello(said.begin())
        except BrokenPipeError:
            error = self.lost()
            self._drop_passed()
            inlets.close(self)
            raise error from None

    def _say_hello(self, said: int) -> None:
        hello = wire.HELLO, wire.VERSION, wire.MAGIC
        if said >= 0:
            with contextlib.suppress(BlockingIOError):  # The host takes no more descriptors: there will be no events.
                host.send_with_descriptors(self.sock, wire.hello.pack(*hello, 1), (said,))
                return
        host.send_with_descriptors(self.sock, wire.hello.pack(*hello, 0), ())

    def read_news(self) -> bool:
        """Take in what the server has said about itself; whether the trunk still stands."""
        while True:
            try:
                data, _is_full = host.receive_with_descriptors(
                    self.sock, wire.TRUNK_FRAME - len(self._news), self._passed
                )
            except (BlockingIOError, InterruptedError):
                return True
            except OSError:
                return False
            if not data:
                return False
            news, self._news = self._news + data, b""
            if len(news) == wire.TRUNK_FRAME:
                self._hear(news)
            else:
                self._news = news

    def _hear(self, frame: bytes) -> None:
        kind, version, scoid, flags, takes_pages = wire.welcome.unpack(frame)
        if kind == wire.REFUSED:
            _kind, _version, reason = wire.refused.unpack(frame)
            if reason:
                self._refusals.append(reason)
            else:
                self._refused_for = version
        elif kind == wire.WELCOME and not self.scoid:
            self.takes_pages = takes_pages == 1
            self.scoid, self._channel_flags = scoid, flags
        elif kind == wire.EVENTS and self.scoid:
            if self._passed:
                self._inlets.add(self, self._passed.pop())
        else:  # No server says that: from now on it is one that has gone.
            self.sock.shutdown(socket.SHUT_RDWR)
        self._drop_passed()

    def _drop_passed(self) -> None:
        """Close what nobody wants that came with a frame, or a part of one."""
        while self._passed:
            host.close_passed(self._passed.pop())

    @property
    def is_refused(self) -> bool:
        """Whether the server has said that it does not speak our version of the wire."""
        return self._refused_for is not None

    def refusal(self) -> int:
        """The errno with which the server has refused what has just ended; 0 if it did not, or is gone itself (D67)."""
        stands = self.read_news()
        if self._refusals and not self.scoid:
            return self._refusals[0]  # It has refused all of it.
        return self._refusals.pop() if self._refusals and stands else 0

    def lost_message(self, was_lost: bool) -> int:
        """The errno of a message whose lane has ended; ``was_lost``: another was lost before this one was sent."""
        reason = self.refusal()
        if reason:
            return reason
        self.has_lost_message = True
        return EBADF if was_lost and not self.read_news() else ESRCH

    def lost(self) -> OSError:
        """EBADF, or the reason if the server has given one."""
        reason = self.refusal()
        if reason:
            return RefusedError(reason, "the server has no room for another connection, or for so many threads on one")
        if self._refused_for is None:
            return failure(EBADF)
        spoken = f"the server speaks version {self._refused_for} of the wire, this is version {wire.VERSION}"
        return OSError(EBADF, spoken)

    def channel_flags(self) -> Optional[int]:
        """The flags of the channel; None as long as the server has not taken note of the connection (D28)."""
        if self._channel_flags is None:
            self.read_news()
        return self._channel_flags

    def open_lane(self, coid: int, window: Optional[host.Window] = None) -> "Lane":
        """Open a lane and pass its far ends to the server. The caller sees to it that no fork comes between.

        Raises:
            OSError: EBADF if the channel is gone; EAGAIN if the server takes no notice of what it was sent and the host
                holds no more for it; EMFILE, ENFILE, ENOMEM from the host.
        """
        ends = host.open_lane()
        far = [ends.server_read, ends.server_write] + ([window.fd] if window else [])
        frame = wire.lane.pack(wire.LANE, wire.LANE_MESSAGES, coid, window.size if window else 0)
        try:
            self.pass_on(frame, far)
        except BaseException:
            os.close(ends.client_read)
            os.close(ends.client_write)
            raise
        finally:
            os.close(ends.server_read)
            os.close(ends.server_write)
        lane = Lane(ends.client_read, ends.client_write, window)
        if pages.ARE_USED and window is None:
            pages.offer_later(lane, self)
        return lane

    def pass_on(self, frame: bytes, descriptors: Sequence[int]) -> None:
        """Send the server a frame with descriptors. The caller sees to it that no fork comes between.

        Raises:
            OSError: EBADF if the channel is gone; EAGAIN if the host holds no more for the server.
        """
        door.let_others_open(descriptors)
        try:
            host.send_with_descriptors(self.sock, frame, descriptors)
        except BrokenPipeError:
            raise self.lost() from None
        except BlockingIOError:
            raise failure(EAGAIN) from None

    def pulse(self, frame: bytes) -> None:
        """Hand a pulse to the host, which keeps it until the server takes it. Never blocks.

        Raises:
            OSError: EBADF if the channel is gone, EAGAIN if as many pulses wait as the host holds, or if the server has
                no room for what carries them.
        """
        if not self._pulse_pipes or self._pulses_are_refused:
            with forks_wait:
                if not self._pulse_pipes or self._pulses_are_refused:
                    frame_of_lane = wire.lane.pack(wire.LANE, wire.LANE_PULSES, 0, 0)
                    open_pipe(lambda far: self.pass_on(frame_of_lane, [far]), self._keep_pulse_pipe)
        pipe = self._pulse_pipes[0]
        try:
            host.quiet_write(pipe, frame)
        except BrokenPipeError:
            reason = self.refusal()
            self._pulses_are_refused = bool(reason)
            raise failure(reason or EBADF) from None
        except BlockingIOError:
            put_in_wider(pipe, frame)

    def _keep_pulse_pipe(self, near: int) -> None:
        if self._pulses_are_refused:  # Other threads may be about to use it.
            os.dup2(near, self._pulse_pipes[0], inheritable=False)
            self._pulse_inodes[self._pulse_pipes[0]] = os.fstat(near).st_ino
            os.close(near)
            self._pulses_are_refused = False
        else:
            pipe = host.out_of_the_way(near)
            self._pulse_inodes[pipe] = os.fstat(pipe).st_ino
            self._pulse_pipes.append(pipe)

    def close(self) -> None:
        """End the trunk: to the server this is the end of the client."""
        while self._pulse_pipes:
            pipe = self._pulse_pipes.pop()
            host.close_ours(pipe, self._pulse_inodes.pop(pipe))
        self._drop_passed()
        self._inlets.close(self)
        self.sock.detach()
        host.close_ours(self.fd, self.inode)


class Lane:
    """The client's end of a lane."""

    __slots__ = (
        "address",
        "buffer",
        "c_read",
        "connection",
        "filled",
        "is_closed",
        "is_interrupted",
        "is_wanted_back",
        "page",
        "read_fd",
        "read_inode",
        "read_into",
        "spin",
        "view",
        "window",
        "write",
        "write_fd",
        "write_inode",
    )

    def __init__(self, read_fd: int, write_fd: int, window: Optional[host.Window]) -> None:
        self.read_fd = host.out_of_the_way(read_fd)
        self.write_fd = host.out_of_the_way(write_fd)
        self.read_inode = os.fstat(self.read_fd).st_ino
        self.write_inode = os.fstat(self.write_fd).st_ino
        self.window = window
        self.buffer = bytearray(wire.FRAME_MAX)
        self.view = memoryview(self.buffer)
        self.read_into = host.reader(self.read_fd)
        # What reads in the main thread.
        self.c_read: spinning.CRead = host.c_read
        self.spin = spinning.spin_on(self.read_fd) if spinning.NANOSECONDS else None
        if self.spin is not None:
            self.read_into, self.c_read = spinning.reader(self.spin, self.read_into), spinning.c_reader(self.spin)
        self.write: pages.Write = io.FileIO(self.write_fd, "w", closefd=False).write
        # Where both sides look before they sleep: how they pass messages meanwhile.
        self.page: Optional[pages.Page] = None
        self.address = host.address_of(self.buffer)
        self.filled = 0
        self.connection: Optional[Connection] = None
        # Whether a frame of our own was put among what the server says, or is about to be.
        self.is_interrupted = False
        # Whether the server was asked to free the thread that waits here, or is about to be: it has the message then.
        self.is_wanted_back = False
        self.is_closed = False

    def post(self, frame: bytes) -> None:
        """Put a frame on the way.

        Raises:
            OSError: EBADF, nobody reads from this lane any more.
        """
        try:
            host.quiet_write(self.write_fd, frame)
        except BrokenPipeError:
            raise failure(EBADF) from None

    def ask_back(self, reason: int) -> None:
        """Ask the server, once, to free the thread that waits here."""
        if not self.is_wanted_back:
            self.is_wanted_back = True
            with contextlib.suppress(OSError):
                self.post(wire.unblock.pack(wire.UNBLOCK, 0, reason))

    def fill(self, thread: Thread, deadline: Optional[float]) -> int:
        """Wait for more of the reply.

        Returns:
            How many bytes came; 0 at the end of the lane; -EINTR if a signal handler ran while the main thread waited;
            -ETIMEDOUT at the deadline. (These are no exceptions, since a signal handler may raise any of its own.)
        """
        if self.page is not None and self.page.number:  # A signal handler has kept it from being left.
            with self.view[self.filled :] as rest:
                count = self.page.leave(rest)
            if count:
                self.filled += count
                return count
        if self.spin is not None:
            self.spin(thread.is_main, deadline)
        state = host.wait_readable(self.read_fd, deadline, thread.is_main)
        if state <= 0:
            return state or -ETIMEDOUT
        with self.view[self.filled :] as rest:
            count = self.read_into(rest) or 0
        self.filled += count
        return count

    def forget_frame(self, size: int) -> None:
        """Drop the frame that has been dealt with; what came behind it moves to the front."""
        rest = self.filled - size
        self.buffer[:rest] = self.buffer[size : self.filled]
        self.buffer[rest] = 0  # A kind of 0 says that nothing has arrived.
        self.filled = rest

    def close(self) -> None:
        host.close_ours(self.read_fd, self.read_inode)
        host.close_ours(self.write_fd, self.write_inode)
        self.is_closed = True
        if self.window:
            self.window.close()


class _NoMoreLanes(List[Lane]):
    """Stands in for a connection's idle lanes once it is detached: what is still out is closed when it comes back."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__()
        self._connection = connection

    def append(self, lane: Lane) -> None:
        self._connection.discard(lane)


# The lanes of this process that have large windows.
_large: Set[Lane] = set()


def _large_bytes() -> int:
    return sum(lane.window.size for lane in list(_large) if lane.window is not None)


class Connection:
    """One connection of this process: a number of its own, lanes of its own, a trunk that it may share."""

    def __init__(self, trunk: Trunk, flags: int) -> None:
        self.trunk = trunk
        self.flags = flags
        self.coid = -1  # until the table has given it a number
        # The file position that marks the descriptor under our number as ours (D17); 0 where there is no descriptor.
        self.cookie = 0
        self.detached = False
        # Whether the main thread must not wait in a read, because no signal handler would end it.
        self.reads_are_restarted = False
        self._lanes: Set[Lane] = set()
        # A signal handler, or a collection, may come while it is held, and end the connection.
        self._lock = threading.RLock()
        self.idle: List[Lane] = []
        self._idle_windows: List[Lane] = []
        # When the last message was answered that needed a large window.
        self._large_used = -math.inf
        trunk.connections.add(self)

    def lane(self, size: int, deadline: Optional[float], thread: Thread) -> Lane:
        """An idle lane, or a new one, with a window of at least ``size`` bytes unless that is 0.

        Raises:
            OSError: EBADF if the channel is gone or the connection detached; ETIMEDOUT at the deadline and EAGAIN after
                half a minute if the server takes no notice of what it was sent, EINTR if the thread is not to wait for
                that; EMFILE, ENFILE, ENOMEM from the host.
        """
        if self.detached:
            raise failure(EBADF)
        with contextlib.suppress(IndexError):
            return self._take_window(size) if size else self.idle.pop()
        self.reads_are_restarted = host.restarts_reads()
        window = host.Window.create(_window_size(size)) if size else None
        try:
            return self._open_lane(window, deadline, thread)
        except BaseException:
            if window:
                window.close()
            raise

    def idle_window(self, size: int) -> Tuple[Lane, memoryview]:
        """An idle lane with a window of at least so many bytes, and the memory of that.

        Raises:
            IndexError: there is none; ``lane`` knows what to do.
        """
        lane = self._take_window(size)
        view = lane.window.view if lane.window is not None else None
        if view is None:
            self.release(lane)
            raise IndexError
        return lane, view

    def _take_window(self, size: int) -> Lane:
        """An idle lane with a window of at least so many bytes.

        Raises:
            IndexError: there is none.
        """
        idle = self._idle_windows
        for lane in reversed(idle):
            if lane.window is not None and lane.window.size >= size:
                try:
                    idle.remove(lane)
                except ValueError:
                    continue  # Another thread has just taken it.
                return lane
        raise IndexError

    def _open_lane(self, window: Optional[host.Window], deadline: Optional[float], thread: Thread) -> Lane:
        thread.is_wanted_back = False
        limit = time.monotonic() + limits.LANE_WAIT
        pause = limits.RETRY_MIN
        while True:
            try:
                with forks_wait:
                    lane = self.trunk.open_lane(self.coid, window)
                    if self._keep(lane):
                        return lane
                    raise failure(EBADF)
            except RefusedError:
                raise
            except BlockingIOError:
                now = time.monotonic()
                if thread.is_wanted_back:
                    raise failure(EINTR) from None
                if deadline is not None and now >= deadline:
                    raise failure(ETIMEDOUT) from None
                if now >= limit:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, limits.RETRY_MAX)

    def _keep(self, lane: Lane) -> bool:
        """Take a new lane among ours, unless another thread has detached the connection meanwhile."""
        with self._lock:
            lane.connection = self
            self._lanes.add(lane)
            if lane.window is not None and lane.window.size > limits.WINDOW_SMALL:
                _large.add(lane)
            kept = not self.detached
        if not kept:
            self.discard(lane)
        return kept

    def release(self, lane: Lane) -> None:
        """Take back a lane whose exchange is complete."""
        lane.buffer[0] = 0
        lane.filled = 0
        is_unclean = lane.is_wanted_back and lane.page is not None  # The server may read UNBLOCK beside a message.
        lane.is_wanted_back = False
        if lane.is_interrupted or is_unclean:  # What woke its thread may lie there still, or again.
            self.discard(lane)
        elif lane.window is None:
            self.idle.append(lane)
        else:
            self._keep_window(lane, lane.window.size)

    def _keep_window(self, lane: Lane, size: int) -> None:
        """Keep a lane for the sake of its window, as far as it is worth that; the largest are."""
        idle = self._idle_windows
        if size > limits.WINDOW_SMALL and not self._keeps_large():
            self.discard(lane)
            return
        if not idle and size <= limits.WINDOW_KEPT:
            idle.append(lane)
            return
        others = [(other.window.size, other) for other in idle if other.window is not None]
        if size > limits.WINDOW_KEPT or (
            size > limits.WINDOW_LARGE and any(other > limits.WINDOW_LARGE for other, _lane in others)
        ):
            self.discard(lane)
            return
        if len(others) >= limits.WINDOWS_KEPT:
            smallest, least = min(others, key=operator.itemgetter(0))
            if smallest < size:
                with contextlib.suppress(ValueError):  # Another thread has just taken it.
                    idle.remove(least)
                    idle.append(lane)
                    lane = least
            self.discard(lane)
            return
        idle.append(lane)

    def _keeps_large(self) -> bool:
        """Whether a large window is kept whose message is answered: messages like it come often, and there is room."""
        now = time.monotonic()
        before, self._large_used = self._large_used, now
        if now - before > limits.WINDOW_IDLE:
            return False
        if _large_bytes() > limits.WINDOWS_SUM:
            for connection in {lane.connection for lane in list(_large)}:
                if connection is not None and now - connection._large_used > limits.WINDOW_IDLE:
                    connection._give_back_large()
        return _large_bytes() <= limits.WINDOWS_SUM

    def _give_back_large(self) -> None:
        """Close the idle lanes with large windows."""
        for lane in _large.intersection(self._idle_windows):
            with contextlib.suppress(ValueError):  # Another thread has just taken it.
                self._idle_windows.remove(lane)
                self.discard(lane)

    def trim(self, most: int) -> None:
        """Close idle lanes, until there are no more than so many: those first that have been idle for long."""
        if len(self.idle) <= most:
            return
        while len(self.idle) > most:
            with contextlib.suppress(IndexError):  # Another thread has just taken the last one.
                self.discard(self.idle.pop(0))
        tell_channel = self.trunk.tell_channel
        if tell_channel is not None:
            tell_channel()

    def discard(self, lane: Lane) -> None:
        """Close a lane, whatever it was doing: the server sees its message withdrawn, or its client gone."""
        with self._lock:
            if lane not in self._lanes:
                return
            self._lanes.remove(lane)
            _large.discard(lane)
            last = self.detached and not self._lanes
        lane.close()
        if last:
            self._leave_trunk()

    def interrupt(self, lane: Lane, thread: Thread) -> None:
        """Let a thread that waits for the answer on a lane give up, as for a signal.

        Where it is woken by the end of the lane, it gives up in any case: the server gets its unblock pulse, if it
        wants one, and answers to nobody.
        """
        with self._lock:
            if lane not in self._lanes or lane.is_interrupted or thread.sends_on is not lane:
                return
            lane.is_interrupted = True
            # A thread that ends its exchange looks at that after it has said so: one of us two notices the other.
            if thread.sends_on is not lane:
                lane.is_interrupted = False
            else:
                with contextlib.suppress(BlockingIOError):  # There is so much to read that the thread is awake anyway.
                    host.wake_reader(lane.read_fd, wire.reply.pack(wire.INTERRUPTED, 0, 0, 0, 0))

    def detach(self) -> None:
        """End the connection. Threads that wait for a reply on it fail with EBADF.

        On a channel with NTO_CHF_UNBLOCK they go on waiting, and the server is asked to free them (B58); the server
        sees the client leave only after that (B199). Elsewhere they have left when this returns, as far as they wake
        in time, and are not answered any more (D132).
        """
        with self._lock:
            if self.detached:
                return
            self.detached = True
            idle, self.idle = self.idle, _NoMoreLanes(self)
            windows, self._idle_windows = self._idle_windows, _NoMoreLanes(self)
        flags = self.trunk.channel_flags() or 0
        for lane in (*idle, *windows):
            self.discard(lane)
        with self._lock:
            busy = list(self._lanes)
            woken = []
            for lane in busy:
                if flags & NTO_CHF_UNBLOCK and (lane.is_wanted_back or not host.unread(lane.write_fd)):
                    lane.ask_back(EINTR)
                else:
                    host.wake_reader(lane.read_fd, wire.reply.pack(wire.DETACHED, 0, 0, 0, 0))
                    woken.append(lane)
        if not busy:
            self._leave_trunk()
        end = time.monotonic() + limits.LEAVING
        while not all(lane.is_closed for lane in woken) and time.monotonic() < end:
            time.sleep(limits.LEAVING_LOOK)

    def _leave_trunk(self) -> None:
        self.trunk.connections.discard(self)
        if not self.trunk.connections:
            self.trunk.retire(self.trunk)

    def is_alive(self) -> bool:
        """Whether the channel still exists, as far as this process can see."""
        return not self.detached and self.trunk.read_news()

    def describe(self, pid: int) -> MessageInfo:
        """The server's side of the connection, as ConnectServerInfo and _IO_DUP tell it."""
        chid, scoid, flags = self.trunk.address.chid, self.trunk.scoid, self.flags_now()
        return MessageInfo(pid=pid, chid=chid, scoid=scoid, coid=self.coid, flags=flags)

    def flags_now(self) -> int:
        """Its flags, of which a program can change close-on-exec by fcntl, too (B71)."""
        if self.cookie:
            self.flags = flags_now(self.coid, self.flags)
        return self.flags

    def close_in_child(self) -> None:
        """Close what a forked child has inherited; nothing is said to the server, whose client is the parent."""
        _large.difference_update(self._lanes)
        all_of(lane.close for lane in self._lanes)


def flags_now(fd: int, flags: int) -> int:
    """Flags of a connection that is a descriptor: whether that is close-on-exec, the host knows."""
    try:
        closes = fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    except OSError:
        return flags
    return flags & ~NTO_COF_CLOEXEC | (NTO_COF_CLOEXEC if closes else 0)


def _window_size(needed: int) -> int:
    """The size of a new window: a power of two, unless it is so large that it will not be used again."""
    return needed if needed > limits.WINDOW_KEPT else max(limits.WINDOW_MIN, 1 << (needed - 1).bit_length())
