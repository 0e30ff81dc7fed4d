"""Other processes: each runs functions of the test modules with a backend of its own.

``peer.run(function, *args)`` calls ``function(backend, *args)`` in the other process and returns its result or raises
what it raised. ``peer.start(...)`` does it in a thread there and returns at once. A peer is a real process: it can be
killed, stopped and signalled.
"""

import contextlib
import fcntl
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import types
from multiprocessing.connection import Connection
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from .waiting import DEADLINE, eventually, is_asleep


class PeerError(AssertionError):
    """Something in another process went wrong that was not an OSError."""


class Remote:
    """A call under way in another process."""

    def __init__(self, peer: "Peer", number: int) -> None:
        self._peer = peer
        self._number = number

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._peer.has_outcome(self._number)

    def result(self, deadline: float = DEADLINE) -> Any:
        """What it returned, or raise what it raised."""
        return self._peer.outcome(self._number, deadline)

    def errno(self, deadline: float = DEADLINE) -> Optional[int]:
        """The errno of the OSError that it raised."""
        try:
            result = self._peer.outcome(self._number, deadline)
        except OSError as error:
            return error.errno
        raise AssertionError(f"the call returned {result!r} and raised nothing")

    def is_blocked(self) -> bool:
        """Whether its thread sleeps in a call that blocks, once it does or the call has ended."""
        native_id = self._peer.native_id(self._number)
        process = str(self._peer.pid)
        eventually(lambda: self.done or is_asleep(native_id, process), "the thread of the other process to block")
        return not self.done

    def wait_until_blocked(self) -> "Remote":
        """Wait until its thread sleeps in a call that blocks."""
        assert self.is_blocked(), f"the call has ended: {self.result()!r}"
        return self


class Peer:
    """Another process."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        ours, theirs = os.pipe(), os.pipe()
        command = [sys.executable, "-m", "ha_qnx.conformance.peers", backend, str(theirs[0]), str(ours[1])]
        self.process: Any = subprocess.Popen(  # noqa: S603  # our own module, in our own interpreter
            command, pass_fds=(theirs[0], ours[1]), stdin=subprocess.DEVNULL
        )
        os.close(theirs[0])
        os.close(ours[1])
        self._talk(Connection(theirs[1], readable=False), Connection(ours[0], writable=False))

    def _talk(self, requests: Connection, answers: Connection) -> None:
        """Ask for calls one way, and get their outcomes the other way."""
        self._requests = requests
        self._answers = answers
        self._number = 0
        self._outcomes: Dict[int, Tuple[bool, Any]] = {}
        self._threads: Dict[int, int] = {}

    @property
    def pid(self) -> int:
        return int(self.process.pid)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function there, in its main thread, and wait for the result."""
        return self._request(function, args, in_thread=False).result()

    def begin(self, function: Callable[..., Any], *args: Any) -> Remote:
        """Call a function there, in its main thread, and do not wait. Nothing else runs there until it has ended."""
        return self._request(function, args, in_thread=False)

    def start(self, function: Callable[..., Any], *args: Any) -> Remote:
        """Call a function there in a thread of its own, and do not wait."""
        return self._request(function, args, in_thread=True)

    def _request(self, function: Callable[..., Any], args: Tuple[Any, ...], in_thread: bool) -> Remote:
        self._number += 1
        self._requests.send((self._number, function.__module__, function.__qualname__, args, in_thread))
        return Remote(self, self._number)

    def has_outcome(self, number: int, timeout: float = 0) -> bool:
        """Whether the outcome of a call is known, or becomes known within a time."""
        if number not in self._outcomes:
            self._listen(timeout)
        return number in self._outcomes

    def outcome(self, number: int, deadline: float) -> Any:
        eventually(lambda: self.has_outcome(number, 0.02), "an answer of the other process", deadline)
        succeeded, value = self._outcomes[number]
        if succeeded:
            return value
        raise value

    def native_id(self, number: int) -> int:
        """The thread, as the host numbers it, that runs a call."""
        eventually(lambda: self._knows_thread(number), "the thread of the other process")
        return self._threads[number]

    def _knows_thread(self, number: int) -> bool:
        self._listen(0.02)
        return number in self._threads

    def _listen(self, timeout: float) -> None:
        try:
            while self._answers.poll(timeout):
                timeout = 0  # What else is there already is taken, but not waited for.
                kind, number, value = self._answers.recv()
                if kind == "thread":
                    self._threads[number] = value
                else:
                    self._outcomes[number] = (kind == "result", value)
        except EOFError:
            raise PeerError(f"the other process has ended: {self.process.wait(DEADLINE)}") from None

    def kill(self) -> None:
        """End it by SIGKILL, and wait until the host has cleaned up after it."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stop it by SIGSTOP, and wait until it has stopped."""
        self.signal(signal.SIGSTOP)
        _pid, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status

    def leave(self) -> None:
        """Let it end by itself, once its main thread has nothing to do; whoever wants to know of the end waits."""
        self._requests.close()

    def resume(self) -> None:
        """Let it go on after it was stopped."""
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, in whatever state it is."""
        self._requests.close()
        self.process.kill()
        self.process.wait(DEADLINE)
        self._answers.close()


class _Answers:
    """The way back, shared by the threads of a peer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, number: int, value: Any) -> None:
        with self._lock:
            self._connection.send((kind, number, value))


def serve(backend: Any, requests: Connection, replies: Connection) -> None:
    """The main loop of a peer; it ends when nobody asks any more."""
    answers = _Answers(replies)
    while True:
        try:
            number, module, qualname, args, in_thread = requests.recv()
        except EOFError:
            return
        function = importlib.import_module(module)
        for part in qualname.split("."):
            function = getattr(function, part)
        call = (answers, number, function, backend, args)
        if in_thread:
            threading.Thread(target=_answer, args=call, daemon=True).start()
        else:
            _answer(*call)


def _answer(answers: _Answers, number: int, function: Any, backend: Any, args: List[Any]) -> None:
    answers.send("thread", number, threading.get_native_id())
    try:
        result = function(backend, *args)
    except OSError as error:
        answers.send("error", number, type(error)(error.errno, error.strerror))
    except BaseException:
        answers.send("error", number, PeerError(traceback.format_exc()))
    else:
        answers.send("result", number, result)


class _Raised:
    """What pytest.raises gives, as far as functions that run in a peer use it."""

    value: Any = None


@contextlib.contextmanager
def _raises(expected: Any, match: str = "") -> Iterator[_Raised]:
    raised = _Raised()
    try:
        yield raised
    except expected as error:
        raised.value = error
    assert raised.value is not None, f"nothing was raised, rather than {expected!r}"
    assert re.search(match, str(raised.value)), f"{raised.value!r} does not match {match!r}"


class _NoPytest(types.ModuleType):
    """Stands for pytest in a peer, which runs functions of the test modules and no tests.

    Importing it takes long, a second on a busy machine, and that between the beginning of a call and its blocking.
    """

    def __getattr__(self, name: str) -> Any:
        return _raises if name == "raises" else _LeavesAlone()


class _LeavesAlone:
    """A decorator, or what makes one, that leaves functions as they are."""

    def __getattr__(self, name: str) -> "_LeavesAlone":
        return self

    def __call__(self, *args: Any, **_options: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else self


def out_of_the_way(fd: int) -> int:
    """A descriptor under a number that leaves the low ones to the tests, which count them."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)
    os.close(fd)
    return moved


def main() -> None:
    """Be a peer."""
    sys.modules.setdefault("pytest", _NoPytest("pytest"))
    import ha_qnx

    requests, replies = out_of_the_way(int(sys.argv[2])), out_of_the_way(int(sys.argv[3]))
    serve(ha_qnx.backend(sys.argv[1]), Connection(requests, writable=False), Connection(replies, readable=False))


if __name__ == "__main__":
    # The module by its own name: what it raises has to be found there by whoever reads it.
    importlib.import_module("ha_qnx.conformance.peers").main()
