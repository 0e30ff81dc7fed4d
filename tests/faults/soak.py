"""``ci/soak``: a mixed load for as long as one likes; nothing may grow. Memory, descriptors, threads, latency as plots.

On each twin there is a server that lives throughout, whose clients come and go, fork, get signals and are killed; and a
client that lives throughout, whose server is killed again and again. These four, and what they answer, are watched.
"""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import random
import signal
import statistics
import sys
import time
from collections import Counter
from typing import Dict, List, Mapping, Tuple

from . import parts
from .accounting import Client, calm, steady
from .accounts import Report, describe, faults_of
from .stage import Process, Stage

_INTERVAL = 1.0
_CHECKOUT = pathlib.Path(__file__).parents[2]

#: What is watched, its unit, and what is no growth: pages of allocators, and what comes and goes.
WATCHED = {"memory": ("MiB", 6.0), "descriptors": ("number", 8.0), "threads": ("number", 3.0)}

Samples = Dict[str, List[Tuple[float, float]]]


def measure(process: Process) -> Mapping[str, float]:
    """A process as it is now."""
    return {
        "memory": process.memory / (1 << 20),
        "descriptors": float(len(process.open_files())),
        "threads": float(len(process.threads)),
    }


def growth(samples: Mapping[str, Samples]) -> List[str]:
    """A sentence for each thing whose median in the last quarter is beyond that of the second one."""
    found = []
    for what, (unit, allowed) in WATCHED.items():
        for name, points in samples[what].items():
            values = [value for _when, value in points]
            quarter = len(values) // 4
            if quarter < 2:
                continue
            first, last = (statistics.median(part) for part in (values[quarter : 2 * quarter], values[-quarter:]))
            if last > first + allowed:
                found.append(f"{what} of the {name}: {first:.1f} {unit} in the second quarter, {last:.1f} in the last")
    return found


def probe(stage: Stage, number: int) -> Report:
    """A client that notes how long an answer takes: the median of each second, in microseconds."""
    client = Client(stage, number)
    with client.noting(), client.connect() as connection, open(stage.directory / "latency", "a") as file:
        while not stage.is_over:
            took = []
            end = time.monotonic() + _INTERVAL
            while time.monotonic() < end and not stage.is_over:
                began = time.perf_counter()
                client.ask(connection)
                took.append((time.perf_counter() - began) * 1e6)
                time.sleep(0.01)
            print(json.dumps([time.monotonic(), statistics.median(took)]), file=file, flush=True)
    return client.report()


def passing(stage: Stage, number: int) -> Report:
    """A client that asks, forks and goes."""
    client = Client(stage, 10 * number)
    with client.noting(), client.connect() as connection:
        for _request in range(20):
            client.ask(connection)
            client.ask(connection, 5000, 9000)
        client.fork(connection)
        client.ask(connection, 100_000, 100_000)
    return client.report()


class Load:
    """What goes on with one pair: a server that lives, and a client that lives."""

    def __init__(self, client: str, server: str, rng: random.Random) -> None:
        self._rng = rng
        self.visited, self.mortal = Stage(client, server), Stage(client, server)
        self.visited.serve(threads=2, setup=_hear_signals).hear()
        self.visited.client(lambda number: calm(self.visited, number))
        self.visited.client(lambda number: probe(self.visited, 10 * number))
        self.mortal.serve(threads=2)
        self.mortal.client(lambda number: steady(self.mortal, number, 2))
        self.watched = {f"server, {server}": self.visited.servers[0], f"client, {client}": self.mortal.clients[0]}
        self.name = f"{client} with {server}"

    def go_on(self) -> None:
        """A little of all that happens."""
        self.mortal.kill(self.mortal.servers[-1])
        self.mortal.serve(threads=2)
        self.visited.client(lambda number: passing(self.visited, number))
        passer = self.visited.clients[-1]
        if self._rng.random() < 0.5:
            time.sleep(self._rng.random() * 0.05)
            self.visited.kill(passer)
        server = self.visited.servers[0]
        server.signal(signal.SIGUSR2)
        if self._rng.random() < 0.1:
            server.signal(signal.SIGSTOP)
            time.sleep(self._rng.random() * 0.05)
            server.signal(signal.SIGCONT)
        for client in self.visited.clients[:-5]:
            if client.poll() is not None:
                client.forget()

    def end(self) -> "Counter[str]":
        """End all of it; the account."""
        account: Counter[str] = Counter()
        for stage in (self.visited, self.mortal):
            stage.end_clients()
            stage.wait_for_clients()
            stage.stop_servers()
            found = stage.account()
            if faults_of(found):
                print(f"FAULT {self.name}: {describe(found)}", *(process.errors[-2000:] for process in stage.processes))
            account.update(found)
        account["kills"] += len(self.mortal.killed) + len(self.visited.killed)
        return account

    def latencies(self, began: float) -> List[Tuple[float, float]]:
        """When, in minutes, and how long an answer took."""
        with contextlib.suppress(FileNotFoundError), open(self.visited.directory / "latency") as file:
            return [((when - began) / 60, took) for when, took in map(json.loads, file)]
        return []

    def close(self) -> None:
        self.visited.close()
        self.mortal.close()


def _hear_signals() -> None:
    signal.signal(signal.SIGUSR2, lambda *_signal: None)


def soak(seconds: float, seed: int) -> Tuple[Dict[str, Samples], "Counter[str]"]:
    """The load; what was measured, and the account."""
    rng = random.Random(seed)  # noqa: S311  # no secret depends on it
    samples: Dict[str, Samples] = {what: {} for what in (*WATCHED, "latency")}
    account: Counter[str] = Counter()
    loads = [Load("fallback", "native", rng), Load("native", "fallback", rng)]
    began = next_sample = time.monotonic()
    try:
        while time.monotonic() < began + seconds:
            for load in loads:
                load.go_on()
            if time.monotonic() >= next_sample:
                next_sample += _INTERVAL
                for load in loads:
                    for name, process in load.watched.items():
                        for what, value in measure(process).items():
                            samples[what].setdefault(name, []).append(((time.monotonic() - began) / 60, value))
            time.sleep(rng.random() * 0.1)
        for load in loads:
            samples["latency"][load.name] = load.latencies(began)
            account.update(load.end())
    finally:
        for load in loads:
            load.close()
    return samples, account


def draw(samples: Mapping[str, Samples], directory: str) -> None:
    """A picture for each thing that was measured."""
    draw_curves = importlib.import_module("report").draw_curves  # ci/bench/report.py
    units = {**{what: unit for what, (unit, _allowed) in WATCHED.items()}, "latency": "microseconds"}
    for what, curves in samples.items():
        title = f"Soak: {what}" + (", median of each second" if what == "latency" else "")
        draw_curves(f"{directory}/soak-{what}.svg", curves, "time (minutes)", f"{what} ({units[what]})", title, True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/soak", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--seed", type=int, help="of all that is left to chance")
    parser.add_argument("--plots", metavar="DIRECTORY", help="where in the checkout to draw; wants matplotlib")
    options = parser.parse_args()
    parts.load()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    samples, account = soak(60 * options.minutes, seed)
    for what, curves in samples.items():
        for name, points in curves.items():
            values = [value for _when, value in points] or [0.0]
            print(f"{what:12s} {name:22s} first {values[0]:8.1f}  median {statistics.median(values):8.1f}  "
                  f"last {values[-1]:8.1f}  most {max(values):8.1f}")  # fmt: skip
    print(describe(account))
    found = growth(samples)
    print(*found, sep="\n")
    if options.plots:
        draw(samples, os.path.join(_CHECKOUT, options.plots))
    return 1 if found or faults_of(account) else 0


if __name__ == "__main__":
    sys.exit(main())
