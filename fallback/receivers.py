"""The threads that receive on a channel, and how one of them is told that there is something for it.

Those in MsgReceive and the first in MsgReceivePulse wait at the channel's poller. As long as a thread is in MsgReceive,
it is served first (B259), and it hears all the news; those in MsgReceivePulse are parked meanwhile, each at a pipe of
its own.
"""

import contextlib
import os
from errno import EINTR
from typing import List, Optional

from ha_qnx.errors import failure

from . import host
from .queue import L, Queue
from .threads import Thread, Threads


class Receivers:
    """The threads that receive on one channel."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        # Wakes a thread that waits at the poller.
        self.bell = host.Bell()
        # The threads in MsgReceivePulse that wait at the poller, and the pipes of those that are parked.
        self.pulse_waiters: List[Thread] = []
        self.parked: List[int] = []

    def has_receiver(self) -> bool:
        """Whether a thread is in MsgReceive."""
        return any(thread.receives_on is self for thread in self._threads.known())

    def park(self, deadline: Optional[float], thread: Thread) -> None:
        """Wait aside, until no thread is in MsgReceive any more or the deadline has come.

        Raises:
            InterruptedError: a signal handler ran in the main thread.
        """
        read, write = os.pipe()
        self.parked.append(write)
        try:
            if self.has_receiver() and host.wait_readable(read, deadline, thread.is_main) < 0:
                raise failure(EINTR)
        finally:
            self.parked.remove(write)
            os.close(read)
            os.close(write)

    def unpark(self) -> None:
        """Let a parked thread see what there is, if no thread is in MsgReceive any more."""
        if self.parked and not self.has_receiver():
            with contextlib.suppress(IndexError, OSError):
                os.write(self.parked[-1], b"\0")

    def nudge(self, queue: "Queue[L]") -> None:
        """Wake a thread that waits at the poller if the queue holds something for it."""
        if (queue.pulses and self.pulse_waiters) or ((queue.messages or queue.pulses) and self.has_receiver()):
            self.bell.ring()
