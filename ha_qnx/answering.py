"""What a service's handlers return, as the status and the data that go to the client."""

import operator
import os
from errno import EINVAL
from typing import Any, Optional, Tuple

from .constants import EOK
from .errors import failure
from .iomessages import POSITION, devctl_reply, stat_reply
from .kernel import BytesLike
from .requests import Request


def plain_answer(result: Any) -> Tuple[int, Optional[BytesLike]]:
    if type(result) is bytes:
        return len(result), result
    if result is None:
        return EOK, None
    if isinstance(result, int):
        return result, None
    if isinstance(result, tuple):
        status, data = result
        return operator.index(status), data
    if isinstance(result, str):
        raise TypeError("a handler returned a str: encode it, such as by .encode()")
    data = memoryview(result).cast("B")
    return len(data), data


def read_answer(request: Request, nbytes: int, data: BytesLike) -> Tuple[int, BytesLike]:
    part = memoryview(data).cast("B")[:nbytes]
    request.ocb.offset += len(part)
    return len(part), part


def write_answer(request: Request, data: bytes, count: Optional[int]) -> Tuple[int, None]:
    written = len(data) if count is None else operator.index(count)
    if not 0 <= written <= len(data):
        raise ValueError(f"write() returned {written}, but was given {len(data)} bytes")
    request.ocb.offset += written
    return written, None


def devctl_answer(room: int, result: Any) -> Tuple[int, bytes]:
    info, data = plain_answer(result)
    if data is None:
        return EOK, devctl_reply(info, b"")
    # Unlike a status, an info is no length.
    return EOK, devctl_reply(info if isinstance(result, tuple) else 0, memoryview(data).cast("B")[:room])


def seek_answer(request: Request, offset: int) -> Tuple[int, bytes]:
    if offset < 0:
        raise failure(EINVAL)
    request.ocb.offset = offset
    return EOK, POSITION.pack(offset)


def stat_answer(status: os.stat_result) -> Tuple[int, bytes]:
    return EOK, stat_reply(status)


def truncate_answer(size: int) -> Tuple[int, bytes]:
    return EOK, POSITION.pack(size)  # A client that is told of less would ask for more.
