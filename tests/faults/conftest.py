"""A server of either twin, in a process of its own, that tells when something of it breaks."""

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Callable, Iterator, List, Optional

import pytest
from ha_qnx.conformance import waiting
from ha_qnx.conformance.waiting import is_asleep

from ha_qnx import NTO_COF_NOSHARE, NTO_TIMEOUT_REPLY, NTO_TIMEOUT_SEND, backends

from .attacker import DEADLINE, Attacker

#: Answers every message with its own bytes, "long" with many, and "info" after a look at it. "free N" has it take
#: descriptors until N are left, until it gets SIGUSR1.
SERVER = """
import os, resource, signal, sys, threading
import ha_qnx
from ha_qnx import MessageInfo

twin, flags, threads, table = sys.argv[1], *map(int, sys.argv[2:])
if table:
    resource.setrlimit(resource.RLIMIT_NOFILE, (table, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
qnx = ha_qnx.backend(twin)
chid = qnx.ChannelCreate(flags)

def serve():
    buffer, info = bytearray(100_000), MessageInfo()
    while True:
        try:
            rcvid = qnx.MsgReceive(chid, buffer, info)
            if buffer.startswith(b"free "):
                try:
                    while True:
                        own.append(os.dup(0))
                except OSError:
                    for _ in range(int(bytes(buffer[5 : info.msglen]))):
                        os.close(own.pop())
            if buffer.startswith(b"info"):
                qnx.MsgInfo(rcvid)
            if rcvid:
                answer = bytes(30_000) if buffer.startswith(b"long") else bytes(buffer[: info.msglen])
                qnx.MsgReply(rcvid, 0, answer)
        except OSError as error:
            if error.errno not in (3, 4):
                print("MsgReceive:", error, file=sys.stderr, flush=True)

def release(*_signal):
    for fd in own:
        os.close(fd)
    own.clear()

own = []
signal.signal(signal.SIGUSR1, release)
print(chid, flush=True)
for _ in range(threads - 1):
    threading.Thread(target=serve, daemon=True).start()
serve()
"""


eventually = functools.partial(waiting.eventually, deadline=DEADLINE)


class Victim:
    """A server process."""

    def __init__(self, directory: pathlib.Path, twin: str, flags: int, threads: int, table: int) -> None:
        self.twin = twin
        self._errors = directory / f"errors-{time.monotonic_ns()}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(  # noqa: S603  # our own source, in our own interpreter
                [sys.executable, "-X", "dev", "-c", SERVER, twin, str(flags), str(threads), str(table)],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self.process.stdout is not None
        self.chid = int(self.process.stdout.readline())
        room = pathlib.Path(os.environ["HA_QNX_RUNTIME"]) / "wire-3" / "channels"
        (self.path,) = room.glob(f"{self.process.pid}.{self.chid}.*")
        self._honest: Optional[int] = None
        self._qnx = backends.backend("fallback")

    @property
    def pid(self) -> int:
        return self.process.pid

    def attack(self) -> Attacker:
        """A hostile connection to it."""
        return Attacker(self.path)

    def serves(self, text: bytes = b"honest") -> bool:
        """Whether an honest client, the same one each time, is answered in time."""
        if self._honest is None:
            self._honest = self._qnx.ConnectAttach(0, self.pid, self.chid)
        return self._ask(self._honest, text)

    def release(self) -> None:
        """Have it give back the descriptors that it has taken."""
        before = self.descriptors

        def has_room() -> bool:
            # Again and again: on native, what comes just before the server's next call is not heard of before its end.
            os.kill(self.pid, signal.SIGUSR1)
            return self.descriptors < before - 10

        eventually(has_room, "the server to close what it has opened")

    def serves_a_new_client(self, text: bytes = b"honest") -> bool:
        """Whether an honest client that comes now is answered in time."""
        coid = self._qnx.ConnectAttach(0, self.pid, self.chid, 0, NTO_COF_NOSHARE)
        try:
            return self._ask(coid, text)
        finally:
            self._qnx.ConnectDetach(coid)

    def _ask(self, coid: int, text: bytes) -> bool:
        reply = bytearray(len(text))
        self._qnx.TimerTimeout(NTO_TIMEOUT_SEND | NTO_TIMEOUT_REPLY, int(DEADLINE * 1e9))
        assert self._qnx.MsgSend(coid, text, reply) == 0
        return bytes(reply) == text

    @property
    def descriptors(self) -> int:
        """How many descriptors it has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def is_asleep(self) -> bool:
        """Whether each of its threads sleeps in a call that blocks, and stays asleep."""
        threads = os.listdir(f"/proc/{self.pid}/task")
        return all(is_asleep(int(thread), str(self.pid)) for thread in threads)

    @property
    def memory(self) -> int:
        """The most bytes of memory that it has had."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(file.read().partition("VmHWM:")[2].split()[0]) * 1024

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still meanwhile."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    @property
    def errors(self) -> str:
        """What it has printed to stderr."""
        return self._errors.read_text()

    def end(self) -> None:
        """Kill it."""
        if self._honest is not None:
            with contextlib.suppress(OSError):
                self._qnx.ConnectDetach(self._honest)
        self.process.kill()
        self.process.wait(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()


StartVictim = Callable[..., Victim]


@pytest.fixture(scope="session", autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process and those that it starts meet in a directory of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HA_QNX_RUNTIME", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(params=["fallback", "native"])
def start_victim(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[StartVictim]:
    """Starts a server: ``start_victim(flags=0, threads=1, table=0)``, ``table`` descriptors if that is not 0."""
    started: List[Victim] = []

    def start(flags: int = 0, threads: int = 1, table: int = 0) -> Victim:
        started.append(Victim(tmp_path, request.param, flags, threads, table))
        return started[-1]

    yield start
    for victim in started:
        victim.end()


@pytest.fixture
def victim(start_victim: StartVictim) -> Victim:
    """A server of one thread."""
    return start_victim()
