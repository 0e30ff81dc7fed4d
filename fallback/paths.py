"""The room of paths: what servers have attached, and who is asked for a path, in which order.

``paths/PATH=/TIME.PID.ID`` is an attachment, locked as long as its server lives. Several servers may attach one path;
the time, and the flags that the file holds, put them in order. PROTOCOL.md has the rules.
"""

import contextlib
import fcntl
import os
import time
from errno import EAGAIN
from typing import Iterator, List, NamedTuple, Optional, Tuple

from ha_qnx.constants import (
    FTYPE_ANY,
    FTYPE_NAME,
    RESMGR_FLAG_AFTER,
    RESMGR_FLAG_BEFORE,
    RESMGR_FLAG_DIR,
    RESMGR_FLAG_FTYPEONLY,
    RESMGR_FLAG_SELF,
)
from ha_qnx.errors import failure
from ha_qnx.paths import plain_path

from . import door
from .host import out_of_the_way
from .runtime import ChannelAddress, Claim, Runtime, is_ending, owner_is_gone, place_in, wire_directory

_ATTEMPTS = 100
_FILE_MAX = 200


class Attachment(NamedTuple):
    """A path that a live server has attached, and what of the path that was asked for lies below it."""

    file: str
    address: ChannelAddress
    id: int
    file_type: int
    flags: int
    rest: str
    # When it was attached, in nanoseconds of the host's monotonic clock; the process and the number, if that is equal.
    order: Tuple[int, int, int]

    @property
    def is_for_open(self) -> bool:
        """Whether an open by this process may be for it: it asks for any type of file, and not for a name."""
        if self.file_type == FTYPE_NAME or (self.flags & RESMGR_FLAG_FTYPEONLY and self.file_type != FTYPE_ANY):
            return False
        return bool(self.flags & RESMGR_FLAG_SELF) or self.address.pid != os.getpid()

    @property
    def rank(self) -> Tuple[int, ...]:
        """Its place among those of the same path: the lowest is asked first."""
        if self.flags & RESMGR_FLAG_BEFORE:
            return (0, *self.order)
        newest_first = (-number for number in self.order)
        return (2 if self.flags & RESMGR_FLAG_AFTER else 1, *newest_first)

    def is_gone(self) -> bool:
        """Whether its server is gone by now."""
        return is_ending(self.address.pid) or _read(self.file, self.rest) is None


class PathClaim(Claim):
    """A path that this process has attached."""

    def release(self) -> None:
        """Detach it."""
        super().release()
        _leave_directory(self.file)


def attach(
    runtime: Runtime,
    path: str,
    id: int,
    address: ChannelAddress,
    file_type: int,
    flags: int,
    began: Optional[int] = None,
) -> PathClaim:
    """Attach an absolute, plain path for a channel of ours; it is there whole from one moment to the next.

    Args:
        runtime: the runtime directory.
        path: the path.
        id: a number that no other attachment of this process has.
        address: the channel.
        file_type: which opens are for it.
        flags: those of resmgr_attach.
        began: when it was attached, if that is to be done again.

    Raises:
        OSError: EAGAIN, others remove what we make again and again; EPERM, this user may attach nothing, or the path is
            another user's; ENAMETOOLONG, ENOSPC and what else a host can say.
    """
    runtime.keep()
    room = runtime.paths
    directory = _directory(room, path)
    began = time.monotonic_ns() if began is None else began
    for _attempt in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # Somebody has tidied up between two of our steps.
            try:
                door.make_directories(room, directory, runtime.is_shared)
            except PermissionError:
                _attached_to(room, path, "")  # What dead servers of another user have left, root removes.
                door.make_directories(room, directory, runtime.is_shared)
            _sweep(directory)
            name = f"{began:020}.{os.getpid()}.{id}"
            hidden, file = os.path.join(directory, "." + name), os.path.join(directory, name)
            fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                os.pwrite(fd, f"{address} {file_type} {flags}\n".encode(), 0)
                os.rename(hidden, file)
                if runtime.is_shared:
                    door.show(file, f"{address} {file_type} {flags}")
            except BaseException:
                os.close(fd)
                for left in (hidden, file):
                    with contextlib.suppress(OSError):
                        os.unlink(left)
                _leave_directory(file)
                raise

            def again(runtime: Runtime) -> PathClaim:
                return attach(runtime, path, id, address, file_type, flags, began)

            return PathClaim(out_of_the_way(fd), file, f"the path {path!r}", again)
    raise failure(EAGAIN)


def attachments(room: str, path: str) -> Iterator[Attachment]:
    """Everything that an open of an absolute, plain path might be for, in the order in which it asks."""
    attached, rest = path, ""
    while True:
        order = sorted(_attached_to(room, attached, rest), key=lambda found: found.rank)
        yield from (found for found in order if not rest or found.flags & RESMGR_FLAG_DIR)
        if attached == "/":
            return
        attached, _slash, name = attached.rpartition("/")
        attached, rest = attached or "/", f"{name}/{rest}" if rest else name


def is_attached(path: str) -> bool:
    """Whether an open of a path by this process asks a server first, rather than the host."""
    room = os.path.join(wire_directory(), "paths")
    return any(found.is_for_open for found in attachments(room, plain_path(path).text))


def _directory(room: str, path: str) -> str:
    return place_in(room, os.fsencode(path), end="=")


def _attached_to(room: str, path: str, rest: str) -> List[Attachment]:
    directory = _directory(room, path)
    try:
        names = os.listdir(directory)
    except OSError:
        return []  # Nobody has attached it; one that is too long for the host nobody can have attached.
    found = (_read(os.path.join(directory, name), rest) for name in names)
    return [attachment for attachment in found if attachment is not None]


def _read(file: str, rest: str) -> Optional[Attachment]:
    """An attachment whose server lives; what a dead one has left is removed."""
    numbers = os.path.basename(file).split(".")
    if len(numbers) != 3 or not all(number.isdigit() and number.isascii() for number in numbers):
        return None
    with contextlib.suppress(OSError):
        found = _text_of(file)
        if found is None:
            _remove(file)
            return None
        fields = found[1].split()
        address = ChannelAddress.parse(fields[0]) if len(fields) == 3 else None
        if address is not None and fields[1].lstrip("-").isdigit() and fields[2].isdigit():
            began, pid, id = map(int, numbers)
            if door.is_by(found[0], os.path.join(wire_directory(), "channels", str(address))):
                return Attachment(file, address, id, int(fields[1]), int(fields[2]), rest, (began, pid, id))
    return None


def _text_of(file: str) -> Optional[Tuple[int, str]]:
    """To which user an attachment belongs, and what it says; None if its server is gone."""
    try:
        fd = door.open_own(file)
    except PermissionError:  # Another user's: its lock cannot be tried.
        text, owner = door.shown(file), os.lstat(file + door.SHOWN).st_uid
        address = ChannelAddress.parse(text.partition(" ")[0])
        return None if address is None or is_ending(address.pid) else (owner, text)
    try:
        if owner_is_gone(fd):
            return None
        return os.fstat(fd).st_uid, os.read(fd, _FILE_MAX).decode("ascii", "replace")
    finally:
        os.close(fd)


def _sweep(directory: str) -> None:
    """Remove what servers have left that were killed while they attached."""
    for name in os.listdir(directory):
        if name.startswith("."):
            file = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                fd = door.open_own(file)
                try:
                    if owner_is_gone(fd):
                        _remove(file)
                finally:
                    os.close(fd)


def _remove(file: str) -> None:
    door.hide(file)
    os.unlink(file)
    _leave_directory(file)


def _leave_directory(file: str) -> None:
    """Remove the directory of a path when nothing is attached to it any more."""
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(file))
