"""The errors of all backends."""

import os
from errno import EINTR
from typing import Optional


def failure(number: int) -> OSError:
    """The OSError of an errno."""
    text = "interrupted by a signal handler" if number == EINTR else os.strerror(number)
    return OSError(number, text)


def not_recovered(number: int, cause: Optional[BaseException]) -> OSError:
    """The error of a call whose connection was lost and not recovered.

    Args:
        number: the errno of the call.
        cause: what the recovery function raised, if it did; it becomes the cause of the error.
    """
    if cause is None:
        return failure(number)
    if isinstance(cause, OSError):
        server = "the server" if cause.filename is None else f"the server of {os.fsdecode(cause.filename)!r}"
        error = OSError(number, f"{server} was lost; {cause.strerror or cause}")
    else:
        error = OSError(number, f"the server was lost, and its recovery function raised {cause!r}")
    error.__cause__ = cause
    return error
