"""The two sides of what ``run`` measures: servers and clients of every shape, each in a process of its own.

A server or a client is described by a tuple. Its process is forked from one that has imported ha_qnx and has used
nothing of it. A client's process then does what it is told through a pipe: so many seconds of messages at a time, so
that everything that is compared can be measured in turn.
"""

import asyncio
import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import statistics
import threading
import time
from multiprocessing.connection import Connection as Pipe
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import peers
from message import in_thread

SIZE = 64
LARGEST = 16 << 20
BUFFERS = ("bytearray", "memoryview slice", "ctypes array")
MESSAGES = ("bytes", *BUFFERS)
# At least so many messages, however few seconds there are.
_AT_LEAST = 3
_CONTEXT = multiprocessing.get_context("fork")


class Server(NamedTuple):
    """What serves, and in which shape."""

    kind: str = "raw"  # raw, Service, aio; or one of peers.NAMES
    backend: str = "fallback"
    room: str = "bytearray"  # what it receives into
    room_size: int = 4096
    reply: str = "bytes"
    with_info: bool = False
    main_thread: bool = False
    threads: int = 1
    spin_us: int = 0
    takes_pages: bool = False  # where it looks before it sleeps


class Client(NamedTuple):
    """What sends, and in which shape."""

    call: str = "MsgSend"  # MsgSend, ask, aio; or one of peers.NAMES
    backend: str = "fallback"
    number: str = "int"  # what the connection is passed as: int, Connection
    message: str = "bytes"
    room: str = "bytearray"
    room_size: int = SIZE
    is_aware: bool = False
    main_thread: bool = False
    spin_us: int = 0


def buffer(kind: str, size: int) -> Any:
    """A message or a buffer: so many bytes, the first four of which tell how many there are."""
    content = size.to_bytes(4, "little") + b"x" * (size - 4)
    if kind == "bytes":
        return content
    if kind == "bytearray":
        return bytearray(content)
    if kind == "memoryview slice":
        return memoryview(bytearray(b"head" + content + b"tail"))[4 : 4 + size]
    return (ctypes.c_char * size).from_buffer_copy(content)


# Servers.


def serve(server: Server, name: str) -> None:
    """In the server's process: answer until it is killed."""
    os.environ["HA_QNX_SPIN_US"] = str(server.spin_us)
    if server.spin_us and server.backend == "fallback" and not server.takes_pages:
        from ha_qnx.fallback import pages

        pages.ARE_USED = False
    if server.kind in peers.NAMES:
        peers.serve(server.kind, name)
    elif server.kind == "raw":
        _serve_raw(server, name)
    else:
        _serve_by_class(server, name)


def _serve_raw(server: Server, name: str) -> None:
    import ha_qnx

    qnx = ha_qnx.backend(server.backend)
    chid = qnx.name_attach(name).chid
    by_size = {size: buffer(server.reply, size) for size in (SIZE, server.room_size)}
    if server.room_size > 4096:
        by_size.update((1 << bits, buffer(server.reply, 1 << bits)) for bits in range(6, 25))

    def loop() -> None:
        received = buffer(server.room, server.room_size)
        head = memoryview(received).cast("B")[:4]
        receive, reply, answer = qnx.MsgReceive, qnx.MsgReply, by_size[SIZE]
        while True:
            rcvid = receive(chid, received, ha_qnx.MessageInfo()) if server.with_info else receive(chid, received)
            if not rcvid:
                continue
            if server.room_size > 4096:
                answer = by_size[int.from_bytes(head, "little")]
            reply(rcvid, 0, answer)

    for _other in range(1, server.threads):
        threading.Thread(target=loop, daemon=True).start()
    in_thread(loop, server.main_thread)


def _serve_by_class(server: Server, name: str) -> None:
    import ha_qnx

    qnx = ha_qnx.backend(server.backend)
    answer = buffer(server.reply, SIZE)
    if server.kind == "aio":
        from ha_qnx import aio

        class Slow(aio.Service):
            async def message(self, request: ha_qnx.service.Request) -> Any:
                return answer

        asyncio.run(Slow(name, backend=qnx).serve())
        return

    class Plain(ha_qnx.Service):
        def message(self, request: Any) -> Any:
            return answer

    in_thread(functools.partial(Plain(name, backend=qnx).serve, server.threads), server.main_thread)


# Clients.


def be_client(client: Client, name: str, pipe: Pipe) -> None:
    """In the client's process: do what comes through the pipe, and tell what came of it."""
    os.environ["HA_QNX_SPIN_US"] = str(client.spin_us)
    in_thread(functools.partial(_obey, client, name, pipe), client.main_thread)


def _obey(client: Client, name: str, pipe: Pipe) -> None:
    with contextlib.closing(_Sender(client, name)) as sender:
        pipe.send("ready")
        while True:
            method, arguments = pipe.recv()
            pipe.send(getattr(sender, method)(*arguments))


class _Sender:
    """A client's connection, and what can be asked of it."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._held: List[int] = []
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        if client.call in peers.NAMES:
            self._call = peers.caller(client.call, name)
            return
        import ha_qnx

        self._qnx = ha_qnx.backend(client.backend)
        self._connection = ha_qnx.connect(name, wait=10, recover=client.is_aware or None, backend=self._qnx)
        if client.call == "aio":
            self._loop = asyncio.new_event_loop()

    def _caller(self, size: int) -> Callable[[], object]:
        """A function that sends one message of this size, with room for as large a reply, and waits for that."""
        client = self._client
        if client.call in peers.NAMES:
            return self._call(size)
        message = buffer(client.message, size)
        if client.call == "ask":
            return functools.partial(self._connection.ask, message)
        room = buffer(client.room, max(size, client.room_size))
        number = self._connection if client.number == "Connection" else int(self._connection)
        return functools.partial(self._qnx.MsgSend, number, message, room)

    def measure(self, seconds: float, size: int) -> Dict[str, float]:
        """Send for so long; medians and the like in microseconds."""
        if self._loop is not None:
            taken, cpu = self._loop.run_until_complete(self._measure_in_loop(seconds, size))
        else:
            call = self._caller(size)
            call()
            taken, cpu = _timed(call, seconds)
        taken.sort()
        return {
            "median": statistics.median(taken) / 1e3,
            "p99": taken[len(taken) * 99 // 100] / 1e3,
            "client_cpu": cpu / len(taken) / 1e3,
            "messages": len(taken),
        }

    async def _measure_in_loop(self, seconds: float, size: int) -> Tuple[List[int], int]:
        from ha_qnx import aio

        message, ask, connection = buffer(self._client.message, size), aio.ask, self._connection
        await ask(connection, message)
        taken: List[int] = []
        now, before = time.perf_counter_ns, time.process_time_ns()
        end = now() + int(seconds * 1e9)
        while True:
            start = now()
            await ask(connection, message)
            stop = now()
            taken.append(stop - start)
            if stop > end and len(taken) >= _AT_LEAST:
                return taken, time.process_time_ns() - before

    def count(self, seconds: float, threads: int) -> float:
        """How many messages a second so many threads send together."""
        counts = [0] * threads
        begin = threading.Barrier(threads)
        took = [0.0] * threads

        def send(number: int) -> None:
            call = self._caller(SIZE)
            call()
            sent, now = 0, time.perf_counter
            begin.wait()
            start = now()
            end = start + seconds
            while now() < end:
                call()
                sent += 1
            counts[number], took[number] = sent, now() - start

        others = [threading.Thread(target=send, args=(number,)) for number in range(1, threads)]
        for thread in others:
            thread.start()
        send(0)
        for thread in others:
            thread.join()
        return sum(map(lambda sent, seconds: sent / seconds, counts, took))

    def hold(self, number: int) -> int:
        """Have so many connections more, each of which has sent a message and does nothing now."""
        import ha_qnx

        info = ha_qnx.MessageInfo()
        self._qnx.ConnectServerInfo(0, self._connection, info)
        message, room = buffer("bytes", SIZE), bytearray(SIZE)
        for _connection in range(number):
            coid = self._qnx.ConnectAttach(0, info.pid, info.chid)
            self._qnx.MsgSend(coid, message, room)
            self._held.append(coid)
        return len(self._held)

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()


def _timed(call: Callable[[], object], seconds: float) -> Tuple[List[int], int]:
    """What each call took, and the processor's time of all of them, in nanoseconds."""
    taken: List[int] = []
    now, before = time.perf_counter_ns, time.process_time_ns()
    note = taken.append
    end = now() + int(seconds * 1e9)
    while True:
        start = now()
        call()
        stop = now()
        note(stop - start)
        if stop > end and len(taken) >= _AT_LEAST:
            return taken, time.process_time_ns() - before


# Their processes.


class Process:
    """A process that this one has started, and ends."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._process = _CONTEXT.Process(target=_begin, args=(target, arguments), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def place(self, cpus: Tuple[int, ...]) -> None:
        """Have all its threads run on these CPUs."""
        for thread in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cpus)

    def cpu_time(self) -> int:
        """The processor's time that it has taken, in nanoseconds."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)  # The clock of another process, as Linux numbers it.

    def resident(self) -> int:
        """How much memory it has, in bytes."""
        with open(f"/proc/{self.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _begin(target: Callable[..., None], arguments: Tuple[object, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The first process ends this one.
    target(*arguments)


class Pair:
    """A server and its clients."""

    _names: Iterator[int] = iter(range(1 << 30))

    def __init__(self, server: Server, client: Client) -> None:
        self.name = f"bench-{os.getpid()}-{next(self._names)}"
        self._client = client
        self._place: Tuple[int, ...] = ()
        self.server = Process(serve, server, self.name)
        self._processes: List[Process] = []
        self._pipes: List[Pipe] = []

    def clients(self, number: int) -> None:
        """See to it that there are so many clients."""
        while len(self._pipes) < number:
            near, far = _CONTEXT.Pipe()
            self._processes.append(Process(be_client, self._client, self.name, far))
            far.close()
            self._pipes.append(near)
            self.answer(len(self._pipes) - 1)
            self._place = ()

    def place(self, cpus: Tuple[int, ...]) -> None:
        if self._place != cpus:
            for process in (self.server, *self._processes):
                process.place(cpus)
            self._place = cpus

    def ask(self, client: int, method: str, *arguments: object) -> None:
        self._pipes[client].send((method, arguments))

    def answer(self, client: int, patience: float = 120.0) -> Any:
        """What a client has to say.

        Raises:
            RuntimeError: nothing, for so many seconds, or it has died.
        """
        try:
            if self._pipes[client].poll(patience):
                return self._pipes[client].recv()
        except EOFError:
            pass
        raise RuntimeError(f"{self._client} has failed")

    def measure(self, cpus: Tuple[int, ...], seconds: float, size: int) -> Dict[str, float]:
        """What messages of one client take on these CPUs."""
        self.clients(1)
        self.place(cpus)
        before = self.server.cpu_time()
        self.ask(0, "measure", seconds, size)
        found: Dict[str, float] = self.answer(0)
        found["server_cpu"] = (self.server.cpu_time() - before) / found["messages"] / 1e3
        return found

    def count(self, cpus: Tuple[int, ...], seconds: float, processes: int, threads: int = 1) -> float:
        """How many messages a second so many clients, each with so many threads, send together."""
        self.clients(processes)
        self.place(cpus)
        for client in range(processes):
            self.ask(client, "count", seconds, threads)
        return float(sum(self.answer(client) for client in range(processes)))

    def end(self) -> None:
        for process in (*self._processes, self.server):
            process.end()
