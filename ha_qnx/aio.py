"""The same for asyncio: messages that do not block the event loop, and servers whose handlers are coroutines.

    async with ha_qnx.aio.connect("thermostat") as thermostat:
        answer = await ha_qnx.aio.ask(thermostat, b"status?")

A kernel call blocks its thread, so each message that is under way has a thread. What does not block (a pulse on a
connection that is not HA-aware, a reply) needs none: use the ordinary calls.

**Bounds.** ``MESSAGES`` says how many threads one connection may have, ``THREADS`` how many all of them may have
together; ``aio.connect(..., messages=)`` gives one connection a bound of its own. A send that finds its bound used up
waits in the event loop, where it can be cancelled, and where its ``timeout`` ends the wait. So a server that hangs or
is away keeps nobody waiting but its own clients. Closing, recovering and cancelling are bounded by nothing, and wait
for no thread, but that closing gives those that wait on the connection 20 ms to leave it (D132).

**Cancellation.** A task that is cancelled while it waits for a reply stops waiting at once. A message that had not been
sent yet is not sent. For one that had been sent, the kernel asks the server to let the client go, as it does for a
signal on QNX: a message that no thread of the server has received yet is taken back; without NTO_CHF_UNBLOCK, the
thread is free; with it, as for every name, the server decides, the reply is dropped, and the thread is free when it
comes. A server that has received the message and is stopped, or never looks, keeps the thread: nothing but its end ends
that, on QNX as here. A message whose connection is being recovered is not taken out of the recovery, which is for the
others, too.

**Ctrl-C.** From Python 3.11 on, the first one lets asyncio.run cancel ``main``, and what that waits for ends as above.
A second one is raised wherever the loop happens to be; asyncio may lose a task by that, of whatever kind, and wait for
it. A third one ends that (D139).

**Recovery functions** can be coroutine functions, with ``aio.attach`` and ``aio.connect``. They run in the event loop
while the thread that met the failure waits for them. What they send by ``aio.send`` goes through that thread, and so is
plain on the connection, as everywhere in a recovery function.
"""

import asyncio
import collections
import contextlib
import contextvars
import functools
import inspect
import operator
import os
import queue
import signal
import threading
import time
import weakref
from errno import EBADF, EIO, ETIMEDOUT
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from . import backends, connection, readiness, service, watching
from .api import Backend, RecoveryFunction
from .buffers import INT_MAX, as_seconds, integer
from .buffers import readable as readable_bytes
from .constants import NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT
from .deadlines import time_limit, within
from .errors import failure
from .kernel import BytesLike, StrPath

__all__ = [
    "CLOSE_TIMEOUT",
    "MESSAGES",
    "THREADS",
    "AsyncRecoveryFunction",
    "Service",
    "ask",
    "attach",
    "call",
    "connect",
    "readable",
    "send",
    "writable",
]

T = TypeVar("T")

AsyncRecoveryFunction = Union[RecoveryFunction, Callable[[int, Any], Awaitable[int]]]

#: How many messages of the process can be under way at once, each with a thread. More wait for their turn.
THREADS = 512

#: How many of them can be on one connection that has no bound of its own. What ``call`` makes counts as one more.
MESSAGES = 32

#: How many seconds leaving ``aio.connect`` waits for a server that does not answer to the closing.
CLOSE_TIMEOUT = 0.5

# After how many seconds to ask again for a thread that its cancelled call has not left, at first and at last; and after
# how many a thread ends that nobody needs.
_ASK_SOON, _ASK_AGAIN = 0.01, 0.5
_IDLE = 10.0


class _Bound:
    """How many calls may be under way at once. Who comes when they are waits in the event loop."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        # A collection may run while it is held, and end a coroutine that waits.
        self._lock = threading.RLock()
        self._used = 0
        self._is_closed = False
        self._waiting: Deque[Tuple[asyncio.AbstractEventLoop, asyncio.Future[bool]]] = collections.deque()

    async def enter(self, deadline: Optional[float]) -> None:
        """Wait for a turn, in the order of coming.

        Raises:
            OSError: ETIMEDOUT, at the deadline, which is one of time.monotonic(); EBADF, the connection is closed.
        """
        with self._lock:
            if self._is_closed:
                raise failure(EBADF)
            if not self._waiting and self._used < self._limit():
                self._used += 1
                return
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[bool] = loop.create_future()
            self._waiting.append((loop, turn))
        try:
            await asyncio.wait({turn}, timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
        except BaseException:
            self._decline(turn)
            raise
        if not turn.done():
            self._decline(turn)
            raise failure(ETIMEDOUT)
        if not turn.result():
            raise failure(EBADF)

    def leave(self) -> None:
        """Let the next one have its turn. From any thread."""
        with self._lock:
            self._used -= 1
            while self._waiting and self._used < self._limit():
                loop, turn = self._waiting.popleft()
                with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits there any more.
                    loop.call_soon_threadsafe(_give_turn, turn, True)
                    self._used += 1

    def close(self) -> None:
        """Let nobody have a turn any more."""
        with self._lock:
            self._is_closed = True
            while self._waiting:
                loop, turn = self._waiting.popleft()
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_give_turn, turn, False)

    def _decline(self, turn: "asyncio.Future[bool]") -> None:
        """Wait no more; a turn that has just been given goes to the next one."""
        with self._lock:
            for place, (_loop, waiting) in enumerate(self._waiting):
                if waiting is turn:
                    del self._waiting[place]
                    return
            if not self._is_closed:
                self.leave()


def _give_turn(turn: "asyncio.Future[bool]", is_given: bool) -> None:
    if not turn.done():
        turn.set_result(is_given)


class _Job:
    """A call that a thread is to make for a task."""

    def __init__(
        self,
        function: Callable[[], Any],
        backends_in_use: Sequence[Backend] = (),
        bounds: Sequence[_Bound] = (),
        discard: Optional[Callable[[Any], object]] = None,
    ) -> None:
        """A job for the event loop that runs now.

        Args:
            function: the call.
            backends_in_use: those that ask the server to let the thread go when the task is cancelled.
            bounds: where the job has a turn, which ends when its thread is free.
            discard: what becomes of a result that nobody wants any more.
        """
        self._loop = asyncio.get_running_loop()
        self._function = function
        self._backends = backends_in_use
        self._bounds = bounds
        self._discard = discard
        self._lock = threading.Lock()
        self._thread: Optional[int] = None  # The one that makes the call, while it does.
        self._depth = 0
        self._has_begun = False
        self._outcome: Tuple[Any, Optional[BaseException]] = None, None
        self.future: asyncio.Future[Any] = self._loop.create_future()
        self.future.add_done_callback(self._ask_if_cancelled)

    def run(self) -> None:
        """Make the call, unless its task was cancelled before."""
        with self._lock:
            if self.future.cancelled():
                return
            self._has_begun = True
            self._depth = watching.recoveries_of(threading.get_ident())
            self._thread = threading.get_ident()
        try:
            self._outcome = self._function(), None
        except BaseException as raised:
            self._outcome = None, raised
        with self._lock:
            self._thread = None  # From now on, nobody may unblock this thread for this job.

    def end(self) -> None:
        """Let others have its turn, and let the task know."""
        for bound in self._bounds:
            bound.leave()
        if self._has_begun:
            try:
                self._loop.call_soon_threadsafe(self._settle, *self._outcome)
            except RuntimeError:  # The loop is closed: nobody waits any more.
                self._drop(*self._outcome)

    def _settle(self, result: Any, error: Optional[BaseException]) -> None:
        if self.future.cancelled():
            if self._discard is not None:
                _crew.take(_Errand(functools.partial(self._drop, result, error)))
        elif error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)
            self.future.exception()  # Lest asyncio complain where nobody waits for it any more.

    def _drop(self, result: Any, error: Optional[BaseException]) -> None:
        if self._discard is not None and error is None:
            self._discard(result)

    def _ask_if_cancelled(self, future: "asyncio.Future[Any]") -> None:
        if self._backends and future.cancelled() and self.ask():
            _asker.take(self)

    def ask(self) -> bool:
        """Ask for the thread of a cancelled call to be let go; whether it is not free yet."""
        with self._lock:
            if self._thread is None:
                return False
            # A recovery that it has got into is not its own business alone.
            with watching.no_recovery_begins:
                if watching.recoveries_of(self._thread) == self._depth:
                    for qnx in self._backends:
                        with contextlib.suppress(OSError):  # There is no way; then it waits for the answer.
                            qnx.unblock(self._thread)
            return True


class _Errand:
    """Something for a thread to do for which nobody waits."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def run(self) -> None:
        with contextlib.suppress(OSError):
            self._function()

    def end(self) -> None:
        """It has no turn that others wait for."""


class _Crew:
    """Threads that make calls. They are daemons: a server that never answers does not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Union[_Job, _Errand]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def take(self, job: Union[_Job, _Errand]) -> None:
        """Have a job done at once. How many there are at a time is for others to bound."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                threading.Thread(target=self._work, name="ha_qnx.aio", daemon=True).start()
            self._jobs.put(job)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._idle:  # If not, a job is on its way.
                        self._idle -= 1
                        return
                continue
            job.run()
            with self._lock:
                self._idle += 1
            job.end()
            del job  # It holds the message and the reply.


class _Asker:
    """Asks again for threads that their cancelled calls have not left, until they have.

    A thread that was between two steps when it was asked for has not noticed.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._jobs: List[_Job] = []
        self._pause = _ASK_SOON
        self._is_at_work = False

    def take(self, job: _Job) -> None:
        with self._news:
            self._jobs.append(job)
            self._pause = _ASK_SOON
            if self._is_at_work:
                self._news.notify()
            else:
                threading.Thread(target=self._work, name="ha_qnx.aio-unblock", daemon=True).start()
                self._is_at_work = True

    def _work(self) -> None:
        while True:
            with self._news:
                if not self._jobs:
                    self._is_at_work = False
                    return
                asked = list(self._jobs)
                if not self._news.wait(self._pause):
                    self._pause = min(2 * self._pause, _ASK_AGAIN)
            free = {job for job in asked if not job.ask()}
            with self._news:
                self._jobs = [job for job in self._jobs if job not in free]


_crew = _Crew()
_asker = _Asker()
_all = _Bound(lambda: THREADS)
_by_call = _Bound(lambda: MESSAGES)
# By the backend and the number of a connection; or by the name or path that is being opened.
_bounds: "weakref.WeakValueDictionary[Tuple[Backend, Union[int, str]], _Bound]" = weakref.WeakValueDictionary()


def _start_anew() -> None:
    """In a forked child, the threads are gone."""
    global _crew, _asker, _all, _by_call, _bounds
    _crew, _asker = _Crew(), _Asker()
    _all, _by_call = _Bound(lambda: THREADS), _Bound(lambda: MESSAGES)
    _bounds = weakref.WeakValueDictionary()


os.register_at_fork(after_in_child=_start_anew)


def _bound_of(qnx: Backend, coid: Union[int, str]) -> _Bound:
    bound = _bounds.get((qnx, coid))
    if bound is None:
        bound = _bounds.setdefault((qnx, coid), _Bound(lambda: MESSAGES))
    return bound


class _Recovering:
    """A thread that waits in a recovery function for a coroutine, and meanwhile makes its calls."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Optional[_Job]] = queue.SimpleQueue()
        self.is_waiting = True

    def take(self, job: _Job) -> None:
        self._jobs.put(job)

    def end(self) -> None:
        self.is_waiting = False
        self._jobs.put(None)

    def work(self) -> None:
        for job in iter(self._jobs.get, None):
            job.run()
            job.end()


# Who makes the calls of a coroutine that runs as a recovery function.
_recovering: "contextvars.ContextVar[Optional[_Recovering]]" = contextvars.ContextVar("ha_qnx.aio", default=None)


async def call(function: Callable[..., T], *arguments: Any) -> T:
    """Make a call that blocks, such as any of QNX's or a strategy, without blocking the event loop.

    If the task is cancelled, a message that the call waits with is interrupted (EINTR), if the server lets it; whatever
    else the call does goes on.
    """
    return await _in_turn(functools.partial(function, *arguments), backends.made(), _by_call, None)


async def _in_turn(
    function: Callable[[], T],
    backends_in_use: Sequence[Backend],
    bound: _Bound,
    deadline: Optional[float],
    discard: Optional[Callable[[T], object]] = None,
) -> T:
    """Have a thread make a call, when there is a turn for it."""
    recovering = _recovering.get()
    if recovering is not None and recovering.is_waiting:
        job = _Job(function, backends_in_use, (), discard)
        recovering.take(job)
        return await job.future  # type: ignore[no-any-return]  # a job does not know what its function returns
    turns: List[_Bound] = []
    try:
        for each in (bound, _all):
            await each.enter(deadline)
            turns.append(each)
        job = _Job(function, backends_in_use, turns, discard)
        _crew.take(job)
    except BaseException:
        for each in turns:
            each.leave()
        raise
    return await job.future  # type: ignore[no-any-return]


async def ask(
    coid: int,
    message: Optional[BytesLike],
    *,
    room: int = connection.REPLY_ROOM,
    timeout: Optional[float] = None,
    backend: Optional[Backend] = None,
) -> bytes:
    """Send a message to a server that answers with bytes, and with their number for a status; the bytes.

    Args:
        coid: the connection.
        message: is copied, so that its buffer is free at once; None is an empty one.
        room: how many bytes the reply may have.
        timeout: seconds until the wait for a turn ends, or the kernel gives up: OSError with ETIMEDOUT. After a
            recovery there is none.
        backend: as ``ha_qnx.backend`` gives it; without it, that of the connection, else the default one.

    Raises:
        OSError: as MsgSend; EMSGSIZE and EPROTO, as ``Connection.ask``.
        TypeError: this is no connection, no message, or no time.
        ValueError: the time is NaN or negative.
    """
    return await _exchange(connection.ask, coid, message, room, timeout, backend)


async def send(
    coid: int,
    message: Optional[BytesLike],
    size: int = 0,
    *,
    timeout: Optional[float] = None,
    backend: Optional[Backend] = None,
) -> Tuple[int, bytes]:
    """Send a message; the status and the reply, as ``Connection.send`` returns them.

    Args:
        coid: the connection.
        message: is copied, so that its buffer is free at once; None is an empty one.
        size: how many bytes of the reply are wanted; there are exactly so many.
        timeout: as for ``ask``.
        backend: as for ``ask``.

    Raises:
        OSError: as MsgSend.
        TypeError: this is no connection, no message, or no time.
        ValueError: the time is NaN or negative.
    """
    return await _exchange(connection.send, coid, message, size, timeout, backend)


async def _exchange(
    exchange: Callable[..., T],
    coid: int,
    message: Optional[BytesLike],
    size: int,
    timeout: Optional[float],
    backend: Optional[Backend],
) -> T:
    qnx, coid = _backend_of(coid, backend), operator.index(coid)
    arguments = qnx, coid, bytes(readable_bytes(message)), size
    timeout = time_limit(timeout)
    deadline = None if timeout is None else time.monotonic() + timeout

    def call() -> T:
        # What is left of the time; a call that did not have to wait has all of it.
        left = timeout if deadline is None or not timeout else max(deadline - time.monotonic(), 1e-9)
        return within(qnx, left, exchange, *arguments)

    return await _in_turn(call, [qnx], _bound_of(qnx, coid), deadline)


async def readable(coid: int, *, backend: Optional[Backend] = None) -> None:
    """Wait until there is something to read on a connection, as its server says: by ionotify, and an event.

    If the connection is lost meanwhile, it is recovered, and the next server asked. As many tasks as like may wait for
    one connection. Nothing is reserved for any of them: by the time that one reads, another may have read.

    Args:
        coid: the connection. A server that knows nothing of readiness is taken to be ready.
        backend: as for ``ask``.

    Raises:
        OSError: as ionotify; EBADF and ESRCH, it is lost, and was not recovered.
    """
    await _ready(coid, NOTIFY_COND_INPUT, backend)


async def writable(coid: int, *, backend: Optional[Backend] = None) -> None:
    """Wait until there is room to write; the rest is as for ``readable``."""
    await _ready(coid, NOTIFY_COND_OUTPUT, backend)


async def _ready(coid: int, conditions: int, backend: Optional[Backend]) -> None:
    qnx, coid = _backend_of(coid, backend), operator.index(coid)
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def ring() -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(news.set)

    watch = readiness.Watch(qnx, coid, ring)
    try:
        while not await _in_turn(functools.partial(watch.ask, conditions), [qnx], _bound_of(qnx, coid), None):
            await news.wait()
            news.clear()
    finally:
        watch.close()


def _backend_of(coid: int, backend: Optional[Backend]) -> Backend:
    if backend is not None:
        return backend
    return coid.backend if isinstance(coid, connection.Connection) else backends.backend()


def attach(
    coid: int,
    rfn: AsyncRecoveryFunction,
    handle: object = None,
    flags: int = 0,
    *,
    backend: Optional[Backend] = None,
) -> None:
    """Make a connection HA-aware, as ha_attach does; the recovery function may be a coroutine function.

    A coroutine runs in the event loop that runs now. The loop must not be blocked meanwhile: a synchronous call in the
    loop's own thread fails instead of recovering by a coroutine.
    """
    _backend_of(coid, backend).ha_attach(coid, _as_function(rfn), handle, flags)


def _as_function(rfn: AsyncRecoveryFunction) -> RecoveryFunction:
    if not (inspect.iscoroutinefunction(rfn) or inspect.iscoroutinefunction(getattr(rfn, "__call__", None))):  # noqa: B004  # callable objects, too
        return rfn  # type: ignore[return-value]  # it is no coroutine function, as we have seen
    loop = asyncio.get_running_loop()

    @functools.wraps(rfn)
    def recover(coid: int, handle: Any) -> int:
        if _running_loop() is loop:
            raise RuntimeError("the event loop is blocked by the call that is to be recovered: use ha_qnx.aio.send")
        recovering = _Recovering()

        async def run() -> int:
            _recovering.set(recovering)
            answer: Any = rfn(coid, handle)
            return await answer  # type: ignore[no-any-return]  # whoever asked checks it

        task = run()
        try:
            outcome = asyncio.run_coroutine_threadsafe(task, loop)
        except RuntimeError:
            task.close()  # The loop is closed.
            raise
        outcome.add_done_callback(lambda _outcome: recovering.end())
        recovering.work()
        return outcome.result()

    return recover


def _running_loop() -> Optional[asyncio.AbstractEventLoop]:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextlib.asynccontextmanager
async def connect(
    target: StrPath,
    oflag: int = os.O_RDWR,
    *,
    recover: Union[AsyncRecoveryFunction, bool, None] = True,
    messages: Optional[int] = None,
    close_timeout: Optional[float] = None,
    backend: Optional[Backend] = None,
    **options: Any,
) -> AsyncIterator[connection.Connection]:
    """Open a connection for the time of a context; the recovery function may be a coroutine function.

    When the context is left, whoever still waits for a turn on the connection gets EBADF.

    Args:
        target: as for ``ha_qnx.connect``, like the rest but these.
        oflag: how to open a path.
        recover: the recovery function.
        messages: how many messages can be under way on the connection at once; without it, ``MESSAGES``.
        close_timeout: how many seconds to wait at the end for a server that does not answer to the closing; without it,
            ``CLOSE_TIMEOUT``. Then the context is left all the same, and the connection closes when the server lets it.
        backend: as ``ha_qnx.backend`` gives it; without it, the default one.
        options: the other arguments of ``ha_qnx.connect``.

    Raises:
        OSError: as ``ha_qnx.connect``; at the end, what the server answered to the closing.
        TypeError, ValueError: as ``ha_qnx.connect``; ``messages`` is no positive number, or the time is none.
    """
    qnx = backends.backend() if backend is None else backend
    limit = None if messages is None else integer("messages", messages, 1, INT_MAX)
    patience = as_seconds("close_timeout", CLOSE_TIMEOUT if close_timeout is None else close_timeout)
    rfn = recover if isinstance(recover, bool) or recover is None else _as_function(recover)
    open_it = functools.partial(connection.connect, target, oflag, recover=rfn, backend=qnx, **options)
    opened = await _in_turn(open_it, [qnx], _bound_of(qnx, os.fsdecode(target)), None, connection.Connection.close)
    place = qnx, opened.coid
    # What had this number before may still have threads that wait: they are none of ours.
    bound = _bounds[place] = _Bound(lambda: MESSAGES if limit is None else limit)
    try:
        yield opened
    finally:
        if _bounds.get(place) is bound:
            del _bounds[place]
        bound.close()
        await _close(opened, patience)


async def _close(opened: connection.Connection, patience: float) -> None:
    """Close a connection, in a thread that is not waited for any longer than that."""
    if opened.closed:
        return
    closing = _Job(functools.partial(opened.close, patience))
    recovering = _recovering.get()
    if recovering is not None and recovering.is_waiting:
        recovering.take(closing)
    else:
        _crew.take(closing)
    await asyncio.wait({closing.future}, timeout=patience)
    if closing.future.done():
        with contextlib.suppress(TimeoutError):
            closing.future.result()


class Service(service.BaseService):
    """A server whose handlers may be coroutine functions, and run in the event loop.

    Each request has a task of its own, so there are never more tasks than threads of clients that wait. The task of a
    client that wants to be freed, by a signal or a timeout, is cancelled. Everything else is as in ``ha_qnx.Service``:
    a handler that raises what is no Exception ends the server, and ``serve`` raises it.
    """

    async def serve(
        self,
        *,
        grace: float = 10.0,
        name_timeout: float = 5.0,
        signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
    ) -> None:
        """Serve until ``stop`` is called, this task is cancelled, or one of the signals comes: as ``Service.serve``.

        Args:
            grace: how many seconds the requests in hand may take at the end.
            name_timeout: how many seconds to wait for the name, if a predecessor still has it.
            signals: what ends it, in the main thread. Their handlers are put back afterwards.

        Raises:
            OSError: as name_attach.
            RuntimeError: it is being served already.
            TypeError, ValueError: a time is no number of seconds.
        """
        times = as_seconds("grace", grace), as_seconds("name_timeout", name_timeout)
        with self._one_run() as run:
            self._loop = asyncio.get_running_loop()
            with self._stopped_by_loop(signals):
                await self._serve_in_loop(run, *times)

    async def _serve_in_loop(self, run: service._Run, grace: float, name_timeout: float) -> None:
        self._tasks: Dict[service.Request, asyncio.Task[None]] = {}
        self._others: Set[asyncio.Task[None]] = set()
        self._serving = run
        ended = self._loop.create_future()

        def serve() -> None:
            error: Optional[BaseException] = None
            try:
                self._run(run, 1, grace, name_timeout, ())
            except BaseException as raised:
                error = raised
            self._in_loop(ended.set_result, error)

        threading.Thread(target=serve, name=self.name, daemon=True).start()
        try:
            error = await asyncio.shield(ended)
        except asyncio.CancelledError:
            self.stop()
            await ended
            raise
        finally:
            await self._end_tasks()
        if error is not None:
            raise error

    @contextlib.contextmanager
    def _stopped_by_loop(self, signals: Sequence[int]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with contextlib.ExitStack() as stack:
            for number in signals:
                before = signal.getsignal(number)
                self._loop.add_signal_handler(number, self.stop)
                stack.callback(self._put_back, number, before)
            yield

    def _put_back(self, number: int, handler: Any) -> None:
        self._loop.remove_signal_handler(number)
        # None is a handler in C. One of asyncio's own stands for a callback that the loop has forgotten by now: put
        # back, it would swallow the signal.
        if handler is not None and getattr(handler, "__module__", None) != "asyncio.unix_events":
            signal.signal(number, handler)

    async def _end_tasks(self) -> None:
        """Cancel what has not come to an end in time; let the rest finish."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._others, return_exceptions=True)

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(function, *arguments)

    def _work(self, request: service.Request) -> None:
        self._in_loop(self._begin_work, request)

    def _begin_work(self, request: service.Request) -> None:
        task = self._loop.create_task(self._answer(request))
        self._tasks[request] = task
        task.add_done_callback(lambda _task: self._end_work(request, task))

    def _end_work(self, request: service.Request, task: "asyncio.Task[None]") -> None:
        del self._tasks[request]
        if task.cancelled():  # Maybe before it began.
            request.error(-1 if request.is_unblocking else EIO)

    async def _answer(self, request: service.Request) -> None:
        try:
            for step in self._steps(request):
                async with _guard(request.ocb, step.is_guarded):
                    result = step.call()
                    if inspect.isawaitable(result):
                        result = await result
                    if result is service.LATER:
                        self._leave_for_later(request)
                        return
                    answer = step.answer(result)
            self._give(request, answer)
        except Exception as error:
            self._refuse(request, error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            request.error(EIO)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """End the server because of what a handler raised."""
        self._serving.failure = self._serving.failure or error
        self._serving.stop()
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error  # These end the loop, too, wherever they are raised in it.

    def _unblock(self, request: service.Request) -> None:
        self._in_loop(self._unblock_in_loop, request)

    def _unblock_in_loop(self, request: service.Request) -> None:
        if not request.is_later and request in self._tasks:
            request.is_unblocking = True
            self._tasks[request].cancel()
        else:
            super()._unblock(request)

    def _tell(self, handler: Callable[..., object], *arguments: object) -> None:
        self._in_loop(self._tell_in_loop, handler, *arguments)

    def _tell_in_loop(self, handler: Callable[..., object], *arguments: object) -> None:
        task = self._loop.create_task(self._told(handler, *arguments))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _told(self, handler: Callable[..., object], *arguments: object) -> None:
        try:
            result = handler(*arguments)
            if inspect.isawaitable(result):
                await result
        except Exception:
            service.log.exception("%s: %s() failed", self.name, handler.__name__)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)


@contextlib.asynccontextmanager
async def _guard(ocb: service.Ocb, is_guarded: bool) -> AsyncIterator[None]:
    if not is_guarded:
        yield
        return
    if not isinstance(ocb.lock, asyncio.Lock):
        ocb.lock = asyncio.Lock()
    async with ocb.lock:
        yield
