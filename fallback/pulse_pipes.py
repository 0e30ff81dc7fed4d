"""Pipes that carry pulses, which wait for nobody: a client's to a server, and a server's to a client (events)."""

import os
from errno import EAGAIN
from typing import Callable

from ha_qnx.errors import failure

from . import host


def open_pipe(pass_on: Callable[[int], None], keep: Callable[[int], None]) -> None:
    """Make a pipe, pass on its far end, and have the near one kept. The caller sees to it that no fork comes between.

    Raises:
        OSError: from the host, or from what passes it on.
    """
    far, near = os.pipe()
    try:
        os.set_blocking(near, False)
        pass_on(far)
        keep(near)
    except BaseException:
        os.close(near)
        raise
    finally:
        os.close(far)


def put_in_wider(pipe: int, frame: bytes) -> None:
    """Write what a pipe had no room for, once it is as wide as it gets.

    Raises:
        OSError: EAGAIN, as many pulses wait as the host holds.
    """
    host.widen_pipe(pipe)
    try:
        host.quiet_write(pipe, frame)
    except BlockingIOError:
        raise failure(EAGAIN) from None
