"""A device that is read when it has something to say: select waits for it, and for a file of the host, at once.

python -m ha_qnx.examples.barometer

The driver measures as often as devctl tells it to; ``notify`` says whether there is a reading, and ``trigger`` that
there is a new one. It is killed half way: select goes on at the next driver, which ``setup`` has told how often.
"""

import errno
import os
import queue
import select
import struct
import subprocess
import sys
import threading
import time

import ha_qnx as ha
from ha_qnx import dropin
from ha_qnx.service import Request, Service

PATH = "/dev/example-barometer"
PERIOD = struct.Struct("=d")
SET_PERIOD = ha.DIOT(ha.DCMD_MISC, 1, PERIOD.size)


class Barometer(Service):
    def __init__(self) -> None:
        super().__init__(PATH)
        self.readings: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def devctl(self, request: Request, dcmd: int, data: bytes) -> None:
        if dcmd != SET_PERIOD:
            raise OSError(errno.ENOTTY, "no command of a barometer")
        threading.Thread(target=self.measure, args=PERIOD.unpack(data), daemon=True).start()
        print(f"driver {os.getpid()} begins", flush=True)

    def measure(self, period: float) -> None:
        while True:
            time.sleep(period)
            self.readings.put(f"1013 hPa, says driver {os.getpid()}\n".encode())
            self.trigger(ha.NOTIFY_COND_INPUT)

    def notify(self, request: Request, conditions: int) -> int:
        return 0 if self.readings.empty() else ha.NOTIFY_COND_INPUT

    def read(self, request: Request, nbytes: int) -> bytes:
        return self.readings.get()


def start_driver(output: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.barometer", "serve"], stdout=output)


def set_period(fd: int) -> None:
    ha.devctl(fd, SET_PERIOD, PERIOD.pack(0.02))


def main() -> None:
    log, output = os.pipe()  # of the drivers
    readings, driver = 0, start_driver(output)
    try:
        with dropin.installed(), ha.connect(PATH, wait=10, setup=set_period) as barometer:
            while readings < 8:
                for fd in select.select([log, barometer], [], [])[0]:
                    print(os.read(fd, 100).decode(), end="")
                    readings += fd == barometer
                    if fd == barometer and readings == 4:
                        driver.kill()
                        driver.wait()
                        driver = start_driver(output)
    finally:
        driver.kill()
        driver.wait()


if __name__ == "__main__":
    Barometer().serve() if sys.argv[1:] == ["serve"] else main()
