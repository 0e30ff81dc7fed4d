"""Programs that chance makes up, run on each backend: what they see has to be the same.

A process for each backend runs a hundred programs in a row, and writes down what each step came to. Where that differs,
the program is run again by itself, some times, and then made as short as it can be. What does so only in a row, or not
each time, is told as that.
"""

import contextlib
import functools
import gc
import json
import os
import random
import signal
import time
from typing import Any, Counter, Dict, List, Optional, Sequence

from ha_qnx import NTO_CHF_COID_DISCONNECT, NTO_CHF_UNBLOCK

from .programs import Named, Program, shortest
from .stage import Process, Stage
from .world import World

BACKENDS = ("fallback", "native", "hybrid")

#: Programs of one process.
_ROW = 100
#: A program may take so many seconds.
_PATIENCE = 20.0
#: A difference counts if it is there each of so many times.
_AGAIN = 3

#: Makes what a process makes once, and keeps.
WARM_UP: Program = [
    ("create", NTO_CHF_UNBLOCK | NTO_CHF_COID_DISCONNECT),
    ("name_attach", "warm"),
    ("name_open", "warm"),
    ("send", -1, 70_000, 70_000, 100, True),
    ("fail", -1, 5),
    ("timer", -1, 1),
    ("attach", 0, 0),
    ("give_up", -1, 10),
    ("send", -1, 70_000, 70_000, 100, False),
    ("deliver", -1, -1, 5),
    ("fork", ("pulse", -1, 10, 5, 6), ("give_up", -1, 70_000)),
    ("destroy", 0),
]

Trace = List[Any]


class Run:
    """Some programs, each run by all backends, side by side; what they saw."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self._stages = {backend: Stage(backend, backend) for backend in BACKENDS}
        self._processes = {
            backend: stage.start(backend, functools.partial(self._live, backend, stage, programs))
            for backend, stage in self._stages.items()
        }

    def _live(self, backend: str, stage: Stage, programs: Sequence[Program]) -> None:
        """In a process of its own."""
        os.mkdir(stage.directory / "run", 0o700)
        written = os.open(self._file(stage), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _play(backend, WARM_UP, -1)
        for program in programs:
            _play(backend, program, written)

    @staticmethod
    def _file(stage: Stage) -> str:
        return str(stage.directory / "trace")

    def traces(self) -> Dict[str, List[Trace]]:
        """Of each backend, that of each program."""
        for backend, process in self._processes.items():
            self._wait(self._stages[backend], process)
        found: Dict[str, List[Trace]] = {}
        for backend, stage in self._stages.items():
            with open(self._file(stage)) as file:
                found[backend] = [[]]
                for line in file:
                    found[backend][-1].append(json.loads(line))
                    if found[backend][-1][-1][0] == "ends":
                        found[backend].append([])
            process = self._processes[backend]
            if process.poll() != 0:
                found[backend][-1].append(["dies", process.poll(), process.errors[-3000:]])
            stage.close()
        return found

    def _wait(self, stage: Stage, process: Process) -> None:
        """Until it has ended, or gets no further."""
        size, end = -1, 0.0
        while process.poll() is None:
            now = os.stat(self._file(stage)).st_size if os.path.exists(self._file(stage)) else 0
            if now != size:
                size, end = now, time.monotonic() + _PATIENCE
            if time.monotonic() > end:
                process.wait(0)
                break
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # What it has forked.


def _play(backend: str, program: Program, written: int) -> None:
    def write(what: Any) -> None:
        if written >= 0:
            os.write(written, json.dumps(what).encode() + b"\n")

    before = set(os.listdir("/proc/self/fd"))
    world = World(backend)
    for step in program:
        write(["begins", step[0]])
        write(["saw", world.do(step)])
    write(["ends", world.end(), _left(before)])


def _left(before: "set[str]") -> List[str]:
    """Descriptors that are there now, and were not."""
    end = time.monotonic() + 0.2
    while True:
        left = sorted(set(os.listdir("/proc/self/fd")) - before)
        found = []
        for fd in left:
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
            except FileNotFoundError:
                continue
        if not found or time.monotonic() > end:
            return found
        gc.collect()
        time.sleep(0.001)


def difference(traces: Dict[str, List[Trace]], at: int) -> Optional[str]:
    """Where the backends part in a program; None if they do not."""
    each = {backend: found[at] if at < len(found) else [] for backend, found in traces.items()}
    longest = max(map(len, each.values()))
    for line in range(longest):
        seen = {backend: trace[line] if line < len(trace) else "nothing more" for backend, trace in each.items()}
        if len({json.dumps(what, sort_keys=True) for what in seen.values()}) > 1:
            return _told(each["fallback"][:line], seen)
    last = each["fallback"][-1] if longest else ["nothing"]
    if last[0] != "ends":
        return f"none comes to its end: {last}"
    return f"all leave descriptors open: {last[2]}" if last[2] else None


def _told(before: Trace, seen: Dict[str, Any]) -> str:
    steps = [line for line in before if line[0] == "begins"]
    lines = [f"  {backend}: {json.dumps(what)[:1500]}" for backend, what in seen.items()]
    return "\n".join([f"step {len(steps) - 1}, {steps[-1][1] if steps else ''}:", *lines])


def alone(program: Program) -> Optional[str]:
    """What differs in a program that is run by itself."""
    return difference(Run([program]).traces(), 0)


def compare(rng: random.Random, seconds: float, total: "Counter[str]", most: int = 10) -> bool:
    """Compare programs; whether all were alike. No more than so many differences are looked into."""
    seed = rng.randrange(1 << 31)
    end = time.monotonic() + seconds
    found = 0
    for first in range(0, 1 << 30, _ROW):
        if time.monotonic() > end or found >= most:
            break
        names = [Named(seed, number) for number in range(first, first + _ROW)]
        programs = [name.make() for name in names]
        traces = Run(programs).traces()
        total["programs"] += len(programs)
        total["steps"] += sum(map(len, programs))
        for at, program in enumerate(programs):
            what = difference(traces, at)
            if what is not None:
                found += 1
                _look_into(names[at], program, what, total)
                if any(at >= len(trace) - 1 for trace in traces.values()):
                    break  # One came no further.
    return found == 0


def _look_into(name: Named, program: Program, what: str, total: "Counter[str]") -> None:
    """Is it there each time, and which is the shortest program that shows it?"""
    again = [alone(program) for _time in range(_AGAIN)]
    if not all(again):
        kind = "in a row only" if not any(again) else "now and then"
        total[f"other, {kind}"] += 1
        print(f"ODD {kind}: {name}\n{what}\n{program}", flush=True)
        return
    total["other"] += 1
    short = shortest(program, lambda one: alone(one) is not None)
    print(f"DIFFERENT: {name}\n{alone(short)}", *short, sep="\n   ", flush=True)
