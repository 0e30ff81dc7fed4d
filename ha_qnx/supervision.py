"""Telling systemd how a service is: the sd_notify protocol, of which three words are needed.

systemd names a datagram socket in ``NOTIFY_SOCKET``, and in ``WATCHDOG_USEC`` how often it wants to hear that the
service is alive, if it does. Where it names none, nothing is done here.
"""

import contextlib
import os
import socket
from typing import Optional

__all__ = ["Supervisor"]


class Supervisor:
    """Whoever has started this process and wants to know how it is."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # An abstract one.
        #: Every so many seconds it wants to hear ``alive``; None if never.
        self.interval = self._interval() if self._address else None

    @staticmethod
    def _interval() -> Optional[float]:
        if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None  # Another process is meant, from which this one has inherited its environment.
        with contextlib.suppress(ValueError):
            seconds = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
            # Half of it, as sd_watchdog_enabled() advises.
            return seconds / 2 if seconds > 0 else None
        return None

    def ready(self) -> None:
        """Clients can come."""
        self._say("READY=1")

    def alive(self) -> None:
        """What comes is answered."""
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """The service ends, because it was told to."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # A supervisor that does not read is no reason to stand still.
            sender.sendto(state.encode(), self._address)
