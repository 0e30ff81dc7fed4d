"""The server's side: a channel takes in what arrives, and threads receive from it.

A message waits where its client has put it, unread in its lane: the client can then see that it is SEND-blocked and
take its message back without asking anybody. What waits is looked at, not taken, until a thread receives it. (On a
host that cannot look without taking, the message goes into the lane's buffer, and its client has to ask.)

Nobody waits for a pulse, so pulses are taken in as soon as they are seen, up to a limit of memory.

A channel changes under its lock, and nothing that can block happens there. Threads wait outside it; whoever wakes takes
in all the news there is, chooses the first item of the queue, and nudges another thread if something is left.

Two steps go without the lock, since it would cost a twentieth of the time of a message: receiving a plain message from
a lane that was idle, and answering it plainly. They rest on three facts. News of a lane goes to one thread only (where
the host tells all of them, nothing is received in this way). A rcvid is in its table before anybody can use it, and
only one thread can take it out. And a lane's descriptors are closed when the last reference to the lane is gone, so
nobody can read from a number that has become another file. What another thread may do to the lane meanwhile is that its
client ends: the receiver looks after that last of all, and who answers learns it from the write.
"""

import contextlib
import functools
import os
import socket
import threading
import time
from errno import EAGAIN, EFAULT, EINVAL, EMFILE, ENFILE, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, cast

from ha_qnx.buffers import Buffers
from ha_qnx.constants import (
    NTO_CHF_COID_DISCONNECT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_FIXED_PRIORITY,
    NTO_CHF_UNBLOCK,
    NTO_TIMEOUT_RECEIVE,
    PULSE_CODE_COIDDEATH,
    PULSE_CODE_DISCONNECT,
)
from ha_qnx.errors import failure
from ha_qnx.structures import MessageInfo

from . import host, limits, pages, spinning, wire
from .connections import Trunk
from .deliveries import Inlets
from .forking import all_of
from .homes import Due, Home
from .numbers import Numbers
from .queue import Pulse, Queue
from .receivers import Receivers
from .runtime import ChannelAddress, Runtime
from .server_lane import Client, Rcvids, ServerLane, end_now
from .threads import DEFAULT_PRIORITY, Thread, Threads, Timeout

# Looked up once, for the path that every message takes.
_READABLE, _MESSAGE, _MESSAGE_HEADER = host.READABLE, wire.MESSAGE, wire.MESSAGE_HEADER
_unpack_timeless = wire.timeless_message.unpack_from


class Channel:
    """A channel: its clients, its queue, its waiting threads."""

    def __init__(
        self,
        address: ChannelAddress,
        flags: int,
        listener: Optional[socket.socket],
        entry: Optional[os.stat_result],
        look: Callable[[], object],
        rcvids: Rcvids,
        scoids: Numbers[Client],
        threads: Threads,
        inlets: Inlets,
    ) -> None:
        self.address = address
        self.flags = flags
        self.lock = threading.RLock()
        self.destroyed = False
        self._fixed_priority = bool(flags & NTO_CHF_FIXED_PRIORITY)
        self.rcvids = rcvids
        self._lane_by_rcvid = rcvids.lanes
        self._scoids = scoids
        self._threads = threads
        self._local, self._timeouts = threads.local, threads.timeouts
        self._listener = listener
        #: What the channel is in the runtime directory; None if it is not there.
        self.entry = entry
        # To be called now and then, by a thread that waits: whether all of this process is still there.
        self._look, self._look_now = look, False
        self._clients: Dict[int, Client] = {}
        self._lanes: Dict[int, ServerLane] = {}
        self._pulse_fds: Dict[int, Client] = {}
        self._own_trunks: Dict[int, Trunk] = {}
        # By which events come to this process, whichever channel they are for.
        self._inlets = inlets
        self.queue: Queue[ServerLane] = Queue()
        self._muted: Set[int] = set()
        # Something may lie unread that no news will tell of: a thread was interrupted between hearing and reading.
        self._unsettled = False
        # What has been accepted, and is not watched before what has come with it is dealt with: watching it would wake
        # another thread.
        self._fresh: List[int] = []
        # Whether there is something to be done before a thread waits for news.
        self._look_first = False
        # The numbers of clients that have left, kept until the server releases them (B61, B201).
        self._departed: Set[int] = set()
        # Whether somebody may want to connect for whom there is not even a descriptor to refuse him by.
        self._is_deaf = False
        self._poller = host.open_poller()
        self._wait_for_ever: spinning.WaitForEver = self._poller.wait_for_ever
        self._wait_interruptibly = self._poller.wait_interruptibly
        self._awake = pages.Awake(self._poller, self._lanes, self.lock) if spinning.NANOSECONDS else None
        if self._awake is not None:
            self._wait_for_ever, self._wait_interruptibly = self._awake.wait_for_ever, self._awake.wait_interruptibly
        self.peek = None if host.PORTABLE else host.Peek()
        # The timers whose pulses come here, once there are any.
        self.home: Optional[Home] = None
        self._receivers = Receivers(threads)
        self._parked, self._bell = self._receivers.parked, self._receivers.bell
        self._poller.register(self._bell.fd)
        self._ticker = host.open_ticker(limits.LOOK_AGAIN) if listener is not None else None
        if self._ticker is not None:
            self._poller.register(self._ticker.fd, once=True)
        if listener is not None:
            self._listen(listener)

    def _listen(self, listener: socket.socket) -> None:
        listener.listen(limits.BACKLOG)
        listener.setblocking(False)
        self._poller.register(listener.fileno())

    def listen_again(self, runtime: Runtime) -> None:
        """Be found by another socket, once the first one has been removed from the runtime directory.

        Raises:
            OSError: what bind says.
        """
        listener, entry = runtime.listen(self.address)
        with self.lock:
            before, self._listener, self.entry = self._listener, listener, entry
            if before is not None:
                self._accept(before)
                self._poller.unregister(before.fileno())
                before.close()
            self._listen(listener)
            self.leave_queue()

    # Receiving.

    def receive(self, sink: "bytearray | memoryview", info: Optional[MessageInfo]) -> int:
        """MsgReceive into one buffer: the rcvid, or 0 for a pulse."""
        # This is the path of a server that waits for its next message and then finds a plain one in an idle lane.
        # receive_parts does everything else.
        thread = self._local.thread
        taking = None
        try:
            thread.receives_on = self._receivers
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
                        and room <= lane.inline_room
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
                        lane.rcvid = rcvid = next(lane.rcvids, 0) or lane.next_rcvids()
                        self._lane_by_rcvid[rcvid] = lane
                        if info is not None:
                            lane.describe(info)
                        thread.receives_on = None
                        if self._parked:
                            self._receivers.unpark()
                        if not lane.gone or self._still_answerable(lane):
                            return rcvid
                    elif filled:
                        rcvid = lane.receive_in_window(filled, thread)
                        if rcvid:
                            with memoryview(sink) as target:
                                lane.deliver([target], info)
                            thread.receives_on = None
                            if self._parked:
                                self._receivers.unpark()
                            if not lane.gone or self._still_answerable(lane):
                                return rcvid
                        else:
                            with self.lock:
                                lane.filled, lane.idle = filled, False
                                lane.look()
        except BaseException:
            thread.receives_on = None
            self._put_back(taking)
            raise
        with memoryview(sink) as view:
            return self.receive_parts([view], info, thread, news)

    def _still_answerable(self, lane: ServerLane) -> bool:
        """Whether a message whose client ended while it was being received can be answered all the same (D26)."""
        with self.lock:
            if lane in lane.client.lanes:
                return True
            lane.forget()
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
                item.put_back()
        self._receivers.unpark()

    def receive_parts(
        self, sinks: Buffers, info: Optional[MessageInfo], thread: Optional[Thread] = None, news: host.News = ()
    ) -> int:
        """MsgReceivev: the rcvid, or 0 for a pulse."""
        thread = thread or self._local.thread
        deadline = _receive_deadline(self._threads.take_timeout()) if self._timeouts else None
        late = 0
        while True:
            item: Pulse | ServerLane | None = None
            try:
                # It counts as waiting until it has something: a pulse that comes meanwhile is for it (B259).
                thread.receives_on = self._receivers
                with self.lock:
                    more = self._take_in(news)
                    item = self.queue.take()
                    rcvid = item.receive(thread) if isinstance(item, ServerLane) else 0
                    if isinstance(item, Pulse) or rcvid:
                        thread.receives_on = None
                    self.leave_queue()
                if isinstance(item, Pulse):
                    return self._deliver_pulse(item, thread, sinks)
                if item is not None and rcvid:
                    item.deliver(sinks, info)
                    if self._parked:
                        self._receivers.unpark()
                    return rcvid
                news = () if item is not None or self._is_over(deadline) else self._wait(deadline, thread)
            except BaseException:
                thread.receives_on = None
                self._put_back(item)
                raise
            if item is None and not news:
                late += self._stop_if_over(deadline, thread, more and late < limits.LATE_TURNS)

    def _is_over(self, deadline: Optional[float]) -> bool:
        return self.destroyed or (deadline is not None and time.monotonic() >= deadline)

    def _stop_if_over(self, deadline: Optional[float], thread: Thread, more: bool) -> bool:
        """End the wait of a thread for which there was nothing.

        Args:
            deadline: when it ends.
            thread: the thread.
            more: whether there may be something that has come in time and is not taken in yet.

        Returns:
            Whether it is late, and looks at that first.

        Raises:
            OSError: ESRCH, the channel is destroyed; ETIMEDOUT.
        """
        if not self._is_over(deadline):
            return False
        if more and not self.destroyed:
            return True
        thread.receives_on = None
        self._receivers.unpark()
        raise failure(ESRCH if self.destroyed else ETIMEDOUT)

    def _deliver_pulse(self, pulse: Pulse, thread: Thread, sinks: Buffers) -> int:
        self._receivers.unpark()
        if not sinks or not pulse.put(sinks[0]):
            pulse.withdrawn = True  # It is lost (B252, B254).
            raise failure(EFAULT)
        if not self._fixed_priority:
            thread.priority = pulse.priority
        return 0

    def _wait(self, deadline: Optional[float], thread: Thread) -> host.News:
        # Whoever queues something asks after that who receives; so ask for the queue only now.
        if self._look_first and self._has_work():
            return ()
        return self._poll(deadline, thread)

    def _has_work(self) -> bool:
        """Whether there is something for a thread in MsgReceive without waiting."""
        return bool(self.queue.messages or self.queue.pulses or self._unsettled or self.destroyed)

    def _poll(self, deadline: Optional[float], thread: Thread) -> host.News:
        if self._look_now:
            self._look_now = False
            self._look()
        if not self._is_deaf:
            news = None if self._awake is None else self._awake.look(thread.is_main, deadline)
            return news or self._poller.wait(deadline, thread.is_main)
        soon = time.monotonic() + limits.ACCEPT_PAUSE
        news = self._poller.wait(soon if deadline is None else min(soon, deadline), thread.is_main)
        with self.lock:
            self._is_deaf = False
            if self._listener is not None and not self.destroyed:
                self._poller.unmute(self._listener.fileno())
        return news

    def receive_pulse(self, sink: memoryview) -> int:
        """MsgReceivePulse: 0."""
        thread = self._local.thread
        deadline = _receive_deadline(self._threads.take_timeout())
        if self._awake is not None:
            self._awake.note_thread()
        news: host.News = ()
        late = 0
        while True:
            pulse = None
            try:
                with self.lock:
                    more = self._take_in(news)
                    # A thread in MsgReceive is served first (B259).
                    pulse = None if self._receivers.has_receiver() else self.queue.take_pulse()
                    self.leave_queue()
                if pulse is not None:
                    return self._deliver_pulse(pulse, thread, [sink])
                if self._is_over(deadline):
                    news = ()
                elif self._receivers.has_receiver():
                    self._receivers.park(deadline, thread)
                    news = ()
                else:
                    news = self._wait_for_pulses(deadline, thread)
            except BaseException:
                self._put_back(pulse)
                raise
            if not news:
                late += self._stop_if_over(deadline, thread, more and late < limits.LATE_TURNS)

    def _wait_for_pulses(self, deadline: Optional[float], thread: Thread) -> host.News:
        waiters = self._receivers.pulse_waiters
        waiters.append(thread)
        try:
            if self.queue.pulses or self._unsettled or self.destroyed:
                return ()
            return self._poll(deadline, thread)
        finally:
            waiters.remove(thread)

    # Taking in what has arrived.

    def _take_in(self, news: host.News) -> bool:
        """Take note of what has arrived: connections, lanes, pulses, messages, ends; whether there may be more."""
        heard = False
        if self._unsettled:
            self._unsettled = False
            self._poller.tell_again()
            for lane in list(self._lanes.values()):
                if lane.page is not None:
                    lane.page.settle(lane)
                if lane.filled and not lane.rcvid:
                    lane.look()
        # A new trunk brings lanes and a lane brings messages, which count as arrived, too.
        for _round in range(limits.ROUNDS):
            again = False
            fresh: Sequence[int] = list(self._fresh) if self._fresh else ()
            news = news or self._poller.news()
            heard = bool(news or fresh)
            for fd, event in news:
                ready = self._lanes.get(fd)
                if ready is not None and event == _READABLE and not ready.rcvid:
                    ready.look()  # As _hear does, and what it does most.
                else:
                    again |= self._hear(fd, event)
            for fd, event in host.news_of(fresh) if fresh else ():
                again |= fd in self._fresh and self._hear(fd, event)
            if not again and len(self._fresh) == len(fresh):
                break
            news = ()
        return heard

    def _hear(self, fd: int, event: int) -> bool:
        """Deal with the news of one descriptor; whether there may be more because of it."""
        lane = self._lanes.get(fd)
        if lane is not None:
            # What is heard may be of a lane whose number this one has by now.
            if event & host.GONE and host.is_gone(fd):
                self.lane_ended(lane)
            elif lane.rcvid:
                lane.read_request()
            else:
                lane.look()
            return False
        if fd in self._clients:
            self._read_client(self._clients[fd])
            return True
        if fd in self._pulse_fds:
            self._read_pulses(fd, event)
        elif self.home is not None and fd in self.home.fds:
            self._take_due_pulses(self.home)
        elif fd == self._bell.fd:
            if not self.destroyed:
                self._bell.stop()
        elif fd in self._own_trunks:
            self.hear_own_trunk(fd)
            return True  # It may have brought events.
        elif fd in self._inlets.descriptors:
            if self._inlets.read(fd):
                self._poller.unmute(fd)
            return True
        elif self._ticker is not None and fd == self._ticker.fd:
            self._ticker.stop()
            self._look_now = True
        elif self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)
            return True
        return False

    def _accept(self, listener: socket.socket) -> None:
        for _attempt in range(limits.ACCEPTS):
            try:
                accepted = host.accept(listener)
            except OSError as error:
                if error.errno in (EMFILE, ENFILE):
                    self._is_deaf = True
                    self._poller.mute(listener.fileno())
                return
            with contextlib.suppress(OSError):
                client = Client(self, host.socket_out_of_the_way(accepted))
                if self._has_room_for(client, [client.fd]):
                    self._clients[client.fd] = client
                    self._fresh.append(client.fd)
                else:
                    client.refuse(EAGAIN)
                    host.close_trunk(client.sock)

    def _has_room_for(self, client: Client, descriptors: Sequence[int]) -> bool:
        """Whether a client can have these descriptors.

        Where those that we use are all taken, the program's own serve, but neither the last of them, nor for a process
        that has many already (D67).
        """
        base = host.our_descriptors()
        highest = max((fd for fd in descriptors if fd < base), default=-1)
        if highest < 0:
            return True
        if highest >= base - min(limits.SPARE_DESCRIPTORS, base // 4):
            return False
        pid = client.credentials.pid
        return sum(one.descriptors() for one in self._clients.values() if one.credentials.pid == pid) < base // 2

    def adopt(self, sock: socket.socket) -> Client:
        """Make this process a client of its own channel: a connected socket leads to it."""
        client = Client(self, sock)
        with self.lock:
            self._clients[client.fd] = client
            self._poller.register(client.fd, once=True)
        return client

    def hear_ends(self, client: Client) -> None:
        """Take note of what has ended of a client that is this process, whether or not anybody receives."""
        with self._if_not_within() as may:
            if may:
                self._read_client(client)
                for fd, event in host.news_of([lane.read_fd for lane in client.lanes if not lane.gone]):
                    self._hear(fd, event)
                self.leave_queue()

    @contextlib.contextmanager
    def _if_not_within(self) -> Iterator[bool]:
        """Hold the lock; whether something may be done under it.

        Not if the channel is destroyed, nor if a signal handler asks in the middle of what its thread does here: then
        the next receiver does it.
        """
        if cast(Any, self.lock)._is_owned():
            yield False
        else:
            with self.lock:
                yield not self.destroyed

    def _read_client(self, client: Client) -> None:
        for _read in range(limits.TRUNK_READS):
            if client.gone or not self._read_frames(client):
                return
        if client.fd not in self._fresh:
            # Let the rest be told once more. To look again by ourselves would not do: another thread may wait already,
            # to which the rest is then left.
            self._poller.unmute(client.fd)

    def _read_frames(self, client: Client) -> bool:
        """Do what the next frames on a trunk ask; whether there may be more."""
        passed = client.passed
        try:
            try:
                size = limits.TRUNK_FRAMES * wire.TRUNK_FRAME
                data, is_full = host.receive_with_descriptors(client.sock, size, passed)
            except BlockingIOError:
                return False
            except OSError:
                data, is_full = b"", False
            for place, fd in enumerate(passed):
                passed[place] = host.out_of_the_way(fd)
            client.pending += data
            whole = len(client.pending) // wire.TRUNK_FRAME * wire.TRUNK_FRAME
            frames, client.pending = client.pending[:whole], client.pending[whole:]
            sound = bool(data)
            if is_full:
                client.refuse(EAGAIN)
                sound = False
            for start in range(0, whole, wire.TRUNK_FRAME):
                sound = sound and self._obey(client, frames[start : start + wire.TRUNK_FRAME])
            # They come with a whole frame, which takes them all.
            if not sound or passed:
                self._client_ended(client)
                return False
        except BaseException:
            self._client_ended(client)  # Or it would wait for an answer to what nobody knows of any more.
            raise
        return True

    def _obey(self, client: Client, frame: bytes) -> bool:
        """Do what a frame on a trunk asks; whether it was a frame to be expected."""
        if not client.scoid:
            kind, version, magic, passes = wire.hello.unpack(frame)
            if kind != wire.HELLO or magic != wire.MAGIC:
                return False
            if version != wire.VERSION:
                client.refuse(0)
                return False
            if passes:
                try:
                    client.file = self.rcvids.files.adopt(client.passed[0])
                except (IndexError, OSError, ValueError):
                    return False
                del client.passed[0]
            try:
                client.scoid = self._scoids.add(client)
            except BlockingIOError:
                client.refuse(EAGAIN)  # There is no number for it.
                return False
            with contextlib.suppress(OSError):
                welcome = wire.welcome.pack(wire.WELCOME, wire.VERSION, client.scoid, self.flags, pages.ARE_USED)
                host.send_with_descriptors(client.sock, welcome, ())
            return True
        kind, carries, coid, window_size = wire.lane.unpack(frame)
        if kind == wire.PAGE and self._awake is not None:
            return self._awake.adopt([*client.lanes], window_size, client.passed)
        if kind != wire.LANE:
            return False
        count = 1 if carries == wire.LANE_PULSES else wire.LANE_DESCRIPTORS if window_size else 2
        fds = client.passed[:count]
        if len(fds) < count:
            return False
        if self._has_room_for(client, fds):
            try:
                self._add_lane(client, carries, coid, fds, window_size)
            except (OSError, ValueError):
                return False
        else:
            client.refuse(EAGAIN)
            for fd in fds:
                host.close_passed(fd)
        del client.passed[:count]
        return True

    def _add_lane(self, client: Client, carries: int, coid: int, fds: List[int], window_size: int) -> None:
        for fd, mode in zip(fds, (os.O_RDONLY, os.O_WRONLY)):
            if not host.is_stream(fd, mode):
                raise ValueError("a lane that is neither a pipe nor a socket")
            host.make_non_blocking(fd, mode)
        if carries == wire.LANE_PULSES:
            (fd,) = fds
            # Told to one thread, the one that has waited least (B263): as long as it lay unread, all would wake.
            self._poller.register(fd, once=True)
            self._pulse_fds[fd] = client
            client.pulse_fds[fd] = host.passed_reader(fd)
            return
        read_fd, write_fd = fds[:2]
        window = host.Window.adopt(fds[2], window_size) if window_size else None
        lane = ServerLane(self, client, coid, (read_fd, write_fd), window)
        client.lanes.add(lane)
        lane.owns_descriptors = True
        self._lanes[read_fd] = lane
        self._fresh.append(read_fd)

    def _read_pulses(self, fd: int, event: int) -> None:
        client = self._pulse_fds[fd]
        queued = len(self.queue.pulses)
        if queued >= limits.QUEUED_PULSES and not event & host.GONE:
            self._poller.mute(fd)
            self._muted.add(fd)
            return
        data = bytearray(limits.PULSES_READ * wire.PULSE_FRAME)
        count = client.pulse_fds[fd](data)
        if count is None:
            return
        if not count or queued >= 2 * limits.QUEUED_PULSES:
            self._close_pulse_fd(client, fd)
            return
        if count == len(data) or event & host.GONE:
            self._poller.unmute(fd)
        for kind, priority, code, value, _coid, sent_at, rest in wire.pulse.iter_unpack(
            memoryview(data)[: count // wire.PULSE_FRAME * wire.PULSE_FRAME]
        ):
            if kind != wire.PULSE or not 1 <= priority <= 255:
                self._close_pulse_fd(client, fd)
                self._client_ended(client)
                return
            self.queue.add_pulse(Pulse(code, value, client.scoid, priority, rest), sent_at)

    def _queue_pulse(self, pulse: Pulse, before_everything: bool = False) -> None:
        self.queue.add_pulse(pulse, time.monotonic_ns(), before_everything)

    def queue_pulse(self, code: int, value: int) -> None:
        """Queue a pulse of the kernel's own, and wake a thread for it."""
        with self.lock:
            self._queue_pulse(Pulse(code, value, -1, DEFAULT_PRIORITY))
            self.leave_queue()

    # Timers.

    def make_home(self, take_due: Callable[[Home, int], List[Due]]) -> Home:
        """Where the timers are whose pulses come here."""
        if self.home is None:
            self.home = Home(lambda fd: self._poller.register(fd, once=True), self.queue_due_pulses, take_due)
        return self.home

    def queue_due_pulses(self) -> None:
        """Queue the pulses of timers that are due by now, and wake a thread for them."""
        with self._if_not_within() as may:
            if may and self.home is not None:
                self._take_due_pulses(self.home)
                self.leave_queue()

    def _take_due_pulses(self, home: Home) -> None:
        for at, timer, trunk in home.take_due(max(0, limits.QUEUED_PULSES - len(self.queue.pulses))):
            client = trunk.far_end if trunk is not None else None
            if client is not None and not client.scoid:
                self._read_client(client)  # It has said HELLO, and we have not heard it yet.
            scoid = client.scoid if client is not None else -1
            event = timer.event
            value, rest = wire.value_and_rest(bytes(event.sigev_value))
            pulse = Pulse(event.sigev_code, value, scoid, timer.priority, rest)
            self.queue.add_pulse(pulse, at)
        if len(self.queue.pulses) >= limits.QUEUED_PULSES and home.is_due():  # Until there is room again.
            for fd in home.fds:
                self._poller.mute(fd)
                self._muted.add(fd)

    def leave_queue(self) -> None:
        """Note whether something is left in the queue, and wake a thread that waits for it."""
        for fd in self._fresh:
            self._poller.register(fd, once=True)
        self._fresh.clear()
        if self._muted and len(self.queue.pulses) <= limits.QUEUED_PULSES // 2:
            for fd in self._muted:
                self._poller.unmute(fd)
            self._muted.clear()
        self._look_first = self._is_deaf or self._has_work()
        self._receivers.nudge(self.queue)

    # Ends.

    def lane_ended(self, lane: ServerLane) -> None:
        """The client has closed its end of a lane, or has lost the right to it."""
        if lane.gone:
            return
        lane.gone = True
        self._unwatch(lane.read_fd)
        del self._lanes[lane.read_fd]
        if lane.rcvid and self.flags & NTO_CHF_UNBLOCK:
            lane.request_unblock(lane.rcvid)  # The answer will succeed and go nowhere (D26).
        else:
            self.bury(lane)

    def give_up(self, client: Client) -> None:
        """A client does not take what it has asked for: end it."""
        with self.lock:
            self._client_ended(client)

    def _unwatch(self, fd: int) -> None:
        if fd in self._fresh:
            self._fresh.remove(fd)
        self._poller.unregister(fd)

    def bury(self, lane: ServerLane) -> None:
        """Close a lane that has ended and whose message nobody will answer any more."""
        lane.forget()
        client = lane.client
        if lane in client.lanes:
            client.lanes.remove(lane)
            client.spare_rcvids.append((lane.rcvids, lane.rcvids_taken))
        self.queue.remove(lane)
        self._finish_client(lane.client)

    def _close_pulse_fd(self, client: Client, fd: int) -> None:
        self._poller.unregister(fd)
        self._muted.discard(fd)
        client.pulse_fds.pop(fd, None)
        del self._pulse_fds[fd]
        host.close_passed(fd)

    def _client_ended(self, client: Client) -> None:
        """A client process is gone, or has lost the right to its connection. The pulses it has sent remain (B261)."""
        if client.gone:
            return
        client.gone = True
        for fd in list(client.pulse_fds):
            for _read in range(limits.LAST_PULSE_READS):
                if fd in client.pulse_fds:
                    self._read_pulses(fd, host.GONE)
            if fd in client.pulse_fds:
                self._close_pulse_fd(client, fd)
        for lane in client.lanes:
            lane.owns_descriptors = True
        owned = {fd for lane in client.lanes for fd in (lane.read_fd, lane.write_fd)}
        owned.update(lane.window.fd for lane in client.lanes if lane.window)
        for fd in client.passed:
            if fd not in owned and fd not in self._pulse_fds:
                host.close_passed(fd)
        client.passed.clear()
        client.forget_events()
        self._unwatch(client.fd)
        del self._clients[client.fd]
        host.close_trunk(client.sock)
        for lane in list(client.lanes):
            self.lane_ended(lane)
        self._finish_client(client)

    def hear_end(self, client: Client) -> None:
        """Take note of the end of a client, if it has come.

        Raises:
            OSError: ESRCH, it has.
        """
        with self.lock:
            if not client.gone and host.is_gone(client.fd):
                self._client_ended(client)
            if client.gone:
                raise failure(ESRCH)

    def _finish_client(self, client: Client) -> None:
        """Tell the server that a client has left, once none of its messages is outstanding (B196, B199)."""
        if not client.gone or client.lanes or not client.scoid:
            return
        if self.flags & NTO_CHF_DISCONNECT and not self.destroyed:
            self._queue_pulse(Pulse(PULSE_CODE_DISCONNECT, 0, client.scoid, DEFAULT_PRIORITY), before_everything=True)
            self._departed.add(client.scoid)
            self.leave_queue()
        else:
            self._scoids.remove(client.scoid)
        client.scoid = 0

    def destroy(self) -> None:
        """End the channel: its clients lose it, the threads that wait on it get ESRCH."""
        with self.lock:
            self.destroyed = True
            if self._listener is not None:
                self._poller.unregister(self._listener.fileno())
                self._listener.close()
            if self.home is not None:
                for fd in self.home.fds:
                    self._muted.discard(fd)
                    self._poller.unregister(fd)
            self._close_lanes()
            for client in list(self._clients.values()):
                client.pulse_fds, doomed = {}, client.pulse_fds
                for fd in doomed:
                    self._close_pulse_fd(client, fd)
                self._client_ended(client)
            for rcvid, lane in list(self._lane_by_rcvid.items()):
                if lane.channel is self:
                    del self._lane_by_rcvid[rcvid]
                    lane.rcvid = 0
                    self.bury(lane)
            for scoid in self._departed:
                self._scoids.remove(scoid)
            self._departed.clear()
            self.queue.clear()
            self._look_first = True
            self._bell.ring()

    def _close_lanes(self) -> None:
        """Let clients see the end at once, though threads that have just answered may still hold lanes open."""
        for fd in self._lanes:
            self._unwatch(fd)
        end_now(self._lanes.values())

    def look_for(self, client: Client) -> None:
        """Take note of the end of a client, if it has come.

        Raises:
            OSError: EFAULT, it has left, and its number is not released yet (B72).
        """
        with self.lock:
            scoid = client.scoid
            if not client.gone and host.is_gone(client.fd):
                self._client_ended(client)
            if scoid in self._departed or (client.gone and not client.scoid):
                raise failure(EFAULT if self.flags & NTO_CHF_DISCONNECT else EINVAL)

    def release_client(self, scoid: int) -> bool:
        """Free the number of a client that has left; whether there was one to free (B60, B61)."""
        with self.lock:
            if scoid not in self._departed:
                return False
            self._departed.remove(scoid)
            self._scoids.remove(scoid)
            return True

    # The client side of the same process.

    def is_waited_on(self) -> bool:
        """Whether a thread is in MsgReceive."""
        return self._receivers.has_receiver()

    def watch_own_trunk(self, trunk: Trunk) -> None:
        """Hear what servers say: of events and, as NTO_CHF_COID_DISCONNECT asks, that they go."""
        with self.lock:
            if not self.destroyed:
                self._own_trunks[trunk.fd] = trunk
                self._poller.register(trunk.fd)

    def hear_own_trunk(self, fd: int) -> None:
        """Take note of what a server has said by now, or that it has gone."""
        with self.lock:
            trunk = self._own_trunks.get(fd)  # A signal handler may have ended it just now.
            if trunk is not None and not trunk.read_news():
                self.forget_own_trunk(trunk)
                for connection in list(trunk.connections) if self.flags & NTO_CHF_COID_DISCONNECT else ():
                    if not connection.detached:
                        self.queue_pulse(PULSE_CODE_COIDDEATH, connection.coid)

    def forget_own_trunk(self, trunk: Trunk) -> None:
        with self.lock:
            if self._own_trunks.pop(trunk.fd, None) is not None:
                self._poller.unregister(trunk.fd)

    def watch_inlet(self, fd: int) -> None:
        """Hear of events that come by a pipe. Any thread says so, whatever locks it holds."""
        with contextlib.suppress(OSError):  # It has ended meanwhile.
            self._poller.register(fd, once=True)

    def forget_inlet(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self._poller.unregister(fd)

    def close_in_child(self) -> None:
        """Close what a forked child has inherited, and touch nothing that is shared with the parent."""
        lanes = {*self._lanes.values(), *(lane for lane in self._lane_by_rcvid.values() if lane.channel is self)}
        passed = [fd for client in self._clients.values() for fd in client.passed]
        all_of(
            [
                # The lanes are closed by __del__, some day: until then they must not stand in for those of the parent.
                functools.partial(end_now, lanes),
                *(lane.window.close for lane in lanes if lane.window),
                *([] if self.home is None else [self.home.close]),
                *([] if self._listener is None else [self._listener.close]),
                *(client.sock.close for client in self._clients.values()),
                *(client.outlet.close for client in self._clients.values()),
                *(functools.partial(os.close, fd) for fd in (*passed, *self._pulse_fds)),
            ]
        )


def _receive_deadline(timeout: Optional[Timeout]) -> Optional[float]:
    return timeout.deadline() if timeout is not None and timeout.flags & NTO_TIMEOUT_RECEIVE else None
