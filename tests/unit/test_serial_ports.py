"""pyserial on a served path."""

import errno
import pathlib
from typing import Any, Callable

import pytest
import serial  # type: ignore[import-untyped]  # pyserial has no types
from ha_qnx.conformance.waiting import DEADLINE, eventually

PATH = "/dev/serial"
SERVER = """
from ha_qnx import NOTIFY_COND_INPUT, NOTIFY_COND_OUTPUT
from ha_qnx.service import LATER, Service
class Echo(Service):
    taken = b""
    def write(self, request, data):
        self.taken += data
    def read(self, request, nbytes):
        if not self.taken:
            return LATER  # The client gives up.
        count = min(nbytes, 3)
        head, self.taken = self.taken[:count], self.taken[count:]
        return head
    def notify(self, request, conditions):
        return NOTIFY_COND_OUTPUT | (NOTIFY_COND_INPUT if self.taken else 0)
    def ready(self):
        print("ready", flush=True)
Echo("/dev/serial").serve()
"""

CLIENT = """
import os, sys
import ha_qnx.serial_ports
import serial
from ha_qnx.conformance.waiting import eventually
with serial.serial_for_url("qnx:///dev/serial", baudrate=115200, timeout=5) as port:
    print(port.write(b"0123456789"), port.read(10))
    port.timeout = 0.1
    print(port.in_waiting, port.read(1))
    port.timeout = 0
    print(port.read(1), port.write(b"x"), port.in_waiting, port.read(5))
    print("again", flush=True)
    eventually(lambda: os.path.exists(sys.argv[1]), "the next server")
    port.timeout = 0.5
    port.reset_input_buffer()
    print(port.write(b"after"), port.read(9))
try:
    port.read()
except serial.PortNotOpenError as error:
    print(error)
"""


@pytest.fixture(params=["fallback", "native", "hybrid"])
def backend(request: pytest.FixtureRequest, libha: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each backend, in programs."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    monkeypatch.setenv("HA_QNX_BACKEND", request.param)
    return str(request.param)


@pytest.mark.slow
def test_a_port_is_opened_read_and_written(
    backend: str, start_program: Callable[..., Any], tmp_path: pathlib.Path
) -> None:
    """Under ``ha-qnx run``, with timeouts and without, and through the death of the server."""
    server = start_program(SERVER)
    eventually(lambda: "ready" in server.output, "the server")
    script, flag = tmp_path / "client.py", tmp_path / "flag"
    script.write_text(CLIENT)
    run = f"import ha_qnx.__main__; sys.exit(ha_qnx.__main__.main(['run', {str(script)!r}, {str(flag)!r}]))"
    client = start_program(f"import sys; {run}")
    eventually(lambda: "again" in client.output or client.process.poll() is not None, "the client")
    server.kill()
    successor = start_program(SERVER)
    eventually(lambda: "ready" in successor.output, "the next server")
    flag.touch()
    assert client.process.wait(DEADLINE) == 0, client.errors
    assert client.output.splitlines() == [
        "10 b'0123456789'",
        "0 b''",
        "b'' 1 1 b'x'",
        "again",
        "5 b'after'",
        str(serial.PortNotOpenError()),
    ]


def test_what_is_no_port_is_refused(backend: str, start_program: Callable[..., Any]) -> None:
    """By pyserial's exception, with the errno."""
    client = start_program(
        """
import ha_qnx.serial_ports
import serial
try:
    serial.serial_for_url("qnx:///dev/nobody")
except serial.SerialException as error:
    print(error.errno)
"""
    )
    assert client.process.wait(DEADLINE) == 0, client.errors
    assert client.output == f"{errno.ENOENT}\n"
