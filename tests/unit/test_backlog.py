"""Clients of a server that takes none in, and of which the host holds as many as it can."""

import contextlib
import pathlib
import platform
import signal
import socket
import sys
from errno import ETIMEDOUT
from typing import Any, Callable, Iterator

import pytest
from ha_qnx.conformance import waiting
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually
from ha_qnx.fallback.runtime import wire_directory

import ha_qnx

SERVER = """
import os
from ha_qnx.service import Service
class Server(Service):
    def message(self, request):
        return b"%d" % os.getpid()
    def ready(self):
        print("ready", flush=True)
Server("busy", "/dev/busy").serve()
"""
# Linux holds net.core.somaxconn of them.
MOST = 1 << 17


# In which system calls a thread takes a pause; the first is ppoll, by which the library in C does.
PAUSES = {"x86_64": ("271", *waiting._PAUSES), "aarch64": ("73", *waiting._PAUSES)}.get(platform.machine(), ())


def takes_a_pause(thread: int) -> bool:
    """Whether a thread, of whichever process, is between two looks for room."""
    return pathlib.Path(f"/proc/{thread}/syscall").read_text().partition(" ")[0] in PAUSES


pytestmark = pytest.mark.skipif(
    not (sys.platform.startswith("linux") and PAUSES), reason="it is not known how a thread looks that takes a pause"
)


@pytest.fixture
def busy(start_program: Callable[..., Any]) -> Iterator[Any]:
    """A server that is stopped, and has more clients waiting than fit."""
    program = start_program(SERVER)
    eventually(lambda: "ready" in program.output, "the server")
    program.process.send_signal(signal.SIGSTOP)
    stat = pathlib.Path(f"/proc/{program.pid}/stat")
    eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "its standing still")
    (listening,) = (pathlib.Path(wire_directory()) / "channels").iterdir()
    for _client in range(MOST):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
            client.setblocking(False)
            try:
                client.connect(str(listening))
            except BlockingIOError:
                break
    else:
        pytest.skip("the host holds more clients than this test makes")
    yield program
    program.process.send_signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["busy", "/dev/busy"])
def test_who_connects_waits_until_the_server_takes_it_in(qnx: ha_qnx.Backend, busy: Any, target: str) -> None:
    """A timeout that is armed, or the time that connect was given, limits that."""
    if target == "busy":
        qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_SEND, 10_000_000)
        with fails_with(ETIMEDOUT):
            qnx.name_open(target)
    with fails_with(ETIMEDOUT):
        ha_qnx.connect(target, recover=None, backend=qnx, wait=0.01)
    connecting = Task(lambda: ha_qnx.connect(target, recover=None, backend=qnx, wait=DEADLINE))
    eventually(lambda: takes_a_pause(connecting.native_id), "the waiting")
    busy.process.send_signal(signal.SIGCONT)
    with connecting.result() as connection:
        assert connection.ask(b"x") == b"%d" % busy.pid


def test_a_server_that_dies_is_waited_for_no_longer(qnx: ha_qnx.Backend, busy: Any) -> None:
    """Then it is as if it had not been there."""
    connecting = Task(qnx.name_open, "busy")
    eventually(lambda: takes_a_pause(connecting.native_id), "the waiting")
    busy.kill()
    assert isinstance(connecting.error(), FileNotFoundError)


@pytest.mark.parametrize("backend", ["fallback", "native", "hybrid"])
def test_ctrl_c_ends_the_wait(
    libha: str, monkeypatch: pytest.MonkeyPatch, start_program: Callable[..., Any], busy: Any, backend: str
) -> None:
    """And a signal whose handler does nothing does not."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    client = start_program(
        """
import signal, sys
import ha_qnx
qnx = ha_qnx.backend(sys.argv[1])
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("ready", flush=True)
    qnx.name_open("busy")
except KeyboardInterrupt:
    print("interrupted")
""",
        backend,
    )
    eventually(lambda: "ready" in client.output and takes_a_pause(client.pid), "the client")
    client.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "handled" in client.output and takes_a_pause(client.pid), "the handler, and the wait after it")
    client.process.send_signal(signal.SIGINT)
    assert client.process.wait(DEADLINE) == 0, client.errors
    assert client.output == "ready\nhandled\ninterrupted\n"
