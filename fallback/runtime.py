"""The rendezvous: a directory in which processes find each other's channels, names and paths.

``channels/PID.CHID.TOKEN`` is the listening socket of a channel. ``names/NAME`` holds the PID, CHID and TOKEN of the
server that owns the name, and is locked as long as that server lives: the lock dies with its owner, so a successor
takes the name over at once, and two live servers cannot both have it. The token is random, so that a number which the
host uses again never leads to somebody else. What lies in ``paths`` is the business of paths.py.

Who may enter it, and what another user may read there, is the business of door.py.

All this lies in a subdirectory for the version of the wire: processes of another version neither find us nor half
understand what we leave.
"""

import contextlib
import errno
import fcntl
import os
import signal
import socket
import time
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

from ha_qnx.errors import no_such_name

from . import door, wire
from .host import out_of_the_way, socket_out_of_the_way

_SOCKET_PATH_MAX = 100
# What a host allows for the name of a file is less than what a name or a path may have, percent-encoded.
_PIECE = 200
# How each byte of a name or a path is written: as in a URL.
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_ENCODED = [chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in range(256)]
# More than the text of any address.
_ADDRESS_MAX = 200


class ChannelAddress(NamedTuple):
    """Where a channel can be found. The token is empty where only the numbers are known."""

    pid: int
    chid: int
    token: str = ""

    @classmethod
    def parse(cls, text: str) -> "Optional[ChannelAddress]":
        """Read ``PID.CHID.TOKEN``; None if it is something else."""
        parts = text.split(".")
        if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit() and parts[2].isalnum()):
            return None
        if not text.isascii() or len(parts[0]) > 9 or len(parts[1]) > 9:
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        return f"{self.pid}.{self.chid}.{self.token}"

    def matches(self, other: "ChannelAddress") -> bool:
        """Whether this is the address of ``other``; without a token, that of any channel with the same numbers."""
        return self[:2] == other[:2] and self.token in ("", other.token)


def directory_path() -> str:
    """Where the runtime directory is: HA_QNX_RUNTIME, else under XDG_RUNTIME_DIR, else under the temporary one."""
    chosen = os.environ.get("HA_QNX_RUNTIME")
    if chosen:
        return os.path.abspath(chosen)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session:
        return os.path.join(os.path.abspath(session), "ha_qnx")
    # Not what tempfile says: the twin in C does not know it, and who asks first holds a lock, for which a signal
    # handler would wait.
    temporary = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # PROTOCOL.md has it, and says who may use it
    return os.path.join(os.path.abspath(temporary), f"ha_qnx-{os.getuid()}")


def wire_directory(path: Optional[str] = None) -> str:
    """Where ``channels``, ``names`` and ``paths`` are, if they were made yet; in another directory, if it is given."""
    return os.path.join(path or directory_path(), f"wire-{wire.VERSION}")


def place_in(room: str, entry: bytes, end: str = "") -> str:
    """The file or directory that stands for a name or a path in its room; ``end`` is put behind its last piece."""
    encoded = "".join(_ENCODED[byte] for byte in entry)
    pieces = [encoded[start : start + _PIECE] for start in range(0, len(encoded), _PIECE)]
    if pieces[-1] + end == ".":
        pieces[-1] = "%2E"  # Or it would be the directory itself.
    return os.path.join(room, *(f"{piece}+" for piece in pieces[:-1]), pieces[-1] + end)


def owner_is_gone(fd: int) -> bool:
    """Whether the process is gone that has locked this file for as long as it lives.

    The lock is shared, so that several who look at the same time do not take each other for the owner.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Claim:
    """A name or an attached path that is ours until it is released, or until this process ends."""

    def __init__(self, fd: int, file: str, text: str, again: "Callable[[Runtime], Claim]") -> None:
        self.fd = fd
        self.file = file
        self._text = text
        self._again = again

    def __str__(self) -> str:
        return self._text

    def is_there(self) -> bool:
        """Whether others find it. Somebody may have removed its file, and another server may have made one since."""
        return _is_at(self.file, self.fd)

    def enter_again(self, runtime: "Runtime") -> None:
        """Make its file anew.

        Raises:
            OSError: EEXIST, another server has the name by now; what else the host says.
        """
        made = self._again(runtime)
        os.close(self.fd)
        self.fd = made.fd

    def release(self) -> None:
        """Give it up."""
        if self.is_there():
            with contextlib.suppress(OSError):
                door.hide(self.file)
                os.unlink(self.file)
        self.forget()

    def forget(self) -> None:
        """Close our side only, as a forked child must: it stays with the parent."""
        with contextlib.suppress(OSError):
            os.close(self.fd)


def _is_at(path: str, fd: int) -> bool:
    """Whether what an open descriptor leads to is still at its path."""
    with contextlib.suppress(OSError):
        return fd >= 0 and os.path.samestat(os.stat(path), os.fstat(fd))
    return False


def _exchanged(before: int, fd: int) -> int:
    """A descriptor of ours for another one that is of no use any more."""
    if before >= 0:
        os.close(before)
    return out_of_the_way(fd)


class Runtime:
    """The runtime directory, made and checked on first use."""

    def __init__(self) -> None:
        self.path = directory_path()
        self._own = wire_directory()
        self._channels, self._names, self.paths = (
            os.path.join(self._own, room) for room in ("channels", "names", "paths")
        )
        self._directory_fd = self._root_fd = -1
        self._make()

    def _make(self) -> None:
        #: Whether it was set up for several users.
        self.is_shared = door.is_shared(self.path, self._own)
        if self.is_shared:
            door.check_shared(self.path, self._own)
            return
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        door.check_directory(self.path)
        for directory in (self._own, self._channels, self._names, self.paths):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            door.check_directory(directory)

    def __del__(self) -> None:
        for fd in (getattr(self, "_directory_fd", -1), getattr(self, "_root_fd", -1)):
            if fd >= 0:
                os.close(fd)

    def enter(self) -> None:
        """Have the rooms to make an entry in, though somebody may have removed them."""
        if not all(map(os.path.isdir, (self._channels, self._names, self.paths))):
            self._make()

    def keep(self) -> None:
        """Have the directory locked as long as this process lives: systemd-tmpfiles leaves alone what lies below."""
        self.enter()
        if not _is_at(self.path, self._root_fd):
            with contextlib.suppress(OSError):
                root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._root_fd = _exchanged(self._root_fd, root)
                fcntl.flock(self._root_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def socket_path(self, address: ChannelAddress) -> str:
        """The path to bind or connect, within what the host allows for the path of a socket.

        Raises:
            OSError: ENAMETOOLONG, and the host offers no shorter way.
        """
        path = os.path.join(self._channels, str(address))
        if len(os.fsencode(path)) <= _SOCKET_PATH_MAX:
            return path
        if not os.path.isdir("/proc/self/fd"):
            raise OSError(errno.ENAMETOOLONG, "the runtime directory's path is too long: set HA_QNX_RUNTIME", path)
        if not _is_at(self._channels, self._directory_fd):
            self._directory_fd = _exchanged(self._directory_fd, os.open(self._channels, os.O_RDONLY | os.O_CLOEXEC))
        return f"/proc/self/fd/{self._directory_fd}/{address}"

    def listen(self, address: ChannelAddress) -> Tuple[socket.socket, os.stat_result]:
        """A socket for a channel of ours, and what it is in the directory.

        Raises:
            OSError: what bind says.
        """
        self.enter()
        listener = socket_out_of_the_way(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            path = self.socket_path(address)
            listener.bind(path)
            if self.is_shared:
                os.chmod(path, 0o666)  # noqa: S103  # who cannot enter the directory cannot connect
            return listener, os.lstat(path)
        except BaseException:
            listener.close()
            raise

    def may_answer(self, sock: socket.socket, address: ChannelAddress) -> bool:
        """Whether it is the process of an address that listens at the other end, where others can make sockets, too."""
        return not self.is_shared or door.is_who_it_should_be(sock, address.pid)

    def has_channel(self, address: ChannelAddress, entry: os.stat_result) -> bool:
        """Whether others find the socket of a channel of ours."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.lstat(os.path.join(self._channels, str(address))), entry)
        return False

    def channels(self) -> List[ChannelAddress]:
        """Every channel that has a socket here, dead ones included."""
        return [address for address in map(ChannelAddress.parse, os.listdir(self._channels)) if address]

    def remove_stale_channels(self) -> None:
        """Remove the sockets of processes that no longer exist."""
        for address in self.channels():
            if not process_exists(address.pid) and not self._is_listening(address):
                self.remove_channel(address)

    def _is_listening(self, address: ChannelAddress) -> bool:
        """Whether somebody listens: a process of another PID namespace has no number here."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                sock.connect(self.socket_path(address))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                pass  # So many wait there, for instance.
        return True

    def remove_channel(self, address: ChannelAddress) -> None:
        """Remove a channel's socket, if it is still there."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._channels, str(address)))

    def claim_name(self, name: str, address: ChannelAddress) -> Claim:
        """Take a name for a channel of ours.

        Raises:
            FileExistsError: a live server has it.
            OSError: ENAMETOOLONG and what else open can say.
        """
        self.keep()
        file = place_in(self._names, name.encode())
        door.make_directories(self._names, os.path.dirname(file), self.is_shared)
        for fd in self._open_until_there(name, file):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_at(file, fd):
                    continue  # Its owner released it between our open and our lock: the path is another file now.
                if not _is_only_ours(fd):
                    os.unlink(file)
                    continue
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(address).encode(), 0)
                if self.is_shared:
                    door.show(file, str(address))
            except BlockingIOError:
                owner = ChannelAddress.parse(os.pread(fd, _ADDRESS_MAX, 0).decode("ascii", "replace"))
                if owner is None or not is_ending(owner.pid):
                    raise FileExistsError(errno.EEXIST, "another server has this name", name) from None
                time.sleep(0.001)  # Somebody is about to remove it, or to take it.
                continue

            def again(runtime: Runtime) -> Claim:
                return runtime.claim_name(name, address)

            return Claim(out_of_the_way(os.dup(fd)), file, f"the name {name!r}", again)
        raise FileExistsError(errno.EEXIST, "other servers keep taking this name", name)

    def _open_until_there(self, name: str, file: str) -> Iterator[int]:
        for _attempt in range(100):
            try:
                fd = _open_or_make(file)
            except PermissionError:
                owner = ChannelAddress.parse(_shown_or_nothing(file))
                if owner is None:
                    raise door.may_not_attach(self._names) from None
                if not is_ending(owner.pid):
                    raise FileExistsError(errno.EEXIST, "a server of another user has this name", name) from None
                left = f"a server of user {os.lstat(file).st_uid} has left this name: only that user can remove {file}"
                raise PermissionError(errno.EPERM, left, name) from None
            try:
                yield fd
            finally:
                os.close(fd)

    def find_name(self, name: str) -> ChannelAddress:
        """Where the owner of a name is, or was: its channel may be dead by now.

        Raises:
            FileNotFoundError: nobody has the name.
        """
        try:
            owner, text = read_entry(place_in(self._names, name.encode()))
            address = ChannelAddress.parse(text)
        except OSError as error:
            if error.errno not in _NO_ENTRY:
                raise
            address = None
        if address is None or not self.is_of(owner, address):
            raise self.no_such_name(name)
        return address

    def is_of(self, owner: int, address: ChannelAddress) -> bool:
        """Whether a channel is the one of the user to whom an entry belongs that leads to it."""
        return door.is_by(owner, os.path.join(self._channels, str(address)))

    def remove_dead_name(self, name: str, address: ChannelAddress) -> None:
        """Remove what a dead server has left of its name, unless a successor has taken it."""
        with contextlib.suppress(OSError):
            file = place_in(self._names, name.encode())
            fd = os.open(file, _FOR_OWNER)
            try:
                # Locked only if it is the dead one's: whoever is refused because of our lock can see that.
                left = str(address).encode()
                if os.pread(fd, _ADDRESS_MAX, 0) == left:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(fd).st_nlink and os.pread(fd, _ADDRESS_MAX, 0) == left:
                        door.hide(file)
                        os.unlink(file)
            finally:
                os.close(fd)

    def no_such_name(self, name: str) -> FileNotFoundError:
        """What to raise about a name that nobody has."""
        return no_such_name(name, self.path)

    def still_has_name(self, address: ChannelAddress, name: str) -> bool:
        """Whether the process at an address has a name, though nobody listens there any more.

        The lock is tried for a living process only: a successor that takes the name just then must not fail for it.
        """
        if is_ending(address.pid):
            return False
        file = place_in(self._names, name.encode())
        try:
            fd = door.open_own(file)
        except PermissionError:
            return os.path.lexists(file + door.SHOWN)  # Its lock cannot be tried; but its process lives.
        except OSError:
            return False
        try:
            return not owner_is_gone(fd)
        finally:
            os.close(fd)


def _decoded(text: str) -> str:
    """What was percent-encoded; a file with another name is somebody else's, and is shown as it is."""
    from urllib.parse import unquote  # It takes long to import, and only ha-qnx doctor wants it.

    return unquote(text)


def names_in(room: str) -> Iterator[Tuple[str, ChannelAddress]]:
    """The names in a room, with those that took them; the locks are not tried, which would disturb a server."""
    for file in _files_in(room):
        with contextlib.suppress(OSError):
            address = ChannelAddress.parse(read_entry(file)[1])
            if address is not None:
                yield _name_of(os.path.relpath(file, room)), address


def paths_in(room: str) -> Iterator[Tuple[str, ChannelAddress]]:
    """The paths in a room, with those that have attached them."""
    for file in _files_in(room):
        entry = os.path.relpath(file, room)
        if not os.path.basename(entry).startswith("."):
            with contextlib.suppress(OSError):
                address = ChannelAddress.parse(read_entry(file)[1].partition(" ")[0])
                if address is not None:
                    yield _path_of(entry), address


def removed_entries(directory: str) -> Iterator[Tuple[str, str, int]]:
    """What living processes have locked in a directory and was removed from it: names or paths, which, and whose.

    Only where the host shows what processes have open, and only of those that may be looked at.
    """
    import glob  # Only ha-qnx doctor wants it.

    rooms = {room: (os.path.join(os.path.realpath(directory), room, ""), decode) for room, decode in _ENTRIES.items()}
    removed = " (deleted)"
    for place in glob.iglob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            file = os.readlink(place)
            for room, (start, decode) in rooms.items():
                if file.startswith(start) and file.endswith(removed):
                    yield room, decode(file[len(start) : -len(removed)]), int(place.split("/")[2])


def _name_of(entry: str) -> str:
    return _decoded(entry.replace("+/", ""))


def _path_of(entry: str) -> str:
    return _decoded(os.path.dirname(entry).replace("+/", "")[:-1])


# How the entries of a room are read.
_ENTRIES = {"names": _name_of, "paths": _path_of}


def _files_in(room: str) -> List[str]:
    """What is in a room, however deep: a long name is cut into pieces, each but the last a directory."""
    found = (os.path.join(place, file) for place, _directories, files in os.walk(room) for file in files)
    return sorted(file for file in found if not file.endswith(door.SHOWN))


# What looking for the file of a name says if there is none, or something else in its place.
_NO_ENTRY = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EAGAIN))
# Nothing that somebody has put in the place of a file makes its opening wait, or leads elsewhere.
_FOR_OWNER = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _open_or_make(file: str) -> int:
    try:
        return os.open(file, _FOR_OWNER)  # Not made at once: where several may, hosts refuse that to root, too.
    except FileNotFoundError:
        return os.open(file, _FOR_OWNER | os.O_CREAT, 0o600)


def _is_only_ours(fd: int) -> bool:
    """Whether a file is this user's, and nobody has linked another one in its place."""
    status = os.fstat(fd)
    return status.st_uid == os.geteuid() and status.st_nlink == 1


def read_entry(file: str) -> Tuple[int, str]:
    """What an entry says, and the user to whom it belongs.

    Raises:
        OSError: there is none.
    """
    try:
        fd = door.open_own(file)
    except PermissionError:
        return os.lstat(file + door.SHOWN).st_uid, door.shown(file)
    try:
        return os.fstat(fd).st_uid, os.read(fd, _ADDRESS_MAX).decode("ascii", "replace")
    finally:
        os.close(fd)


def _shown_or_nothing(file: str) -> str:
    with contextlib.suppress(OSError):
        return door.shown(file)
    return ""


def process_exists(pid: int) -> bool:
    """Whether a process has this number, a zombie's included; those below 1 stand for groups of processes."""
    if pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# Of the fields of /proc/PID/stat behind the program's name, the first of which is number 3.
_STATE, _FLAGS, _THREADS, _PENDING_SIGNALS, _EXIT_CODE = (number - 3 for number in (3, 9, 20, 31, 52))
_EXITING = 0x4  # in _FLAGS


def is_ending(pid: int) -> bool:
    """Whether a process is gone, or on its way: killed, or in exit, though it may still hold what it had open."""
    try:
        fields = _stat_fields(f"/proc/{pid}/stat")
        if int(fields[_PENDING_SIGNALS]) & 1 << (signal.SIGKILL - 1):
            return True
        # From the moment on that it is killed; of one that is stopped, it says by which signal.
        if int(fields[_EXIT_CODE]) and fields[_STATE] not in (b"T", b"t"):
            return True
        if int(fields[_FLAGS]) & _EXITING and (
            # A first thread that has ended by itself leaves the others at work.
            int(fields[_THREADS]) <= 1 or all(int(thread[_FLAGS]) & _EXITING for thread in _threads(pid))
        ):
            return True
        # Between the moment at which a thread takes SIGKILL and its exit, only the process as a whole shows it.
        with open(f"/proc/{pid}/status", "rb") as file:
            pending = file.read().partition(b"ShdPnd:")[2].split(None, 1)[0]
        return bool(int(pending, 16) & 1 << (signal.SIGKILL - 1))
    except (OSError, IndexError, ValueError):
        return not process_exists(pid)


def _stat_fields(path: str) -> List[bytes]:
    with open(path, "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _threads(pid: int) -> Iterator[List[bytes]]:
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield _stat_fields(f"/proc/{pid}/task/{thread}/stat")


def is_busy(pid: int) -> bool:
    """Whether a thread of the process runs or waits for a processor, where the host shows it."""
    try:
        return any(thread[_STATE] == b"R" for thread in _threads(pid))
    except (OSError, IndexError):
        return False


def is_zombie(pid: int) -> bool:
    """Whether a process has ended but is not yet reaped, where the host shows it."""
    try:
        return _stat_fields(f"/proc/{pid}/stat")[_STATE] in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def plain_name(path: object) -> str:
    """A name as name_attach and name_open take it, without empty components and those that are ``.``.

    Raises:
        TypeError: it is no str.
        OSError: EINVAL for None, a leading slash, a NUL, or if nothing is left (B289).
    """
    if path is not None and not isinstance(path, str):
        raise TypeError(f"a name must be a str, not {type(path).__name__}")
    parts = [part for part in (path or "").split("/") if part not in ("", ".")]
    if not path or not parts or path.startswith("/") or "\0" in path:
        raise OSError(errno.EINVAL, "a name must be relative, and not empty", path)
    return "/".join(parts)
