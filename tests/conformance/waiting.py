"""Waiting by condition, with a deadline."""

import contextlib
import os
import platform
import threading
import time
from typing import Any, Callable, Iterator, List, NamedTuple, Optional

#: After so many seconds, nobody waits any more. What comes at all comes sooner, on a machine however busy.
DEADLINE = 45.0


def rounds(count: int) -> Iterator[int]:
    """The numbers of the rounds of a test that does the same again and again; a busy machine gets fewer of them.

    They end in a ninth of the deadline, so that whoever waits for all of them need not know how fast the machine is.
    """
    end = time.monotonic() + DEADLINE / 9
    for number in range(count):
        yield number
        if time.monotonic() >= end:
            return


def eventually(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Wait until a condition holds, and return what it returned.

    Raises:
        AssertionError: it did not hold in time; the message says what was waited for.
    """
    end = time.monotonic() + deadline
    pause = 0.0005
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(f"waited {deadline} s in vain: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


class Task:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self._result: Any = None
        self._error: Optional[BaseException] = None
        self.native_id = 0
        self._started = threading.Event()
        self._done = threading.Event()
        self._call = call
        self._args = args
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(DEADLINE)

    def _run(self) -> None:
        self.native_id = threading.get_native_id()
        self._started.set()
        try:
            self._result = self._call(*self._args)
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    @property
    def done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    def result(self, deadline: float = DEADLINE) -> Any:
        """What the call returned, or raise what it raised."""
        assert self._done.wait(deadline), f"{self._call} does not end"
        if self._error is not None:
            raise self._error
        return self._result

    def error(self, deadline: float = DEADLINE) -> BaseException:
        """What the call raised."""
        assert self._done.wait(deadline), f"{self._call} does not end"
        assert self._error is not None, f"{self._call} returned {self._result!r} and raised nothing"
        return self._error

    def errno(self, deadline: float = DEADLINE) -> Optional[int]:
        """The errno of the OSError that the call raised."""
        error = self.error(deadline)
        assert isinstance(error, OSError), repr(error)
        return error.errno

    def is_blocked(self) -> bool:
        """Whether the thread sleeps in a call that blocks, once it does or the call has ended."""
        eventually(lambda: self.done or is_asleep(self.native_id), "the thread to block")
        return not self.done

    def wait_until_blocked(self) -> "Task":
        """Wait until the thread sleeps in a call that blocks."""
        assert self.is_blocked(), self._error or f"the call returned {self._result!r} at once"
        return self

    def wait_until_blocked_or_done(self) -> "Task":
        """The same where the call may end before that is seen: because of a timeout, on a busy machine."""
        eventually(lambda: self.done or is_asleep(self.native_id), "the thread to block")
        return self

    def end(self) -> None:
        """Wait for the thread, whatever became of it."""
        self._done.wait(DEADLINE)

    def join(self) -> None:
        """Wait until the thread itself is gone, for the host too, which has ended its call."""
        self._thread.join(DEADLINE)
        eventually(lambda: is_gone(self.native_id), "the thread to be gone")


# The numbers of the system calls in which a thread sleeps that is not blocked: because it takes a pause (select,
# pselect6, nanosleep, clock_nanosleep), or perhaps because it waits for a lock (futex).
_PAUSES = {"x86_64": ("23", "270", "35", "230"), "aarch64": ("72", "101", "115")}.get(platform.machine(), ())
_LOCK = {"x86_64": "202", "aarch64": "98"}.get(platform.machine())


def is_asleep(native_id: int, process: str = "self") -> bool:
    """Whether a thread sleeps in a call that blocks and stays asleep, as far as the host shows it."""
    first = _sleep_record(process, native_id)
    if first is None:
        return False
    # Who waits for the interpreter's lock asks for it every 5 ms.
    time.sleep(0.012 if first.call == _LOCK else 0.004)
    return _sleep_record(process, native_id) == first


def is_gone(native_id: int) -> bool:
    """Whether a thread of this process has ended, as far as the host shows it."""
    if not os.path.exists("/proc/self/task"):
        # As below: to be gone after a while is all that can be assumed.
        time.sleep(0.05)
        return True
    return not os.path.exists(f"/proc/self/task/{native_id}")


class _SleepRecord(NamedTuple):
    """How often a sleeping thread has gone to sleep, and in which system call."""

    switches: List[str]
    call: str


def _sleep_record(process: str, native_id: int) -> Optional[_SleepRecord]:
    """What the host shows of a sleeping thread; None while it runs or takes a pause."""
    try:
        with open(f"/proc/{process}/task/{native_id}/status") as status:
            lines = status.read().splitlines()
    except ProcessLookupError:
        return None  # It has ended between the two.
    except FileNotFoundError:
        # A host without Linux's /proc does not show it. To be asleep after a while is all that can be assumed.
        time.sleep(0.05)
        return _SleepRecord([], "")
    if not any(line.startswith("State:\tS") for line in lines):
        return None
    call = ""
    with contextlib.suppress(OSError), open(f"/proc/{process}/task/{native_id}/syscall") as shown:
        call = shown.read().partition(" ")[0]
    if call in _PAUSES or call == "running\n":
        return None
    return _SleepRecord([line for line in lines if "ctxt_switches" in line], call)
