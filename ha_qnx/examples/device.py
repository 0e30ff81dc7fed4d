"""A device with commands of its own: a lamp is dimmed and asked by devctl, and its driver is killed half way.

python -m ha_qnx.examples.device

The commands are made as in C. What the driver has been told is gone with it: ``setup`` tells the next one, before the
command that met the loss is sent again.
"""

import os
import struct
import subprocess
import sys

import ha_qnx as ha
from ha_qnx.service import Request, Service

PATH = "/dev/example-lamp"

LEVEL = struct.Struct("=I")
GET_LEVEL = ha.DIOF(ha.DCMD_MISC, 1, LEVEL.size)
SET_LEVEL = ha.DIOT(ha.DCMD_MISC, 2, LEVEL.size)


class Lamp(Service):
    """The driver. The info of a command is the process that has carried it out."""

    level = 0

    def devctl(self, request: Request, dcmd: int, data: bytes) -> "tuple[int, bytes]":
        if dcmd == SET_LEVEL:
            (self.level,) = LEVEL.unpack(data)
        elif dcmd != GET_LEVEL:
            return super().devctl(request, dcmd, data)  # type: ignore[return-value]  # it refuses the command
        return os.getpid(), LEVEL.pack(self.level)


def command(fd: int, dcmd: int, level: int = 0) -> "tuple[int, int]":
    """Send a command; the process that has carried it out, and the level."""
    status, process, data = ha.devctl(fd, dcmd, LEVEL.pack(level))
    if status:
        raise OSError(status, os.strerror(status))
    return process, LEVEL.unpack(data)[0]


def start_driver() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.device", "serve"])  # this very file


def main() -> None:
    level = 0
    driver = start_driver()
    try:
        with ha.connect(PATH, wait=10, setup=lambda lamp: command(lamp, SET_LEVEL, level)) as lamp:
            for percent in (20, 40, 60, 80):
                level = percent
                command(lamp, SET_LEVEL, level)
                process, found = command(lamp, GET_LEVEL)
                print(f"the lamp is at {found} %, says process {process}")
                if percent == 40:
                    driver.kill()
                    driver.wait()
                    driver = start_driver()
                    process, found = command(lamp, GET_LEVEL)
                    print(f"  killed: it is at {found} %, says process {process}")
    finally:
        driver.kill()
        driver.wait()


if __name__ == "__main__":
    Lamp(PATH).serve() if sys.argv[1:] == ["serve"] else main()
