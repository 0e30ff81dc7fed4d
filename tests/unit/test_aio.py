"""Messages and servers in an event loop."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import warnings
from errno import EBADF, EIO, ENOENT, ESRCH, ETIMEDOUT
from typing import Any, Awaitable, Callable, List

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx import aio, service, strategies
from ha_qnx.connection import connect

pytestmark = pytest.mark.usefixtures("shared_directory")

NAME = "aio"
PATH = "/dev/aio"

SERVER = """
import os, sys
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        if request.data == b"log in":
            request.ocb.data = True
        return b"known" if request.ocb.data else b"unknown"
Server("aio").serve()
"""


class Threaded(service.Service):
    """A server in threads, that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(NAME, PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.requests: List[service.Request] = []

    def message(self, request: service.Request) -> Any:
        self.requests.append(request)
        return service.LATER if request.data == b"later" else b"<" + request.data + b">"


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine function in a loop of its own, for a limited time."""

    async def limited() -> Any:
        return await asyncio.wait_for(main(), DEADLINE)

    return asyncio.run(limited())


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition without blocking the loop."""
    while not condition():
        await asyncio.sleep(0.001)


async def error_of(awaitable: Awaitable[Any]) -> OSError:
    """The OSError that it raises."""
    with pytest.raises(OSError) as failed:  # noqa: PT011  # who asks compares it
        await awaitable
    return failed.value


# Sending.


def test_send_returns_the_status_and_the_reply() -> None:
    """As Connection.send does, with a size and without."""

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            assert await aio.ask(connection, b"x") == b"<x>"
            assert await aio.send(connection.coid, bytearray(b"x"), 5) == (3, b"<x>\0\0")

    with Threaded().running():
        run(main)


def test_the_loop_runs_while_messages_wait() -> None:
    """Many at once; each gets its own answer."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(10)]
            await until(lambda: len(server.requests) == 10)
            for number, request in enumerate(server.requests):
                request.reply(number)
            assert sorted(status for status, _data in await asyncio.gather(*waiting)) == list(range(10))

    with server.running():
        run(main)


def test_no_more_than_so_many_threads_are_used() -> None:
    """What exceeds them waits for its turn, and has it."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(aio.THREADS + 5)]
            await until(lambda: len(server.requests) == aio.THREADS)
            assert sum(thread.name == "ha_qnx.aio" for thread in threading.enumerate()) == aio.THREADS
            answered = 0
            while answered < len(waiting):
                await until(lambda: len(server.requests) > answered)  # noqa: B023  # it is called at once
                server.requests[answered].reply(1)
                answered += 1
            assert await asyncio.gather(*waiting) == [(1, b"")] * len(waiting)

    with server.running():
        run(main)


def test_an_error_is_raised_where_the_answer_is_awaited() -> None:
    """With its errno."""

    async def main() -> None:
        with fails_with(EBADF):
            await aio.send(99999, b"x")
        with fails_with(ENOENT):
            async with aio.connect("nobody"):
                pass

    run(main)


def test_a_timeout_is_the_kernels() -> None:
    """ETIMEDOUT; the server is told, and has the request in hand no longer."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            with fails_with(ETIMEDOUT):
                await aio.send(connection, b"later", timeout=0.02)
            assert await aio.ask(connection, b"x", timeout=DEADLINE) == b"<x>"

    with server.running():
        run(main)
        assert server.requests[0].reply(0) is False


def test_a_timeout_is_for_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was not sent, because of its arguments, leaves its timeout to no other message of its thread."""
    server = Threaded()
    monkeypatch.setattr(aio, "THREADS", 1)
    monkeypatch.setattr(aio, "_crew", aio._Crew())

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            with pytest.raises(ValueError, match="negative"):
                await aio.send(connection, b"x", -1, timeout=0)
            waiting = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            assert not server.requests[0].is_unblocking
            server.requests[0].reply(1)
            assert await waiting == (1, b"")

    with server.running():
        run(main)


def test_a_message_can_wait_as_long_as_it_takes() -> None:
    """An infinite timeout is none, or nearly."""

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            assert await aio.ask(connection, b"x", timeout=float("inf")) == b"<x>"

    with Threaded().running():
        run(main)


def test_what_is_no_message_is_refused_as_msgsend_does() -> None:
    """A number, a list and a str are none, and a str is no connection; None is an empty message."""
    no_messages: List[Any] = [5, [1, 2], "5"]
    no_coid: Any = "5"
    no_time: Any = "5"

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            for message in no_messages:
                with pytest.raises(TypeError):
                    await aio.send(connection, message)
            with pytest.raises(TypeError):
                await aio.send(no_coid, b"x")
            with pytest.raises(TypeError, match="timeout"):
                await aio.send(connection, b"x", timeout=no_time)
            with pytest.raises(ValueError, match="ntime"):
                await aio.send(connection, b"x", timeout=-1)
            assert await aio.ask(connection, None) == b"<>"

    with Threaded().running():
        run(main)


def test_a_cancelled_task_stops_waiting_at_once() -> None:
    """The server has the message and answers to nobody; the connection goes on."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert server.requests[0].reply(1) is True
            assert await aio.ask(connection, b"x") == b"<x>"

    with server.running():
        run(main)


def test_a_message_that_is_cancelled_before_its_turn_is_not_sent() -> None:
    """It waited for a thread, and no thread takes it up."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(aio.THREADS)]
            await until(lambda: len(server.requests) == aio.THREADS)
            late = asyncio.ensure_future(aio.send(connection, b"late"))
            await asyncio.sleep(0)
            late.cancel()
            for request in list(server.requests):
                request.reply(0)
            await asyncio.gather(*waiting)
            assert await aio.ask(connection, b"x") == b"<x>"

    with server.running():
        run(main)
    assert b"late" not in [request.data for request in server.requests]


def test_a_connection_that_nobody_wants_any_more_is_closed() -> None:
    """The task that waited for it was cancelled."""
    opened, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(service.Service):
        def opened(self, request: service.Request) -> None:
            opened.set()
            go_on.wait(DEADLINE)

        def closed(self, ocb: service.Ocb) -> None:
            closed.set()

    async def opening() -> None:
        async with aio.connect(PATH):
            raise AssertionError

    async def main() -> None:
        task = asyncio.ensure_future(opening())
        await until(opened.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await until(closed.is_set)

    with Slow(PATH).running(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main)
        gc.collect()
    assert caught == [], "it is closed in order, not just forgotten"


def test_a_stuck_server_does_not_keep_the_process(start_program: Callable[..., Any]) -> None:
    """The threads are daemons."""
    client = """
import asyncio, ha_qnx
async def main():
    async with ha_qnx.aio.connect("aio") as connection:
        await asyncio.wait_for(ha_qnx.aio.send(connection, b"later"), 0.05)
try:
    asyncio.run(main())
except asyncio.TimeoutError:
    print("timeout")
"""
    with Threaded().running():
        program = start_program(client)
        assert program.process.wait(DEADLINE) == 0
    assert (program.output, program.errors) == ("timeout\n", "")


def test_a_forked_child_has_threads_of_its_own(start_program: Callable[..., Any]) -> None:
    """Those of the parent are not there."""
    both = """
import asyncio, os, ha_qnx
async def main():
    async with ha_qnx.aio.connect("aio") as connection:
        print(await ha_qnx.aio.ask(connection, b"x"), flush=True)
asyncio.run(main())
child = os.fork()
asyncio.run(main())
if child:
    os.waitpid(child, 0)
"""
    with Threaded().running():
        program = start_program(both)
        assert program.process.wait(DEADLINE) == 0
    assert program.output == "b'<x>'\n" * 3


# Recovery.


def test_a_recovery_function_can_be_a_coroutine(start_program: Callable[..., Any]) -> None:
    """It runs in the loop; what it sends on the connection is plain, and gets there before the message."""
    first = start_program(SERVER)
    threads: List[Any] = []

    async def recover(coid: int, handle: Any) -> int:
        threads.append((threading.current_thread(), handle))
        await aio.call(strategies.wait_for(strategies.reopen_name(NAME), DEADLINE), coid, handle)
        assert await asyncio.gather(*(aio.ask(coid, b"log in") for _time in range(3))) == [b"known"] * 3
        return coid

    async def main() -> None:
        async with aio.connect(NAME, recover=recover, handle="handle", wait=DEADLINE) as connection:
            assert await aio.ask(connection, b"x") == b"unknown"
            first.kill()
            start_program(SERVER)
            assert await aio.ask(connection, b"x") == b"known"
            assert connection.stats.recoveries == 1

    run(main)
    assert threads == [(threading.main_thread(), "handle")]


def test_what_a_recovery_coroutine_sends_is_not_recovered(start_program: Callable[..., Any]) -> None:
    """Its error is the cause of the caller's."""
    first = start_program(SERVER)

    async def recover(coid: int, _handle: Any) -> int:
        await aio.send(coid, b"x")
        return coid

    async def main() -> None:
        async with aio.connect(NAME, recover=None, wait=DEADLINE) as connection:
            aio.attach(connection, recover)
            first.kill()
            for _time in range(2):
                error = await error_of(aio.send(connection, b"x"))
                assert error.errno == EBADF
                assert isinstance(error.__cause__, OSError)
                assert error.__cause__.errno == EBADF

    run(main)


def test_a_task_that_outlives_its_recovery_sends_as_others_do(start_program: Callable[..., Any]) -> None:
    """It was started by a recovery coroutine, whose thread no longer waits for it."""
    first = start_program(SERVER)
    left: List[Any] = []

    async def recover(coid: int, handle: Any) -> int:
        await aio.call(strategies.wait_for(strategies.reopen_name(NAME), DEADLINE), coid, handle)
        is_over = asyncio.Event()

        async def later() -> bytes:
            await is_over.wait()
            return await aio.ask(coid, b"x")

        left.extend([asyncio.ensure_future(later()), is_over])
        return coid

    async def main() -> None:
        async with aio.connect(NAME, recover=recover, wait=DEADLINE) as connection:
            first.kill()
            start_program(SERVER)
            await aio.send(connection, b"x")
            left[1].set()
            assert await left[0] == b"unknown"

    run(main)


def test_a_blocked_loop_is_told_so(start_program: Callable[..., Any]) -> None:
    """A synchronous call in the loop's thread cannot wait for a coroutine: an error, not a deadlock."""
    first = start_program(SERVER)

    async def recover(coid: int, _handle: Any) -> int:
        return coid

    async def main() -> None:
        async with aio.connect(NAME, recover=recover, wait=DEADLINE) as connection:
            first.kill()
            with pytest.raises(OSError, match="the event loop is blocked") as failed:
                ha_qnx.MsgSend(connection, b"x")
            assert isinstance(failed.value.__cause__, RuntimeError)
            assert "ha_qnx.aio.send" in str(failed.value.__cause__)

    run(main)


def test_a_loop_that_is_over_recovers_nothing(start_program: Callable[..., Any]) -> None:
    """The caller gets the error of its call, and nothing hangs."""
    first = start_program(SERVER)
    with connect(NAME, recover=None, wait=DEADLINE) as connection:

        async def recover(coid: int, _handle: Any) -> int:
            return coid

        async def main() -> None:
            aio.attach(connection, recover)

        run(main)
        first.kill()
        assert Task(connection.ask, b"x").errno() == EBADF


def test_an_ordinary_recovery_function_runs_in_the_thread(start_program: Callable[..., Any]) -> None:
    """The strategies are used as they are."""
    first = start_program(SERVER)

    async def main() -> None:
        recover = strategies.wait_for(strategies.reopen_name(NAME), DEADLINE)
        async with aio.connect(NAME, recover=recover, wait=DEADLINE) as connection:
            first.kill()
            start_program(SERVER)
            assert await aio.ask(connection, b"x") == b"unknown"

    run(main)


# Serving.


class Served(aio.Service):
    """A server in the loop."""

    def __init__(self) -> None:
        super().__init__(NAME, PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.seen: List[Any] = []
        self.is_ready = threading.Event()
        self.go_on = threading.Event()

    def ready(self) -> None:
        self.is_ready.set()

    async def message(self, request: service.Request) -> Any:
        self.seen.append(request.data)
        if request.data == b"wait":
            try:
                await until(self.go_on.is_set)
            except asyncio.CancelledError:
                self.seen.append("cancelled")
                raise
        if request.data == b"later":
            return service.LATER
        if request.data == b"error":
            raise FileNotFoundError(ENOENT, "no")
        return b"<" + request.data + b">"

    def read(self, request: service.Request, nbytes: int) -> bytes:
        return b"0123456789"[request.ocb.offset :][:nbytes]

    async def write(self, request: service.Request, data: bytes) -> None:
        offset = request.ocb.offset
        await asyncio.sleep(0.001)
        assert request.ocb.offset == offset

    async def closed(self, ocb: service.Ocb) -> None:
        self.seen.append("closed")

    async def pulse(self, code: int, value: int) -> None:
        self.seen.append((code, value))
        raise ValueError("a bug")


@contextlib.contextmanager
def served() -> Any:
    """A server in a loop in another thread."""
    server = Served()
    task = Task(run, server.serve)
    eventually(lambda: server.is_ready.is_set() or task.done, "the server")
    try:
        yield server
    finally:
        server.stop()
        task.result()


def test_handlers_run_at_the_same_time() -> None:
    """In one loop: a request that waits does not keep others waiting."""
    with served() as server, connect(PATH, recover=None) as one, connect(NAME, recover=None) as other:
        waiting = Task(one.ask, b"wait")
        eventually(lambda: b"wait" in server.seen, "the request")
        assert other.ask(b"x") == b"<x>"
        server.go_on.set()
        assert waiting.result() == b"<wait>"


def test_errors_of_coroutines_are_the_clients() -> None:
    """As with threads."""
    with served(), connect(NAME, recover=None) as connection:
        with fails_with(ENOENT):
            connection.send(b"error")
        assert connection.ask(b"x") == b"<x>"


def test_files_and_pulses_have_their_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """Coroutines or not; writes of one opening come one after the other."""
    with served() as server, connect(PATH, recover=None) as connection:
        assert ha_qnx.read(connection, 4) == b"0123"
        for task in [Task(ha_qnx.write, connection.coid, b"x") for _thread in range(4)]:
            assert task.result() == 1
        assert ha_qnx.lseek(connection, 0, os.SEEK_CUR) == 8
        connection.pulse(3, 4)
        eventually(lambda: (3, 4) in server.seen, "the pulse")
        eventually(lambda: "a bug" in caplog.text, "the log")
        assert "pulse() failed" in caplog.text
        connection.close()
        eventually(lambda: "closed" in server.seen, "the end of the opening")


def test_a_client_that_wants_to_be_freed_has_its_task_cancelled() -> None:
    """It gets the reason, a timeout here."""

    def timed_send(message: bytes) -> int:
        ha_qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_REPLY, 20_000_000)
        return ha_qnx.MsgSend(connection, message)

    with served() as server, connect(PATH, recover=None) as connection:
        for message in (b"wait", b"later"):
            with fails_with(ETIMEDOUT):
                timed_send(message)
        assert server.seen == [b"wait", "cancelled", b"later"]
        assert connection.ask(b"x") == b"<x>"


def test_requests_in_hand_are_answered_when_the_server_ends() -> None:
    """Serve returns when they are."""
    with connect_to_served() as (server, connection, task):
        waiting = Task(connection.ask, b"wait")
        eventually(lambda: b"wait" in server.seen, "the request")
        server.stop()
        server.go_on.set()
        assert waiting.result() == b"<wait>"
        task.result()


def test_a_cancelled_serve_ends_the_server() -> None:
    """It gives the requests in hand their time, and cancels them then."""
    server = Served()

    async def main() -> None:
        serving = asyncio.ensure_future(server.serve(grace=0.05))
        await until(server.is_ready.is_set)
        async with aio.connect(NAME, recover=None) as connection:
            waiting = asyncio.ensure_future(aio.send(connection, b"wait"))
            await until(lambda: b"wait" in server.seen)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert (await error_of(waiting)).errno in (ESRCH, EIO)

    run(main)
    assert "cancelled" in server.seen
    with fails_with(ENOENT):
        ha_qnx.name_open(NAME)


@contextlib.contextmanager
def connect_to_served() -> Any:
    """A server, a connection to it, and the task that serves."""
    server = Served()
    task = Task(run, server.serve)
    eventually(server.is_ready.is_set, "the server")
    with connect(NAME, recover=None) as connection:
        yield server, connection, task


def test_a_signal_ends_the_server(start_program: Callable[..., Any]) -> None:
    """In the main thread, SIGTERM; the process exits with 0."""
    program = start_program("""
import asyncio
from ha_qnx import aio
class Server(aio.Service):
    async def message(self, request):
        return b"<" + request.data + b">"
asyncio.run(Server("aio").serve())
print("over")
""")
    with connect(NAME, recover=None, wait=DEADLINE) as connection:
        assert connection.ask(b"x") == b"<x>"
        assert program.terminate() == 0
    assert (program.output, program.errors) == ("over\n", "")


def test_the_signals_get_their_handlers_back() -> None:
    """When it ends, and when one of them is no signal that can be handled."""

    def handle(_number: int, _frame: Any) -> None:
        pytest.fail("a signal came")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with pytest.raises(RuntimeError, match="cannot be caught"):
            run(lambda: Served().serve(signals=(signal.SIGTERM, signal.SIGKILL)))
        assert signal.getsignal(signal.SIGTERM) is handle
        server = Served()
        server.stop()
        run(server.serve)
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_of_the_loop_is_not_swallowed_afterwards() -> None:
    """The loop has forgotten the callback that the server's took the place of: the signal ends the process again."""

    async def main() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pytest.fail, "a signal came")
        server = Served()
        server.stop()
        await server.serve()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL

    before = signal.getsignal(signal.SIGTERM)
    try:
        run(main)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("answer", [(0, "text"), 1 << 70], ids=str)
def test_an_answer_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """The client gets EIO, and does not wait for ever."""
    monkeypatch.setattr(Served, "message", lambda _self, _request: answer)
    with served(), connect(NAME, recover=None) as connection:
        assert Task(connection.ask, b"x").errno() == EIO


def test_a_service_is_served_once_at_a_time() -> None:
    """The second time is refused, as are times that are none, and the first one goes on."""
    no_time: Any = "x"
    with served() as server, connect(PATH, recover=None) as connection:
        with pytest.raises(RuntimeError, match="served already"):
            run(server.serve)
        with pytest.raises(TypeError, match="grace"):
            run(lambda: server.serve(grace=no_time))
        assert connection.ask(b"x") == b"<x>"


def test_a_server_that_cannot_start_says_why() -> None:
    """Serve raises what name_attach raised."""
    with served(), fails_with(17):
        run(lambda: aio.Service(NAME).serve(name_timeout=0.02))
