"""The server's end of a lane: its client, the message that was received from it, and the answer.

A lane is idle until its client puts a message into it. The message is looked at, then received, which gives it a rcvid,
then answered, and the lane is idle again. Whatever is not as PROTOCOL.md has it costs the client the lane.
"""

import contextlib
import ctypes
import io
import os
import select
import socket
import sys
import time
from errno import EBADF, EFAULT, ESRCH, ETIMEDOUT
from typing import Callable, ContextManager, Dict, Iterable, Iterator, List, Optional, Protocol, Sequence, Set, Tuple

from ha_qnx import abi
from ha_qnx.buffers import Buffers
from ha_qnx.constants import (
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_UNBLOCK,
    NTO_MI_ENDIAN_BIG,
    NTO_MI_UNBLOCK_REQ,
    PULSE_CODE_UNBLOCK,
)
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import host, limits, pages, wire
from .deliveries import CHANNEL_GONE, CONNECTION, NO_CONNECTION, File, Files, Outlet
from .queue import Pulse, Queue
from .runtime import ChannelAddress
from .threads import Thread

_IS_64 = ctypes.sizeof(ctypes.c_void_p) == 8
_info_record = abi.packing(abi.HOST.info, abi.HOST)
_ENDIAN_FLAG = NTO_MI_ENDIAN_BIG if sys.byteorder == "big" else 0
_INT_MAX = 2**31 - 1

# How much is to be done for the answer: a plain frame, the same with the data in a window, or all of that is in reply.
PLAIN, IN_WINDOW, UNUSUAL = 0, 1, 2

_MESSAGE_KINDS = (wire.MESSAGE, wire.MESSAGE_TELL, wire.MESSAGE_EXPIRED)

# Looked up once, for the path of a message that waits among others.
_unpack_message, _unpack_message_from = wire.message.unpack, wire.message.unpack_from


class Rcvids:
    """What the channels of a process share: the messages that wait for an answer, by rcvid.

    A lane takes its rcvids from blocks of numbers, each twice as large as the one before. So a few blocks tell whose
    message it was that had a rcvid, also when it is answered: events are delivered to that client (B155).
    """

    def __init__(self) -> None:
        self.lanes: Dict[int, ServerLane] = {}
        # What clients say of their connections.
        self.files = Files()
        # A random start, so that a rcvid of one process is nothing in another (B124). A number is not used again
        # before two thousand million messages have come and gone, as long as lanes are used (D16).
        self._next = (int.from_bytes(os.urandom(4), "little") >> 2) + 1
        self._blocks: Dict[int, Tuple[int, Client]] = {}

    def take_block(self, size: int, client: "Client") -> "range":
        """So many numbers for messages of a client; a power of two, and the first a multiple of it."""
        block = size, client
        start = self._next
        while True:
            start = (start + size - 1) & -size
            if start + size > limits.RCVID_MAX:
                start = size
            taken = self._blocks.setdefault(start, block)  # In one step: another thread may take this one.
            if taken is block:
                client.blocks.append(start)
                self._next = start + size
                return range(start, start + size)
            start += taken[0]

    def client_of(self, rcvid: int) -> "Optional[Client]":
        """Whose message it was that had this rcvid; None if there was none, or all of that client has gone."""
        size = limits.RCVIDS_FIRST
        while rcvid > 0 and size <= limits.RCVIDS_MOST:
            block = self._blocks.get(rcvid & -size)
            if block is not None and block[0] == size:
                return block[1]
            size *= 2
        return None

    def forget(self, client: "Client") -> None:
        """A client has gone."""
        while client.blocks:
            self._blocks.pop(client.blocks.pop(), None)


class LaneChannel(Protocol):
    """What a lane and a client know of their channel, and what they ask of it."""

    flags: int
    queue: "Queue[ServerLane]"
    rcvids: Rcvids

    @property
    def address(self) -> ChannelAddress:
        """Where the channel can be found, which tells its number, too."""

    @property
    def lock(self) -> ContextManager[object]:
        """Held while anything of the channel or its lanes changes."""

    @property
    def peek(self) -> Optional[host.Peek]:
        """What looks at a message without taking it, where the host can do that."""

    def lane_ended(self, lane: "ServerLane") -> None:
        """The client has closed its end of a lane, or has lost the right to it."""

    def give_up(self, client: "Client") -> None:
        """A client does not take what it has asked for: end it."""

    def bury(self, lane: "ServerLane") -> None:
        """Nobody will answer the message of a lane that has ended."""

    def leave_queue(self) -> None:
        """See to it that what was queued is received."""

    def look_for(self, client: "Client") -> None:
        """Take note of the end of a client, if it has come."""

    def release_client(self, scoid: int) -> bool:
        """Free the number of a client that has left; whether there was one to free."""

    def hear_end(self, client: "Client") -> None:
        """Take note of the end of a client, if it has come; ESRCH if it has."""


class Client:
    """A client process, as one channel knows it: the other end of a Trunk. Its number is the scoid."""

    def __init__(self, channel: LaneChannel, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.channel = channel
        self.credentials = host.peer_credentials(sock)
        self.sock = sock
        self.fd = sock.fileno()
        self.scoid = 0
        self.gone = False
        self.lanes: Set[ServerLane] = set()
        # The lanes that carry its pulses, with what reads from each.
        self.pulse_fds: Dict[int, Callable[[bytearray], Optional[int]]] = {}
        self.pending = b""
        self.passed: List[int] = []
        # What tells which connections it has, and how it gets its events.
        self.file: Optional[File] = None
        self.outlet = Outlet(sock)
        # Where the blocks begin that its rcvids are from, and what is left of those whose lanes have ended.
        self.blocks: List[int] = []
        self.spare_rcvids: List[Tuple[Iterator[int], int]] = []

    def descriptors(self) -> int:
        """How many descriptors it has here."""
        return 1 + len(self.pulse_fds) + sum(3 if lane.window else 2 for lane in self.lanes)

    def deliver(self, coid: int, frame: bytes) -> None:
        """Have it send a pulse to one of its own connections.

        Raises:
            OSError: ESRCH, EBADF, EAGAIN, EMFILE, ENFILE.
        """
        with self.channel.lock:
            self.channel.hear_end(self)
            state = NO_CONNECTION if self.file is None else self.file.state(coid)
            if state != CONNECTION:
                raise failure(EBADF if state == CHANNEL_GONE else ESRCH)
            self.outlet.put(frame)

    def forget_events(self) -> None:
        """It has gone: nothing is delivered any more."""
        self.outlet.close()
        self.file = None
        self.channel.rcvids.forget(self)

    def refuse(self, reason: int) -> None:
        """Tell it that it does not get what it asks for: an errno, or 0 if it speaks another version of the wire."""
        with contextlib.suppress(OSError):
            host.send_with_descriptors(self.sock, wire.refused.pack(wire.REFUSED, wire.VERSION, reason), ())


class ServerLane:
    """The server's end of a lane, with the message that was received from it."""

    __slots__ = (
        "at_rest",
        "buffer",
        "channel",
        "client",
        "coid",
        "filled",
        "gone",
        "idle",
        "inline_room",
        "is_pipe",
        "is_plain",
        "lock",
        "owns_descriptors",
        "page",
        "priority",
        "put",
        "queued",
        "rcvid",
        "rcvids",
        "rcvids_taken",
        "read_fd",
        "read_into",
        "received",
        "room",
        "sent",
        "tid",
        "unblock_pulse",
        "unusual",
        "view",
        "window",
        "write",
        "write_fd",
        "written",
    )  # fmt: skip

    def __init__(
        self, channel: LaneChannel, client: Client, coid: int, fds: Sequence[int], window: Optional[host.Window]
    ) -> None:
        self.channel = channel
        self.lock = channel.lock
        self.client = client
        self.coid = coid
        self.read_fd, self.write_fd = fds
        self.window = window
        self.buffer = bytearray(wire.FRAME_MAX)
        self.view = memoryview(self.buffer)
        self.read_into = host.passed_reader(self.read_fd)
        self.put = host.passed_writer(self.write_fd)
        self.write: pages.Write = io.FileIO(self.write_fd, "w", closefd=False).write
        # Where both sides look before they sleep: how they pass messages meanwhile.
        self.page: Optional[pages.ServedPage] = None
        self.filled = 0
        self.owns_descriptors = False
        self.queued = False
        self.gone = False
        self.rcvid = 0
        #: The next rcvids of its messages, and how many it took the last time.
        self.rcvids: Iterator[int] = iter(())
        self.rcvids_taken = limits.RCVIDS_FIRST // 2
        with contextlib.suppress(IndexError):
            self.rcvids, self.rcvids_taken = client.spare_rcvids.pop()
        self.priority = self.tid = self.sent = self.room = self.received = 0
        # Whether its messages can be received without the lock at all, and whether the next one can; how much there is
        # to be done for the answer, and for that of a message of which nothing is known yet.
        self.is_pipe = host.is_pipe(self.read_fd)
        is_ready = host.is_pipe(self.write_fd) and (window is None or window.view is not None)
        self.is_plain = self.idle = is_ready and self.is_pipe and host.news_goes_to_one()
        # The most room for a reply without a window; there is no such message where there is one.
        self.inline_room = wire.INLINE_ROOM if window is None else -1
        self.at_rest = UNUSUAL if not self.is_plain else PLAIN if window is None else IN_WINDOW
        self.unusual = self.at_rest
        self.unblock_pulse: Optional[Pulse] = None
        self.written: Optional[Written] = None

    def __del__(self) -> None:
        # The descriptors are closed when nobody uses the lane any more, and not before: a thread may be reading from
        # it, or writing to it, that holds no lock.
        if self.owns_descriptors:
            host.close_passed(self.read_fd)
            host.close_passed(self.write_fd)
            if self.window:
                self.window.close()

    # Receiving.

    def next_rcvids(self) -> int:
        """The first of more rcvids."""
        self.rcvids_taken = min(2 * self.rcvids_taken, limits.RCVIDS_MOST)
        self.rcvids = iter(self.channel.rcvids.take_block(self.rcvids_taken, self.client))
        return next(self.rcvids)

    def look(self) -> None:
        """Queue the message that has arrived, once its priority and its time are known."""
        if self.queued or self.gone or self.rcvid:
            if self.queued and self.page is not None and self.filled:
                self._hear_while_queued()
            return
        head = b""
        peek = self.channel.peek
        if peek is not None and self.is_pipe and not self.filled:
            head = peek(self.read_fd, wire.MESSAGE_HEADER)
            if len(head) == wire.MESSAGE_HEADER and head[0] in _MESSAGE_KINDS:
                _kind, priority, _tid, _sent, _room, sent_at = _unpack_message(head)
                self.channel.queue.add_message(self, priority, sent_at)
                return
            if len(head) == wire.MESSAGE_HEADER and wire.unblock.unpack(head)[0] == wire.UNBLOCK:
                with contextlib.suppress(BlockingIOError):  # Another thread may be receiving it without the lock.
                    os.read(self.read_fd, wire.unblock.size)  # Its message was answered before it came.
                head = peek(self.read_fd, wire.MESSAGE_HEADER)
            if not head:
                return
        if len(head) < wire.MESSAGE_HEADER:
            with self.view[self.filled :] as rest:
                self.filled += self.read_into(rest) or 0
            self._skip_late_unblocks()
            if not self.filled:
                return
            self.idle = False
            head = bytes(self.buffer[: wire.MESSAGE_HEADER])
            if self.filled < self._whole():
                self._sort_out(*wire.message.unpack(head)[:4:3])
                return
        _kind, priority, _tid, _sent, _room, sent_at = wire.message.unpack_from(head)
        self.channel.queue.add_message(self, priority, sent_at)

    def set_aside(self) -> None:
        """Queue the message that lies in the page."""
        if self.queued or self.gone or self.rcvid or self.filled:
            return
        self.filled = self.read_into(self.buffer) or 0
        self.idle = False
        if self.filled < wire.MESSAGE_HEADER:
            self.channel.lane_ended(self)
            return
        _kind, priority, _tid, _sent, _room, sent_at = _unpack_message_from(self.buffer)
        self.channel.queue.add_message(self, priority, sent_at)

    def _hear_while_queued(self) -> None:
        """Free the client of a message that was taken out of the page and not received, if it wants that."""
        frame = bytearray(wire.unblock.size)
        count = self.read_into(frame)
        if count == wire.unblock.size and frame[0] == wire.UNBLOCK:
            self.channel.queue.remove(self)
            self.queued = False
            self.free(wire.unblock.unpack(frame)[2])
        elif count:
            self.channel.lane_ended(self)

    def receive(self, thread: Thread) -> int:
        """Take the message out of the lane, so that its client is REPLY-blocked; the rcvid, 0 if there is none."""
        if self.rcvid or self.gone:
            return 0
        if not self.filled:
            filled = self.read_into(self.buffer)
            if filled is None:
                return 0
            self.filled = filled
            self.idle = False
        if self.buffer[0] == wire.UNBLOCK:
            self._skip_late_unblocks()
        kind, priority, tid, sent, room, _time = _unpack_message_from(self.buffer)
        if self.window is None:
            sound = self.filled == wire.MESSAGE_HEADER + sent and room <= wire.INLINE_ROOM
        else:
            sound = self.filled == wire.MESSAGE_HEADER and wire.reply_area(sent) + room <= self.window.size
        if not sound or kind not in _MESSAGE_KINDS or not 1 <= priority <= 255:
            self._sort_out(kind, sent)
            return 0
        self.sent, self.room, self.tid, self.priority = sent, room, tid, priority
        self.filled = 0
        if kind == wire.MESSAGE_EXPIRED:
            self.idle = self.is_plain
            self._send(wire.reply.pack(wire.ERROR, 0, ETIMEDOUT, 0, 0))
            return 0
        if kind == wire.MESSAGE_TELL:
            self._send(wire.reply.pack(wire.RECEIVED, 0, 0, 0, 0))
        self.rcvid = rcvid = next(self.rcvids, 0) or self.next_rcvids()
        self.channel.rcvids.lanes[rcvid] = self
        if not self.channel.flags & NTO_CHF_FIXED_PRIORITY:
            thread.priority = priority
        return rcvid

    def receive_in_window(self, filled: int, thread: Thread) -> int:
        """Receive a plain message whose header was read from a lane that was idle, and which lies in the window.

        Returns:
            The rcvid; 0 if it is something else.
        """
        window = self.window
        kind, priority, tid, sent, room, _time = _unpack_message_from(self.buffer)
        if (
            window is None
            or filled != wire.MESSAGE_HEADER
            or kind != wire.MESSAGE
            or not 0 < priority < 256
            or wire.reply_area(sent) + room > window.size
        ):
            return 0
        self.idle = False
        self.sent, self.room, self.tid, self.priority = sent, room, tid, priority
        if not self.channel.flags & NTO_CHF_FIXED_PRIORITY:
            thread.priority = priority
        self.rcvid = rcvid = next(self.rcvids, 0) or self.next_rcvids()
        self.channel.rcvids.lanes[rcvid] = self
        return rcvid

    def _sort_out(self, kind: int, sent: int) -> None:
        """Deal with what is no whole message: wait for the rest of one, give up a lane that breaks the protocol."""
        is_part = 0 < self.filled < wire.MESSAGE_HEADER + sent <= wire.FRAME_MAX and not self.window
        if not is_part or (self.filled >= wire.MESSAGE_HEADER and kind not in _MESSAGE_KINDS):
            self.channel.lane_ended(self)

    def _skip_late_unblocks(self) -> None:
        """Drop the requests to be freed that came after the answer; a new message may have come behind them."""
        size = wire.unblock.size
        while self.filled >= size and wire.unblock.unpack_from(self.buffer)[0] == wire.UNBLOCK:
            self.filled -= size
            self.buffer[: self.filled] = self.buffer[size : size + self.filled]

    def _whole(self) -> int:
        """How long the frame in the buffer is to become, as far as can be told yet."""
        sent: int = wire.message.unpack_from(self.buffer)[3]
        is_longer = self.filled >= wire.MESSAGE_HEADER and not self.window
        return wire.MESSAGE_HEADER + (sent if is_longer else 0)

    def put_back(self) -> None:
        """Let a message be received once more, whose receiver an exception has kept from it."""
        self.channel.rcvids.lanes.pop(self.rcvid, None)
        self.rcvid = 0
        kind, _priority, _tid, sent, _room, _time = wire.message.unpack_from(self.buffer)
        if kind in _MESSAGE_KINDS and not self.filled:
            self.filled = wire.MESSAGE_HEADER + (0 if self.window else sent)
            self.idle = False

    def deliver(self, sinks: Buffers, info: Optional[MessageInfo]) -> None:
        """Give the received message to the thread that has received it."""
        window = self.window
        shared = self.view if window is None else window.view
        if shared is not None and len(sinks) == 1:  # What comes most often, written out.
            sink, start = sinks[0], wire.MESSAGE_HEADER if window is None else 0
            self.received = count = min(self.sent, len(sink))
            sink[:count] = shared[start : start + count]
            if info is not None:
                self.describe(info)
            return
        count = 0
        for sink in sinks:
            # A client that has gone in the meantime may have taken its window along; its rcvid is stale already.
            with contextlib.suppress(OSError):
                count += self.read_message(count, sink)
        self.received = count
        if info is not None:
            self.describe(info)

    def describe(self, info: MessageInfo) -> None:
        """Fill in what is known about the received message and its client (B98 to B104, B153)."""
        flags = _ENDIAN_FLAG | (NTO_MI_UNBLOCK_REQ if self.unblock_pulse is not None else 0)
        client = self.client
        who = client.credentials.pid, self.tid, self.channel.address.chid, client.scoid, self.coid
        if _IS_64:
            lengths = self.received, self.sent, self.room
            _info_record.pack_into(info, 0, 0, 0, *who, self.priority, flags, *lengths, 0, 0)
        else:
            narrow = (min(length, _INT_MAX) for length in (self.received, self.sent, self.room))
            _info_record.pack_into(info, 0, 0, 0, *who, *narrow, self.priority, flags, 0)

    # What the client says while it waits for the answer.

    def hear_client(self) -> None:
        """Take note of what the client has done since its message was received: it may want to be freed, or be gone."""
        if not self.gone:
            self.read_request()
            self.channel.leave_queue()

    def read_request(self) -> None:
        """Read what comes after a message that is not yet answered: its client wants to be freed (B183)."""
        rcvid = self.rcvid
        frame = bytearray(wire.unblock.size)
        count = self.read_into(frame)
        if count is None:
            return
        if count < wire.unblock.size or frame[0] != wire.UNBLOCK:
            self.channel.lane_ended(self)
            return
        # First this, then a look at the rcvid: who answers does it the other way round.
        self.unusual = UNUSUAL
        if self.rcvid != rcvid:
            # It was answered in the meantime, and the client's next message may have come with the same news.
            if self.written is None and self.unblock_pulse is None:
                self.unusual = self.at_rest
            self.look()
        elif self.channel.flags & NTO_CHF_UNBLOCK:
            self.request_unblock(rcvid)
        else:
            _kind, _zero, reason = wire.unblock.unpack_from(frame)
            self.free(reason)

    def free(self, reason: int) -> None:
        """Let the client's call fail with an errno; nobody answers its message any more."""
        self.forget()
        self._send(wire.reply.pack(wire.ERROR, 0, reason, 0, 0))

    def request_unblock(self, rcvid: int) -> None:
        """Queue an unblock pulse, the first time that the client of a received message wants to be freed."""
        self.unusual = UNUSUAL
        if self.unblock_pulse is None:
            self.unblock_pulse = Pulse(PULSE_CODE_UNBLOCK, rcvid, self.client.scoid, self.priority)
            self.channel.queue.add_pulse(self.unblock_pulse, time.monotonic_ns())

    # Answering.

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
                self.unusual = UNUSUAL
            with source[:count] as part:
                if self.window:
                    self._write_window(offset, part)
                    self.written.add(offset, b"", count)
                else:
                    self.written.add(offset, bytes(part), count)
        return count

    def _write_window(self, offset: int, part: memoryview) -> None:
        """Put data at an offset of the reply in the window."""
        assert self.window is not None
        with _client_may_spoil_it():
            self.window.write(wire.reply_area(self.sent) + offset, part)

    def reply(self, status: int, sources: Buffers) -> bytes:
        """Answer the received message, with as much data as there is room for.

        Returns:
            What of the answer is left for ``send_rest``.

        Raises:
            OSError: ESRCH, the client is gone; EFAULT, it has spoilt its window, and the message is not answered.
        """
        parts: List[memoryview] = []
        room = self.room
        for source in sources:
            parts.append(source[:room])
            room -= len(parts[-1])
        size = self.room - room
        if self.window:
            offset = 0
            for part in parts:
                self._write_window(offset, part)
                offset += len(part)
            parts = []
        elif size > wire.INLINE_REPLY:
            offset = 0
            for part in parts:
                offset += self.write_reply(offset, part)
            parts, size = [], 0
        frames = self.written.frames() if self.written else b""
        header = wire.plain_reply.pack(wire.REPLY, status, size)
        return self._answer(b"".join((frames, header, *parts)))

    def reply_in_window(self, rcvid: int, frame: bytes, data: "bytes | memoryview") -> bool:
        """Answer a message in whose answer nothing is unusual but that its data lies in the window.

        Returns:
            Whether that is so; else nothing was done.

        Raises:
            OSError: ESRCH, the client is gone, or another thread has answered.
        """
        size = len(data)
        if self.window is None or self.window.view is None or size > self.room:
            return False
        if self.channel.rcvids.lanes.pop(rcvid, None) is None:
            raise failure(ESRCH)
        self.rcvid = 0
        # Not before the message is ours alone to answer: the window may be another one's by then.
        start = wire.reply_area(self.sent)
        self.window.view[start : start + size] = data
        if self.unusual != IN_WINDOW:  # Its client wants to be freed, as another thread has just heard.
            with self.lock:
                self.forget()
        self.idle = True
        with contextlib.suppress(BrokenPipeError):
            if self.write(frame):
                return True
        if self.client_lost():
            return True
        raise failure(ESRCH)

    def reply_error(self, number: int) -> bytes:
        """Answer the received message with an errno.

        Returns:
            What of the answer is left for ``send_rest``.

        Raises:
            OSError: ESRCH, the client is gone.
        """
        frames = self.written.frames() if self.written else b""  # What MsgWrite has written stays written.
        return self._answer(frames + wire.reply.pack(wire.ERROR, 0, number, 0, 0))

    def _answer(self, frames: bytes) -> bytes:
        self.forget()
        if self.gone:
            self.channel.bury(self)  # The client was killed; the answer to its unblock pulse goes nowhere (D26).
            return b""
        sent = self._send(frames)
        if not sent and not self.client_lost():
            raise failure(ESRCH)
        return frames[sent:] if sent else b""

    def send_rest(self, frames: bytes) -> bool:
        """Wait for the client to read, and send the rest of an answer; whether it counts as answered.

        The caller holds no lock: a client that does not read keeps nobody up but this thread, and that only once.
        """
        limit = time.monotonic() + limits.ANSWER_WAIT
        poll = select.poll()
        poll.register(self.write_fd, select.POLLOUT)
        try:
            while frames:
                if not poll.poll(max(0, int((limit - time.monotonic()) * 1000))):
                    self.channel.give_up(self.client)
                    return bool(self.channel.flags & NTO_CHF_UNBLOCK)
                with contextlib.suppress(BlockingIOError):
                    frames = frames[self.put(frames) :]
        except BrokenPipeError:
            return self.client_lost()
        return True

    def forget(self) -> None:
        """The received message is answered, or has no client any more."""
        self.channel.rcvids.lanes.pop(self.rcvid, None)
        self.rcvid = self.filled = 0
        self.idle = self.is_plain
        self.unusual = self.at_rest
        self.written = None
        if self.unblock_pulse is not None:
            self.unblock_pulse.withdrawn = True
            self.unblock_pulse = None

    def client_lost(self) -> bool:
        """The client did not take the answer; whether that counts as answered: it would have had to wait (D26)."""
        with self.lock:
            self.forget()
            if self.gone:
                self.channel.bury(self)
            else:
                self.channel.lane_ended(self)
        return bool(self.channel.flags & NTO_CHF_UNBLOCK)

    def _send(self, frames: bytes) -> int:
        """Send frames to the client; how much of them, 0 if it is gone, or has left no room for any of it."""
        try:
            return self.put(frames)
        except (BrokenPipeError, BlockingIOError):
            return 0


@contextlib.contextmanager
def _client_may_spoil_it() -> Iterator[None]:
    """The memory of a window belongs to the client: what is wrong with it is a bad address of its own (B151)."""
    try:
        yield
    except (OSError, ValueError):
        raise failure(EFAULT) from None


def end_now(lanes: Iterable[ServerLane]) -> None:
    """Let go of what lanes are open on, though somebody may still refer to them and close their numbers later."""
    with contextlib.suppress(OSError), open(os.devnull, "r+b", buffering=0) as nothing:
        for lane in lanes:
            os.dup2(nothing.fileno(), lane.read_fd, inheritable=False)
            os.dup2(nothing.fileno(), lane.write_fd, inheritable=False)


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
