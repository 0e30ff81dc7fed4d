"""Who may come in: a runtime directory is private, or it was set up for several users on purpose (D105 to D108).

A private one is made on first use and belongs to one user. A shared one is made by ``ha-qnx doctor --setup`` and named
by HA_QNX_RUNTIME: its group may connect, and who may write to its rooms ``names`` and ``paths`` may attach there. The
rooms are sticky, so that entries belong to who has made them; what another user may read of an entry is a symbolic link
beside it, which cannot be locked.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from typing import Iterator, List, Optional, Sequence

from .host import PORTABLE, Credentials, peer_credentials

#: Behind the name of an entry: the symbolic link that other users read.
SHOWN: str = "="
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
#: What to do about a directory, or a room of one, that others could change.
_ADVICE = "remove it, or name another directory in HA_QNX_RUNTIME"


class UnsafeDirectoryError(PermissionError):
    """The runtime directory could be changed by somebody else."""


def check_directory(path: str) -> None:
    """Refuse a directory that belongs to somebody else or that others can change.

    Raises:
        UnsafeDirectoryError: with a sentence that says what to do.
        OSError: it does not exist or cannot be examined.
    """
    status = _directory(path)
    if status.st_uid != os.geteuid():
        owner = (
            f"the runtime directory belongs to user {status.st_uid}, not to you, and is not set up for several users "
            f"(ha-qnx doctor --setup): {_ADVICE}"
        )
        raise UnsafeDirectoryError(errno.EPERM, owner, path)
    if status.st_mode & _OTHERS_WRITE:
        raise UnsafeDirectoryError(errno.EPERM, f"{_writable(status)}: run chmod 700 on it, {_ADVICE}", path)


def is_shared(path: str, own: str) -> bool:
    """Whether a runtime directory was set up for several users: others may enter it, and what lies in it.

    Raises:
        PermissionError: EACCES, this user may not enter it.
    """
    if not os.environ.get("HA_QNX_RUNTIME"):
        return False  # One that nobody has named on purpose.
    try:
        return all(os.lstat(directory).st_mode & _OTHERS_ENTER for directory in (own, path))
    except PermissionError:
        status = os.stat(path)
        who = f"owner {status.st_uid}, group {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"
        raise PermissionError(errno.EACCES, f"this user may not enter the runtime directory ({who})", path) from None
    except OSError:
        return False


def check_shared(path: str, own: str) -> None:
    """Refuse a shared directory in which somebody else than its owner could change what belongs to others.

    Raises:
        UnsafeDirectoryError: with a sentence that says which directory it is, and what mode it should have.
        OSError: a part of it does not exist or cannot be examined.
    """
    owner = _directory(path).st_uid
    for directory in _above(os.path.realpath(path)):
        status = os.stat(directory)
        if status.st_uid not in (0, owner, os.geteuid()) or (
            status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
        ):
            raise UnsafeDirectoryError(errno.EPERM, f"others may replace what lies in {directory}: {_ADVICE}", path)
    rooms = {os.path.join(own, room): f"it should be {mode:04o}" for room, mode in _ROOMS.items()}
    for directory, advice in {path: "it should be 0750, or 0755", own: "it should be 0755", **rooms}.items():
        status = _directory(directory)
        if status.st_uid not in (0, owner):
            whose = f"a part of the runtime directory belongs to user {status.st_uid}, not to {owner}: {_ADVICE}"
            raise UnsafeDirectoryError(errno.EPERM, whose, directory)
        if status.st_mode & _OTHERS_WRITE and not (directory in rooms and status.st_mode & stat.S_ISVTX):
            raise UnsafeDirectoryError(errno.EPERM, f"{_writable(status)}: {advice}", directory)


def _directory(path: str) -> os.stat_result:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectoryError(errno.ENOTDIR, f"the runtime path is no directory: {_ADVICE}", path)
    return status


def _writable(status: os.stat_result) -> str:
    return f"others may write to the runtime directory (mode {stat.S_IMODE(status.st_mode):04o})"


def _above(path: str) -> Iterator[str]:
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        yield path


# Entries.


def make_directories(room: str, directory: str, shared: bool) -> None:
    """Make the directories of an entry below its room, for this user alone to change.

    Raises:
        PermissionError: EPERM, what is there belongs to another user, or this one may attach nothing.
        OSError: what mkdir says.
    """
    path = room
    for part in os.path.relpath(directory, room).split(os.sep):
        path = os.path.join(path, part)
        if part == os.curdir:
            continue
        try:
            os.mkdir(path, 0o700)
            if shared:
                os.chmod(path, 0o755)  # noqa: S103  # whom the runtime directory lets in
        except FileExistsError:
            refuse_others(path)
        except PermissionError:
            raise may_not_attach(room) from None


def may_not_attach(room: str) -> PermissionError:
    """What to raise where a user may connect only."""
    status = os.stat(room)
    who = f"user {status.st_uid}"
    if status.st_mode & stat.S_IWGRP:
        who += f" and the members of group {status.st_gid}"
    return PermissionError(errno.EPERM, f"this user may not attach anything here: {who} may", room)


def refuse_others(path: str) -> None:
    """Refuse what another user has made, who could change it.

    Raises:
        PermissionError: EPERM.
        OSError: it does not exist.
    """
    owner = os.lstat(path).st_uid
    if owner != os.geteuid():
        raise PermissionError(errno.EPERM, f"this belongs to user {owner}", path)


def show(file: str, text: str) -> None:
    """Let other users read what an entry says."""
    hide(file)
    os.symlink(text, file + SHOWN)


def hide(file: str) -> None:
    """Take that away."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file + SHOWN)


def open_own(file: str) -> int:
    """Open a file of this user's for reading: nothing that somebody has put in its place makes it wait.

    Raises:
        OSError: EACCES, it is another user's; what else open says.
    """
    return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def shown(file: str) -> str:
    """What an entry of another user says.

    Raises:
        OSError: there is none.
    """
    return os.readlink(file + SHOWN)


def is_by(owner: int, socket_file: str) -> bool:
    """Whether the socket of a channel, if it is there, was made by the owner of an entry: only he answers for it."""
    try:
        return os.lstat(socket_file).st_uid == owner
    except OSError:
        return True


def is_who_it_should_be(sock: socket.socket, pid: int) -> bool:
    """Whether the process that listens at the other end is one that may say it is process ``pid``."""
    who: Credentials = peer_credentials(sock)
    return who.uid in (0, os.geteuid()) or who.pid == pid


def peer_groups(sock: socket.socket) -> Sequence[int]:
    """The groups of the process at the other end, but for the one of its credentials, where the host tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return ()
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, 59, 1024)  # SO_PEERGROUPS, and all that Python has room for.
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)


# Setting it up.

_ROOMS = {"channels": 0o1777, "names": 0o1731, "paths": 0o1731}


def set_up(path: str, own: str, clients: Optional[int], servers: Optional[int]) -> List[str]:
    """Make a shared runtime directory, or set the modes of one anew.

    Args:
        path: the directory.
        own: what lies in it for this version of the wire.
        clients: the group that may connect; None for everybody.
        servers: the group that may attach names and paths; None for this user alone.

    Returns:
        What was done, as the commands that do the same.

    Raises:
        OSError: what the host says.
    """
    attach = ((room, 0o711 if servers is None else _ROOMS[room]) for room in ("names", "paths"))
    wanted = [
        (path, 0o755 if clients is None else 0o750, clients),
        (own, 0o755, None),
        (os.path.join(own, "channels"), _ROOMS["channels"], None),
        *((os.path.join(own, room), mode, servers) for room, mode in attach),
    ]
    done = []
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for directory, mode, group in wanted:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        refuse_others(directory)
        if group is not None:
            os.chown(directory, -1, group)
        os.chmod(directory, mode)
        named = "" if group is None else f"-g {group} "
        done.append(f"install -d -m {mode:04o} {named}{directory}")
    return done


def let_others_open(descriptors: Sequence[int]) -> None:
    """Let another user open anew what it is passed, which belongs to who has made it."""
    if not PORTABLE:
        for fd in descriptors:
            os.fchmod(fd, 0o666)
