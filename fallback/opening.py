"""Opening a path: its servers are asked one after the other, and the host's own file system last.

PROTOCOL.md has the rules, ``paths`` the order. What is opened gets a new number, or takes that of an old connection.
"""

import contextlib
import fcntl
import os
from errno import EBADF, ENOENT, ENOSYS, ENOTDIR, ENXIO, EROFS, ESRCH
from typing import Callable, Iterator, Optional

from ha_qnx import iomessages
from ha_qnx.buffers import INT_MAX, Buffers, integer
from ha_qnx.constants import EBADFSYS, RESMGR_FLAG_DIR, RESMGR_FLAG_OPAQUE
from ha_qnx.errors import failure
from ha_qnx.kernel import StrPath
from ha_qnx.paths import refuse_names

from . import host
from .connections import Connection
from .paths import Attachment, attachments
from .table import ConnectionTable, is_host_descriptor

# What makes an open go on to the next server (B314).
_PASSED_ON = (ENOENT, ENOSYS, ESRCH, ENXIO, EROFS, EBADFSYS)


class _NotThereError(Exception):
    """A server was gone before it was asked: it counts as if it had never been there."""


class Opener:
    """Asks servers whether they take a client, on behalf of open and name_open."""

    def __init__(
        self,
        table: ConnectionTable,
        paths: Callable[[], Optional[str]],
        send: Callable[[int, Buffers, Buffers], int],
    ) -> None:
        """One for the kernel of a process.

        Args:
            table: the connections of the process.
            paths: gives the room of paths; None if there is none yet.
            send: MsgSendv, of parts that were checked.
        """
        self._table = table
        self._paths = paths
        self._send = send

    def open(self, path: StrPath, oflag: int, mode: int, at: Optional[int]) -> int:
        """Open a path, under the lowest free number or, if ``at`` is given, in place of the connection there."""
        text = os.fsdecode(path)
        oflag = integer("oflag", oflag, 0, INT_MAX)
        mode = integer("mode", mode, 0, 0o7777)
        if not text or "\0" in text:
            return self._open_host(text, oflag, mode, at)  # The host says what is wrong with it.
        plain = refuse_names(text)
        if at is not None:
            self._table.end(at)
        paths = self._paths()
        somebody = False
        refusal = 0  # The first one; ENOSYS says nothing.
        opaque: Optional[str] = None
        for served in attachments(paths, plain.text) if paths else ():
            somebody = True
            if opaque is not None and served.rest != opaque:
                break
            if not served.is_for_open:
                continue
            if plain.ending and not served.flags & RESMGR_FLAG_DIR:
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), text)
            try:
                coid = self._ask(served, oflag, mode, plain.ending, at)
                if coid is not None:
                    return coid
            except OSError as error:
                if error.errno not in _PASSED_ON:
                    raise
                refusal = error.errno if refusal in (0, ENOSYS) else refusal
                if served.flags & RESMGR_FLAG_OPAQUE:
                    opaque = served.rest
        if opaque is None:
            try:
                return self._open_host(text, oflag & ~(os.O_CREAT | os.O_EXCL) if somebody else oflag, mode, at)
            except (FileNotFoundError, NotADirectoryError):
                if not refusal:
                    raise
        refusal = ENOENT if refusal == ENOSYS else refusal
        raise OSError(refusal, os.strerror(refusal), text)

    def _ask(self, served: Attachment, oflag: int, mode: int, ending: int, at: Optional[int]) -> Optional[int]:
        """Connect to a server and have it agree: the new number, or None if there is no such server any more.

        Raises:
            OSError: what it answers; ESRCH, it was lost with the message, or its channel is destroyed.
        """
        try:
            if at is None:
                connection = self._table.attach(served.address, 0, 0)
            else:
                connection = self._table.attach_at(at, served.address, 0)
        except ProcessLookupError:
            if served.is_gone():
                return None
            raise
        with contextlib.suppress(_NotThereError), self._kept_if_agreed(connection, at):
            room = memoryview(bytearray(iomessages.OPEN_ROOM))
            message = iomessages.open_message(oflag, mode, served.id, served.rest, ending)
            try:
                if self._send(connection.coid, [memoryview(message)], [room]) == -1:
                    raise failure(ENOENT)
            except OSError as error:
                if error.errno == ENOSYS:
                    message = iomessages.combine_message(oflag, mode, served.id, served.rest, ending)
                    with contextlib.suppress(OSError):  # Whatever is answered makes no difference.
                        self._send(connection.coid, [memoryview(message)], [room])
                if error.errno == EBADF and served.is_gone():
                    raise _NotThereError from None  # Its end came between our connecting and our asking.
                raise
            return connection.coid
        return None

    def introduce(self, connection: Connection) -> None:
        """Send what name_open sends on a target that runs gns; a server that does not agree loses the connection.

        Raises:
            OSError: what it answers; EBADFSYS, another status than EOK; ESRCH, it was lost with the message.
        """
        room = memoryview(bytearray(iomessages.OPEN_ROOM))
        with self._kept_if_agreed(connection, None):
            if self._send(connection.coid, [memoryview(iomessages.name_open_message())], [room]):
                raise failure(EBADFSYS)

    @contextlib.contextmanager
    def _kept_if_agreed(self, connection: Connection, at: Optional[int]) -> Iterator[None]:
        """End a new connection if the block raises, for its server does not agree."""
        try:
            yield
        except BaseException as error:
            is_lost = isinstance(error, OSError) and error.errno == EBADF and not connection.is_alive()
            self._undo(connection.coid, at)
            if is_lost and not connection.trunk.is_refused:
                # The server was ending when we connected. EBADF would say that our number is lost (D6).
                raise failure(ESRCH) from None
            raise

    def _undo(self, coid: int, at: Optional[int]) -> None:
        """End a new connection; one in place of another stays there, dead (D6)."""
        with contextlib.suppress(OSError):
            if at is not None:
                self._table.end(at)
            else:
                self._table.detach(coid)

    def _open_host(self, path: str, oflag: int, mode: int, at: Optional[int]) -> int:
        opened = os.open(path, oflag, mode)
        if at is None:
            self._table.give_way(opened)
            return opened
        opened = host.out_of_the_way(opened)  # It may have got the very number that it is to be moved to.
        try:
            return self._put_at(opened, at)
        finally:
            os.close(opened)

    def _put_at(self, opened: int, at: int) -> int:
        """Move a descriptor of the host under the number of an old connection."""
        with self._table.lock:
            self._table.make_way(at)
            if is_host_descriptor(at):
                return os.dup2(opened, at, inheritable=False)
            placed = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, at)
            if placed != at:
                os.close(placed)
                raise failure(EBADF)
            self._table.give_way(at)
            return at
