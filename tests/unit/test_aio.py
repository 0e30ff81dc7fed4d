"""Messages and servers in an event loop."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from errno import EBADF, EINTR, EIO, ENOENT, ESRCH, ETIMEDOUT
from typing import Any, Awaitable, Callable, List

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually
from ha_qnx.fallback import host

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


@pytest.mark.parametrize("bound", ["MESSAGES", "THREADS", "messages"])
def test_no_more_than_so_many_are_under_way(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """For one connection by default, for the process, for the connection alone: the rest wait, and have their turn."""
    server = Threaded()
    options: Any = {}
    if bound == "messages":
        options["messages"] = 3
    else:
        monkeypatch.setattr(aio, bound, 3)

    async def main() -> None:
        async with aio.connect(NAME, **options) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(8)]
            answered = 0
            while answered < len(waiting):
                await until(lambda: len(server.requests) == min(answered + 3, len(waiting)))  # noqa: B023  # at once
                server.requests[answered].reply(1)
                answered += 1
            assert await asyncio.gather(*waiting) == [(1, b"")] * len(waiting)

    with server.running():
        run(main)


@pytest.mark.parametrize("messages", [0, -1, 1 << 40, "3"])
def test_a_bound_is_a_positive_number(messages: Any) -> None:
    """What is none is refused before anything is opened."""

    async def main() -> None:
        with pytest.raises((TypeError, ValueError), match="messages"):
            async with aio.connect("nobody", messages=messages):
                pass

    run(main)


def test_who_waits_for_a_turn_can_be_cancelled_and_timed_out() -> None:
    """Nothing is sent then, and the turn goes to the next one."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME, messages=1) as connection:
            first = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            cancelled = asyncio.ensure_future(aio.send(connection, b"cancelled"))
            timed_out = asyncio.ensure_future(aio.send(connection, b"late", timeout=0.02))
            next_one = asyncio.ensure_future(aio.ask(connection, b"x", timeout=DEADLINE))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert (await error_of(timed_out)).errno == ETIMEDOUT
            server.requests[0].reply(1)
            assert await first == (1, b"")
            assert await next_one == b"<x>"
            assert cancelled.cancelled()

    with server.running():
        run(main)
    assert [request.data for request in server.requests] == [b"later", b"x"]


def test_a_turn_that_is_given_to_a_cancelled_task_goes_to_the_next() -> None:
    """Both happen in one step of the loop."""
    server = Threaded()

    async def main() -> None:
        bound = aio._Bound(lambda: 1)
        await bound.enter(None)
        unlucky, lucky = (asyncio.ensure_future(bound.enter(None)) for _task in range(2))
        await asyncio.sleep(0)
        bound.leave()
        unlucky.cancel()
        await lucky
        assert unlucky.cancelled()

    with server.running():
        run(main)


def test_who_waits_for_a_turn_on_a_connection_that_closes_gets_ebadf() -> None:
    """And so does who comes later."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME, messages=1, recover=None) as connection:
            first = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            second = asyncio.ensure_future(aio.send(connection, b"x"))
            await asyncio.sleep(0)
        assert (await error_of(second)).errno == EBADF
        assert (await error_of(first)).errno in (EBADF, EINTR)

    with server.running():
        run(main)


def test_threads_end_when_nobody_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait some time for more to do."""
    monkeypatch.setattr(aio, "_IDLE", 0.01)
    monkeypatch.setattr(aio, "_crew", aio._Crew())
    server = Threaded()

    def busy() -> int:
        return sum(thread.name == "ha_qnx.aio" for thread in threading.enumerate())

    async def main() -> None:
        before = busy()
        async with aio.connect(NAME) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(5)]
            await until(lambda: len(server.requests) == 5)
            assert busy() >= before + 5
            for request in server.requests:
                request.reply(1)
            await asyncio.gather(*waiting)
            await until(lambda: busy() <= before)
            assert await aio.ask(connection, b"x") == b"<x>"

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
            with pytest.raises(ValueError, match="timeout"):
                await aio.send(connection, b"x", timeout=-1)
            assert await aio.ask(connection, None) == b"<>"

    with Threaded().running():
        run(main)


def test_a_cancelled_task_stops_waiting_at_once() -> None:
    """The server is asked to let it go, and does; the connection goes on."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: server.requests[0].is_unblocking)
            await until(lambda: not aio._asker._jobs)
            assert await aio.ask(connection, b"x") == b"<x>"

    with server.running():
        run(main)
        assert server.requests[0].reply(1) is False


@pytest.mark.skipif(host.PORTABLE, reason="who is woken by the end of a lane cannot read on")
def test_a_server_that_does_not_let_go_keeps_a_thread_and_nothing_else() -> None:
    """What it answers in the end goes nowhere, and then the turn is free."""

    class Stubborn(Threaded):
        def unblock(self, request: service.Request) -> None:
            unblocked.append(request)

    server = Stubborn()
    unblocked: List[service.Request] = []

    async def main() -> None:
        async with aio.connect(NAME, messages=1) as connection:
            waiting = asyncio.ensure_future(aio.send(connection, b"later"))
            await until(lambda: server.requests)
            waiting.cancel()
            await until(lambda: unblocked)
            assert waiting.cancelled()
            with fails_with(ETIMEDOUT):
                await aio.ask(connection, b"x", timeout=0.02)
            assert server.requests[0].reply(1) is True
            assert await aio.ask(connection, b"x", timeout=DEADLINE) == b"<x>"

    with server.running():
        run(main)
    assert unblocked == [server.requests[0]]


def test_a_message_that_is_cancelled_before_its_turn_is_not_sent() -> None:
    """It waited for a thread, and no thread takes it up."""
    server = Threaded()

    async def main() -> None:
        async with aio.connect(NAME) as connection:
            waiting = [asyncio.ensure_future(aio.send(connection, b"later")) for _message in range(aio.MESSAGES)]
            await until(lambda: len(server.requests) == aio.MESSAGES)
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


@pytest.mark.skipif(host.PORTABLE, reason="who is woken by the end of a lane cannot read on")
def test_a_connection_that_nobody_wants_any_more_is_closed() -> None:
    """The task that waited for it was cancelled."""
    opened, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Slow(service.Service):
        def opened(self, request: service.Request) -> None:
            opened.set()
            go_on.wait(DEADLINE)

        def unblock(self, request: service.Request) -> None:
            pass  # The client has to wait until it is open.

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


BACKENDS = ["fallback", "native", "hybrid"]

COUNTING = """
import sys
from ha_qnx.service import LATER, Service
class Server(Service):
    count = 0
    def message(self, request):
        if request.data == b"count":
            return self.count
        self.count += 1
        return LATER if request.data == b"later" else b"<" + request.data + b">"
    def unblock(self, request):
        if len(sys.argv) < 4:
            super().unblock(request)
Server(*sys.argv[1:3]).serve()
"""

CLIENT = """
import asyncio, os, pathlib, signal, sys
import ha_qnx
from ha_qnx import aio
from ha_qnx.conformance.waiting import DEADLINE, eventually
pid = int(sys.argv[1])

def is_stopped():
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return {(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks} == {"T"}

def stop():
    os.kill(pid, signal.SIGSTOP)
    eventually(is_stopped, "the server's standing still")

async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)

async def healthy_answers():
    assert await asyncio.wait_for(aio.ask(healthy, b"x"), DEADLINE) == b"<x>"

async def in_context():
    global healthy
    async with aio.connect("healthy", wait=DEADLINE) as healthy:
        await main()
"""


@pytest.fixture(params=BACKENDS)
def start_client(
    request: pytest.FixtureRequest, start_program: Callable[..., Any], libha: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Starts a client with each backend: ``start_client(source, server)``. A healthy server is there, too."""
    start_program(COUNTING, "healthy", "/dev/healthy")

    def start(source: str, server: Any) -> Any:
        monkeypatch.setenv("HA_QNX_BACKEND", request.param)
        monkeypatch.setenv("HA_QNX_LIBHA", libha)
        return start_program(f"{CLIENT}\n{source}\nasyncio.run(in_context())\n", str(server.pid))

    return start


@pytest.mark.slow
def test_a_stopped_server_harms_its_own_clients_only(
    start_client: Callable[..., Any], start_program: Callable[..., Any]
) -> None:
    """Of 500 messages to it that are cancelled, none holds a thread, and none arrives; others answer throughout."""
    program = start_client(
        """
async def main():
    async with aio.connect("hung", wait=DEADLINE) as hung:
        assert await aio.send(hung, b"count") == (0, b"")
        stop()
        for _round in range(10):
            sends = [asyncio.ensure_future(aio.ask(hung, b"x")) for _send in range(50)]
            await healthy_answers()
            for send in sends:
                send.cancel()
            await healthy_answers()
            assert all(isinstance(each, asyncio.CancelledError)
                       for each in await asyncio.gather(*sends, return_exceptions=True))
        await asyncio.wait_for(until(lambda: not aio._asker._jobs), DEADLINE)
        os.kill(pid, signal.SIGCONT)
        print(await asyncio.wait_for(aio.send(hung, b"count"), DEADLINE), flush=True)
""",
        start_program(COUNTING, "hung", "/dev/hung"),
    )
    assert program.process.wait(DEADLINE) == 0, program.errors
    assert (program.output, program.errors) == ("(0, b'')\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hung", "/dev/hung"])
def test_one_interrupt_ends_a_client_of_a_stopped_server(
    start_client: Callable[..., Any], start_program: Callable[..., Any], target: str
) -> None:
    """It has received some messages, and has others yet to receive; all were cancelled."""
    hung = start_program(COUNTING, "hung", "/dev/hung", "stubborn")
    program = start_client(
        f"""
async def main():
    async with aio.connect({target!r}, wait=DEADLINE) as hung:
        held = [asyncio.ensure_future(aio.ask(hung, b"later")) for _send in range(4)]
        while await aio.send(hung, b"count") != (4, b""):
            pass
        stop()
        sends = held + [asyncio.ensure_future(aio.ask(hung, b"x")) for _send in range(500)]
        for send in sends[:250]:
            await asyncio.sleep(0)
            send.cancel()
        await healthy_answers()
        # By the loop: up to 3.10, a signal in the middle of main would be raised there, and main would close, and fail
        # with it tasks of its own that it does not wait for.
        asyncio.get_running_loop().call_soon(lambda: print("ready", flush=True))
        await asyncio.gather(*sends[250:])
""",
        hung,
    )
    eventually(lambda: program.output == "ready\n" or program.process.poll() is not None, "the client")
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(DEADLINE) in (130, -signal.SIGINT, 1), program.errors
    # What was sent by others may be told of after it.
    assert "\nKeyboardInterrupt\n" in program.errors
    assert "never" not in program.errors
    assert hung.process.poll() is None


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="each Ctrl-C is raised where it comes")
def test_interrupts_one_upon_the_other_end_a_client(
    start_client: Callable[..., Any], start_program: Callable[..., Any]
) -> None:
    """D139: the second one may cost asyncio a task that it waits for; the third ends it, whatever is under way."""
    program = start_client(
        """
async def main():
    async with aio.connect("hung", wait=DEADLINE) as hung:
        sends = [asyncio.ensure_future(aio.ask(hung, b"later")) for _send in range(500)]
        asyncio.get_running_loop().call_soon(lambda: print("ready", flush=True))
        await asyncio.gather(*sends)
""",
        start_program(COUNTING, "hung", "/dev/hung"),
    )
    eventually(lambda: program.output == "ready\n" or program.process.poll() is not None, "the client")
    for _ in range(2):
        program.process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.process.wait(1)
    program.process.send_signal(signal.SIGINT)
    assert program.process.wait(DEADLINE) in (130, -signal.SIGINT, 1), program.errors


def test_a_server_that_is_away_delays_nobody_else(
    start_client: Callable[..., Any], start_program: Callable[..., Any]
) -> None:
    """A hundred requests wait for its successor; others are answered, and leaving the context does not hang."""
    program = start_client(
        """
async def main():
    async with aio.connect("away", wait=DEADLINE, timeout=1000) as away:
        assert await aio.send(away, b"count") == (0, b"")
        os.kill(pid, signal.SIGKILL)
        sends = [asyncio.ensure_future(aio.ask(away, b"x")) for _send in range(100)]
        for _time in range(20):
            await healthy_answers()
        for send in sends[:50]:
            send.cancel()
        await healthy_answers()
    print("left", flush=True)
    await healthy_answers()
""",
        start_program(COUNTING, "away", "/dev/away"),
    )
    assert program.process.wait(DEADLINE) == 0, program.errors
    assert program.output == "left\n"


def test_the_closing_of_a_stopped_server_is_bounded(
    start_client: Callable[..., Any], start_program: Callable[..., Any]
) -> None:
    """The context is left, though nobody takes the _IO_CLOSE; nothing is left behind that anybody complains of."""
    program = start_client(
        """
async def main():
    async with aio.connect("/dev/hung", recover=None, close_timeout=0.01, wait=DEADLINE) as hung:
        assert await aio.send(hung, b"count") == (0, b"")
        stop()
    await healthy_answers()
    assert hung.closed
""",
        start_program(COUNTING, "hung", "/dev/hung"),
    )
    assert program.process.wait(DEADLINE) == 0, program.errors
    assert program.errors == ""


def test_what_fails_as_the_loop_ends_is_not_complained_of(caplog: pytest.LogCaptureFixture) -> None:
    """The closing of a stopped server, for instance, whose time is over when everything else is."""
    loop = asyncio.new_event_loop()

    async def make() -> Any:
        return aio._Job(lambda: None)

    job = loop.run_until_complete(make())
    loop.call_soon(job._settle, None, TimeoutError())
    loop.stop()
    loop.run_forever()
    loop.close()
    del job
    gc.collect()
    assert caplog.messages == []


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
        if request.data.startswith(b"event"):
            assert request.deliver(ha_qnx.SigEvent.from_buffer_copy(request.data, len(b"event")))
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


def test_a_coroutine_delivers_events() -> None:
    """To a channel of the client's own."""
    chid = ha_qnx.ChannelCreate(0)
    event = ha_qnx.SIGEV_PULSE_INIT(ha_qnx.ConnectAttach(0, 0, chid), 10, 5, 6)
    with served(), connect(NAME, recover=None) as connection:
        connection.ask(b"event" + bytes(event))
        pulse = ha_qnx.Pulse()
        ha_qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_RECEIVE, int(DEADLINE * 1e9))
        assert ha_qnx.MsgReceive(chid, pulse) == 0
    assert (pulse.code, pulse.value.sival_int) == (5, 6)
    ha_qnx.ChannelDestroy(chid)


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
        # Long enough for the task to begin, also on a busy machine.
        ha_qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_REPLY, 300_000_000)
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


class Fatal(BaseException):
    """What is no Exception."""


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_what_is_no_exception_is_answered_and_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, is_coroutine: bool
) -> None:
    """The client gets EIO; serve raises it, as that of a Service in threads does."""

    def message(_self: Any, _request: Any) -> Any:
        raise Fatal

    async def message_of_coroutine(_self: Any, _request: Any) -> Any:
        raise Fatal

    monkeypatch.setattr(Served, "message", message_of_coroutine if is_coroutine else message)
    with connect_to_served() as (_server, connection, task):
        assert Task(connection.ask, b"x").errno() == EIO
        with pytest.raises(Fatal):
            task.result()


def test_what_is_no_exception_in_a_pulse_handler_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, nobody waits for an answer."""

    def pulse(_self: Any, _code: int, _value: int) -> Any:
        raise Fatal

    monkeypatch.setattr(Served, "pulse", pulse)
    with connect_to_served() as (_server, connection, task):
        connection.pulse(1)
        with pytest.raises(Fatal):
            task.result()


def test_a_handler_that_exits_leaves_no_client_behind(start_program: Callable[..., Any]) -> None:
    """The program ends with the status that it asked for, and the client has an answer."""
    program = start_program("""
import asyncio, sys
from ha_qnx import aio
class Server(aio.Service):
    async def message(self, request):
        sys.exit(3)
asyncio.run(Server("aio").serve())
""")
    with connect(NAME, recover=None, wait=DEADLINE) as connection:
        assert Task(connection.ask, b"x").errno() == EIO
        assert program.process.wait(DEADLINE) == 3


def test_a_task_that_is_cancelled_before_it_begins_answers() -> None:
    """The request and the wish to be freed come in one step of the loop."""
    with served() as server, connect(NAME, recover=None) as connection:
        begin_work = server._begin_work

        def begin_and_unblock(request: service.Request) -> None:
            begin_work(request)
            server._unblock_in_loop(request)

        server._begin_work = begin_and_unblock
        assert Task(connection.ask, b"x").errno() == EINTR
        assert server.seen == []


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
