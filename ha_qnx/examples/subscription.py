"""A subscription: a client hands in an event, and the server delivers it; both survive that the server is killed.

The client is told of each new value by a pulse on a channel of its own. Its ``setup`` hands the event in, so that each
server that it is connected to has it, the next one, too.

Run it with ``python -m ha_qnx.examples.subscription``.
"""

import itertools
import os
import subprocess
import sys
import threading
import time
from typing import List

import ha_qnx as ha
from ha_qnx.service import Request, Service

NAME = f"ha_qnx.examples.subscription.{os.getuid()}"
NEWS = ha.PULSE_CODE_MINAVAIL + 1
PULSES = 20


class Publisher(Service):
    """Delivers a number, again and again, to everybody who has handed in an event."""

    subscribers: List[Request]

    def message(self, request: Request) -> int:
        if request.data:
            self.subscribers.append(request)
        return 0

    def publish(self) -> None:
        for number in itertools.count(1):
            time.sleep(0.02)
            for request in list(self.subscribers):
                event = ha.SigEvent.from_buffer_copy(request.data)
                event.sigev_value.sival_int = number
                if not request.deliver(event):  # The client has gone.
                    self.subscribers.remove(request)


def serve() -> None:
    service = Publisher(NAME)
    service.subscribers = []
    threading.Thread(target=service.publish, daemon=True).start()
    service.serve()


def start_server() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "ha_qnx.examples.subscription", "serve"])  # this very file


def main() -> None:
    channel = ha.ChannelCreate(0)
    mine = ha.ConnectAttach(ha.ND_LOCAL_NODE, 0, channel, ha.NTO_SIDE_CHANNEL, 0)
    event = ha.SIGEV_PULSE_INIT(mine, ha.SIGEV_PULSE_PRIO_INHERIT, NEWS)
    server = start_server()
    try:
        with ha.connect(NAME, wait=10, setup=lambda publisher: publisher.ask(bytes(event))) as publisher:
            pulse = ha.Pulse()
            for count in range(1, PULSES + 1):
                ha.TimerTimeout(ha.NTO_TIMEOUT_RECEIVE, 10_000_000_000)
                assert ha.MsgReceive(channel, pulse) == 0
                print(f"pulse {count:2d}: number {pulse.value.sival_int}")
                if count == PULSES // 2:
                    server.kill()
                    server.wait()
                    server = start_server()
                    publisher.ask(b"")  # Whatever is sent next finds that the server has gone.
            print(f"{publisher.stats.recoveries} recovery")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
