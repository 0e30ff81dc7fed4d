"""Signals that end a service, whatever its main thread is doing when they come."""

import os
import random
import select
import signal
import threading
import time
from functools import partial
from typing import Any, Callable, Iterator, Tuple

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually, is_asleep

import ha_qnx
from ha_qnx.stopping import stopped_by

NAME = "busy"

SERVER = """
import sys

import ha_qnx


class Busy(ha_qnx.Service):
    def message(self, request):
        return b"done"

    def ready(self):
        print("ready", flush=True)


busy = Busy("busy", backend=ha_qnx.backend(sys.argv[1]))
for _time in range(int(sys.argv[2])):
    busy.serve(threads=2)
"""


def has_served(server: Any, times: int) -> bool:
    return bool(server.output.count("ready") > times)


@pytest.mark.slow
def test_a_signal_ends_a_service_that_was_just_busy(qnx: ha_qnx.Backend, start_program: Callable[..., Any]) -> None:
    """Also if it comes between two receives, and nobody sends anything afterwards."""
    times, seed = 40, random.randrange(1 << 30)  # noqa: S311  # no secret depends on it
    rng = random.Random(seed)  # noqa: S311
    server = start_program(SERVER, qnx.name, str(times))
    for count in range(times):
        eventually(partial(has_served, server, count), f"serving, seed {seed}")
        coid = qnx.name_open(NAME)
        end = time.monotonic() + rng.random() * 0.004
        while time.monotonic() < end:
            qnx.MsgSend(coid, b"message", bytearray(8))
        os.kill(server.pid, signal.SIGTERM)
        qnx.name_close(coid)
    assert server.process.wait(DEADLINE) == 0, server.errors


@pytest.fixture
def read_end() -> Iterator[int]:
    """The end of a pipe into which SIGUSR1 has a byte put."""
    read_end, write_end = os.pipe()
    with stopped_by([signal.SIGUSR1], lambda: put(write_end)):
        yield read_end
    os.close(read_end)
    os.close(write_end)


def put(write_end: int) -> None:
    os.write(write_end, b"s")


def test_a_signal_is_heard_though_the_main_thread_does_not_notice(read_end: int) -> None:
    """As if it had come just before the call: here, it comes to another thread, and no handler runs."""
    main = threading.get_native_id()

    def send() -> None:
        eventually(lambda: is_asleep(main), "the main thread to read")
        os.kill(os.getpid(), signal.SIGUSR1)

    guard = threading.Timer(DEADLINE, os.kill, (os.getpid(), signal.SIGINT))
    guard.start()
    sending = Task(send)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        assert os.read(read_end, 1) == b"s"
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        guard.cancel()
    sending.result()


def test_a_forked_child_does_not_stop_its_parent(read_end: int) -> None:
    """It has the handler, but what it hears is its own."""
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(len(os.read(read_end, 2)))  # One byte: its own handler's.
    _pid, status = os.waitpid(child, 0)
    assert os.WEXITSTATUS(status) == 1
    assert not select.select([read_end], [], [], 0)[0]


def test_a_program_that_hears_of_its_signals_itself_goes_on_doing_so() -> None:
    """There is one descriptor for that in a process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    try:
        with stopped_by([signal.SIGUSR1], bool):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert os.read(reader, 8) == bytes([signal.SIGUSR1])
    finally:
        assert signal.set_wakeup_fd(-1) == writer
        os.close(reader)
        os.close(writer)


def test_nothing_is_left_of_it(no_collection: None) -> None:
    """Neither descriptors nor threads, and the next time it is the same."""

    def held() -> Tuple[int, int]:
        return len(os.listdir("/dev/fd")), threading.active_count()

    before = held()
    for _time in range(3):
        with stopped_by([signal.SIGUSR1], bool):
            assert held() == (before[0] + 2, before[1] + 1)
        assert held() == before
