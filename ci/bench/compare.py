"""What messages cost in the shapes that users give them, beside others' messages and the C floor.

Everything that is compared is measured in turn, a fraction of a second at a time, in each round of one run: each ratio
is the median of the rounds' ratios, so that a change of the machine's speed meets both sides. All processes of a case
live as long as the run; those that are not measured do nothing.

    sh ci/bench/run [--quick] [--json] [--only NAME ...] [--seed N]

Groups, for --only: shapes, random, service, spin, sizes, peers, throughput, idle, recovery, dropin, import.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import peers
import report
from message import build_floor, ctypes_call, has_native, measure_floor
from sides import BUFFERS, LARGEST, MESSAGES, SIZE, Client, Pair, Process, Server

GROUPS = (
    "shapes", "random", "service", "spin", "sizes", "peers", "throughput", "idle", "recovery", "dropin", "import",
)  # fmt: skip
PINNED, FREE = "pinned", "free"
MP = "multiprocessing.connection"
SIZES = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20)
CLIENTS = (1, 2, 4, 8)
# For how long those look that wait awake, in microseconds: longer than a message of theirs takes.
SPIN_US = 100
_IMPORTS = {
    "nothing": "pass",
    "socket, ctypes and selectors": "import socket, ctypes, selectors",
    "ha_qnx": "import ha_qnx",
    "ha_qnx with its backend": "import ha_qnx; ha_qnx.backend()",
}


class Case(NamedTuple):
    """One way to send messages and to answer them."""

    group: str
    name: str
    server: Server
    client: Client
    places: Tuple[str, ...] = (PINNED,)
    sizes: Tuple[int, ...] = (SIZE,)


class Plan(NamedTuple):
    """How long it may take."""

    rounds: int
    seconds: float  # of messages of a case in a round
    idle: int  # connections
    kills: int
    floor_messages: int


FULL = Plan(rounds=11, seconds=0.1, idle=5000, kills=60, floor_messages=4000)
QUICK = Plan(rounds=3, seconds=0.02, idle=500, kills=8, floor_messages=1000)


def shapes(backend: str) -> Iterator[Case]:
    """The plain shape, and each thing in it that users do otherwise, one at a time; then all of them together."""

    def case(name: str, server: Server, client: Client, places: Tuple[str, ...] = (PINNED,)) -> Case:
        return Case("shapes", f"{backend}: {name}", server, client, places)

    server, client = Server(backend=backend), Client(backend=backend)
    in_main = server._replace(main_thread=True), client._replace(main_thread=True)
    yield case("plain", server, client, (PINNED, FREE))
    yield case("main threads", *in_main, (PINNED, FREE))
    yield case("HA-aware", server, client._replace(is_aware=True))
    yield case("Connection for int", server, client._replace(number="Connection"))
    for kind in BUFFERS:
        yield case(f"message: {kind}", server, client._replace(message=kind))
        yield case(f"reply: {kind}", server._replace(reply=kind), client)
    for kind in BUFFERS[1:]:
        yield case(f"room for the reply: {kind}", server, client._replace(room=kind))
        yield case(f"room for the message: {kind}", server._replace(room=kind), client)
    yield case("room for the message: 128 bytes", server._replace(room_size=128), client)
    yield case("room for the reply: 4096 bytes", server, client._replace(room_size=4096))
    yield case("room for the reply: 64 KiB", server, client._replace(room_size=65536))
    yield case("a fresh MessageInfo", server._replace(with_info=True), client)
    odd = server._replace(room="memoryview slice", reply="memoryview slice", with_info=True)
    sends_oddly = client._replace(
        number="Connection", message="memoryview slice", room="memoryview slice", is_aware=True, room_size=4096
    )
    yield case("all of it", odd, sends_oddly, (PINNED, FREE))
    yield case("all of it, main threads", odd._replace(main_thread=True), sends_oddly._replace(main_thread=True))


def random_shapes(backends: Sequence[str], seed: int, number: int) -> Iterator[Case]:
    """Shapes that a seed chooses, so that nothing can be fast for this program only."""
    choose = random.Random(seed).choice  # noqa: S311  # no secret
    for count in range(number):
        server = Server(
            backend=choose(backends),
            room=choose(BUFFERS),
            room_size=choose((64, 80, 128, 1000, 4096)),
            reply=choose(MESSAGES),
            with_info=choose((False, True)),
            main_thread=choose((False, True)),
        )
        client = Client(
            backend=choose(backends),
            number=choose(("int", "Connection")),
            message=choose(MESSAGES),
            room=choose(BUFFERS),
            room_size=choose((64, 65, 100, 1000, 4096, 32768)),
            is_aware=choose((False, True)),
            main_thread=choose((False, True)),
        )
        yield Case("random", f"random {count + 1}", server, client)


def services(backend: str) -> Iterator[Case]:
    """Service and Connection, in threads and in asyncio."""
    places = (PINNED, FREE)
    raw, service = Server(backend=backend), Server("Service", backend)
    client, asks = Client(backend=backend), Client("ask", backend)
    aware = asks._replace(is_aware=True)
    for name, server, sender in (
        ("ask, raw loop", raw, asks),
        ("MsgSend, Service", service, client),
        ("ask, Service", service, asks),
        ("ask, HA-aware, Service", service, aware),
        ("ask, main threads, Service", service._replace(main_thread=True), asks._replace(main_thread=True)),
        ("ask, Service of 4 threads", service._replace(threads=4), asks),
        ("aio.ask, Service", service, Client("aio", backend, main_thread=True)),
        ("ask, aio.Service", Server("aio", backend, main_thread=True), asks),
    ):
        yield Case("service", f"{backend}: {name}", server, sender, places)


def spinning(backend: str) -> Iterator[Case]:
    """Waiting awake, each side on a CPU of its own."""
    raw, client = Server(backend=backend, spin_us=SPIN_US), Client(backend=backend, spin_us=SPIN_US)
    service, asks = raw._replace(kind="Service"), client._replace(call="ask")
    for name, server, sender in (
        ("plain", raw, client),
        ("main threads", raw._replace(main_thread=True), client._replace(main_thread=True)),
        ("ask, Service", service, asks),
    ):
        yield Case("spin", f"{backend}, awake: {name}", server, sender, (FREE,))
        if backend == "fallback":  # libha takes no pages.
            yield Case("spin", f"{backend}, by a page: {name}", server._replace(takes_pages=True), sender, (FREE,))


def by_size(backends: Sequence[str]) -> Iterator[Case]:
    places = (PINNED, FREE)
    for backend in backends:
        large = Server(backend=backend, room_size=LARGEST)
        yield Case("sizes", backend, large, Client(backend=backend, room_size=0), places, SIZES)
    yield Case("sizes", MP, Server(MP), Client(MP), places, SIZES)


def cases(backends: Sequence[str], groups: Sequence[str], seed: int, is_quick: bool) -> List[Case]:
    """Whatever is measured by messages of one client."""
    found: List[Case] = []
    for backend in backends:
        found += shapes(backend)
        if backend == "fallback" or not is_quick:
            found += services(backend)
        found += spinning(backend)
    found += random_shapes(backends, seed, 4 if is_quick else 16)
    found += by_size(backends)
    found += [Case("peers", peer, Server(peer), Client(peer), (PINNED, FREE)) for peer in peers.there()]
    return [
        case
        for case in found
        if case.group in groups or (case.group == "peers" and case.name == MP and "service" in groups)
    ]


class Run:
    """One run: what is measured, and what came of it."""

    def __init__(self, plan: Plan, groups: Sequence[str], backends: Sequence[str], floor: Any) -> None:
        self.plan = plan
        self._groups = groups
        self._backends = backends
        self._floor = floor
        cpus = sorted(os.sched_getaffinity(0))
        self._cpus = {PINNED: (cpus[-1],), FREE: tuple(cpus)}
        #: For each thing that was measured, and for each figure of it: what each round has found.
        self.found: Dict[str, Dict[str, List[float]]] = {}
        self._round = 0

    def note(self, key: str, **figures: float) -> None:
        for figure, value in figures.items():
            self.found.setdefault(key, {}).setdefault(figure, []).append(value)

    def _progress(self, what: str) -> None:
        if self._round:
            what = f"round {self._round} of {self.plan.rounds}: {what}"
        print(f"\r{what[:90]:90s}", end="", file=sys.stderr, flush=True)

    def measure(self, cases: Sequence[Case]) -> None:
        """All rounds of what is measured by messages."""
        with contextlib.ExitStack() as stack:

            def pair(server: Server, client: Client) -> Pair:
                made = Pair(server, client)
                stack.callback(made.end)
                return made

            pairs = [(case, pair(case.server, case.client)) for case in cases]
            for number, (case, each) in enumerate(pairs):
                self._progress(f"beginning: {number + 1} of {len(pairs)}, {case.name}")
                each.clients(1)
            crowds = self._crowds(pair)
            idle = self._idle(pair)
            for number in range(1, self.plan.rounds + 1):
                self._round = number
                for place in (PINNED, FREE):
                    self._measure_floor(place)
                    for case, each in pairs:
                        if place in case.places:
                            self._measure_case(case, each, place)
                for name, each in crowds.items():
                    self._measure_crowd(name, each)
                for name, each in idle.items():
                    self._progress(name)
                    self.note(name, **each.measure(self._cpus[PINNED], self.plan.seconds, SIZE))
                if "import" in self._groups:
                    self._measure_imports()
            self._round = 0

    def _measure_floor(self, place: str) -> None:
        if self._floor is None:
            return
        self._progress("the floor")
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cpus[place])
        try:
            self.note(f"floor, {place}", median=measure_floor(self._floor, self.plan.floor_messages) / 1e3)
        finally:
            os.sched_setaffinity(0, before)

    def _measure_case(self, case: Case, pair: Pair, place: str) -> None:
        for size in case.sizes:
            self._progress(f"{case.name}, {place}" + (f", {size} bytes" if len(case.sizes) > 1 else ""))
            key = f"{case.name}, {size} bytes, {place}" if len(case.sizes) > 1 else f"{case.name}, {place}"
            self.note(key, **pair.measure(self._cpus[place], self.plan.seconds, size))

    def _crowds(self, pair: Callable[[Server, Client], Pair]) -> Dict[str, Pair]:
        """Servers that many clients speak to at the same time."""
        if "throughput" not in self._groups:
            return {}
        found = {}
        for backend in self._backends:
            found[backend] = pair(Server(backend=backend), Client(backend=backend))
        found["fallback, 4 receiving threads"] = pair(Server(threads=4), Client())
        for peer in {"pyzmq", MP} & set(peers.there()):
            found[peer] = pair(Server(peer), Client(peer))
        for name, each in found.items():
            self._progress(f"beginning: {CLIENTS[-1]} clients of {name}")
            each.clients(CLIENTS[-1])
        return found

    def _measure_crowd(self, name: str, pair: Pair) -> None:
        seconds = 2 * self.plan.seconds
        for number in CLIENTS:
            self._progress(f"{number} clients of {name}")
            self.note(f"{name}, {number} processes", per_second=pair.count(self._cpus[FREE], seconds, number))
            if name != MP:  # Its connections are not for several threads.
                self.note(f"{name}, {number} threads", per_second=pair.count(self._cpus[FREE], seconds, 1, number))

    def _idle(self, pair: Callable[[Server, Client], Pair]) -> Dict[str, Pair]:
        """The same server with connections that do nothing, and without."""
        if "idle" not in self._groups:
            return {}
        none, many = pair(Server(), Client()), pair(Server(), Client())
        none.clients(1)
        many.clients(2)
        before = many.server.resident()
        for done in range(100, self.plan.idle + 1, 100):
            self._progress(f"beginning: {done} of {self.plan.idle} idle connections")
            many.ask(1, "hold", 100)
            many.answer(1)
        self.note("idle connection", server_bytes=(many.server.resident() - before) / self.plan.idle)
        return {"idle connections: 0": none, f"idle connections: {self.plan.idle}": many}

    def _measure_imports(self) -> None:
        for name, program in _IMPORTS.items():
            self._progress(f"import {name}")
            began = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-c", program])  # noqa: S603  # one of the above
            _pid, _status, usage = os.wait4(process.pid, 0)
            process.returncode = 0
            took, cpu = time.perf_counter() - began, usage.ru_utime + usage.ru_stime
            self.note(f"import: {name}", milliseconds=took * 1e3, cpu_milliseconds=cpu * 1e3)

    def measure_others(self) -> None:
        """What has programs of its own: recovery and the drop-in."""
        if "recovery" in self._groups:
            self._progress("recovery")
            found = self._program("recovery.py", "--kills", str(self.plan.kills))
            self.note("recovery", **found)
        if "dropin" in self._groups:
            self._progress("drop-in")
            calls = max(200, int(self.plan.seconds * 50_000))
            for what, columns in self._program("dropin.py", "--rounds", "5", "--calls", str(calls)).items():
                self.note(f"drop-in: {what}", **columns)

    @staticmethod
    def _program(name: str, *arguments: str) -> Dict[str, Any]:
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
        done = subprocess.run(  # noqa: S603  # one of ours
            [sys.executable, program, "--json", *arguments], check=True, stdout=subprocess.PIPE, timeout=600
        )
        found: Dict[str, Any] = json.loads(done.stdout)
        return found


def _in_child(call: Callable[[], object]) -> Any:
    """What a function returns in a process of its own, so that this one uses no backend and may fork."""
    read, write = os.pipe()

    def tell() -> None:
        os.write(write, json.dumps(call()).encode())

    process = Process(tell)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    process.end()
    return json.loads(text)


def machine() -> Dict[str, Any]:
    """What it runs on."""
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2),
        "peers": peers.there(),
    }


def _command(options: argparse.Namespace, seed: int) -> str:
    """What measures the same once more: the options without those that say where things go."""
    words = ["sh", "ci/bench/run"]
    if options.quick:
        words.append("--quick")
    words += [f"--only={group}" for group in options.only or ()]
    if options.rounds:
        words.append(f"--rounds={options.rounds}")
    return " ".join([*words, f"--seed={seed}"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ci/bench/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="what a minute is enough for; the figures are rough")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with what each round has found")
    parser.add_argument(
        "--only", action="append", choices=GROUPS, metavar="NAME", help="only this group; may be repeated"
    )
    parser.add_argument("--seed", type=int, help="which shapes the group random chooses; told at the end")
    parser.add_argument("--rounds", type=int, help="more or fewer than usual")
    parser.add_argument("--pictures", metavar="DIRECTORY", help="draw latency.svg and throughput.svg there")
    parser.add_argument("--page", metavar="FILE", help="write RESULTS.md there")
    parser.add_argument("--before", metavar="FILE", help="the JSON of an earlier run, for that page")
    options = parser.parse_args()
    page, pictures = (path and os.path.abspath(path) for path in (options.page, options.pictures))
    before = None
    if options.before:
        with open(options.before, encoding="utf-8") as file:
            before = json.load(file)
    os.chdir(sys.prefix)  # In the checkout, what is started here would import that, and not what is installed.
    groups = options.only or list(GROUPS)
    seed = random.SystemRandom().randrange(1 << 16) if options.seed is None else options.seed
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = plan._replace(rounds=options.rounds)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["HA_QNX_RUNTIME"] = directory
        backends = ["fallback", *(["native"] if _in_child(has_native) else [])]
        run = Run(plan, groups, backends, build_floor(directory))
        run.measure(cases(backends, groups, seed, options.quick))
        run.measure_others()
        if "native" in backends and "shapes" in groups:
            run.note("ctypes: one call that does nothing", median=_in_child(ctypes_call) / 1e3)
    print("\r" + " " * 90 + "\r", end="", file=sys.stderr)
    results: Dict[str, Any] = {
        "machine": machine(),
        "command": _command(options, seed),
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "plan": plan._asdict(),
        "random": {
            case.name: {"server": case.server._asdict(), "client": case.client._asdict()}
            for case in random_shapes(backends, seed, 4 if options.quick else 16)
        },
        "rounds": run.found,
        "goals": report.goals(run.found),
    }
    if pictures:
        report.draw(run.found, pictures)
    if page:
        with open(page, "w", encoding="utf-8") as file:
            file.write(report.page(results, before))
    print(json.dumps(results) if options.json else report.text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
