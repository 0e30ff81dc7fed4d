"""Peers that are forked, not started: there are many in the suite, and a new interpreter for each takes long.

A cradle is a process that has loaded all that is needed and made nothing. What is forked from it is as good as a new
process, and as a peer it looks like any other one.
"""

import contextlib
import importlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from multiprocessing.connection import Connection
from typing import Any, Dict, List, Optional, Sequence

from .peers import Peer, out_of_the_way, serve
from .waiting import DEADLINE, eventually


def load(_qnx: Any, modules: Sequence[str]) -> None:
    """In a cradle: import what those that are forked from it would import."""
    for module in modules:
        importlib.import_module(module)


def bear(qnx: Any, address: str) -> int:
    """In a cradle: fork a peer that talks to the listener of an address; its process."""
    child = os.fork()
    if child:
        return child
    try:
        # Nobody but the cradle is asked by its pipes; it moved them out of the way.
        os.closerange(100, 110)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.connect(address)
        requests = Connection(out_of_the_way(os.dup(ours.fileno())), writable=False)
        replies = Connection(out_of_the_way(ours.detach()), readable=False)
        serve(qnx, requests, replies)
    finally:
        os._exit(0)


def status_of(_qnx: Any, pid: int, flags: int) -> Optional[int]:
    """In a cradle: how one that was forked from it has ended, or whether it has stopped; None while it has not."""
    found, status = os.waitpid(pid, flags)
    return status if found else None


def wait_for_zombie(_qnx: Any, pid: int) -> None:
    """In a cradle: wait until one that was forked from it has ended, and leave it a zombie."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


class Process:
    """A process that was forked from a cradle, as subprocess has them."""

    def __init__(self, cradle: Peer, pid: int) -> None:
        self._cradle = cradle
        self.pid = pid
        self.returncode: Optional[int] = None

    def poll(self) -> Optional[int]:
        """How it has ended, or None."""
        if self.returncode is None:
            status = self._cradle.run(status_of, self.pid, os.WNOHANG)
            if status is not None:
                exited = os.WIFEXITED(status)
                self.returncode = os.WEXITSTATUS(status) if exited else -os.WTERMSIG(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.poll() is not None, "the end of a process", timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Born(Peer):
    """A peer that was forked from a cradle."""

    def __init__(self, cradle: Peer, listener: socket.socket) -> None:
        self.backend = cradle.backend
        self._cradle = cradle
        self.process = Process(cradle, cradle.run(bear, listener.getsockname()))
        self._socket, _address = listener.accept()
        self._socket.settimeout(None)
        number = self._socket.fileno()
        self._talk(Connection(os.dup(number), readable=False), Connection(os.dup(number), writable=False))

    def stop(self) -> None:
        """Stop it by SIGSTOP, and wait until it has stopped."""
        self.signal(signal.SIGSTOP)
        status = self._cradle.run(status_of, self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), status

    def leave(self) -> None:
        """Let it end by itself, once its main thread has nothing to do."""
        self._socket.shutdown(socket.SHUT_WR)

    def become_a_zombie(self, by: int = 0) -> None:
        """Let it end by itself or by a signal, and wait until it has, but leave it a zombie."""
        if by:
            self.signal(by)
        else:
            self.leave()
        self._cradle.run(wait_for_zombie, self.pid)

    def close(self) -> None:
        """End it, in whatever state it is."""
        self._socket.close()
        super().close()


class Cradle:
    """A process that others are forked from."""

    def __init__(self, backend: str, modules: List[str]) -> None:
        self._peer = Peer(backend)
        self._directory = tempfile.mkdtemp(prefix="ha")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(os.path.join(self._directory, "cradle"))
        self._listener.listen()
        self._listener.settimeout(DEADLINE)
        self._peer.run(load, modules)

    def bear(self) -> Born:
        """A fresh process."""
        return Born(self._peer, self._listener)

    def close(self) -> None:
        """End it."""
        self._peer.close()
        self._listener.close()
        shutil.rmtree(self._directory)


class PeerPool:
    """Where peers come from: a cradle for each backend."""

    #: How many have been taken.
    taken = 0

    def __init__(self) -> None:
        self._cradles: Dict[str, Cradle] = {}

    def take(self, backend: str) -> Born:
        """A fresh process."""
        PeerPool.taken += 1
        if backend not in self._cradles:
            self._cradles[backend] = Cradle(backend, _modules())
        return self._cradles[backend].bear()

    def close(self) -> None:
        """End them."""
        for cradle in self._cradles.values():
            cradle.close()


def _modules() -> List[str]:
    """The modules whose functions peers are asked to call, and what those import."""
    here = pathlib.Path(__file__).parent
    files = sorted(path.relative_to(here) for path in here.glob("**/test_*.py"))
    return [".".join([__package__, *file.with_suffix("").parts]) for file in files]
