"""Makers of device commands: what QNX's macros of the same names, with two underscores in front, make of their parts.

``DIOF(DCMD_MISC, 1, 4)`` is a command of devctl by which a client gets four bytes from a server.
"""

from .buffers import integer
from .constants import POSIX_DEVDIR_FROM, POSIX_DEVDIR_NONE, POSIX_DEVDIR_TO, POSIX_DEVDIR_TOFROM

__all__ = ["DIOF", "DION", "DIOT", "DIOTF"]

_SIZE_MAX = (1 << 14) - 1


def _command(direction: int, device_class: int, command: int, size: int) -> int:
    device_class = integer("device_class", device_class, 0, 0xFF)
    return (
        direction | integer("size", size, 0, _SIZE_MAX) << 16 | device_class << 8 | integer("command", command, 0, 0xFF)
    )


def DION(device_class: int, command: int) -> int:
    """A command that carries no data.

    Args:
        device_class: what kind of device it is for, such as DCMD_MISC.
        command: 0 to 255.
    """
    return _command(POSIX_DEVDIR_NONE, device_class, command, 0)


def DIOF(device_class: int, command: int, size: int) -> int:
    """A command whose data comes from the server.

    Args:
        device_class: what kind of device it is for, such as DCMD_MISC.
        command: 0 to 255.
        size: how many bytes the data has, such as ``ctypes.sizeof`` of its structure. C's macro takes the type.
    """
    return _command(POSIX_DEVDIR_FROM, device_class, command, size)


def DIOT(device_class: int, command: int, size: int) -> int:
    """A command whose data goes to the server. The arguments are those of DIOF."""
    return _command(POSIX_DEVDIR_TO, device_class, command, size)


def DIOTF(device_class: int, command: int, size: int) -> int:
    """A command whose data goes to the server and comes back. The arguments are those of DIOF."""
    return _command(POSIX_DEVDIR_TOFROM, device_class, command, size)
