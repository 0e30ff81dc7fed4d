"""The same for asyncio: messages that do not block the event loop, and servers whose handlers are coroutines.

    async with ha_qnx.aio.connect("thermostat") as thermostat:
        answer = await ha_qnx.aio.ask(thermostat, b"status?")

A kernel call blocks its thread, so each message that is under way has a thread of a bounded set. What does not block (a
pulse on a connection that is not HA-aware, a reply) needs none: use the ordinary calls.

**Cancellation.** A task that is cancelled while it waits for a reply stops waiting at once. A message that had not been
sent yet is not sent. One that had been sent cannot be taken back: the server acts on it, its reply is dropped, and the
thread is free when it comes. With ``timeout`` the kernel gives up waiting, and the server is told, as QNX does it.

**Recovery functions** can be coroutine functions, with ``aio.attach`` and ``aio.connect``. They run in the event loop
while the thread that met the failure waits for them. What they send by ``aio.send`` goes through that thread, and so is
plain on the connection, as everywhere in a recovery function.
"""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import operator
import os
import queue
import signal
import threading
from errno import EIO
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Iterator,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from . import backends, connection, service
from .api import Backend, RecoveryFunction
from .buffers import as_seconds, readable
from .kernel import BytesLike, StrPath

__all__ = ["THREADS", "AsyncRecoveryFunction", "Service", "ask", "attach", "call", "connect", "send"]

T = TypeVar("T")

AsyncRecoveryFunction = Union[RecoveryFunction, Callable[[int, Any], Awaitable[int]]]

#: How many messages can be under way at once. More wait for their turn.
THREADS = 64


class _Job:
    """A call that a thread is to make for a task."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._function = function
        self.future: asyncio.Future[Any] = self._loop.create_future()

    def run(self) -> None:
        if self.future.cancelled():
            return
        result, error = None, None
        try:
            result = self._function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: Optional[BaseException]) -> None:
        if self.future.cancelled():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class _Crew:
    """Threads that make calls. They are daemons: a server that never answers does not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def take(self, job: _Job) -> None:
        with self._lock:
            # Once there are THREADS of them, it does not matter any more who is idle.
            if self._idle:
                self._idle -= 1
            elif self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._work, name="ha_qnx.aio", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            self._jobs.get().run()
            with self._lock:
                self._idle += 1


_crew = _Crew()


def _start_anew() -> None:
    """In a forked child, the threads are gone."""
    global _crew
    _crew = _Crew()


os.register_at_fork(after_in_child=_start_anew)


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


# Who makes the calls of a coroutine that runs as a recovery function.
_recovering: "contextvars.ContextVar[Optional[_Recovering]]" = contextvars.ContextVar("ha_qnx.aio", default=None)


async def call(function: Callable[..., T], *arguments: Any) -> T:
    """Make a call that blocks, such as any of QNX's or a strategy, without blocking the event loop."""
    return await _begin(function, *arguments)


def _begin(function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
    job = _Job(functools.partial(function, *arguments))
    recovering = _recovering.get()
    if recovering is not None and recovering.is_waiting:
        recovering.take(job)
    else:
        _crew.take(job)
    return job.future


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
        timeout: seconds until the kernel gives up: OSError with ETIMEDOUT. It counts from when a thread takes the
            message, and anew after a recovery there is none.
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
    qnx = _backend_of(coid, backend)
    seconds = None if timeout is None else as_seconds("timeout", timeout)
    arguments = qnx, operator.index(coid), bytes(readable(message)), size
    return await call(connection.within, qnx, seconds, exchange, *arguments)


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
    **options: Any,
) -> AsyncIterator[connection.Connection]:
    """Open a connection for the time of a context; the recovery function may be a coroutine function.

    The arguments are those of ``ha_qnx.connect``. Its result goes to ``aio.send``.
    """
    rfn = recover if isinstance(recover, bool) or recover is None else _as_function(recover)
    opening = _begin(functools.partial(connection.connect, target, oflag, recover=rfn, **options))
    try:
        opened = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise
    try:
        yield opened
    finally:
        await call(opened.close)


def _close_unwanted(opening: "asyncio.Future[connection.Connection]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        _begin(opening.result().close)


class Service(service.BaseService):
    """A server whose handlers may be coroutine functions, and run in the event loop.

    Each request has a task of its own, so there are never more tasks than threads of clients that wait. The task of a
    client that wants to be freed, by a signal or a timeout, is cancelled. Everything else is as in ``ha_qnx.Service``.
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
        task.add_done_callback(lambda _task: self._tasks.pop(request))

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
            request.reply(*answer)
        except Exception as error:
            self._refuse(request, error)
        except asyncio.CancelledError:
            request.error(-1 if request.is_unblocking else EIO)
            raise

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


@contextlib.asynccontextmanager
async def _guard(ocb: service.Ocb, is_guarded: bool) -> AsyncIterator[None]:
    if not is_guarded:
        yield
        return
    if not isinstance(ocb.lock, asyncio.Lock):
        ocb.lock = asyncio.Lock()
    async with ocb.lock:
        yield
