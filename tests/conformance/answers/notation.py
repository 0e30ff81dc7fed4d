"""The words of the table: how what a call returned or raised is told.

``0`` or any other number is what was returned, ``-1 EBADF`` an error, ``side+4`` the side channel of that number.
"""

import ctypes
import errno
import struct
from typing import Any, Callable, Dict, Iterable, Optional

from ha_qnx import (
    EBADFSYS,
    ENONDP,
    ENOREMOTE,
    ERESTART,
    ESRVRFAULT,
    IO_BASE,
    IO_MAX,
    NTO_SIDE_CHANNEL,
    MessageInfo,
    Pulse,
)

#: What no call has filled in.
UNTOUCHED = 0x55

PULSE_SIZE = ctypes.sizeof(Pulse)

#: The errors by their names: QNX's where a host has another one, or none.
_NUMBERS: Dict[str, int] = {
    "EOK": 0,
    **{name: number for number, name in errno.errorcode.items()},
    "ENOTSUP": errno.ENOTSUP,
    "EBADFSYS": EBADFSYS,
    "ENONDP": ENONDP,
    "ENOREMOTE": ENOREMOTE,
    "ERESTART": ERESTART,
    "ESRVRFAULT": ESRVRFAULT,
}
_NAMES = {number: name for name, number in _NUMBERS.items()}


def error_name(number: int) -> str:
    """EBADF, or errno12345 for a number without a name."""
    return _NAMES.get(number, f"errno{number}")


def error_number(name: str) -> int:
    """The errno of a name."""
    return _NUMBERS[name]


def told(call: Callable[..., Any], *args: Any) -> str:
    """The number that a call returned, ``ok`` for anything else, or the error that it raised."""
    try:
        result = call(*args)
    except OSError as error:
        return failed(error)
    return str(result) if isinstance(result, int) else "ok"


def failed(error: OSError) -> str:
    """An error, as C tells of it."""
    return f"-1 {error_name(error.errno or 0)}"


def succeeds(call: Callable[..., Any], *args: Any) -> str:
    """The same, where any success is like another."""
    try:
        call(*args)
    except OSError as error:
        return failed(error)
    return "ok"


def listed(call: Callable[..., Any], arguments: Iterable[Any], between: str = ", ") -> str:
    """What a call says to one argument after the other."""
    return between.join(told(call, argument) for argument in arguments)


def number(coid: int) -> str:
    """The number of a connection."""
    return f"side+{low(coid)}" if coid & NTO_SIDE_CHANNEL else str(coid)


def numbered(call: Callable[..., int], *args: Any) -> str:
    """The number that a call returned, or the error that it raised."""
    try:
        return number(call(*args))
    except OSError as error:
        return failed(error)


def low(coid: int) -> int:
    """The number of a connection without the side channels' bit."""
    return coid & ~NTO_SIDE_CHANNEL


def is_side(coid: int) -> bool:
    """Whether a number is a side channel's."""
    return bool(coid & NTO_SIDE_CHANNEL)


def named(said: str, number: int, name: str) -> str:
    """What was said, by a name if it is a certain number."""
    return name if said == str(number) else said


def yes(condition: object) -> str:
    return "yes" if condition else "no"


def pulse_of(pulse: Pulse) -> str:
    """A pulse with all that is worth telling."""
    where = "side" if is_side(pulse.scoid) and pulse.scoid != -1 else str(pulse.scoid)
    return f"pulse {pulse.code} value {pulse.value.sival_int} scoid {where}"


def item(rcvid: int, buffer: bytes, info: Optional[MessageInfo] = None) -> str:
    """What a channel gave: a pulse, an I/O message, or a message of a single letter."""
    if rcvid == 0:
        return pulse_of(Pulse.from_buffer_copy(buffer))
    size = info.srcmsglen if info is not None else len(buffer)
    kind, subtype = struct.unpack_from("=HH", buffer) if size >= 4 else (0, 0)
    if IO_BASE <= kind <= IO_MAX:
        return f"io {kind:#x}/{subtype} len {size}"
    return f"message {chr(buffer[0])} len {size}" if size else "message of no bytes"
