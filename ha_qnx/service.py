"""A server in a few lines: subclass ``Service`` and answer messages.

    class Thermostat(Service):
        def message(self, request):
            return b"21.5"

    Thermostat("thermostat").serve(threads=4)

A service has a name, which clients find by name_open (``ha_qnx.connect("thermostat")``), or a path, which they open,
read and write (``ha_qnx.connect("/dev/thermostat")``, ``open("/dev/thermostat")`` under ``ha-qnx run``), or both:
``Thermostat("thermostat", "/dev/thermostat")``.

Under systemd (``Type=notify``, ``WatchdogSec=``) a service says when clients can come, that it still answers, by a
pulse to itself through its own channel, and that it ends. One whose handler hangs is killed, then, and its clients
recover.

The class does what a resource manager does: it answers _IO_CONNECT, _IO_DUP, _IO_CLOSE and _IO_LSEEK, keeps an open
control block (OCB) for each connection that a client has opened, cleans up after clients that disappear, and frees
clients that want to be freed. It uses only calls that QNX has; the same file serves on a target.

An exception of a handler goes to the client as an error number, and to the log; it does not end the server.
"""

import collections
import contextlib
import errno
import logging
import math
import os
import queue
import random
import signal
import threading
import time
from errno import EBADF, EEXIST, EINVAL, EIO, ENOSYS, ESRCH
from typing import (
    Any,
    Awaitable,
    Callable,
    ContextManager,
    Deque,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from . import backends
from .access import READ, WRITE, Access, check_opened
from .answering import (
    devctl_answer,
    plain_answer,
    read_answer,
    seek_answer,
    stat_answer,
    truncate_answer,
    write_answer,
)
from .api import Backend
from .buffers import INT_MAX, as_seconds, integer
from .constants import (
    EOK,
    FTYPE_ANY,
    IO_BASE,
    IO_CHMOD,
    IO_CLOSE,
    IO_CONNECT,
    IO_CONNECT_OPEN,
    IO_DEVCTL,
    IO_DUP,
    IO_LSEEK,
    IO_MAX,
    IO_NOTIFY,
    IO_NOTIFY64,
    IO_READ,
    IO_SPACE,
    IO_STAT,
    IO_SYNC,
    IO_WRITE,
    IO_XTYPE_MASK,
    IO_XTYPE_NONE,
    IO_XTYPE_OFFSET,
    NAME_FLAG_DETACH_SAVEDPP,
    NOTIFY_COND_INPUT,
    NTO_CHF_DISCONNECT,
    NTO_CHF_UNBLOCK,
    NTO_MI_UNBLOCK_REQ,
    POSIX_DEVDIR_FROM,
    POSIX_DEVDIR_TO,
    PULSE_CODE_DISCONNECT,
    PULSE_CODE_MAXAVAIL,
    PULSE_CODE_UNBLOCK,
    RESMGR_FLAG_SELF,
)
from .errors import failure
from .iomessages import CHMOD, CONNECT, DEVCTL, DUP, FREE, OFFSET, SEEK, SPACE, TRANSFER
from .kernel import BytesLike, Name, StrPath
from .notifying import Armed
from .ocb import Ocb, OcbAt, Ocbs
from .relief import Relief
from .requests import LATER, Answer, Request
from .stopping import stopped_by
from .strategies import is_path
from .structures import MessageInfo, Pulse
from .supervision import Supervisor

__all__ = ["LATER", "BaseService", "Ocb", "Request", "Service", "log"]

log = logging.getLogger("ha_qnx.service")

_RECEIVE_ROOM = 4096

_NAME_TIMEOUT = 5.0  # Seconds.

# How often to see whether a predecessor has left its name, in seconds: at first, and after a while.
_LOOK_SOON = 0.002
_LOOK_AGAIN = 0.02

# So many pulses may wait for a handler that runs.
_PULSES_MAX = 1000


# Answered to a client, these would say that its server is lost, and have it send again (B368).
_WOULD_LOOK_LOST = frozenset((EBADF, ESRCH))


class Step(NamedTuple):
    """Something to be done about a message: call a handler, and make an answer of what it returns."""

    call: Callable[[], Any]
    answer: Callable[[Any], Tuple[int, Optional[BytesLike]]]
    is_guarded: bool = False  # Whether the OCB is locked meanwhile.


class _Run:
    """One time that a service serves."""

    def __init__(self) -> None:
        self.has_begun = False
        self.is_stopping = False
        self.failure: Optional[BaseException] = None
        self.ready = threading.Event()
        self.pulses: Deque[Pulse] = collections.deque()
        self.supervisor = Supervisor()
        #: Code and value of the pulse by which the service sees that its channel is answered; nobody else knows it.
        self.sign_of_life = PULSE_CODE_MAXAVAIL, random.SystemRandom().randrange(1 << 31)
        #: Whether that pulse came while all threads were busy: the first that is done has to answer it.
        self.owes_sign_of_life = False
        self.is_over = threading.Event()
        self.relief = Relief()
        # SimpleQueue, because a signal handler may put into it whatever this thread was doing.
        self.stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_sign_of_life(self, pulse: Pulse) -> bool:
        return (pulse.code, pulse.value.sival_int) == self.sign_of_life

    def stop(self) -> None:
        self.is_stopping = True
        self.stop_requests.put(None)


class _NoTurn:
    """In place of a lock, where handlers may run side by side."""

    def acquire(self, blocking: bool = True) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_how: object) -> None:
        pass


class _Place:
    """Where clients find a service: a channel, its name, the paths that lead to it, and a connection of our own."""

    def __init__(self, backend: Backend) -> None:
        self.chid = self.own = -1
        self._backend = backend
        self._name: Optional[Name] = None
        self._attached: List[int] = []

    def enter(self, name: Optional[Name]) -> None:
        """Have the channel of a name, or a new one of the same kind."""
        self._name = name
        self.chid = self._backend.ChannelCreate(NTO_CHF_UNBLOCK | NTO_CHF_DISCONNECT) if name is None else name.chid
        self.own = self._backend.ConnectAttach(0, 0, self.chid)  # Now: in an emergency there may be no room for it.

    def attach(self, path: str, flags: int) -> None:
        self._attached.append(self._backend.resmgr_attach(self.chid, path, FTYPE_ANY, flags))

    def disappear(self) -> None:
        """Be found no more; who is connected stays so."""
        while self._attached:
            self._backend.resmgr_detach(self._attached.pop())
        name, self._name = self._name, None
        if name is not None:
            self._backend.name_detach(name, NAME_FLAG_DETACH_SAVEDPP)

    def leave(self) -> None:
        """End the channel."""
        if self.own >= 0:
            self._backend.ConnectDetach(self.own)
        if self.chid >= 0:
            self._backend.ChannelDestroy(self.chid)


class BaseService:
    """What ``Service`` and ``aio.Service`` have in common: all but how they are run."""

    #: Longer messages than this are refused with EMSGSIZE when ``Request.data`` is read.
    max_message = 16 * 1024 * 1024
    #: Whether messages whose first two bytes are 0x100 to 0x1FF are I/O messages, as on QNX. A message of another kind
    #: can begin so, too (one of protobuf by ``08 01``); a service that clients do not open can switch it off.
    takes_io = True

    def __init__(
        self,
        *targets: StrPath,
        flags: int = 0,
        mode: Optional[int] = None,
        group: Union[str, int, None] = None,
        backend: Optional[Backend] = None,
    ) -> None:
        """A server for a name, for paths, or for both.

        Args:
            targets: at most one name; paths begin with a slash. Several services may have one path: each open goes to
                the first of them that lives.
            flags: of the paths, as for resmgr_attach: with RESMGR_FLAG_BEFORE the oldest of several services is asked
                first, without it the newest; RESMGR_FLAG_DIR serves what lies below the paths, too.
            mode: who may open it, as of a file that belongs to this user: 0o600 is for this user alone, 0o660 for the
                group, too; whoever sends to the name needs the right to read and to write. Others get EACCES, root
                never. Without it, everybody may who can connect.
            group: the name or number of that group; by default, that of this process. Of a client's groups, its own and
                eight further ones count.
            backend: as ``ha_qnx.backend`` gives it; without it, the default one.

        Raises:
            TypeError: there is no target, or one is neither str nor path; the mode or the group is of a wrong type.
            ValueError: there are two names; the mode is none, or there is no such group.
        """
        if not targets:
            raise TypeError("a service needs a name, or a path")
        self.paths = [os.fsdecode(target) for target in targets if is_path(target)]
        names = [os.fsdecode(target) for target in targets if not is_path(target)]
        if len(names) > 1:
            raise ValueError(f"a service has one name, and not {len(names)}: each name has a channel of its own")
        #: What it is called in the log: its name, or its first path.
        self.name = (names or self.paths)[0]
        self._flags = flags
        self._access = Access.of(mode, group)
        self._has_name = bool(names)
        self.backend = backends.backend() if backend is None else backend
        self._ocbs = Ocbs()
        self._armed = Armed()
        self._in_hand: Dict[int, Request] = {}
        self._lock = threading.Lock()
        self._none_in_hand = threading.Condition(self._lock)
        self._now = _Run()
        #: Whose turn it is to run a handler, where they do not run side by side.
        self._turn: Any = _NoTurn()

    # What a subclass overrides. (In an aio.Service, each may be a coroutine function.)

    def message(self, request: Request) -> Union[Answer, Awaitable[Answer]]:
        """Answer a message that is no I/O message: by a status, bytes, both, or None; or return LATER.

        Bytes alone have their number for a status, as with _IO_READ: ``Connection.ask`` returns just them.
        """
        raise failure(ENOSYS)

    def read(self, request: Request, nbytes: int) -> Union[BytesLike, Awaitable[BytesLike]]:
        """Answer a read of up to ``nbytes`` bytes from ``request.ocb.offset`` on; b"" is the end of the file."""
        raise failure(ENOSYS)

    def write(self, request: Request, data: bytes) -> Union[int, Awaitable[Optional[int]], None]:
        """Take what is written at ``request.ocb.offset``; how much of it, if not all."""
        raise failure(ENOSYS)

    def size(self, request: Request) -> Union[int, Awaitable[int]]:
        """How long the file is: for seeking relative to its end."""
        raise failure(EINVAL)

    def stat(self, request: Request) -> Union[os.stat_result, Awaitable[os.stat_result]]:
        """What the file looks like, as ``os.stat`` tells it of a file."""
        raise failure(ENOSYS)

    def truncate(self, request: Request, size: int) -> object:
        """Cut the file, or let zeros follow, so that it has ``size`` bytes."""
        raise failure(ENOSYS)

    def fsync(self, request: Request) -> object:
        """See to it that what was written outlives the server."""
        raise failure(ENOSYS)

    def chmod(self, request: Request, mode: int) -> object:
        """Change the permissions of the file."""
        raise failure(ENOSYS)

    def devctl(self, request: Request, dcmd: int, data: bytes) -> Union[Answer, Awaitable[Answer]]:
        """Carry out a device command: answer its info, a number, or the data that the client asks for, both, or None.

        ``dcmd`` is as ``ha_qnx.DIOF`` and its like make it; ``data`` is what came with it. Descriptors can be asked so
        for their flags and whether they are a terminal, by DCMD_ALL_GETFLAGS, DCMD_ALL_SETFLAGS and DCMD_CHR_ISATTY.
        """
        raise failure(ENOSYS)

    def notify(self, request: Request, conditions: int) -> Union[int, Awaitable[int]]:
        """Which of the conditions hold that a client asks about by ionotify, select or poll: NOTIFY_COND_INPUT, ...

        It may be asked twice, before and after its event is armed. When a condition comes to hold, call ``trigger``.
        """
        raise failure(ENOSYS)

    def io(self, request: Request) -> Union[Answer, Awaitable[Answer]]:
        """Answer any other I/O message: ``request.kind`` tells."""
        raise failure(ENOSYS)

    def opened(self, request: Request) -> object:
        """A client opens a path, or sends its first message on a connection; raise OSError to refuse it.

        ``request.path`` is the rest of the path, where the service has what lies below its own. An open that is refused
        with ENOENT or ENOSYS goes on to the next server of the path, if there is one.
        """

    def closed(self, ocb: Ocb) -> object:
        """The last descriptor of an opening is closed, or its client is gone."""

    def unblock(self, request: Request) -> object:
        """A client that waits for its answer wants to be freed, because of a signal or a timeout. By default, it is.

        It is called while the handler of the request runs, if it does, and from another thread; what that handler
        answers later goes nowhere. A service that wants to answer in its own way does nothing here.
        """
        return request.error(-1)

    def pulse(self, code: int, value: int) -> object:
        """A pulse has come that is no business of this class."""

    def ready(self) -> None:
        """The name is taken, the paths are attached: clients can come."""

    # What it does for its clients.

    def trigger(self, conditions: int = NOTIFY_COND_INPUT, ocb: Optional[Ocb] = None) -> int:
        """Tell clients that conditions hold now: what they have armed acts, once. From any thread, without waiting.

        Args:
            conditions: NOTIFY_COND_INPUT, there is something to read; NOTIFY_COND_OUTPUT, there is room to write;
                NOTIFY_COND_OBAND. First make them so that ``notify`` says it, too.
            ocb: whose; without it, all clients'.

        Returns:
            How many events have acted.
        """
        return self._armed.trigger(self.backend, conditions, ocb)

    # Running it.

    @contextlib.contextmanager
    def _one_run(self) -> Iterator[_Run]:
        """The time that begins now.

        Raises:
            RuntimeError: the last one is not over.
        """
        with self._lock:
            run = self._now
            if run.has_begun:
                raise RuntimeError(f"{self.name!r} is being served already")
            run.has_begun = True
        try:
            yield run
        finally:
            self._now = _Run()  # The next time begins anew.

    def _run(
        self, run: _Run, threads: int, grace: float, name_timeout: float, signals: Sequence[int], flags: int = 0
    ) -> None:
        with stopped_by(signals, self.stop):
            try:
                place = self._appear(run, time.monotonic() + name_timeout, self._flags | flags)
            except FileExistsError:
                if run.is_stopping:
                    return  # It was told to end while it waited for the name.
                raise
            self._serve(run, place, threads, grace)
        if run.failure is not None:
            raise run.failure

    def stop(self) -> None:
        """End ``serve``. From any thread and from a signal handler; returns at once."""
        self._now.stop()

    def _serve(self, run: _Run, place: "_Place", threads: int, grace: float) -> None:
        # A pulse that says nothing, now: in an emergency there may be no room for what carries the first one.
        self.backend.MsgSendPulse(place.own, -1, *run.relief.call_off)
        waker = threading.Thread(target=self._wake, args=(run, place, threads), daemon=True)
        waker.start()
        try:
            self._turn = threading.Lock() if threads == 1 else _NoTurn()
            crew = [
                threading.Thread(target=self._receive, args=(run, place), name=f"{self.name}-{n}", daemon=True)
                for n in range(1, threads)
            ]
            pulses = threading.Thread(
                target=self._relieve, args=(run, place.chid), name=f"{self.name}-pulses", daemon=True
            )
            crew.append(pulses)
            for thread in crew:
                thread.start()
            self.ready()
            run.ready.set()
            run.supervisor.ready()
            if run.supervisor.interval is not None:
                threading.Thread(
                    target=self._live, args=(run, place.own, run.supervisor.interval, self.backend), daemon=True
                ).start()
            self._receive(run, place)
            self._finish(crew, time.monotonic() + grace)
        finally:
            run.stop()
            waker.join()
            place.leave()
            self._close(self._ocbs.leave_client())

    def _appear(self, run: _Run, deadline: float, flags: int) -> "_Place":
        """Take the name, once a predecessor has left it, and attach the paths."""
        place = _Place(self.backend)
        try:
            place.enter(self._take_name(run, deadline) if self._has_name else None)
            for path in self.paths:
                place.attach(path, flags)
        except BaseException:
            place.disappear()
            place.leave()
            raise
        return place

    def _take_name(self, run: _Run, deadline: float) -> Name:
        pause = _LOOK_SOON
        while True:
            try:
                return self.backend.name_attach(self.name)
            except OSError as error:
                if error.errno != EEXIST or time.monotonic() >= deadline or run.is_stopping:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.1, _LOOK_AGAIN)

    def _wake(self, run: _Run, place: "_Place", threads: int) -> None:
        """Wait for the end, then give up the name and wake who waits for messages: no work for a signal handler."""
        run.stop_requests.get()
        run.is_over.set()
        run.relief.stop()
        run.supervisor.stopping()
        place.disappear()
        with contextlib.suppress(OSError):  # So many pulses wait that nobody sleeps, or the channel is gone.
            for _thread in range(threads + 1):
                self.backend.MsgSendPulse(place.own, -1, 0, 0)

    @staticmethod
    def _live(run: _Run, own: int, interval: float, backend: Backend) -> None:
        """Have the channel show that it is answered: by a pulse that whoever answers messages has to take."""
        while not run.is_over.wait(interval):
            with contextlib.suppress(OSError):  # As many pulses wait as there can be.
                backend.MsgSendPulse(own, -1, *run.sign_of_life)

    def _finish(self, crew: Sequence[threading.Thread], deadline: float) -> None:
        """Wait for the requests in hand."""
        with self._none_in_hand:
            self._none_in_hand.wait_for(lambda: not self._in_hand, max(0.0, deadline - time.monotonic()))
            if self._in_hand:
                log.warning("%s: %d requests are left without an answer", self.name, len(self._in_hand))
            self._in_hand.clear()
        for member in crew:
            member.join(max(0.0, deadline - time.monotonic()))

    # Receiving.

    def _receive(self, run: _Run, place: "_Place") -> None:
        buffer, receive = bytearray(_RECEIVE_ROOM), self.backend.MsgReceive
        chid, relief = place.chid, run.relief
        work = relief.join()
        try:
            while not run.is_stopping:
                info = MessageInfo()
                try:
                    rcvid = receive(chid, buffer, info)
                except InterruptedError:
                    continue
                work[0] += 1
                if relief.is_asleep:
                    relief.wake()
                if rcvid:
                    head = bytes(buffer[: info.msglen])
                    with self._turn:
                        self._accept(Request(self, rcvid, info, head))
                else:
                    self._sort_pulse(run, Pulse.from_buffer_copy(buffer))
                if run.pulses:
                    self._take_pulses(run)
                work[0] += 1
                while relief.is_on:
                    relief.wait_until_off(lambda code, value: self.backend.MsgSendPulse(place.own, -1, code, value))
                    work[0] += 1
                    self._take_pulses(run)
                    work[0] += 1
                if run.owes_sign_of_life:
                    run.owes_sign_of_life = False
                    self._tell(run.supervisor.alive)
        except BaseException as error:
            self._end_receiving(run, error)

    def _relieve(self, run: _Run, chid: int) -> None:
        """Take in pulses while all threads are at work for long: there is nobody else whom they could reach."""
        relief, pulse = run.relief, Pulse()
        try:
            while relief.wait_until_needed():
                while not run.is_stopping and not relief.is_called_off:
                    with contextlib.suppress(InterruptedError):
                        self.backend.MsgReceivePulse(chid, pulse)
                        if run.is_sign_of_life(pulse):
                            run.owes_sign_of_life = True  # It is for who answers messages to give.
                        else:
                            self._sort_pulse(run, Pulse.from_buffer_copy(pulse))
                            self._take_pulses(run)
                relief.end()
        except BaseException as error:
            self._end_receiving(run, error)
        finally:
            relief.end()

    @staticmethod
    def _end_receiving(run: _Run, error: BaseException) -> None:
        if not run.is_stopping or not isinstance(error, OSError):  # At the end, the channel is gone.
            run.failure = run.failure or error
        run.stop()

    def _sort_pulse(self, run: _Run, pulse: Pulse) -> None:
        """Deal at once with what cannot wait; the rest is for a moment at which handlers may run."""
        if pulse.code == PULSE_CODE_UNBLOCK:
            self._unblock_by(pulse)
            return
        if (pulse.code, pulse.value.sival_int) == run.relief.call_off:
            return
        if len(run.pulses) >= _PULSES_MAX:
            with self._turn:  # Let more of them wait where the kernel bounds them.
                pass
        run.pulses.append(pulse)

    def _take_pulses(self, run: _Run) -> None:
        """Deal with the pulses that wait, unless a handler runs in another thread: then that one does, at its end."""
        while run.pulses and self._turn.acquire(blocking=False):
            try:
                with contextlib.suppress(IndexError):  # Another thread has taken the last one.
                    self._take_pulse(run.pulses.popleft())
            finally:
                self._turn.release()

    def ocb_of(self, request: "Request") -> Ocb:
        """The OCB of the connection that a request came by; a new one if it is the first, or opens the name."""
        info = request.info
        known = self._ocbs.get((info.scoid, info.coid), info.pid)
        return known if known is not None and request.kind not in (IO_CONNECT, IO_DUP) else Ocb(info.pid)

    def _accept(self, request: Request) -> None:
        with self._lock:
            self._in_hand[request.rcvid] = request
        self._work(request)

    def begin_answer(self, request: Request) -> bool:
        """Whether a request is in our hands, and has no answer yet. It is in our hands until the answer is given."""
        with self._lock:
            is_ours = self._in_hand.get(request.rcvid) is request and not request.is_answered
            request.is_answered |= is_ours
        return is_ours

    def has_answered(self, request: Request) -> None:
        """The answer of a request is given."""
        with self._lock:
            # The number may be another request's by now.
            if self._in_hand.get(request.rcvid) is request:
                del self._in_hand[request.rcvid]
                if self._now.is_stopping:
                    self._none_in_hand.notify_all()

    # Answering.

    def _work(self, request: Request) -> None:
        """Have a request answered."""
        try:
            if request.ocb.links and not IO_BASE <= request.kind <= IO_MAX:
                # What almost every request is: the one step of _steps, written out.
                result = self.message(request)
                if result is LATER:
                    return self._leave_for_later(request)
                request.reply(*(plain_answer(result)))
                return None
            for step in self._steps(request):
                guard: ContextManager[Any] = request.ocb.lock if step.is_guarded else contextlib.nullcontext()
                with guard:
                    result = step.call()
                    if result is LATER:
                        return self._leave_for_later(request)
                    answer = step.answer(result)
            self._give(request, answer)
        except Exception as error:
            self._refuse(request, error)
        except BaseException:
            request.error(EIO)
            raise

    def _give(self, request: Request, answer: Tuple[int, Optional[BytesLike]]) -> None:
        """Give an answer; if the client was refused meanwhile, for it has given up, its descriptor never was."""
        request.reply(*answer)
        if request.is_refused and request.kind in (IO_CONNECT, IO_DUP):
            self._close(self._ocbs.leave(self._key(request), request.ocb))

    def _refuse(self, request: Request, error: Exception) -> None:
        """Let the client have the errno of an exception."""
        number = error.errno if isinstance(error, OSError) else EIO
        if not isinstance(number, int) or not 0 < number <= INT_MAX or number in _WOULD_LOOK_LOST:
            number = EIO
        level = logging.INFO if isinstance(error, OSError) else logging.ERROR
        client = (self.name, request.kind, request.info.pid, errno.errorcode.get(number, number))
        log.log(level, "%s: message %#x of process %d gets %s", *client, exc_info=error)
        request.error(number)

    def _leave_for_later(self, request: Request) -> None:
        request.is_later = True
        with contextlib.suppress(OSError):  # It is answered already.
            # The unblock pulse may have come before there was anybody to unblock.
            if self.backend.MsgInfo(request.rcvid).flags & NTO_MI_UNBLOCK_REQ:
                self._unblock(request)

    def _steps(self, request: Request) -> Iterator[Step]:
        """What is to be done about a request; the answer of the last step is the answer."""
        if request.kind == IO_CLOSE:
            yield Step(lambda: self._leave(request), plain_answer)
            return
        if request.kind == IO_DUP:
            request.ocb = self._original(request) or request.ocb
        if request.kind == IO_CONNECT:
            _kind, subtype, _type, _reply_max, _entry_max, _key, _handle, ioflag, *_rest = request.unpack(CONNECT)
            if subtype != IO_CONNECT_OPEN:
                raise failure(ENOSYS)
            request.ocb.ioflag = ioflag
        if not request.ocb.links:
            if self._access is not None:
                self._access.check(request.client, request.ocb.ioflag or READ | WRITE)
            yield Step(lambda: self.opened(request), lambda _none: self._enter(request))
        elif request.kind == IO_DUP:
            yield Step(lambda: None, lambda _none: self._enter(request))
        if request.kind in (IO_NOTIFY, IO_NOTIFY64):
            for call, answer in self._armed.steps(request, self._key(request), self.notify):
                yield Step(call, answer)
        elif request.kind not in (IO_CONNECT, IO_DUP):
            yield self._step(request)

    def _step(self, request: Request) -> Step:
        if not IO_BASE <= request.kind <= IO_MAX:
            return Step(lambda: self.message(request), plain_answer)
        if request.kind in (IO_READ, IO_WRITE):
            if self._access is not None:
                check_opened(request.ocb.ioflag, READ if request.kind == IO_READ else WRITE)
            return self._transfer(request)
        if request.kind == IO_LSEEK:
            _kind, _length, whence, _zero, offset = request.unpack(SEEK)
            return Step(
                lambda: self._origin(request, whence), lambda origin: seek_answer(request, origin + offset), True
            )
        if request.kind == IO_DEVCTL:
            _kind, _length, dcmd, nbytes, _zero = request.unpack(DEVCTL)
            sent = request.data[DEVCTL.size :][:nbytes] if dcmd & POSIX_DEVDIR_TO else b""
            room = nbytes if dcmd & POSIX_DEVDIR_FROM else 0
            return Step(lambda: self.devctl(request, dcmd, sent), lambda result: devctl_answer(room, result), True)
        return self._step_of_file(request) or Step(lambda: self.io(request), plain_answer)

    def _step_of_file(self, request: Request) -> Optional[Step]:
        """What is to be done about the file itself, if that is what a message is about."""
        if request.kind == IO_STAT:
            return Step(lambda: self.stat(request), stat_answer)
        if request.kind == IO_SYNC:
            return Step(lambda: self.fsync(request), lambda _none: (EOK, None))
        if request.kind == IO_CHMOD:
            _kind, _length, mode = request.unpack(CHMOD)
            return Step(lambda: self.chmod(request, mode), lambda _none: (EOK, None))
        if request.kind == IO_SPACE:
            _kind, _length, subtype, whence, start, length = request.unpack(SPACE)
            if (subtype, whence, length) == (FREE, os.SEEK_SET, 0):
                return Step(lambda: self.truncate(request, start), lambda _none: truncate_answer(start), True)
        return None

    def _transfer(self, request: Request) -> Step:
        _kind, _length, nbytes, xtype, _zero = request.unpack(TRANSFER)
        start = TRANSFER.size
        if xtype & IO_XTYPE_MASK == IO_XTYPE_OFFSET:
            (offset,) = request.unpack(OFFSET)[-1:]
            request.ocb = OcbAt(request.ocb, offset)
            start = OFFSET.size
        elif xtype & IO_XTYPE_MASK != IO_XTYPE_NONE:
            raise failure(ENOSYS)
        if request.kind == IO_READ:
            return Step(lambda: self.read(request, nbytes), lambda data: read_answer(request, nbytes, data), True)
        data = request.data[start:][:nbytes]
        return Step(lambda: self.write(request, data), lambda count: write_answer(request, data, count), True)

    def _origin(self, request: Request, whence: int) -> Union[int, Awaitable[int]]:
        """Where a client seeks from."""
        if whence == os.SEEK_END:
            return self.size(request)
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            raise failure(EINVAL)
        return request.ocb.offset if whence == os.SEEK_CUR else 0

    # Connections that come and go.

    def _enter(self, request: Request) -> Tuple[int, None]:
        self._armed.forget(*self._key(request))  # What had the number before.
        self._close(self._ocbs.enter(self._key(request), request.info.pid, request.ocb))
        return EOK, None

    def _leave(self, request: Request) -> None:
        self._armed.forget(*self._key(request))
        self._close(self._ocbs.leave(self._key(request)))

    @staticmethod
    def _key(request: Request) -> Tuple[int, int]:
        return request.info.scoid, request.info.coid

    def _original(self, request: Request) -> Optional[Ocb]:
        """The OCB of the descriptor that a new one duplicates: the client's own, or that of its parent."""
        _kind, _length, _nd, _srcnd, pid, _tid, _chid, scoid, coid, *_rest = request.unpack(DUP)
        if scoid != request.info.scoid and not self._same_user(scoid, request.info.scoid):
            return None
        return self._ocbs.get((scoid, coid), pid)

    def _same_user(self, *scoids: int) -> bool:
        try:
            users = {self.backend.ConnectClientInfo(scoid).cred.euid for scoid in scoids}
        except OSError:
            return False
        return len(users) == 1

    def _close(self, ocbs: Sequence[Ocb]) -> None:
        for ocb in ocbs:
            self._tell(self.closed, ocb)

    def _tell(self, handler: Callable[..., object], *arguments: object) -> None:
        """Call a handler that answers nobody."""
        try:
            handler(*arguments)
        except Exception:
            log.exception("%s: %s() failed", self.name, handler.__name__)

    # Pulses.

    def _take_pulse(self, pulse: Pulse) -> None:
        if pulse.code == PULSE_CODE_DISCONNECT:
            self._armed.forget(pulse.scoid)
            self._close(self._ocbs.leave_client(pulse.scoid))
            with contextlib.suppress(OSError):  # It is one of our own connections.
                self.backend.ConnectDetach(pulse.scoid)
        elif self._now.is_sign_of_life(pulse):
            self._tell(self._now.supervisor.alive)
        elif not self._now.is_stopping:
            self._tell(self.pulse, pulse.code, pulse.value.sival_int)

    def _unblock_by(self, pulse: Pulse) -> None:
        # The value is as wide as a rcvid, which depends on the release of QNX (D23).
        value = pulse.value
        request = self._in_hand.get(value.sival_ptr or 0) or self._in_hand.get(value.sival_int)
        if request is None:
            return
        with contextlib.suppress(OSError):  # It is answered by now.
            # Whoever may send pulses can send one that looks like this.
            if self.backend.MsgInfo(request.rcvid).flags & NTO_MI_UNBLOCK_REQ:
                self._unblock(request)

    def _unblock(self, request: Request) -> None:
        """A client wants to be freed: let ``unblock`` decide, once."""
        with self._lock:
            is_known, request.is_unblocking = request.is_unblocking, True
        if not is_known:
            self._tell(self.unblock, request)


class Service(BaseService):
    """A server for a name, for paths, or for both. Subclass it and override what it shall answer.

    The handlers that take a request may raise: an OSError's errno goes to the client, for anything else EIO. (So it is
    for EBADF and ESRCH, which would look as if the server were lost; ``request.error`` sends them.)
    With several threads, handlers run at the same time, but only one ``read``, ``write`` or ``devctl`` for an OCB.
    """

    def serve(
        self,
        threads: int = 1,
        *,
        grace: float = 10.0,
        name_timeout: float = _NAME_TIMEOUT,
        standby: bool = False,
        signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        """Serve until ``stop`` is called or, in the main thread, one of the signals comes.

        Then the name and the paths are free at once, for a successor. The requests in hand are answered; those that
        nobody has received yet fail with ESRCH, so that clients that recover send them again, to the successor.

        Args:
            threads: how many threads receive; the calling one is one of them.
            grace: how many seconds the requests in hand may take at the end.
            name_timeout: how many seconds to wait for the name, if a predecessor still has it.
            standby: wait for the name for as long as another server lives, and take over when it dies.
            signals: what ends it. Their handlers are put back afterwards.

        Raises:
            OSError: as name_attach and resmgr_attach.
            RuntimeError: it is being served already.
            TypeError: one of the numbers is none.
            ValueError: there are no threads, or a time is NaN.
        """
        wait = as_seconds("name_timeout", math.inf if standby else name_timeout)
        arguments = _threads(threads), as_seconds("grace", grace), wait, signals
        with self._one_run() as run:
            self._run(run, *arguments)

    @contextlib.contextmanager
    def running(self, threads: int = 1, *, grace: float = 10.0) -> Iterator["Service"]:
        """Serve in the background, in threads of this process, while the context lasts; it can open the paths, too.

        Args:
            threads: how many threads receive.
            grace: how many seconds the requests in hand may take at the end.

        Raises:
            OSError: as name_attach; then the body does not run.
            RuntimeError, TypeError, ValueError: as ``serve``.
        """
        arguments = _threads(threads), as_seconds("grace", grace), _NAME_TIMEOUT, (), RESMGR_FLAG_SELF
        failures: List[BaseException] = []

        def serve() -> None:
            try:
                self._run(run, *arguments)
            except BaseException as error:
                failures.append(error)
            finally:
                run.ready.set()  # Whoever waits for it learns that it is over.

        with self._one_run() as run:
            server = threading.Thread(target=serve, daemon=True)
            server.start()
            try:
                run.ready.wait()
                if not failures:
                    yield self
            finally:
                self.stop()
                server.join()
                if failures:
                    raise failures[0]


def _threads(threads: int) -> int:
    return integer("threads", threads, 1, INT_MAX)
