"""The parts of the attack, by their names: each runs over pairs of backends, and says whether all is right."""

import codecs
import importlib
import pkgutil
import random
import time
from typing import Callable, Counter, Dict, NamedTuple, Sequence, Tuple

import ha_qnx
from ha_qnx import backends

from . import accounting, fuzz, model, steps
from .accounts import describe, faults_of
from .stage import PAIRS, staged

__all__ = ["PAIRS", "PARTS", "pair_of", "run"]

Pair = Tuple[str, str]


class Order(NamedTuple):
    """What a part has to do, and where it adds what it found."""

    client: str
    server: str
    rng: random.Random
    seconds: float
    is_brief: bool
    first: int  # where to go on with what is done one by one
    total: "Counter[str]"


Part = Callable[[Order], object]


def _scenario(name: str) -> Part:
    def run(order: Order) -> None:
        with staged(order.client, order.server, order.total, name) as stage:
            accounting.SCENARIOS[name](stage, order.rng, order.seconds)
            order.total["kills"] += len(stage.killed)

    return run


def _kills(side: str) -> Part:
    def run(order: Order) -> None:
        step = 300 if order.is_brief else 1
        number = steps.kills(order.client, order.server, side, order.total, step, order.rng.randrange(step))
        print(f"   {order.client}/{order.server}: the {side} makes {number} calls", flush=True)

    return run


def _errors(side: str) -> Part:
    def run(order: Order) -> None:
        end = time.monotonic() + order.seconds
        place = steps.errors(order.client, order.server, side, order.total, end, order.rng, order.first)
        if place:
            print(f"   {order.client}/{order.server}: goes on with --from {place}", flush=True)

    return run


def _fuzz(order: Order) -> None:
    began = time.monotonic()
    with staged(order.client, order.server, order.total, "fuzz") as stage:
        fuzz.fuzz(stage, order.rng, order.seconds, order.total)
    print(f"   {order.total['sessions'] / (time.monotonic() - began):.0f} sessions a second", flush=True)


def _model(order: Order) -> None:
    """All backends at once, so that there is but one pair."""
    rng = random.Random(1) if order.is_brief else order.rng  # noqa: S311  # no secret depends on it
    model.compare(rng, order.seconds, order.total)


PARTS: Dict[str, Part] = {
    **{name: _scenario(name) for name in accounting.SCENARIOS},
    **{f"kill-{side}": _kills(side) for side in steps.SIDES},
    **{f"errno-{side}": _errors(side) for side in steps.SIDES},
    "fuzz": _fuzz,
    "model": _model,
}

#: These need no pairs.
WITHOUT_PAIRS = ("model",)


def pair_of(text: str) -> Pair:
    """A pair as it is written, such as native/fallback."""
    client, server = text.split("/")
    return client, server


def run(name: str, pairs: Sequence[Pair], seed: int, seconds: float, is_brief: bool, first: int = 0) -> bool:
    """Run a part over pairs of backends, and print its account; whether that is right."""
    load()
    total: Counter[str] = Counter()
    for client, server in [("all", "all")] if name in WITHOUT_PAIRS else pairs:
        found: Counter[str] = Counter()
        began = time.monotonic()
        rng = random.Random(seed)  # noqa: S311  # no secret depends on it
        share = seconds / (1 if name in WITHOUT_PAIRS else len(pairs))
        PARTS[name](Order(client, server, rng, share, is_brief, first, found))
        took = time.monotonic() - began
        print(f"{name:18s} {client + '/' + server:18s} {took:5.1f} s: {describe(found)}", flush=True)
        total.update(found)
    print(f"{name:18s} {'all':18s}         {describe(total)}", flush=True)
    return not faults_of(total)


def load() -> None:
    """Import here what processes that are forked would import."""
    left_out = ("ha_qnx.conformance", "ha_qnx.examples", "ha_qnx.__main__", "ha_qnx.libha_posix", "ha_qnx.serial_ports")
    for module in pkgutil.walk_packages(ha_qnx.__path__, "ha_qnx."):
        if not module.name.startswith(left_out):
            importlib.import_module(module.name)
    for encoding in ("ascii", "latin-1"):
        codecs.lookup(encoding)
    for backend in backends.NAMES:
        backends.backend(backend)
