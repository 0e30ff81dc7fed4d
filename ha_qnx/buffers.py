"""What callers pass: messages as flat views of bytes, numbers, functions; or refused before anything is done."""

import math
import operator
import struct
import threading
from typing import Any, Iterable, List, Optional, Sequence

# The parts of a message or of what it is received into, in order, as they are used within.
Buffers = Sequence[memoryview]

INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1
UINT_MAX = (1 << 32) - 1
LONG_MIN, LONG_MAX = -(1 << 63), (1 << 63) - 1
_ADDRESS_MAX = (1 << 8 * struct.calcsize("P")) - 1

_EMPTY = memoryview(bytearray())


def readable(buffer: object) -> memoryview:
    """The bytes of a message to be sent; None is an empty one.

    Raises:
        TypeError: it is not bytes-like.
        BufferError: it is not contiguous.
    """
    if buffer is None:
        return _EMPTY
    view = memoryview(buffer)  # type: ignore[arg-type]  # memoryview says itself what it takes
    try:
        return view.cast("B")
    except TypeError:  # There is nothing in it, or it is not contiguous; to look before takes as long as all the rest.
        if not view.contiguous:
            raise BufferError("the buffer is not contiguous") from None
        if not view.nbytes:
            return _EMPTY
        raise


def writable(buffer: object) -> memoryview:
    """A buffer to be received into; None has no room.

    Raises:
        TypeError: it is not bytes-like, or read-only.
        BufferError: it is not contiguous.
    """
    view = readable(buffer)
    if view.readonly and view.nbytes:
        raise TypeError("a writable buffer is required, and this one is read-only")
    return view


def readable_parts(vector: Optional[Iterable[object]]) -> List[memoryview]:
    """The parts of a message to be sent, in order."""
    return [readable(part) for part in _parts(vector)]


def writable_parts(vector: Optional[Iterable[object]]) -> List[memoryview]:
    """The parts to be received into, in order."""
    return [writable(part) for part in _parts(vector)]


def _parts(vector: Optional[Iterable[object]]) -> Iterable[object]:
    if vector is None:
        return ()
    if isinstance(vector, (bytes, bytearray, memoryview, str)):
        raise TypeError(f"a vector is a sequence of buffers, not {type(vector).__name__}")
    return vector


def integer(name: str, value: object, low: int, high: int) -> int:
    """A number within the range of its C type.

    Raises:
        TypeError: it is no integer.
        ValueError: it is out of range.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # index says itself what it takes
    except TypeError:
        raise TypeError(f"{name} must be an int, not {type(value).__name__}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {number}")
    return number


def as_int(name: str, value: object) -> int:
    """A number that fits C's int."""
    return integer(name, value, INT_MIN, INT_MAX)


def as_uint(name: str, value: object) -> int:
    """A number that fits C's unsigned: a set of flags."""
    return integer(name, value, 0, UINT_MAX)


def as_long(name: str, value: object) -> int:
    """A number that fits C's long of 64 bits."""
    return integer(name, value, LONG_MIN, LONG_MAX)


def as_address(name: str, value: object) -> int:
    """An address, as ``integer`` checks it: what has room in a ``void *``."""
    return integer(name, value, 0, _ADDRESS_MAX)


def as_seconds(name: str, value: Any) -> float:
    """A length of time in seconds; what is longer than a thread can wait, such as infinity, is as long as it can.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN.
    """
    try:
        is_nan = math.isnan(value)
    except TypeError:
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}") from None
    except OverflowError:
        is_nan = False  # It is an int that is larger than any float.
    if is_nan:
        raise ValueError(f"{name} must be a number of seconds, not NaN")
    return float(min(value, threading.TIMEOUT_MAX))


def check_callable(what: str, function: object) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: it cannot.
    """
    if not callable(function):
        raise TypeError(f"{what} must be callable, and {type(function).__name__} is not")
