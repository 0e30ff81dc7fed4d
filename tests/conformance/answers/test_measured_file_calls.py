"""Calls of the module os on a connection, which the drop-in makes messages of."""

import os
from errno import ENOSYS
from typing import Any, Callable, Dict, Tuple

from ha_qnx import dropin

from ..servers import Server, Start, opened
from .asking import Answers, measured
from .notation import failed
from .test_measured_devctl import written

#: The calls by the ends of their cases, and how many messages one is that the server answers.
CALLS: Dict[str, Tuple[Callable[[int], object], int]] = {
    "06": (lambda fd: os.fsync(fd), 1),
    "07": (lambda fd: os.ftruncate(fd, 9), 2),
    "08": (lambda fd: os.fchmod(fd, 0o640), 1),
}


@measured(*(f"2.DC{how}{call}" for call in CALLS for how in (0, 1)))
def test_calls_are_messages(qnx: Any, start: Start, server: Server) -> Answers:
    """Refused, and answered."""
    fd = opened(qnx, start, server)
    with dropin.installed(qnx.backend):
        for case, (call, count) in CALLS.items():
            task = start(call, fd)
            seen = server.refuse(ENOSYS)
            error = task.error()
            assert isinstance(error, OSError)
            yield f"2.DC0{case}", f"{failed(error)}; saw {written(seen)}"
            task = start(call, fd)
            messages = [written(server.answer(0)) for _message in range(count)]
            assert task.result() is None
            yield f"2.DC1{case}", f"0; saw {'; '.join(messages)}"
