"""The other side of shim.c: how it is built and preloaded, and the plan that a process under attack shares with us."""

import ctypes
import mmap
import os
import pathlib
import re
import shlex
import subprocess
from typing import Dict, List, Optional

_SOURCE = pathlib.Path(__file__).with_name("shim.c")

IDLE, COUNT, KILL, FAIL = range(4)


def _calls() -> List[str]:
    lists = re.findall(r"#define CALLS\w*\(X\)((?:.*\\\n)*.*)", _SOURCE.read_text())
    return [*re.findall(r"X\((\w+)\)", "".join(lists)), "close"]


CALLS = _calls()


class _Page(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("action", "pid", "call", "nth", "error", "met", "fired")),
        ("counts", ctypes.c_int32 * len(CALLS)),
    ]


def build(directory: str) -> str:
    """The library, made in a directory."""
    library = os.path.join(directory, "shim.so")
    command = [*shlex.split(os.environ.get("CC", "cc")), "-shared", "-fPIC", "-O1", "-fexceptions", "-Wall", "-Werror"]
    subprocess.run([*command, "-o", library, str(_SOURCE), "-ldl"], check=True)  # noqa: S603  # our own source
    return library


class Plan:
    """What shall happen to one process, and how far it came. It is made before the process is forked."""

    def __init__(self) -> None:
        self._page = _Page.from_buffer(mmap.mmap(-1, ctypes.sizeof(_Page)))

    def kill(self, nth: int) -> "Plan":
        """Kill at the n-th call."""
        self._page.action, self._page.call, self._page.nth = KILL, -1, nth
        return self

    def fail(self, call: str, nth: int, error: int) -> "Plan":
        """Fail the n-th of these calls."""
        self._page.action, self._page.call, self._page.nth = FAIL, CALLS.index(call), nth
        self._page.error = error
        return self

    def count(self) -> "Plan":
        """Only count."""
        self._page.action = COUNT
        return self

    def begin(self) -> None:
        """In the process: from now on it holds."""
        ctypes.CDLL(None).shim_use(ctypes.byref(self._page))
        self.resume(os.getpid())

    def pause(self) -> None:
        """Here or there: for now, nothing happens."""
        self._page.pid = 0

    def resume(self, pid: int) -> None:
        """It is about this process."""
        self._page.pid = pid

    @property
    def fired(self) -> Optional[str]:
        """The call at which it happened, if it did."""
        return CALLS[self._page.fired - 1] if self._page.fired else None

    @property
    def counts(self) -> Dict[str, int]:
        """How often each call was made."""
        return {call: count for call, count in zip(CALLS, self._page.counts) if count}
