"""A server that something restarts: systemd (thermostat.service) or supervisord (thermostat.conf).

python -m ha_qnx.examples.thermostat serve    what they run
python -m ha_qnx.examples.thermostat watch    a client: it goes on when the server is restarted or killed
"""

import argparse
import logging
import time

import ha_qnx as ha
from ha_qnx.service import Request, Service

NAME = "example-thermostat"


class Thermostat(Service):
    """Takes a set point by ``set 21.5`` and tells it to whoever asks. SIGTERM lets it end in order."""

    set_point = 20.0

    def message(self, request: Request) -> bytes:
        verb, _space, value = request.data.decode().partition(" ")
        if verb == "set":
            self.set_point = float(value)
            logging.info("process %d of user %d: set to %g", request.info.pid, request.client.cred.euid, self.set_point)
        return f"{self.set_point:g}".encode()

    def ready(self) -> None:
        logging.info("ready")


def watch(times: int, seconds: float) -> None:
    """Ask again and again."""
    with ha.connect(NAME, wait=30) as thermostat:
        for _time in range(times):
            value = thermostat.ask(b"get").decode()
            print(f"{value} ({thermostat.stats.recoveries} recoveries)", flush=True)
            time.sleep(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["serve", "watch"])
    parser.add_argument("--times", type=int, default=60, help="how often to ask")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to wait in between")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    if arguments.what == "serve":
        Thermostat(NAME).serve(threads=4)
    else:
        watch(arguments.times, arguments.seconds)


if __name__ == "__main__":
    main()
