"""Waiting awake, with HA_QNX_SPIN_US: when a thread looks before it sleeps, and what still ends its wait."""

import signal
import subprocess
import sys
from typing import Any, Callable

import pytest
from ha_qnx.conformance.waiting import eventually
from ha_qnx.fallback import host, limits, spinning

from ha_qnx import backends


class Looks:
    """Finds something at one of its looks, and counts them."""

    def __init__(self, found_at: int = 0) -> None:
        self.count = 0
        self.found_at = found_at

    def __call__(self) -> bool:
        self.count += 1
        return self.count == self.found_at


@pytest.fixture
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread may look for a millisecond, and those for which it waits can run meanwhile."""
    monkeypatch.setattr(spinning, "NANOSECONDS", 1_000_000)
    monkeypatch.setattr(host, "processors", lambda: 2)


def waits_until_it_looks(spinner: spinning.Spinner) -> int:
    """How many waits sleep at once before the next one that looks, in vain."""
    looks, waits = Looks(), 0
    while not looks.count:
        assert spinner.spin(looks, False) is None
        waits += 1
    return waits - 1


def test_what_is_found_is_returned_at_once(two_processors: None) -> None:
    """D110."""
    looks = Looks(found_at=2)
    assert spinning.Spinner().spin(looks, False) is True
    assert looks.count == 2


def test_who_looks_in_vain_sleeps_at_once_for_a_while(two_processors: None) -> None:
    """D110: twice as many times each time, up to a limit."""
    spinner = spinning.Spinner()
    assert [waits_until_it_looks(spinner) for _look in range(9)] == [0, 2, 4, 8, 16, 32, 64, 64, 64]


def test_what_is_found_makes_up_for_what_was_not(two_processors: None) -> None:
    """D110."""
    spinner = spinning.Spinner()
    for _look in range(4):
        waits_until_it_looks(spinner)
    for _skipped in range(16):
        spinner.spin(Looks(), False)
    assert spinner.spin(Looks(found_at=1), False) is True
    assert [waits_until_it_looks(spinner) for _look in range(2)] == [0, 2]


def test_a_process_with_one_processor_does_not_look(two_processors: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """D110."""
    monkeypatch.setattr(host, "processors", lambda: 1)
    spinner, looks = spinning.Spinner(), Looks()
    for _wait in range(10 * limits.SPIN_SKIPPED):
        spinner.spin(looks, False)
    assert looks.count == 0


def test_a_look_ends_at_the_deadline(two_processors: None) -> None:
    """D110."""
    looks = Looks()
    assert spinning.Spinner().spin(looks, False, 0.0) is None
    assert looks.count == 0


def test_the_main_thread_does_not_look_while_there_are_handlers(two_processors: None) -> None:
    """D110, D19: it would not notice that one has run."""
    looks = Looks()
    before = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)
    try:
        spinning._handlers._looked_at = 0.0
        spinning.Spinner().spin(looks, True)
        assert looks.count == 0
    finally:
        signal.signal(signal.SIGUSR1, before)
    spinning._handlers._looked_at = 0.0
    spinning.Spinner().spin(looks, True)
    assert looks.count


@pytest.mark.parametrize("text", ["yes", "-1", "1.5", "10001", "1e3", "²"])
def test_what_is_no_time_is_an_error_that_says_what_is(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that cannot be had, in one sentence."""
    monkeypatch.setenv("HA_QNX_SPIN_US", text)
    command = [sys.executable, "-c", "import ha_qnx; ha_qnx.backend('fallback')"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours
    assert ended.stderr.splitlines()[-1].endswith(
        f"HA_QNX_SPIN_US is for how many microseconds a thread looks before it sleeps, 0 to 10000, not {text!r}"
    )


# A server that answers until it shall not; from then on it signals its client, again and again, and says nothing.
_SERVER = """
import os, sys, time, ha_qnx
qnx, client, number = ha_qnx.backend(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chid = qnx.ChannelCreate()
print(chid, flush=True)
buffer = bytearray(16)
while buffer[:4] != b"stop":
    rcvid = qnx.MsgReceive(chid, buffer)
    if buffer[:4] != b"stop":
        qnx.MsgReply(rcvid, 0)
while os.getppid() == client:
    os.kill(client, number)
    time.sleep(0.02)
"""

# One signal may come where it is heard too late (README's known limits), or between two messages.
_CLIENT = """
import os, signal, subprocess, sys, ha_qnx
backend, number, with_handler = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "handler"
if with_handler:
    signal.signal(number, lambda _number, _frame: None)
qnx = ha_qnx.backend(backend)
server = subprocess.Popen([sys.executable, "-c", os.environ["SERVER"], backend, str(os.getpid()), str(number)],
                          stdout=subprocess.PIPE)
coid = qnx.ConnectAttach(0, server.pid, int(server.stdout.readline()))
for _answered in range(20):
    qnx.MsgSend(coid, b"go", bytearray(8))
ended = 0

def count_what_ends():
    global ended
    while ended < 20:
        try:
            qnx.MsgSend(coid, b"stop", bytearray(8))
        except (InterruptedError, KeyboardInterrupt):
            ended += 1
    signal.signal(number, signal.SIG_IGN)

is_over = False
while not is_over:
    try:
        count_what_ends()
        is_over = True
    except KeyboardInterrupt:
        pass
server.kill()
server.communicate()
qnx.ConnectDetach(coid)
print("ended", ended)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ends_by", ["handler", "exception"])
@pytest.mark.parametrize("backend", backends.NAMES)
def test_signals_end_the_call_of_a_thread_that_looks(
    backend: str,
    ends_by: str,
    start_program: Callable[..., Any],
    libha: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D110, D19: a handler by EINTR, and Ctrl-C by its exception."""
    number = signal.SIGUSR1 if ends_by == "handler" else signal.SIGINT
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    monkeypatch.setenv("HA_QNX_SPIN_US", "10000")
    monkeypatch.setenv("SERVER", _SERVER)
    client = start_program(_CLIENT, backend, str(int(number)), ends_by)
    eventually(lambda: client.process.poll() is not None, "the client to end")
    assert client.errors == ""
    assert client.output == "ended 20\n"
