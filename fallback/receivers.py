"""The threads that receive on a channel, and how one of them is told that there is something for it.

Those in MsgReceive and the first in MsgReceivePulse wait at the channel's poller. As long as a thread is in MsgReceive,
it is served first (B259), and it hears all the news; those in MsgReceivePulse are parked meanwhile, each at a pipe of
its own.

Where one is parked, a thread that leaves MsgReceive with a message has to let it know: pulses are for it now. As long
as messages come one upon the other, that would cost more than all the rest of a message. So after the first of them,
one of those that are parked *watches*: it looks by itself, again and again, whether a thread has been away with one
message all the while, and sleeps when no more messages come.
"""

import contextlib
import os
import time
from errno import EINTR
from typing import List, Optional

from ha_qnx.errors import failure

from . import host, limits
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
        # Whether one of those watches, and whether a thread has left MsgReceive since it has looked.
        self._is_watched = False
        self._was_left = False

    def has_receiver(self) -> bool:
        """Whether a thread is in MsgReceive."""
        return self in [thread.receives_on for thread in self._threads.known()]  # any() takes twice as long.

    def park(self, deadline: Optional[float], thread: Thread) -> None:
        """Wait aside, until no thread is in MsgReceive any more or the deadline has come, or for a moment.

        Raises:
            InterruptedError: a signal handler ran in the main thread.
        """
        try:
            read, write = os.pipe()
        except OSError:  # The host has no room for one. On QNX, a thread that waits needs nothing.
            time.sleep(limits.PARKED_LOOK)
            return
        self.parked.append(write)
        try:
            if not self._is_watched and self._was_left:
                self._is_watched = True
                try:
                    if not self._watch(read, deadline, thread):
                        return
                finally:
                    self._is_watched = False
                if self._was_left:
                    return  # And nobody was woken for that.
            if self.has_receiver() and host.wait_readable(read, deadline, thread.is_main) < 0:
                raise failure(EINTR)
        finally:
            self.parked.remove(write)
            os.close(read)
            os.close(write)

    def _watch(self, read: int, deadline: Optional[float], thread: Thread) -> bool:
        """Look again and again; whether to sleep now, since threads in MsgReceive wait there."""
        while self._was_left:
            self._was_left = False
            look = time.monotonic() + limits.PARKED_LOOK
            state = host.wait_readable(read, look if deadline is None else min(look, deadline), thread.is_main)
            if state < 0:
                raise failure(EINTR)
            if state or (deadline is not None and deadline < look):
                return False
        return self.has_receiver()

    def unpark(self) -> None:
        """Let a parked thread see what there is, if no thread is in MsgReceive any more."""
        self._was_left = True
        if self.parked and not self._is_watched and not self.has_receiver():
            with contextlib.suppress(IndexError, OSError):
                os.write(self.parked[-1], b"\0")

    def nudge(self, queue: "Queue[L]") -> None:
        """Wake a thread that waits at the poller if the queue holds something for it."""
        if (queue.pulses and self.pulse_waiters) or ((queue.messages or queue.pulses) and self.has_receiver()):
            self.bell.ring()
