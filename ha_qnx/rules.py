"""The rules of recovery: when to recover, how often, and who does it.

This module knows no sockets and no kernel. It decides; ``ha_qnx.recovery`` acts.

A connection becomes *HA-aware* by an attachment: a recovery function, a handle, and the counts that bound its use.
Duplicates made by ha_dup share one attachment, and it lives as long as the last of them (B380, B381).

When a call on an HA-aware connection fails with EBADF or ESRCH, the connection is lost and the attachment is asked to
recover it. Any other error is the server's or the host's business and goes to the caller (B361, B362, B367).

* One failure, one recovery, one outcome (D9). One thread recovers at a time; a thread whose failure is older than a
  recovery that has ended shares its outcome: it sends again, or fails as well. It can tell because it read the
  *generation*, the number of recoveries that have ended, before it sent. (A time taken after the failure would be too
  late in a thread that was scheduled late.)
* Inside its recovery function, a thread's own calls on the connection are plain: they fail, they do not recurse (D10).
* The function has recovered the connection if it returns the connection's own number. Another number, no number, or an
  exception says that it has not, and the caller gets the error of the call that failed (B363 to B365, D12).
* ``icount`` counts the calls of the function since the last message that got through, ``acount`` all of them. A call
  that would exceed a limit is not made (B388, B389, D8).
"""

import operator
import threading
from errno import EAGAIN, EBADF, EEXIST, EINTR, EINVAL, EMFILE, ENFILE, ENOMEM, ESRCH, ETIMEDOUT
from typing import Callable, Dict, Optional, Set

from .api import RecoveryFunction
from .buffers import check_callable
from .constants import (
    HA_RECOVERY_ACOUNT,
    HA_RECOVERY_ENABLE,
    HA_RECOVERY_ICOUNT,
    HA_RECOVERY_RESET_ACOUNT,
    HA_RECOVERY_RESET_ICOUNT,
    HA_RECOVERY_SUSPEND,
    HAREPLACERECOVERYFN,
)
from .errors import not_recovered
from .watching import Counts

LOST = frozenset((EBADF, ESRCH))
# The errors by which a call can end before any server has its message: they say nothing about the server.
_WITHOUT_THE_SERVER = frozenset((EAGAIN, EINTR, EMFILE, ENFILE, ENOMEM, ETIMEDOUT))

_NO_LIMIT = -1


class Attachment:
    """What makes a connection, and its duplicates, HA-aware."""

    def __init__(self, function: RecoveryFunction, handle: object, counts: Counts) -> None:
        #: The recovery function and its handle: one object, so that nobody sees the one without the other.
        self.called = function, handle
        self._counts = counts
        self.coids: Set[int] = set()
        self.suspended = False
        self.generation = 0
        self.icount = 0
        self.acount = 0
        self._icount_limit = _NO_LIMIT
        self._acount_limit = _NO_LIMIT
        # A signal handler may come while it is held, and make a call that fails as well.
        self._lock = threading.RLock()
        self._recovering_thread: Optional[int] = None
        #: Whether the last recovery that has ended brought the connection back, and what it raised, if not.
        self._is_back = True
        self._raised: Optional[OSError] = None

    @property
    def is_recovering_here(self) -> bool:
        """Whether the calling thread is inside the recovery function of this attachment."""
        return self._recovering_thread == threading.get_ident()

    def recover(self, coid: int, generation: int, failure: OSError) -> None:
        """Recover a connection on which a call has failed, unless that has been done since the call was made.

        Args:
            coid: the connection.
            generation: the generation that was read before the call.
            failure: the error of the call.

        Returns:
            If the call is to be made again.

        Raises:
            OSError: ``failure``, if not; or, with the same errno, an error whose cause is what the recovery function
                raised, and which says so.
        """
        try:
            if self.is_recovering_here:
                raise failure
            with self._lock:
                # First of all: from here on, a signal handler's call is plain; one that came before has recovered.
                self._recovering_thread = threading.get_ident()
                try:
                    self._recover(coid, generation, failure)
                finally:
                    self._recovering_thread = None
        finally:
            del failure  # Its traceback holds this frame, and with it the buffers of the call until a collection.

    def _recover(self, coid: int, generation: int, failure: OSError) -> None:
        """Do what recover does, in the one thread that does it now."""
        try:
            if generation != self.generation:
                if self._is_back:
                    return
                raise failure if self._raised is None else not_recovered(failure.errno or 0, self._raised)
            if self.suspended or coid not in self.coids or self._is_used_up:
                raise failure
            self.icount += 1
            self.acount += 1
            try:
                result = self._counts.observed(coid, *self.called)
            except Exception as error:
                self._has_ended(False, error)
                raise not_recovered(failure.errno or 0, error) from error
            except BaseException:
                self._has_ended(False)
                raise
            self._has_ended(isinstance(result, int) and result == coid)
            if not self._is_back:
                raise failure
        finally:
            del failure  # As in recover.

    def _has_ended(self, is_back: bool, error: Optional[Exception] = None) -> None:
        """Keep the outcome of a recovery for the threads whose failure is older."""
        self.generation += 1
        self._is_back = is_back
        # A copy: the traceback of the error itself holds the buffers of this thread's call.
        self._raised = OSError(error.errno, error.strerror, error.filename) if isinstance(error, OSError) else None

    @property
    def _is_used_up(self) -> bool:
        return 0 <= self._icount_limit <= self.icount or 0 <= self._acount_limit <= self.acount

    def message_got_through(self) -> None:
        """Start ``icount`` anew: the server has answered. What is said inside the recovery function does not count."""
        if self.icount and not self.is_recovering_here:
            self.icount = 0

    def call_failed(self, failure: OSError) -> None:
        """Start ``icount`` anew if the error is the server's answer."""
        if failure.errno not in _WITHOUT_THE_SERVER:
            self.message_got_through()

    def control(self, command: int, limit: Optional[int]) -> None:
        """Do what ha_connection_ctrl asks (B388 to B395).

        Raises:
            OSError: EINVAL, an unknown command, or a limit that is none.
        """
        if command == HA_RECOVERY_SUSPEND:
            self.suspended = True
        elif command == HA_RECOVERY_ENABLE:
            self.suspended = False
        elif command == HA_RECOVERY_RESET_ICOUNT:
            self.icount = 0
        elif command == HA_RECOVERY_RESET_ACOUNT:
            self.acount = 0
        elif command == HA_RECOVERY_ICOUNT and limit is not None:
            self._icount_limit = max(limit, _NO_LIMIT)
        elif command == HA_RECOVERY_ACOUNT and limit is not None:
            self._acount_limit = max(limit, _NO_LIMIT)
        else:
            raise OSError(EINVAL, "unknown command of ha_connection_ctrl", command)

    def after_fork(self) -> None:
        """In a forked child, where no other thread is: nobody else holds the lock, nobody else is recovering."""
        self._lock = threading.RLock()
        if not self.is_recovering_here:
            self._recovering_thread = None


class Attachments:
    """Which connections of a backend are HA-aware."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.by_coid: Dict[int, Attachment] = {}
        # The garbage collector may run while it is held, and close a forgotten connection.
        self._lock = threading.RLock()

    def attach(self, coid: int, function: RecoveryFunction, handle: object, replace: bool) -> None:
        """Make a connection HA-aware, or give it another recovery function, which its duplicates get, too (B371, B380).

        Raises:
            OSError: EEXIST, it is HA-aware already and is not to be changed (D1).
        """
        with self._lock:
            attachment = self.by_coid.get(coid)
            if attachment is None:
                self._enter(coid, Attachment(function, handle, self._counts))
            elif replace:
                attachment.called = function, handle
            else:
                raise OSError(EEXIST, "the connection has a recovery function: replace it by HAREPLACERECOVERYFN")

    def share(self, coid: int, duplicate: int) -> None:
        """Let a duplicate share the attachment of a connection.

        Raises:
            OSError: EBADF, the connection is not HA-aware, or no longer.
        """
        with self._lock:
            self._enter(duplicate, self.get(coid))

    def get(self, coid: int) -> Attachment:
        """The attachment of a connection.

        Raises:
            OSError: EBADF, it is not HA-aware.
        """
        try:
            return self.by_coid[coid]
        except KeyError:
            raise OSError(EBADF, "the connection is not HA-aware") from None

    def take(self, coid: int) -> Optional[Attachment]:
        """End the attachment of a connection that is about to end, or of one whose number is another's now (D24).

        Its own recovery function may end a connection and make it again: there the attachment stays.
        """
        if coid not in self.by_coid:
            return None
        with self._lock:
            attachment = self.by_coid.get(coid)
            if attachment is None or attachment.is_recovering_here:
                return None
            return self._leave(coid)

    def give_back(self, coid: int, attachment: Attachment) -> None:
        """Undo take: the connection did not end."""
        with self._lock:
            self.by_coid.setdefault(coid, attachment).coids.add(coid)

    def detach(self, coid: int) -> None:
        """Make a connection an ordinary one.

        Raises:
            OSError: EBADF, it is one (B375).
        """
        with self._lock:
            self.get(coid)
            self._leave(coid)

    def after_fork(self, keeps: Callable[[int], bool]) -> None:
        """In a forked child: only the connections that a child inherits stay HA-aware (D13)."""
        self._lock = threading.RLock()
        for coid in [coid for coid in self.by_coid if not keeps(coid)]:
            self._leave(coid)
        for attachment in self.by_coid.values():
            attachment.after_fork()

    def _enter(self, coid: int, attachment: Attachment) -> None:
        self._counts.begin(coid)
        self.by_coid[coid] = attachment
        attachment.coids.add(coid)

    def _leave(self, coid: int) -> Attachment:
        attachment = self.by_coid.pop(coid)
        attachment.coids.discard(coid)
        return attachment


def attachment_flags(function: object, flags: int) -> int:
    """The flags of an attachment; refuse what ha_attach refuses, before anything is opened.

    Raises:
        TypeError: the recovery function is not callable.
        OSError: EINVAL, an unknown flag.
    """
    check_callable("a recovery function", function)
    if operator.index(flags) not in (0, HAREPLACERECOVERYFN):
        raise OSError(EINVAL, "unknown flag of ha_attach")
    return operator.index(flags)


def limit_of(command: int, args: Optional[int]) -> Optional[int]:
    """The limit that a command of ha_connection_ctrl sets; None for one that sets none.

    Raises:
        TypeError: there is none, or it is no number.
    """
    if command not in (HA_RECOVERY_ICOUNT, HA_RECOVERY_ACOUNT):
        return None
    if args is None:
        raise TypeError("this command of ha_connection_ctrl needs a limit")
    return operator.index(args)
