"""A message that a service has received, and what may be answered to it."""

import os
import sys
from errno import EINVAL, EMSGSIZE
from struct import Struct
from typing import Callable, Optional, Protocol, Tuple, Union

from .api import Backend
from .constants import EOK, IO_CONNECT, IO_MAX
from .iomessages import CONNECT
from .kernel import BytesLike
from .ocb import Ocb
from .structures import ClientInfo, MessageInfo, SigEvent

# Which field of an _IO_CONNECT message tells how long the path behind it is.
_PATH_LENGTH = 12


class _Later:
    def __repr__(self) -> str:
        return "LATER"


#: What a handler returns that leaves the answer to ``Request.reply`` or ``Request.error``, now or from another thread.
LATER = _Later()

Answer = Union[None, int, BytesLike, Tuple[int, BytesLike], _Later]


class Server(Protocol):
    """What a request asks of the service that has received it."""

    backend: Backend
    max_message: int
    takes_io: bool

    def ocb_of(self, request: "Request") -> Ocb:
        """What is kept for the connection that it came by."""

    def begin_answer(self, request: "Request") -> bool:
        """Whether it may be answered: nobody else has."""

    def has_answered(self, request: "Request") -> None:
        """Note that it was."""


class Request:
    """A message that waits for its answer.

    Attributes:
        rcvid: by which MsgReply, MsgRead and MsgWrite know it.
        info: who sent it, and how: pid, tid, scoid, coid, priority, and the lengths.
        kind: what kind of message it is: IO_READ and the like, or what the client's message begins with.
        ocb: what the server keeps for the connection that it came by.
        is_answered: whether an answer was given.
        is_refused: whether that was an error.
        is_unblocking: whether the client wants to be freed, because of a signal or a timeout. A long handler may look.
        is_later: whether the handler has left the answer for LATER.
    """

    def __init__(self, service: Server, rcvid: int, info: MessageInfo, head: bytes) -> None:
        self.rcvid = rcvid
        self.info = info
        is_typed = len(head) >= 2 and service.takes_io
        self.kind = int.from_bytes(head[:2], sys.byteorder) if is_typed else IO_MAX + 1
        self.ocb = service.ocb_of(self)
        self.is_answered = False
        self.is_refused = False
        self.is_unblocking = False
        self.is_later = False
        self._service = service
        self._data: Optional[bytes] = head if info.srcmsglen <= len(head) else None

    @property
    def data(self) -> bytes:
        """The message, all of it.

        Raises:
            OSError: EMSGSIZE, it is longer than the service's ``max_message``.
        """
        if self._data is None:
            size = self.info.srcmsglen
            if size > self._service.max_message:
                raise OSError(EMSGSIZE, f"a message of {size} bytes is longer than this service takes")
            buffer = bytearray(size)
            self._data = bytes(buffer[: self._service.backend.MsgRead(self.rcvid, buffer)])
        return self._data

    @property
    def path(self) -> str:
        """The rest of the path that is opened, below the one that the service has attached; "" for that itself.

        Raises:
            OSError: EINVAL, this is no _IO_CONNECT message, or a damaged one.
        """
        if self.kind != IO_CONNECT:
            raise OSError(EINVAL, "only an _IO_CONNECT message has a path")
        length = self.unpack(CONNECT)[_PATH_LENGTH]
        return os.fsdecode(self.data[CONNECT.size :][:length].partition(b"\0")[0])

    @property
    def client(self) -> ClientInfo:
        """Who the client is, as the kernel vouches for it: process, session, credentials."""
        return self._service.backend.ConnectClientInfo(self.info.scoid, 8)

    def reply(self, status: int = EOK, data: Optional[BytesLike] = None) -> bool:
        """Answer; whether there was anybody left to answer."""
        return self._answer(self._service.backend.MsgReply, status, data)

    def error(self, error: int) -> bool:
        """Let the client's call fail with an errno; whether there was anybody left to answer.

        EBADF and ESRCH look to the client as if its server were lost.
        """
        is_answered = self._answer(self._service.backend.MsgError, error)
        self.is_refused |= is_answered
        return is_answered

    def deliver(self, event: SigEvent) -> bool:
        """Let an event act in the client, now or later: it may be answered long since; whether there was a client left.

        Args:
            event: as the client has handed it in, such as ``SigEvent.from_buffer_copy(request.data)``.

        Raises:
            OSError: as MsgDeliverEvent, but for ESRCH. EBADF says that the channel of the event is destroyed.
        """
        try:
            self._service.backend.MsgDeliverEvent(self.rcvid, event)
        except ProcessLookupError:
            return False
        return True

    def _answer(self, call: Callable[..., int], *arguments: object) -> bool:
        service = self._service
        if not service.begin_answer(self):
            return False
        try:
            call(self.rcvid, *arguments)
        except ProcessLookupError:
            return False
        except BaseException:
            self.is_answered = False  # What was given is no answer; another one can be.
            raise
        finally:
            if self.is_answered:
                service.has_answered(self)
        return True

    def unpack(self, layout: Struct) -> Tuple[int, ...]:
        """The fields of an I/O message.

        Raises:
            OSError: EINVAL, the message is too short for them.
        """
        if len(self.data) < layout.size:
            raise OSError(EINVAL, "an I/O message is too short")
        return layout.unpack_from(self.data)
