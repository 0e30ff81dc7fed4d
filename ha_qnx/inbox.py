"""A channel in a program that has a loop of its own: asyncio's, Qt's, or one around select.

    inbox = Inbox(chid)
    loop.add_reader(inbox, take)                                   # asyncio
    QSocketNotifier(inbox.fileno(), QSocketNotifier.Type.Read)     # Qt

    def take():
        received = inbox.take()
        if received is not None and received.rcvid:
            ha_qnx.MsgReply(received.rcvid, 0, b"answer")

QNX has no descriptor for a channel, so a thread receives, here as there, and makes a descriptor readable (D115). A
message takes about three times as long as where a thread of the program's own waits in MsgReceive.
"""

import collections
import contextlib
import random
import threading
from ctypes import sizeof
from typing import Deque, NamedTuple, Optional

from . import backends
from .api import Backend
from .constants import NTO_COF_CLOEXEC, NTO_SIDE_CHANNEL, PULSE_CODE_MAXAVAIL
from .readiness import Bell
from .structures import MessageInfo, Pulse

__all__ = ["Inbox", "Received"]

# So many messages and pulses may wait for the loop; beyond them, they wait where the kernel bounds them.
_MOST = 1000


class Received(NamedTuple):
    """A message or a pulse.

    Attributes:
        rcvid: by which a message is answered; 0 for a pulse.
        data: the message, as far as there was room for it; MsgRead has the rest.
        info: who sent it, and how long it is; of a pulse, nothing.
    """

    rcvid: int
    data: bytes
    info: MessageInfo

    @property
    def pulse(self) -> Optional[Pulse]:
        """The pulse that it is, or None."""
        return None if self.rcvid else Pulse.from_buffer_copy(self.data)


class Inbox:
    """What comes to a channel, received by a thread. Readable, by select and its like, as long as there is something.

    A message is received when the thread takes it in, not when the program does: its client waits for the reply from
    then on, and pulses keep their place behind it. While an inbox is open, nobody else receives on the channel.
    """

    def __init__(self, chid: int, room: int = 4096, *, backend: Optional[Backend] = None) -> None:
        """Begin to receive.

        Args:
            chid: a channel of this process.
            room: how many bytes of a message are received.
            backend: the one that the channel belongs to; without it, the default one.

        Raises:
            OSError: as ConnectAttach.
        """
        self._qnx = backends.backend() if backend is None else backend
        self._chid = chid
        self._room = max(room, sizeof(Pulse))
        self._own = self._qnx.ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, NTO_COF_CLOEXEC)
        self._end = PULSE_CODE_MAXAVAIL, random.SystemRandom().randrange(1 << 31)  # Nobody else knows this pulse.
        self._bell = Bell()
        self._received: Deque[Received] = collections.deque()
        self._news = threading.Condition()
        self._error: Optional[BaseException] = None
        self._is_over = False
        self._thread = threading.Thread(target=self._receive, name=f"ha_qnx.Inbox-{chid}", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """A descriptor to wait for. It is not to be read."""
        return self._bell.fileno()

    def take(self) -> Optional[Received]:
        """The next message or pulse; None if there is none by now. It waits for nothing.

        Raises:
            OSError: as MsgReceive, after everything was taken: ESRCH, the channel is destroyed.
        """
        with self._news:
            found = self._received.popleft() if self._received else None
            if not self._received and self._error is None:
                self._bell.hush()
            self._news.notify()
            if found is None and self._error is not None:
                raise self._error
            return found

    def close(self) -> None:
        """Receive no more. The channel stays; what was received and not taken is lost, and its clients wait on."""
        with self._news:
            is_known, self._is_over = self._is_over, True
            self._news.notify()
        if is_known:
            return
        with contextlib.suppress(OSError):  # The channel is gone.
            self._qnx.MsgSendPulse(self._own, -1, *self._end)
        self._thread.join()
        with contextlib.suppress(OSError):
            self._qnx.ConnectDetach(self._own)
        self._bell.close()

    def __enter__(self) -> "Inbox":
        return self

    def __exit__(self, *_how: object) -> None:
        self.close()

    def _receive(self) -> None:
        buffer = bytearray(self._room)
        try:
            while not self._is_over:
                info = MessageInfo()
                try:
                    rcvid = self._qnx.MsgReceive(self._chid, buffer, info)
                except InterruptedError:
                    continue
                data = bytes(buffer[: info.msglen if rcvid else sizeof(Pulse)])
                received = Received(rcvid, data, info if rcvid else MessageInfo())
                pulse = received.pulse
                if pulse is None or (pulse.code, pulse.value.sival_int) != self._end:
                    self._put(received)
        except OSError as error:
            with self._news:
                self._error = error
                self._bell.ring()

    def _put(self, received: Received) -> None:
        with self._news:
            self._news.wait_for(lambda: len(self._received) < _MOST or self._is_over)
            self._received.append(received)
            self._bell.ring()
