"""Paths as text: where one leads, and which ones are never opened."""

import os
from errno import EINVAL
from typing import Final, NamedTuple

from .kernel import NAME_ROOT, StrPath

__all__ = ["PlainPath", "plain_path", "refuse_names"]

# How a path that was asked for ended, as ``eflag`` of an _IO_CONNECT message tells it; 0 for anything else.
_ENDINGS: Final = {"": 1, ".": 3, "..": 7}


class PlainPath(NamedTuple):
    """A path from the root on, without ``.``, ``..`` and double slashes.

    ``ending`` says how it ended before, and that it is to be a directory then: 1 in a slash, 3 in ``.``, 7 in ``..``,
    0 in anything else.
    """

    text: str
    ending: int


def plain_path(path: StrPath) -> PlainPath:
    """Where a path leads, as text: symbolic links are not looked at.

    Raises:
        TypeError: it is no path.
        OSError: ENOENT, it is relative, and there is no working directory.
    """
    given = os.fsdecode(path)
    whole = given if given.startswith("/") else os.path.join(os.getcwd(), given)
    text = "/" + os.path.normpath(whole).lstrip("/")  # normpath keeps two slashes at the start.
    ending = _ENDINGS.get(whole.rpartition("/")[2], 0)
    return PlainPath(text, ending or int(text == "/"))


def refuse_names(path: StrPath) -> PlainPath:
    """The door of ``open`` and its like on every backend: a name is no path. Where the path leads, if it is one.

    Raises:
        TypeError: it is no path.
        OSError: EINVAL, it leads to where QNX keeps the names of name_attach; ENOENT, as plain_path.
    """
    plain = plain_path(path)
    if (plain.text + "/").startswith(NAME_ROOT + "/"):
        advice = "a name is for name_open; a server that is to be opened by path attaches one with resmgr_attach"
        raise OSError(EINVAL, advice, os.fsdecode(path))
    return plain
