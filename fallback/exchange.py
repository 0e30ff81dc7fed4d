"""The exchange of one message and its reply, as the client sees it.

SocketKernel.MsgSend writes the plain case out for itself, since almost every message is one: on a lane that is idle, in
one frame or in the window that is mapped already, and answered in one frame. Everything else is here: the first message
of a lane, parts, timeouts, signals, a server that writes pieces of its reply, asks for the message again, or dies.
"""

import ctypes
import time
from errno import EBADF, EINTR, ESRCH, ETIMEDOUT
from typing import Optional, Tuple

from ha_qnx import iomessages
from ha_qnx.buffers import Buffers
from ha_qnx.constants import NTO_CHF_UNBLOCK, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import host, limits, wire
from .connections import Connection, Lane
from .runtime import is_busy
from .threads import Thread, Threads, Timeout

_FRAME_SIZE = ctypes.c_size_t.from_param(wire.FRAME_MAX)
_SEND_AND_REPLY = NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY


def exchange(
    connection: Connection, thread: Thread, sources: Buffers, sinks: Buffers, timeout: Optional[Timeout]
) -> Tuple[int, int]:
    """Send a message once and wait for its reply.

    Returns:
        (0, status), or (errno, 0) if the server or the kernel ends the call with an error.

    Raises:
        OSError: the message did not go out: EBADF, ETIMEDOUT, EAGAIN, EMFILE, ENFILE, ENOMEM.
        BaseException: what a signal handler raised, once the call has ended.
    """
    size, room = sum(map(len, sources)), sum(map(len, sinks))
    window = 0 if size <= wire.INLINE_SEND and room <= wire.INLINE_ROOM else wire.reply_area(size) + room
    kind = _message_kind(timeout)
    comes_late = connection.trunk.has_lost_message
    lane = connection.lane(window, _lane_deadline(timeout), thread)
    attempt = Exchange(connection, lane, thread, sinks, size)
    attempt.comes_late = comes_late
    attempt.post(sources, kind)
    thread.sends_on = lane
    try:
        return attempt.complete(timeout)
    finally:
        thread.sends_on = None


def exchange_in_window(
    connection: Connection,
    lane: Lane,
    window: memoryview,
    thread: Thread,
    message: "bytes | memoryview",
    sink: memoryview,
) -> Tuple[int, int]:
    """Send a message by a lane with a window that is mapped, with no limit of time, and SIGPIPE ignored.

    Otherwise as ``exchange``.
    """
    size, room = len(message), len(sink)
    holds_lane = True
    try:
        window[:size] = message
        write = lane.write
        try:
            write(wire.message.pack(wire.MESSAGE, thread.priority, thread.tid, size, room, time.monotonic_ns()))
        except BrokenPipeError:
            raise failure(EBADF) from None
        thread.sends_on = lane
        count: Optional[int] = None
        if not thread.is_main:
            count = lane.read_into(lane.buffer)
        elif not connection.reads_are_restarted:
            try:
                count = lane.c_read(lane.read_fd, lane.address, _FRAME_SIZE)
            except BaseException as error:
                holds_lane = False
                return Exchange(connection, lane, thread, [sink], size).complete(None, -EINTR, error)
            if count < 0:  # As in MsgSend, which says why.
                count = -EINTR if host.is_still(lane.read_fd, lane.read_inode) else -EBADF
        kind, status, length = wire.plain_reply.unpack_from(lane.buffer)
        if kind != wire.REPLY or count != wire.REPLY_HEADER or length > room:
            holds_lane = False
            return Exchange(connection, lane, thread, [sink], size).complete(None, count)
        start = wire.reply_area(size)
        sink[:length] = window[start : start + length]
        holds_lane = False
        thread.sends_on = None
        connection.release(lane)
        return 0, status
    except BaseException:
        if holds_lane:
            connection.discard(lane)
        raise
    finally:
        thread.sends_on = None


def announce_copy(connection: Connection, original: MessageInfo, threads: Threads) -> None:
    """Tell the server that a connection is the copy of another one (B333, B272)."""
    # The timeout stays armed: where this comes before the first message of a forked child, it limits that, too.
    timeout = threads.armed_timeout()
    message = memoryview(iomessages.dup_message(original))
    number, _status = exchange(connection, threads.local.thread, [message], [], timeout)
    if number:
        raise failure(number)


class Exchange:
    """One message and its reply, with everything that can come between: timeouts, signals, a server that dies."""

    def __init__(self, connection: Connection, lane: Lane, thread: Thread, sinks: Buffers, size: int) -> None:
        self._connection = connection
        self._lane = lane
        self._thread = thread
        self._sinks = sinks
        self._reply_area = wire.reply_area(size)  # Where the reply lies, if there is a window.
        self._received = False
        self._unblock_reason = 0
        self._lane_is_back = False
        # Whether another message was lost before this one was sent.
        self.comes_late = False

    def post(self, sources: Buffers, kind: int) -> None:
        """Send the message.

        Raises:
            OSError: EBADF, the message did not go out.
        """
        lane = self._lane
        size = sum(len(source) for source in sources)
        room = sum(len(sink) for sink in self._sinks)
        now = time.monotonic_ns()
        frame = wire.message.pack(kind, self._thread.priority, self._thread.tid, size, room, now)
        try:
            if lane.window:
                offset = 0
                for source in sources:
                    lane.window.write(offset, source)
                    offset += len(source)
                lane.post(frame)
            else:
                lane.post(b"".join((frame, *sources)))
        except BaseException as error:
            self._connection.discard(lane)
            if isinstance(error, OSError) and error.errno == EBADF:
                raise self._connection.trunk.lost() from None
            raise

    def complete(
        self, timeout: Optional[Timeout] = None, count: Optional[int] = None, raised: Optional[BaseException] = None
    ) -> Tuple[int, int]:
        """Wait for the reply and put it where it belongs.

        Args:
            timeout: what limits the call.
            count: what a first attempt to read the reply has brought, if one was made: see Lane.fill.
            raised: what a signal handler raised during that attempt.

        Returns:
            (0, status), or (errno, 0) if the server or the kernel ends the call with an error.

        Raises:
            BaseException: what a signal handler raised, once the call has ended.
        """
        try:
            outcome, raised = self._complete(timeout, count, raised)
        except BaseException:
            if not self._lane_is_back:
                self._connection.discard(self._lane)
            raise
        if raised is not None:
            raise raised
        return outcome

    def _complete(
        self, timeout: Optional[Timeout], count: Optional[int], raised: Optional[BaseException]
    ) -> Tuple[Tuple[int, int], Optional[BaseException]]:
        """The outcome, for which the lane was given back, and what a signal handler raised meanwhile."""
        deadline, reply_timeout = _deadline(timeout, self._connection)
        latest = time.monotonic() + limits.RECEIVER_GRACE
        if count is not None and count > 0:
            self._lane.filled = count
            count = None
        if raised is not None and self._lane.buffer[0]:
            raise raised  # The handler ran after the reply had come.
        while True:
            if count is None:
                outcome = self._digest()
                if outcome is not None:
                    break
                if self._received and reply_timeout is not None:
                    deadline, reply_timeout = reply_timeout.deadline(), None
                try:
                    count = self._lane.fill(self._thread, deadline)
                except BaseException as error:
                    # Only a signal handler can raise here. Its exception ends the call the way EINTR does (D19).
                    raised = raised or error
                    count = -EINTR
            if count == 0 and self._lane.is_interrupted and host.PORTABLE:
                outcome = (EINTR, 0)  # That was no end: the thread was woken.
                self._connection.discard(self._lane)
                break
            if count == 0:
                number = EBADF if self._connection.detached else self._connection.trunk.lost_message(self.comes_late)
                outcome = (number, 0)
                self._connection.discard(self._lane)
                break
            if count == -ETIMEDOUT and time.monotonic() < latest and self._may_be_about_to_receive(timeout):
                deadline, count = time.monotonic() + limits.POSSIBLE_RECEIVER_GRACE, None
                continue
            if count < 0 and self._give_up(-count, timeout):
                outcome = (-count, 0)
                break
            if count == -ETIMEDOUT:
                deadline = None
            count = None
        return outcome, raised

    def _may_be_about_to_receive(self, timeout: Optional[Timeout]) -> bool:
        """Whether a message that may not wait goes to a server that has work and no processor for it (D36)."""
        trunk = self._connection.trunk
        return bool(timeout and timeout.immediate) and trunk.is_waited_on is None and is_busy(trunk.address.pid)

    def _give_up(self, reason: int, timeout: Optional[Timeout]) -> bool:
        """Leave the call for a signal or a timeout; whether it ends now, rather than when the server says so."""
        if self._lane.is_wanted_back:  # What lies unread is no message then.
            return False
        is_back = host.take_back(self._lane.write_fd)
        if not is_back:
            known = self._received or is_back is not None
            if known and reason == ETIMEDOUT and timeout and not timeout.flags & NTO_TIMEOUT_REPLY:
                return False  # Only the wait for a receiver was limited (B209).
            flags = self._connection.trunk.channel_flags()
            if flags is not None and flags & NTO_CHF_UNBLOCK:
                self._unblock_reason = reason
                self._lane.ask_back(reason)
                return False
        self._connection.discard(self._lane)
        return True

    def _digest(self) -> Optional[Tuple[int, int]]:
        """Deal with the frames that have arrived; the outcome if the last one is among them."""
        lane = self._lane
        while lane.filled >= wire.REPLY_HEADER:
            kind, _zero, number, status, length = wire.reply.unpack_from(lane.buffer)
            size = wire.REPLY_HEADER + (0 if lane.window else length)
            if size > wire.FRAME_MAX:
                raise failure(ESRCH)  # Nothing that follows the protocol sends that.
            if lane.filled < size:
                return None
            if kind == wire.RECEIVED:
                self._received = True
            elif kind == wire.WRITE:
                self._copy(status, length)
            elif kind == wire.LOOK and lane.page is not None:
                count = lane.page.late_answer(lane.buffer)
                if count:
                    lane.filled = count
                    continue
            elif kind == wire.INTERRUPTED:
                if self._give_up(EINTR, None):
                    return EINTR, 0
            elif kind == wire.REPLY:
                self._copy(0, length)
                self._give_back(lane)
                return 0, status
            elif kind == wire.ERROR:
                self._give_back(lane)
                return (self._unblock_reason or EINTR) if number == -1 else number, 0
            else:
                self._connection.discard(lane)
                return EBADF if kind == wire.DETACHED else ESRCH, 0
            lane.forget_frame(size)
        return None

    def _give_back(self, lane: Lane) -> None:
        # First of all: from the moment it is back, another thread may have it.
        self._lane_is_back = True
        self._thread.sends_on = None
        self._connection.release(lane)

    def _copy(self, offset: int, length: int) -> None:
        """Put reply data at an offset of the reply buffers; what does not fit is dropped."""
        lane, position = self._lane, 0
        for sink in self._sinks:
            start = max(0, offset - position)
            done = position + start - offset
            count = min(len(sink) - start, length - done)
            if count > 0:
                with sink[start : start + count] as target:
                    if lane.window:
                        lane.window.read_into(self._reply_area + offset + done, target)
                    else:
                        target[:] = lane.view[wire.REPLY_HEADER + done : wire.REPLY_HEADER + done + count]
            position += len(sink)


def _message_kind(timeout: Optional[Timeout]) -> int:
    """The kind of message that the timeout of its call asks for.

    Raises:
        OSError: ETIMEDOUT, for a timeout that leaves no time to send anything (B213 to B216).
    """
    limited = timeout.flags & _SEND_AND_REPLY if timeout else 0
    if not limited:
        return wire.MESSAGE
    if timeout is not None and timeout.immediate:
        if limited == _SEND_AND_REPLY:
            raise failure(ETIMEDOUT)
        return wire.MESSAGE_EXPIRED if limited == NTO_TIMEOUT_REPLY else wire.MESSAGE_TELL
    return wire.MESSAGE if limited == _SEND_AND_REPLY else wire.MESSAGE_TELL


def _lane_deadline(timeout: Optional[Timeout]) -> Optional[float]:
    return timeout.deadline() if timeout and timeout.flags & NTO_TIMEOUT_SEND and not timeout.immediate else None


def _deadline(timeout: Optional[Timeout], connection: Connection) -> Tuple[Optional[float], Optional[Timeout]]:
    """When the wait ends, and the timeout of the wait for the reply, which begins when the message was received."""
    if timeout is None or not timeout.flags & (NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY):
        return None, None
    if timeout.flags & NTO_TIMEOUT_SEND:
        return time.monotonic() + _grace(connection) if timeout.immediate else timeout.deadline(), None
    return None, None if timeout.immediate else timeout


def _grace(connection: Connection) -> float:
    """How long a server may take to receive a message that may not wait (D36)."""
    is_waited_on = connection.trunk.is_waited_on
    if is_waited_on is None:
        return limits.POSSIBLE_RECEIVER_GRACE
    return limits.RECEIVER_GRACE if is_waited_on() else 0.0
