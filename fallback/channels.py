"""The server's side: channels, what waits on them, and what has been received from them.

A message waits where its client has put it, unread in its lane: the client can then see that it is SEND-blocked and
take its message back without asking anybody. What waits is looked at, not taken, until a thread receives it. (On a
host that cannot look without taking, the message goes into the lane's buffer, and its client has to ask.)

Nobody waits for a pulse, so pulses are taken in as soon as they are seen, up to a limit of memory.

A channel changes under its lock, and nothing that can block happens there. Threads wait outside it; whoever wakes takes
in all the news there is, chooses the first item of the queue, and nudges another thread if something is left.

Two steps go without the lock, since it would cost a twentieth of the time of a message: receiving a plain message from
a lane that was idle, and answering it plainly. They rest on three facts. News of a lane goes to one thread only (where
the host tells all of them, nothing is received in this way). A
rcvid is in the table of received messages before anybody can use it, and only one thread can take it out. And a lane's
descriptors are closed when the last reference to the lane is gone, so nobody can read from a number that has become
another file. What another thread may do to the lane meanwhile is that its client ends: the receiver looks after that
last of all, and the replier learns it from the write.
"""

import contextlib
import ctypes
import heapq
import io
import itertools
import os
import secrets
import select
import socket
import struct
import sys
import threading
import time
from errno import EFAULT, EINTR, ESRCH, ETIMEDOUT
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from ha_qnx.buffers import Buffers
from ha_qnx.constants import (
    NTO_CHF_DISCONNECT,
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_UNBLOCK,
    NTO_MI_ENDIAN_BIG,
    NTO_MI_UNBLOCK_REQ,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_COIDDEATH,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_UNBLOCK,
)
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import host, wire
from .connections import Trunk
from .numbers import Numbers
from .runtime import ChannelAddress
from .threads import DEFAULT_PRIORITY, Thread, Threads, Timeout

_IS_64 = ctypes.sizeof(ctypes.c_void_p) == 8
_pulse_record = struct.Struct("=HHb3xi4xi4x" if _IS_64 else "=HHb3xii")  # struct _pulse
_info_record = struct.Struct("=IIiiiiihhqqqII" if _IS_64 else "=IIiiiiiiiihhI")  # struct _msg_info
_ENDIAN_FLAG = NTO_MI_ENDIAN_BIG if sys.byteorder == "big" else 0
PULSE_SIZE = _pulse_record.size
_INT_MAX = 2**31 - 1

_RCVID_MAX = 0x7FFF_FFFF
_BEFORE_EVERYTHING = 1 << 16
_BACKLOG = 4096
_ACCEPTED_AT_ONCE = 64
# Pulses beyond this stay with the host, and their senders get EAGAIN when it holds no more either.
_PULSES_MAX = 1 << 17
# How long a client may leave a reply of more than one frame unread before it is given up.
_SLOW_READER_LIMIT = 1.0
_TRUNK_READS_MAX = 64
_PULSE_READS_MAX = 64

# Looked up once, for the path that every message takes.
_READABLE, _MESSAGE, _MESSAGE_HEADER, _INLINE_ROOM = (
    host.READABLE,
    wire.MESSAGE,
    wire.MESSAGE_HEADER,
    wire.INLINE_ROOM,
)
_unpack_message, _unpack_timeless = wire.message.unpack_from, wire.timeless_message.unpack_from
_MESSAGE_KINDS = (wire.MESSAGE, wire.MESSAGE_TELL, wire.MESSAGE_EXPIRED)

# Keeps what came at the same time in the order in which it was seen.
_order = itertools.count().__next__


class Pulse:
    """A pulse in the queue."""

    __slots__ = ("code", "priority", "scoid", "value", "withdrawn")

    def __init__(self, code: int, value: int, scoid: int, priority: int) -> None:
        self.code = code
        self.value = value
        self.scoid = scoid
        self.priority = priority
        self.withdrawn = False


class ServerTrunk:
    """A client process, as one channel knows it: the other end of a Trunk. Its number is the scoid."""

    def __init__(self, channel: "Channel", sock: socket.socket) -> None:
        sock.setblocking(False)
        self.channel = channel
        self.credentials = host.peer_credentials(sock)
        self.sock = sock
        self.fd = sock.fileno()
        self.scoid = 0
        self.gone = False
        self.lanes: Set[ServerLane] = set()
        self.pulse_fds: Set[int] = set()
        self.pending = b""
        self.passed: List[int] = []


class ServerLane:
    """The server's end of a lane, with the message that was received from it."""

    __slots__ = (
        "buffer",
        "channel",
        "coid",
        "filled",
        "gone",
        "idle",
        "is_pipe",
        "is_plain",
        "lock",
        "priority",
        "queued",
        "rcvid",
        "read_fd",
        "read_into",
        "received",
        "room",
        "sent",
        "tid",
        "trunk",
        "unblock_pulse",
        "unusual",
        "view",
        "window",
        "write",
        "write_fd",
        "written",
    )  # fmt: skip

    def __init__(
        self, channel: "Channel", trunk: ServerTrunk, coid: int, fds: Sequence[int], window: Optional[host.Window]
    ) -> None:
        self.channel = channel
        self.lock = channel.lock
        self.trunk = trunk
        self.coid = coid
        self.read_fd, self.write_fd = fds
        self.window = window
        self.buffer = bytearray(wire.FRAME_MAX)
        self.view = memoryview(self.buffer)
        self.read_into = host.reader(self.read_fd)
        self.write = io.FileIO(self.write_fd, "w", closefd=False).write
        self.filled = 0
        self.queued = False
        self.gone = False
        self.rcvid = 0
        self.priority = self.tid = self.sent = self.room = self.received = 0
        # Whether its messages can be received without the lock at all, and whether the next one can; whether the answer
        # takes more than one plain frame.
        self.is_pipe = host.is_pipe(self.read_fd)
        self.is_plain = self.idle = window is None and self.is_pipe and host.news_goes_to_one()
        self.unusual = not self.is_plain
        self.unblock_pulse: Optional[Pulse] = None
        self.written: Optional[Written] = None

    def read_message(self, offset: int, target: memoryview) -> int:
        """Copy from the received message; how many bytes there were from ``offset`` on (B136 to B138)."""
        count = max(0, min(len(target), self.sent - offset))
        if count:
            with target[:count] as part:
                if self.window:
                    with _client_may_spoil_it():
                        self.window.read_into(offset, part)
                else:
                    start = wire.MESSAGE_HEADER + offset
                    part[:] = self.view[start : start + count]
        return count

    def write_reply(self, offset: int, source: memoryview) -> int:
        """Put data into the reply before it is sent; how much of it had room (B143 to B145)."""
        count = max(0, min(len(source), self.room - offset))
        if count:
            if self.written is None:
                self.written = Written()
                self.unusual = True
            with source[:count] as part:
                if self.window:
                    self.write_window(offset, part)
                    self.written.add(offset, b"", count)
                else:
                    self.written.add(offset, bytes(part), count)
        return count

    def write_window(self, offset: int, part: memoryview) -> None:
        """Put data at an offset of the reply in the window."""
        assert self.window is not None
        with _client_may_spoil_it():
            self.window.write(wire.reply_area(self.sent) + offset, part)

    def __del__(self) -> None:
        # The descriptors are closed when nobody uses the lane any more, and not before: a thread may be reading from
        # it, or writing to it, that holds no lock.
        os.close(self.read_fd)
        os.close(self.write_fd)
        if self.window:
            self.window.close()


@contextlib.contextmanager
def _client_may_spoil_it() -> Iterator[None]:
    """The memory of a window belongs to the client: what is wrong with it is a bad address of its own (B151)."""
    try:
        yield
    except (OSError, ValueError):
        raise failure(EFAULT) from None


class Written:
    """The parts of a reply that MsgWrite has written so far, without overlap, in order."""

    def __init__(self) -> None:
        self._image = bytearray()
        self.ranges: List[Tuple[int, int]] = []

    def add(self, offset: int, data: bytes, count: int) -> None:
        """Note ``count`` bytes at ``offset``; ``data`` is empty where they already lie in a window."""
        end = offset + count
        if data:
            if len(self._image) < end:
                self._image.extend(bytes(end - len(self._image)))
            self._image[offset:end] = data
        apart = [span for span in self.ranges if span[1] < offset or span[0] > end]
        touching = [span for span in self.ranges if span[1] >= offset and span[0] <= end]
        joined = (min([offset, *(span[0] for span in touching)]), max([end, *(span[1] for span in touching)]))
        self.ranges = sorted([*apart, joined])

    def frames(self) -> bytes:
        """The WRITE frames that tell the client."""
        return b"".join(
            wire.reply.pack(wire.WRITE, 0, 0, start, end - start) + bytes(self._image[start:end])
            for start, end in self._pieces()
        )

    def _pieces(self) -> Iterator[Tuple[int, int]]:
        """The parts, those that lie in no window cut to what a frame holds."""
        for start, end in self.ranges:
            step = wire.INLINE_REPLY if self._image else end - start
            for piece in range(start, end, step):
                yield piece, min(piece + step, end)


class Received:
    """What the channels of a process share: the messages that wait for an answer, by rcvid."""

    def __init__(self) -> None:
        self.lanes: Dict[int, ServerLane] = {}
        # A random start, so that a rcvid of one process is nothing in another (B124). A number is not used again
        # before two thousand million messages have come and gone (D16).
        start = secrets.randbelow(1 << 30) + 1
        again = itertools.repeat(range(1, _RCVID_MAX))  # Not cycle, which would keep every number it has given.
        self.next_rcvid = itertools.chain(range(start, _RCVID_MAX), itertools.chain.from_iterable(again)).__next__


class Channel:
    """A channel: its clients, its queue, its waiting threads."""

    def __init__(
        self,
        address: ChannelAddress,
        flags: int,
        listener: Optional[socket.socket],
        received: Received,
        scoids: Numbers["ServerTrunk"],
        threads: Threads,
    ) -> None:
        self.address = address
        self.flags = flags
        self.lock = threading.RLock()
        self.destroyed = False
        self._fixed_priority = bool(flags & NTO_CHF_FIXED_PRIORITY)
        self._lanes_received, self._next_rcvid = received.lanes, received.next_rcvid
        self._scoids = scoids
        self._threads = threads
        self._local, self._timeouts = threads.local, threads.timeouts
        self._listener = listener
        self._trunks: Dict[int, ServerTrunk] = {}
        self._lanes: Dict[int, ServerLane] = {}
        self._pulse_fds: Dict[int, ServerTrunk] = {}
        self._own_trunks: Dict[int, Trunk] = {}
        self._messages: List[Tuple[int, int, int, ServerLane]] = []
        self._pulses: List[Tuple[int, int, int, Pulse]] = []
        self._muted: Set[int] = set()
        # Something may lie unread that no news will tell of: a thread was interrupted between hearing and reading.
        self._unsettled = False
        # What has been accepted, and is not watched before what has come with it is dealt with: watching it would wake
        # another thread.
        self._fresh: List[int] = []
        # Whether there is something to be done before a thread waits for news.
        self._look_first = False
        # The threads that wait in MsgReceivePulse: at the poller, or aside while others are in MsgReceive.
        self._pulse_waiters: List[Thread] = []
        self._parked: List[int] = []
        # The numbers of clients that have left, kept until the server releases them (B61, B201).
        self._departed: Set[int] = set()
        self._poller = host.open_poller()
        self._wait_for_ever, self._wait_interruptibly = self._poller.wait_for_ever, self._poller.wait_interruptibly
        self._peek = None if host.PORTABLE else host.Peek()
        self._bell = host.Bell()
        self._poller.register(self._bell.fd)
        if listener is not None:
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self._poller.register(listener.fileno())

    # Receiving.

    def receive(self, sink: "bytearray | memoryview", info: Optional[MessageInfo]) -> int:
        """MsgReceive into one buffer: the rcvid, or 0 for a pulse."""
        # This is the path of a server that waits for its next message and then finds a plain one in an idle lane.
        # receive_parts does everything else.
        thread = self._local.thread
        taking = None
        try:
            thread.receives_on = self
            if self._look_first or self._timeouts:
                news: host.News = ()
            elif thread.is_main:
                wait_interruptibly = self._wait_interruptibly
                news = wait_interruptibly()
            else:
                wait_for_ever = self._wait_for_ever
                news = wait_for_ever(None, 16)
            if len(news) == 1:
                fd, event = news[0]
                lane = self._lanes.get(fd)
                if lane is not None and event == _READABLE and lane.idle:
                    buffer = lane.buffer
                    if thread.is_main:
                        taking = lane  # A signal handler may raise from here on.
                        buffer[0] = 0
                    read_into = lane.read_into
                    filled = read_into(buffer)
                    kind, priority, lane.tid, sent, room = _unpack_timeless(buffer)
                    if (
                        filled == _MESSAGE_HEADER + sent
                        and kind == _MESSAGE
                        and room <= _INLINE_ROOM
                        and 0 < priority < 256
                    ):
                        lane.idle = False
                        lane.priority = priority
                        lane.room = room
                        lane.sent = lane.received = sent
                        if sent <= len(sink):
                            sink[:sent] = buffer[_MESSAGE_HEADER:filled]
                        else:
                            lane.received = count = len(sink)
                            sink[:] = buffer[_MESSAGE_HEADER : _MESSAGE_HEADER + count]
                        if thread.priority != priority and not self._fixed_priority:
                            thread.priority = priority
                        next_rcvid = self._next_rcvid
                        lane.rcvid = rcvid = next_rcvid()
                        self._lanes_received[rcvid] = lane
                        if info is not None:
                            self.describe(lane, info)
                        thread.receives_on = None
                        if self._parked:
                            self._unpark()
                        if not lane.gone or self._still_answerable(lane):
                            return rcvid
                    elif filled:
                        with self.lock:
                            lane.filled, lane.idle = filled, False
                            self._look_at(lane)
        except BaseException:
            thread.receives_on = None
            self._put_back(taking)
            raise
        with memoryview(sink) as view:
            return self.receive_parts([view], info, thread, news)

    def _still_answerable(self, lane: ServerLane) -> bool:
        """Whether a message whose client ended while it was being received can be answered all the same (D26)."""
        with self.lock:
            if lane in lane.trunk.lanes:
                return True
            self.forget(lane)
            return False

    def _put_back(self, item: "Pulse | ServerLane | None") -> None:
        """An exception, of a signal handler for instance, has come between an item and its receiver: queue it again.

        News may have been lost in the same way, so the next receiver looks at everything.
        """
        with self.lock:
            self._unsettled = self._look_first = True
            if isinstance(item, Pulse) and not item.withdrawn:
                self._queue_pulse(item)
            elif isinstance(item, ServerLane) and not item.gone:
                self._lanes_received.pop(item.rcvid, None)
                item.rcvid = 0
                kind, _priority, _tid, sent, _room, _time = _unpack_message(item.buffer)
                if kind in _MESSAGE_KINDS and not item.filled:
                    item.filled = _MESSAGE_HEADER + (0 if item.window else sent)
                    item.idle = False
        self._unpark()

    def receive_parts(
        self, sinks: Buffers, info: Optional[MessageInfo], thread: Optional[Thread] = None, news: host.News = ()
    ) -> int:
        """MsgReceivev: the rcvid, or 0 for a pulse."""
        thread = thread or self._local.thread
        deadline = _receive_deadline(self._threads.take_timeout())
        while True:
            item: Pulse | ServerLane | None = None
            try:
                # It counts as waiting until it has something: a pulse that comes meanwhile is for it (B259).
                thread.receives_on = self
                with self.lock:
                    item = self._next_item(news)
                    rcvid = self._take(item, thread) if isinstance(item, ServerLane) else 0
                    if isinstance(item, Pulse) or rcvid:
                        thread.receives_on = None
                    self._leave_queue()
                if isinstance(item, Pulse):
                    return self._deliver_pulse(item, thread, sinks)
                if item is not None and rcvid:
                    return self._finish_receive(item, rcvid, sinks, info)
                news = () if item is not None or self._is_over(deadline) else self._wait(deadline, thread)
            except BaseException:
                thread.receives_on = None
                self._put_back(item)
                raise
            if item is None and not news:
                self._stop_if_over(deadline, thread)

    def _is_over(self, deadline: Optional[float]) -> bool:
        return self.destroyed or (deadline is not None and time.monotonic() >= deadline)

    def _stop_if_over(self, deadline: Optional[float], thread: Thread) -> None:
        """End the wait of a thread for which there was nothing.

        Raises:
            OSError: ESRCH, the channel is destroyed; ETIMEDOUT.
        """
        if self._is_over(deadline):
            thread.receives_on = None
            self._unpark()
            raise failure(ESRCH if self.destroyed else ETIMEDOUT)

    def _finish_receive(self, lane: ServerLane, rcvid: int, sinks: Buffers, info: Optional[MessageInfo]) -> int:
        count = 0
        for sink in sinks:
            # A client that has gone in the meantime may have taken its window along; its rcvid is stale already.
            with contextlib.suppress(OSError):
                count += lane.read_message(count, sink)
        lane.received = count
        if info is not None:
            self.describe(lane, info)
        self._unpark()
        return rcvid

    def _deliver_pulse(self, pulse: Pulse, thread: Thread, sinks: Buffers) -> int:
        self._unpark()
        if not sinks or len(sinks[0]) < PULSE_SIZE:
            pulse.withdrawn = True  # It is lost (B252, B254).
            raise failure(EFAULT)
        _pulse_record.pack_into(sinks[0], 0, 0, 0, _signed_byte(pulse.code), pulse.value, pulse.scoid)
        if not self._fixed_priority:
            thread.priority = pulse.priority
        return 0

    def _wait(self, deadline: Optional[float], thread: Thread) -> host.News:
        # Whoever queues something asks after that who receives; so ask for the queue only now.
        if self._look_first:
            return ()
        return self._poller.wait(deadline, thread.is_main)

    def _has_receiver(self) -> bool:
        """Whether a thread waits in MsgReceive on this channel."""
        return any(thread.receives_on is self for thread in self._threads.known())

    def receive_pulse(self, sink: memoryview) -> int:
        """MsgReceivePulse: 0."""
        thread = self._local.thread
        deadline = _receive_deadline(self._threads.take_timeout())
        news: host.News = ()
        while True:
            pulse = None
            try:
                with self.lock:
                    self._take_in(news)
                    # A thread in MsgReceive is served first (B259).
                    pulse = None if self._has_receiver() else self._next_pulse()
                    self._leave_queue()
                if pulse is not None:
                    return self._deliver_pulse(pulse, thread, [sink])
                if self._is_over(deadline):
                    news = ()
                elif self._has_receiver():
                    news = self._park(deadline, thread)
                else:
                    news = self._wait_for_pulses(deadline, thread)
            except BaseException:
                self._put_back(pulse)
                raise
            if not news:
                self._stop_if_over(deadline, thread)

    def _wait_for_pulses(self, deadline: Optional[float], thread: Thread) -> host.News:
        self._pulse_waiters.append(thread)
        try:
            if self._pulses or self._unsettled or self.destroyed:
                return ()
            return self._poller.wait(deadline, thread.is_main)
        finally:
            self._pulse_waiters.remove(thread)

    def _park(self, deadline: Optional[float], thread: Thread) -> host.News:
        """Wait aside, as long as a thread in MsgReceive hears all the news."""
        read, write = os.pipe()
        self._parked.append(write)
        try:
            if self._has_receiver() and host.wait_readable(read, deadline, thread.is_main) < 0:
                raise InterruptedError(EINTR, "interrupted by a signal handler")
        finally:
            self._parked.remove(write)
            os.close(read)
            os.close(write)
        return ()

    def _unpark(self) -> None:
        if self._parked and not self._has_receiver():
            with contextlib.suppress(IndexError, OSError):
                os.write(self._parked[-1], b"\0")

    def _next_item(self, news: host.News) -> "Pulse | ServerLane | None":
        """The item to be received next: by priority, then by the time it was sent (B75, B238)."""
        self._take_in(news)
        self._drop_withdrawn()
        if self._messages and not (self._pulses and self._pulses[0][:3] < self._messages[0][:3]):
            lane = heapq.heappop(self._messages)[3]
            lane.queued = False
            return lane
        return self._next_pulse()

    def _next_pulse(self) -> Optional[Pulse]:
        self._drop_withdrawn()
        pulse = heapq.heappop(self._pulses)[3] if self._pulses else None
        if pulse is not None and self._muted:
            for fd in self._muted:
                self._poller.unmute(fd)
            self._muted.clear()
        return pulse

    def _drop_withdrawn(self) -> None:
        while self._messages and self._messages[0][3].gone:
            heapq.heappop(self._messages)
        while self._pulses and self._pulses[0][3].withdrawn:
            heapq.heappop(self._pulses)

    def _take(self, lane: ServerLane, thread: Thread) -> int:
        """Take a message out of its lane, so that its client is REPLY-blocked; the rcvid, 0 if there is no message."""
        if lane.rcvid or lane.gone:
            return 0
        if not lane.filled:
            filled = lane.read_into(lane.buffer)
            if filled is None:
                return 0
            lane.filled = filled
            lane.idle = False
        _skip_late_unblocks(lane)
        kind, priority, tid, sent, room, _time = _unpack_message(lane.buffer)
        if lane.window is None:
            sound = lane.filled == wire.MESSAGE_HEADER + sent and room <= wire.INLINE_ROOM
        else:
            sound = lane.filled == wire.MESSAGE_HEADER and wire.reply_area(sent) + room <= lane.window.size
        if not sound or kind not in _MESSAGE_KINDS or not 1 <= priority <= 255:
            self._sort_out(lane, kind, sent)
            return 0
        lane.sent, lane.room, lane.tid, lane.priority = sent, room, tid, priority
        lane.filled = 0
        if kind == wire.MESSAGE_EXPIRED:
            lane.idle = lane.is_plain
            self.send(lane, wire.reply.pack(wire.ERROR, 0, ETIMEDOUT, 0, 0))
            return 0
        if kind == wire.MESSAGE_TELL:
            self.send(lane, wire.reply.pack(wire.RECEIVED, 0, 0, 0, 0))
        lane.rcvid = rcvid = self._next_rcvid()
        self._lanes_received[rcvid] = lane
        if not self._fixed_priority:
            thread.priority = priority
        return rcvid

    def _sort_out(self, lane: ServerLane, kind: int, sent: int) -> None:
        """Deal with what is no whole message: wait for the rest of one, give up a lane that breaks the protocol."""
        is_part = 0 < lane.filled < wire.MESSAGE_HEADER + sent <= wire.FRAME_MAX and not lane.window
        if not is_part or (lane.filled >= wire.MESSAGE_HEADER and kind not in _MESSAGE_KINDS):
            self._lane_ended(lane)

    # Taking in what has arrived.

    def _take_in(self, news: host.News) -> None:
        """Take note of all that has arrived: connections, lanes, pulses, messages, ends."""
        if self._unsettled:
            self._unsettled = False
            self._poller.tell_again()
            for lane in list(self._lanes.values()):
                if lane.filled and not lane.rcvid:
                    self._look_at(lane)
        # A new trunk brings lanes and a lane brings messages, which count as arrived, too.
        for _round in range(4):
            again = False
            fresh = list(self._fresh)
            for fd, event in news or self._poller.news():
                again |= self._hear(fd, event)
            for fd, event in host.news_of(fresh) if fresh else ():
                again |= fd in self._fresh and self._hear(fd, event)
            if not again and len(self._fresh) == len(fresh):
                return
            news = ()

    def _hear(self, fd: int, event: int) -> bool:
        """Deal with the news of one descriptor; whether there may be more because of it."""
        lane = self._lanes.get(fd)
        if lane is not None:
            # What is heard may be of a lane whose number this one has by now.
            if event & host.GONE and host.is_gone(fd):
                self._lane_ended(lane)
            elif lane.rcvid:
                self._read_request(lane)
            else:
                self._look_at(lane)
            return False
        if fd in self._trunks:
            self._read_trunk(self._trunks[fd])
            return True
        if fd in self._pulse_fds:
            self._read_pulses(fd, event)
        elif fd == self._bell.fd:
            if not self.destroyed:
                self._bell.stop()
        elif fd in self._own_trunks:
            trunk = self._own_trunks[fd]
            if not trunk.read_news():
                self.forget_own_trunk(trunk)
                for connection in list(trunk.connections):
                    if not connection.detached:
                        self._queue_pulse(Pulse(PULSE_CODE_COIDDEATH, connection.coid, -1, DEFAULT_PRIORITY))
        elif self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)
            return True
        return False

    def _accept(self, listener: socket.socket) -> None:
        for _attempt in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, _address = listener.accept()
            except OSError:
                return  # Nobody is left, or there is no descriptor for them: they wait.
            with contextlib.suppress(OSError):
                trunk = ServerTrunk(self, socket.socket(fileno=host.out_of_the_way(accepted.detach())))
                self._trunks[trunk.fd] = trunk
                self._fresh.append(trunk.fd)

    def adopt(self, sock: socket.socket) -> None:
        """Make a connected socket of this process a trunk of this channel."""
        trunk = ServerTrunk(self, sock)
        with self.lock:
            self._trunks[trunk.fd] = trunk
            self._poller.register(trunk.fd, once=True)

    def _read_trunk(self, trunk: ServerTrunk) -> None:
        for _read in range(_TRUNK_READS_MAX):
            if trunk.gone or not self._read_frames(trunk):
                return
        self._unsettled = True

    def _read_frames(self, trunk: ServerTrunk) -> bool:
        """Do what the next frames on a trunk ask; whether there may be more."""
        try:
            data, descriptors = host.receive_with_descriptors(trunk.sock, 64 * wire.TRUNK_FRAME, 64 * 3)
        except BlockingIOError:
            return False
        except OSError:
            data, descriptors = b"", []
        trunk.passed += [host.out_of_the_way(fd) for fd in descriptors]
        trunk.pending += data
        whole = len(trunk.pending) // wire.TRUNK_FRAME * wire.TRUNK_FRAME
        frames, trunk.pending = trunk.pending[:whole], trunk.pending[whole:]
        sound = bool(data)
        for start in range(0, whole, wire.TRUNK_FRAME):
            sound = sound and self._obey(trunk, frames[start : start + wire.TRUNK_FRAME])
        if not sound:
            self._trunk_ended(trunk)
        return sound

    def _obey(self, trunk: ServerTrunk, frame: bytes) -> bool:
        """Do what a frame on a trunk asks; whether it was a frame to be expected."""
        if not trunk.scoid:
            kind, version, magic = wire.hello.unpack(frame)
            if kind != wire.HELLO or magic != wire.MAGIC:
                return False
            if version != wire.VERSION:
                with contextlib.suppress(OSError):
                    host.send_with_descriptors(trunk.sock, wire.refused.pack(wire.REFUSED, wire.VERSION), ())
                return False
            trunk.scoid = self._scoids.add(trunk)
            with contextlib.suppress(OSError):
                welcome = wire.welcome.pack(wire.WELCOME, wire.VERSION, trunk.scoid, self.flags)
                host.send_with_descriptors(trunk.sock, welcome, ())
            return True
        kind, carries, coid, window_size = wire.lane.unpack(frame)
        if kind != wire.LANE:
            return False
        count = 1 if carries == wire.LANE_PULSES else 3 if window_size else 2
        fds, trunk.passed = trunk.passed[:count], trunk.passed[count:]
        try:
            self._add_lane(trunk, carries, coid, fds, window_size)
        except (OSError, ValueError):
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            return False
        return True

    def _add_lane(self, trunk: ServerTrunk, carries: int, coid: int, fds: List[int], window_size: int) -> None:
        for fd, mode in zip(fds, (os.O_RDONLY, os.O_WRONLY)):
            if not host.is_stream(fd, mode):
                raise ValueError("a lane that is neither a pipe nor a socket")
            host.make_non_blocking(fd, mode)
        if carries == wire.LANE_PULSES:
            (fd,) = fds
            self._poller.register(fd)
            trunk.pulse_fds.add(fd)
            self._pulse_fds[fd] = trunk
            return
        read_fd, write_fd = fds[:2]
        window = host.Window.adopt(fds[2], window_size) if window_size else None
        lane = ServerLane(self, trunk, coid, (read_fd, write_fd), window)
        self._lanes[read_fd] = lane
        self._fresh.append(read_fd)
        trunk.lanes.add(lane)

    def _look_at(self, lane: ServerLane) -> None:
        """Queue the message that has arrived on a lane, once its priority and its time are known."""
        if lane.queued or lane.gone or lane.rcvid:
            return
        head = b""
        if self._peek is not None and lane.is_pipe and not lane.filled:
            head = self._peek(lane.read_fd, wire.MESSAGE_HEADER)
            if len(head) == wire.MESSAGE_HEADER and wire.unblock.unpack(head)[0] == wire.UNBLOCK:
                with contextlib.suppress(BlockingIOError):  # Another thread may be receiving it without the lock.
                    os.read(lane.read_fd, wire.unblock.size)  # Its message was answered before it came.
                head = self._peek(lane.read_fd, wire.MESSAGE_HEADER)
            if not head:
                return
        if len(head) < wire.MESSAGE_HEADER:
            with lane.view[lane.filled :] as rest:
                lane.filled += lane.read_into(rest) or 0
            _skip_late_unblocks(lane)
            if not lane.filled:
                return
            lane.idle = False
            head = bytes(lane.buffer[: wire.MESSAGE_HEADER])
            if lane.filled < _whole(lane):
                self._sort_out(lane, *wire.message.unpack(head)[:4:3])
                return
        _kind, priority, _tid, _sent, _room, sent_at = wire.message.unpack_from(head)
        lane.queued = True
        heapq.heappush(self._messages, (-priority, sent_at, _order(), lane))

    def _read_request(self, lane: ServerLane) -> None:
        """Read what comes after a message that is not yet answered: its client wants to be freed (B183)."""
        rcvid = lane.rcvid
        try:
            frame = os.read(lane.read_fd, wire.unblock.size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            frame = b""
        if len(frame) < wire.unblock.size or frame[0] != wire.UNBLOCK:
            self._lane_ended(lane)
            return
        # First this, then a look at the rcvid: who answers does it the other way round.
        lane.unusual = True
        if lane.rcvid != rcvid:
            # It was answered in the meantime, and the client's next message may have come with the same news.
            lane.unusual = not lane.is_plain or lane.written is not None or lane.unblock_pulse is not None
            self._look_at(lane)
        elif self.flags & NTO_CHF_UNBLOCK:
            self._request_unblock(lane, rcvid)
        else:
            _kind, _zero, reason = wire.unblock.unpack_from(frame)
            self.forget(lane)
            self.send(lane, wire.reply.pack(wire.ERROR, 0, reason, 0, 0))

    def hear_client(self, lane: ServerLane) -> None:
        """Take note of what the client of a received message has done since: it may want to be freed, or be gone."""
        if not lane.gone:
            self._read_request(lane)
            self._leave_queue()

    def _request_unblock(self, lane: ServerLane, rcvid: int) -> None:
        lane.unusual = True
        if lane.unblock_pulse is None:
            lane.unblock_pulse = Pulse(PULSE_CODE_UNBLOCK, rcvid, lane.trunk.scoid, lane.priority)
            self._queue_pulse(lane.unblock_pulse)

    def _read_pulses(self, fd: int, event: int) -> None:
        trunk = self._pulse_fds[fd]
        if len(self._pulses) >= _PULSES_MAX and not event & host.GONE:
            self._poller.mute(fd)
            self._muted.add(fd)
            return
        try:
            data = os.read(fd, 1024 * wire.PULSE_FRAME)
        except BlockingIOError:
            return
        if not data:
            self._close_pulse_fd(trunk, fd)
            return
        for kind, priority, code, value, _coid, sent_at in wire.pulse.iter_unpack(
            data[: len(data) // wire.PULSE_FRAME * wire.PULSE_FRAME]
        ):
            if kind != wire.PULSE or not 1 <= priority <= 255:
                self._close_pulse_fd(trunk, fd)
                self._trunk_ended(trunk)
                return
            pulse = Pulse(code, value, trunk.scoid, priority)
            heapq.heappush(self._pulses, (-priority, sent_at, _order(), pulse))

    def _queue_pulse(self, pulse: Pulse, before_everything: bool = False) -> None:
        rank = -_BEFORE_EVERYTHING if before_everything else -pulse.priority
        heapq.heappush(self._pulses, (rank, time.monotonic_ns(), _order(), pulse))

    def queue_pulse(self, code: int, value: int) -> None:
        """Queue a pulse of the kernel's own, and wake a thread for it."""
        with self.lock:
            self._queue_pulse(Pulse(code, value, -1, DEFAULT_PRIORITY))
            self._leave_queue()

    def _leave_queue(self) -> None:
        """Note whether something is left in the queue, and wake a thread that waits for it."""
        for fd in self._fresh:
            self._poller.register(fd, once=True)
        self._fresh.clear()
        self._look_first = bool(self._messages or self._pulses or self._unsettled or self.destroyed)
        self._nudge()

    def _nudge(self) -> None:
        """Wake a thread that waits if the queue holds something for it."""
        if (self._pulses and self._pulse_waiters) or ((self._messages or self._pulses) and self._has_receiver()):
            self._bell.ring()

    # Ends.

    def _lane_ended(self, lane: ServerLane) -> None:
        """The client has closed its end, or has lost the right to it."""
        if lane.gone:
            return
        lane.gone = True
        self._unwatch(lane.read_fd)
        del self._lanes[lane.read_fd]
        if lane.rcvid and self.flags & NTO_CHF_UNBLOCK:
            self._request_unblock(lane, lane.rcvid)  # The answer will succeed and go nowhere (D26).
        else:
            self._bury(lane)

    def _unwatch(self, fd: int) -> None:
        if fd in self._fresh:
            self._fresh.remove(fd)
        self._poller.unregister(fd)

    def _bury(self, lane: ServerLane) -> None:
        """Close a lane that has ended and whose message nobody will answer any more."""
        self.forget(lane)
        lane.trunk.lanes.discard(lane)
        if lane.queued:
            self._messages = [entry for entry in self._messages if entry[3] is not lane]
            heapq.heapify(self._messages)
        self._finish_trunk(lane.trunk)

    def forget(self, lane: ServerLane) -> None:
        """The message received from this lane is answered, or has no client any more."""
        self._lanes_received.pop(lane.rcvid, None)
        lane.rcvid = lane.filled = 0
        lane.idle = lane.is_plain
        lane.unusual = not lane.is_plain
        lane.written = None
        if lane.unblock_pulse is not None:
            lane.unblock_pulse.withdrawn = True
            lane.unblock_pulse = None

    def _close_pulse_fd(self, trunk: ServerTrunk, fd: int) -> None:
        self._poller.unregister(fd)
        self._muted.discard(fd)
        trunk.pulse_fds.discard(fd)
        del self._pulse_fds[fd]
        os.close(fd)

    def _trunk_ended(self, trunk: ServerTrunk) -> None:
        """A client process is gone, or has lost the right to its connection. The pulses it has sent remain (B261)."""
        if trunk.gone:
            return
        trunk.gone = True
        for fd in list(trunk.pulse_fds):
            for _read in range(_PULSE_READS_MAX):
                if fd in trunk.pulse_fds:
                    self._read_pulses(fd, host.GONE)
            if fd in trunk.pulse_fds:
                self._close_pulse_fd(trunk, fd)
        for fd in trunk.passed:
            os.close(fd)
        trunk.passed.clear()
        self._unwatch(trunk.fd)
        del self._trunks[trunk.fd]
        trunk.sock.close()
        for lane in list(trunk.lanes):
            self._lane_ended(lane)
        self._finish_trunk(trunk)

    def _finish_trunk(self, trunk: ServerTrunk) -> None:
        """Tell the server that a client has left, once none of its messages is outstanding (B196, B199)."""
        if not trunk.gone or trunk.lanes or not trunk.scoid:
            return
        if self.flags & NTO_CHF_DISCONNECT and not self.destroyed:
            self._queue_pulse(Pulse(PULSE_CODE_DISCONNECT, 0, trunk.scoid, DEFAULT_PRIORITY), before_everything=True)
            self._departed.add(trunk.scoid)
            self._leave_queue()
        else:
            self._scoids.remove(trunk.scoid)
        trunk.scoid = 0

    def destroy(self) -> None:
        """End the channel: its clients lose it, the threads that wait on it get ESRCH."""
        with self.lock:
            self.destroyed = True
            if self._listener is not None:
                self._poller.unregister(self._listener.fileno())
                self._listener.close()
            self._close_lanes()
            for trunk in list(self._trunks.values()):
                trunk.pulse_fds, doomed = set(), trunk.pulse_fds
                for fd in doomed:
                    self._close_pulse_fd(trunk, fd)
                self._trunk_ended(trunk)
            for rcvid, lane in list(self._lanes_received.items()):
                if lane.channel is self:
                    del self._lanes_received[rcvid]
                    lane.rcvid = 0
                    self._bury(lane)
            for scoid in self._departed:
                self._scoids.remove(scoid)
            self._departed.clear()
            self._messages.clear()
            self._pulses.clear()
            self._look_first = True
            self._bell.ring()

    def _close_lanes(self) -> None:
        """Let clients see the end at once, though threads that have just answered may still hold lanes open."""
        for fd in self._lanes:
            self._unwatch(fd)
        _end_now(self._lanes.values())

    def release_client(self, scoid: int) -> bool:
        """Free the number of a client that has left; whether there was one to free (B60, B61)."""
        with self.lock:
            if scoid not in self._departed:
                return False
            self._departed.remove(scoid)
            self._scoids.remove(scoid)
            return True

    # Answering.

    def send(self, lane: ServerLane, frames: bytes) -> bool:
        """Send frames to a client; whether it is still there. A client that never reads loses its lane."""
        try:
            sent = host.quiet_write(lane.write_fd, frames)
            limit = time.monotonic() + _SLOW_READER_LIMIT
            while sent < len(frames):
                poll = select.poll()
                poll.register(lane.write_fd, select.POLLOUT)
                if not poll.poll(max(0, int((limit - time.monotonic()) * 1000))):
                    raise BrokenPipeError
                with contextlib.suppress(BlockingIOError):
                    sent += host.quiet_write(lane.write_fd, frames[sent:])
        except (BrokenPipeError, BlockingIOError):
            return False
        return True

    def answer(self, lane: ServerLane, frames: bytes) -> int:
        """Send the answer to a received message; 0.

        Raises:
            OSError: ESRCH, the client is gone.
        """
        self.forget(lane)
        if lane.gone:
            self._bury(lane)  # The client was killed; the answer to its unblock pulse goes nowhere (D26).
        elif not self.send(lane, frames) and not self.client_lost(lane):
            raise failure(ESRCH)
        return 0

    def client_lost(self, lane: ServerLane) -> bool:
        """A client did not take its answer; whether that counts as answered, since it would have had to wait (D26)."""
        with self.lock:
            self.forget(lane)
            if lane.gone:
                self._bury(lane)
            else:
                self._lane_ended(lane)
        return bool(self.flags & NTO_CHF_UNBLOCK)

    def describe(self, lane: ServerLane, info: MessageInfo) -> None:
        """Fill in what is known about a message and its sender (B98 to B104, B153)."""
        flags = _ENDIAN_FLAG | (NTO_MI_UNBLOCK_REQ if lane.unblock_pulse is not None else 0)
        trunk = lane.trunk
        who = trunk.credentials.pid, lane.tid, self.address.chid, trunk.scoid, lane.coid
        if _IS_64:
            lengths = lane.received, lane.sent, lane.room
            _info_record.pack_into(info, 0, 0, 0, *who, lane.priority, flags, *lengths, 0, 0)
        else:
            narrow = (min(length, _INT_MAX) for length in (lane.received, lane.sent, lane.room))
            _info_record.pack_into(info, 0, 0, 0, *who, *narrow, lane.priority, flags, 0)

    # The client side of the same process.

    def watch_own_trunk(self, trunk: Trunk) -> None:
        """Tell this channel, as NTO_CHF_COID_DISCONNECT asks, when the server of a connection of ours is gone."""
        with self.lock:
            self._own_trunks[trunk.fd] = trunk
            self._poller.register(trunk.fd)

    def forget_own_trunk(self, trunk: Trunk) -> None:
        with self.lock:
            if self._own_trunks.pop(trunk.fd, None) is not None:
                self._poller.unregister(trunk.fd)

    def close_in_child(self) -> None:
        """Close what a forked child has inherited, and touch nothing that is shared with the parent."""
        if self._listener is not None:
            self._listener.close()
        for trunk in self._trunks.values():
            trunk.sock.close()
            for fd in trunk.passed:
                os.close(fd)
        for fd in self._pulse_fds:
            os.close(fd)
        # The lanes are closed by __del__, some day: until then they must not stand in for those of the parent.
        _end_now({*self._lanes.values(), *(lane for lane in self._lanes_received.values() if lane.channel is self)})


def _end_now(lanes: Iterable[ServerLane]) -> None:
    """Let go of what lanes are open on, though somebody may still refer to them and close their numbers later."""
    with contextlib.suppress(OSError), open(os.devnull, "r+b", buffering=0) as nothing:
        for lane in lanes:
            os.dup2(nothing.fileno(), lane.read_fd, inheritable=False)
            os.dup2(nothing.fileno(), lane.write_fd, inheritable=False)


def _skip_late_unblocks(lane: ServerLane) -> None:
    """Drop the requests to be freed that came after the answer; a new message may have come behind them."""
    size = wire.unblock.size
    while lane.filled >= size and wire.unblock.unpack_from(lane.buffer)[0] == wire.UNBLOCK:
        lane.filled -= size
        lane.buffer[: lane.filled] = lane.buffer[size : size + lane.filled]


def _whole(lane: ServerLane) -> int:
    """How long the frame in the buffer is to become, as far as can be told yet."""
    sent: int = wire.message.unpack_from(lane.buffer)[3]
    is_longer = lane.filled >= wire.MESSAGE_HEADER and not lane.window
    return wire.MESSAGE_HEADER + (sent if is_longer else 0)


def _signed_byte(code: int) -> int:
    """The low 8 bits of a pulse code, as the 8-bit signed number that arrives (B242)."""
    return (code & 0xFF) - ((code & 0x80) << 1)


def _receive_deadline(timeout: Optional[Timeout]) -> Optional[float]:
    return timeout.deadline() if timeout is not None and timeout.flags & NTO_TIMEOUT_RECEIVE else None
