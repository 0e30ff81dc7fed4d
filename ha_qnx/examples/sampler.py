"""A periodic sampler: a timer's pulse says each time that a value is to be read, from a server that is killed half way.

python -m ha_qnx.examples.sampler

The pulse comes to a channel of the program's own. Each period is a pulse, received or not: what has come due while the
server was away is there afterwards, and no sample is left out.
"""

import os
import struct
import subprocess
import sys

import ha_qnx as ha
from ha_qnx.service import Request, Service

NAME = "example-sensor"
PERIOD = 20_000_000  # nanoseconds
TICK = 1  # the code of the timer's pulses
SAMPLES = 20

VALUE = struct.Struct("=dq")


class Sensor(Service):
    """Tells a temperature, and which process has measured it."""

    def message(self, request: Request) -> bytes:
        return VALUE.pack(21.5, os.getpid())


class Ticker:
    """A channel that gets a pulse each period, and the timer that sends it."""

    def __init__(self, period: int) -> None:
        self._channel = ha.ChannelCreate(0)
        self._connection = ha.ConnectAttach(ha.ND_LOCAL_NODE, 0, self._channel, ha.NTO_SIDE_CHANNEL, 0)
        event = ha.SIGEV_PULSE_INIT(self._connection, ha.SIGEV_PULSE_PRIO_INHERIT, TICK, 0)
        self._timer = ha.TimerCreate(ha.CLOCK_MONOTONIC, event)
        ha.TimerSettime(self._timer, 0, ha.Itimer(period, period))

    def wait(self) -> None:
        pulse = ha.Pulse()
        while ha.MsgReceive(self._channel, pulse) != 0 or pulse.code != TICK:
            pass

    def end(self) -> None:
        ha.TimerDestroy(self._timer)
        ha.ConnectDetach(self._connection)
        ha.ChannelDestroy(self._channel)


def start_server() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.sampler", "serve"])  # this very file


def main() -> None:
    server = start_server()
    try:
        with ha.connect(NAME, wait=10) as sensor:
            ticker = Ticker(PERIOD)
            for number in range(1, SAMPLES + 1):
                ticker.wait()
                value, process = VALUE.unpack(sensor.ask(b"value"))
                print(f"sample {number:2d}: {value} degrees, from process {process}")
                if number == SAMPLES // 2:
                    server.kill()
                    server.wait()
                    server = start_server()
            ticker.end()
            print(f"{sensor.stats.recoveries} recovery")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    Sensor(NAME).serve() if sys.argv[1:] == ["serve"] else main()
