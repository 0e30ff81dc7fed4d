"""The errors of all backends."""

import contextlib
import os
from errno import EINTR, ENOENT
from typing import TYPE_CHECKING, Iterator, Optional

if TYPE_CHECKING:
    from .kernel import StrPath


@contextlib.contextmanager
def naming(path: "StrPath") -> Iterator[None]:
    """Let an error tell which path it is about, where it does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def no_such_name(name: str, place: Optional[str] = None) -> FileNotFoundError:
    """The error of a name that nobody has.

    Args:
        name: the name.
        place: where it was looked for, if that is known.
    """
    text = f"no server has this name{f' in {place}' if place else ''} (ha-qnx doctor tells more)"
    if leads_upwards(name):
        text = "nobody can have a name with a component that ends with '..'"
    return FileNotFoundError(ENOENT, text, name)


def leads_upwards(name: str) -> bool:
    """Whether a component of a name is ``..`` or ends so: nobody can have such a name (B290)."""
    return any(part.endswith("..") for part in name.split("/"))


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
