"""What ``run`` says: a table of ratios, the goals, two pictures."""

import contextlib
import os
import re
import statistics
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

# What was measured, figure by figure, round by round.
Found = Mapping[str, Mapping[str, List[float]]]

_MP = "multiprocessing.connection"
_SMALL = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10)


class Goal(NamedTuple):
    """What shall be reached."""

    what: str
    limit: float
    is_least: bool  # whether more than that is wanted, rather than less
    #: The worst of what counts for it, and its name; None if that was not measured.
    found: Optional[Tuple[float, str]]

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        is_met = self.found[0] >= self.limit if self.is_least else self.found[0] <= self.limit
        return "met" if is_met else "not met"


def ratio(found: Found, above: str, below: str, figure: str = "median") -> Optional[float]:
    """How many times the one is the other, as the median of the rounds' ratios."""
    pairs = zip(found.get(above, {}).get(figure, ()), found.get(below, {}).get(figure, ()))
    ratios = [one / other for one, other in pairs if other]
    return statistics.median(ratios) if ratios else None


def _goals(found: Found) -> Iterator[Goal]:
    def worst(
        ratios: Sequence[Tuple[Optional[float], str]], choose: Callable[..., Tuple[float, str]] = max
    ) -> Optional[Tuple[float, str]]:
        there = [(value, name) for value, name in ratios if value is not None]
        return choose(there) if there else None

    def among(pattern: str) -> List[str]:
        return [key for key in found if re.fullmatch(pattern, key)]

    def above(keys: Sequence[str], below: str, figure: str = "median") -> List[Tuple[Optional[float], str]]:
        return [(ratio(found, key, below, figure), key) for key in keys]

    floor = "floor, pinned"
    shapes = among(r"fallback: .*, pinned")
    shapes = [key for key in shapes if "Service" not in key and "ask" not in key]
    others = [key for key in shapes if "main threads" not in key]
    mains = [key for key in shapes if "main threads" in key]
    yield Goal("any shape of raw call, other threads / C floor, pinned", 1.8, False, worst(above(others, floor)))
    yield Goal("any shape of raw call, main threads / C floor, pinned", 2.1, False, worst(above(mains, floor)))
    chance = above(among(r"random \d+, pinned"), floor)
    yield Goal("shapes chosen by the seed, any threads / C floor, pinned", 2.1, False, worst(chance))
    for backend in ("fallback", "native"):
        mine = [key for key in among(rf"{backend}: .*, pinned") if not re.search("Service|ask|main threads", key)]
        if mine:
            fastest = min(mine, key=lambda key: statistics.median(found[key]["median"]))
            yield Goal(f"{backend}: slowest shape / fastest shape", 1.25, False, worst(above(mine, fastest)))
    for place in ("pinned", "free"):
        key, below = f"fallback: ask, Service, {place}", f"{_MP}, {place}"
        yield Goal(
            f"Connection.ask with Service.message / mp.connection, {place}", 1.2, False, worst(above([key], below))
        )
    for place in ("pinned", "free"):
        ratios = [
            (ratio(found, f"fallback, {size} bytes, {place}", f"{_MP}, {size} bytes, {place}"), f"{size} bytes")
            for size in _SMALL
        ]
        yield Goal(f"each size from 64 B to 64 KiB / mp.connection, {place}", 1.0, False, worst(ratios))
    for size, name, limit in ((1 << 20, "1 MiB", 0.25), (16 << 20, "16 MiB", 0.35)):
        ratios = [
            (ratio(found, f"fallback, {size} bytes, {place}", f"{_MP}, {size} bytes, {place}"), place)
            for place in ("pinned", "free")
        ]
        yield Goal(f"{name} / mp.connection", limit, False, worst(ratios))
    for backend in ("fallback", "native"):
        awake = above(among(rf"{backend}, awake: (plain|main threads), free"), "floor, free")
        yield Goal(f"{backend}: free CPUs with HA_QNX_SPIN_US / C floor, free", 0.25, False, worst(awake))
    paged = above(among(r"fallback, by a page: (plain|main threads), free"), "floor, free")
    yield Goal("free CPUs, shared-memory lane / C floor, free", 0.1, False, worst(paged))
    crowd = [(ratio(found, "fallback, 8 processes", "pyzmq, 8 processes", "per_second"), "8 processes")]
    yield Goal("8 client processes, messages a second / pyzmq", 2, True, worst(crowd, min))
    for peer, limit in (("pyzmq", 2.5), ("pynng", 4.5), ("Pyro5", 8), ("grpcio", 30)):
        ratios = [
            (ratio(found, f"{peer}, {place}", f"fallback: plain, {place}"), place) for place in ("pinned", "free")
        ]
        yield Goal(f"{peer} / ours, 64 B", limit, True, worst(ratios, min))
    many = [key for key in among(r"idle connections: \d+") if key != "idle connections: 0"]
    yield Goal("many idle connections, latency / none", 1.1, False, worst(above(many, "idle connections: 0")))
    memory = found.get("idle connection", {}).get("server_bytes")
    yield Goal("server's KiB for each idle connection", 6, False, (memory[0] / 1024, "") if memory else None)
    aware = [(ratio(found, "fallback: HA-aware, pinned", "fallback: plain, pinned"), "")]
    yield Goal("HA-aware / plain", 1.02, False, worst(aware))
    natives = [key for key in among(r"native: .*, pinned") if not re.search("Service|ask", key)]
    yield Goal("native, any shape / C floor", 2.0, False, worst(above(natives, floor)))
    recovered = found.get("recovery", {}).get("ratio")
    yield Goal("recovery / fresh open and round trip", 2, False, (recovered[0], "") if recovered else None)
    imported = [
        (
            ratio(found, "import: ha_qnx with its backend", "import: socket, ctypes and selectors", "cpu_milliseconds"),
            "",
        )
    ]
    yield Goal("import with the backend / socket, ctypes and selectors", 2, False, worst(imported))
    plain = found.get("fallback: plain, pinned", {})
    spread = [high / middle for high, middle in zip(plain.get("p99", ()), plain.get("median", ()))]
    yield Goal("p99 / p50, 64 B, pinned", 2, False, (statistics.median(spread), "") if spread else None)


def goals(found: Found) -> List[Dict[str, Any]]:
    """The goals, and what was reached, for JSON."""
    return [
        {
            "what": goal.what,
            "goal": ("at least " if goal.is_least else "at most ") + f"{goal.limit:g}",
            "found": None if goal.found is None else round(goal.found[0], 3),
            "of": None if goal.found is None else goal.found[1],
            "verdict": goal.verdict,
        }
        for goal in _goals(found)
    ]


def text(results: Mapping[str, Any]) -> str:
    """All of it, to be read."""
    found: Found = results["rounds"]
    machine, plan = results["machine"], results["plan"]
    lines = [
        f"$ {results['command']}   (seed {results['seed']}, {results['seconds']} s, {plan['rounds']} rounds)",
        f"{machine['python']}, {machine['kernel']}, {machine['processor']}, {machine['cpus']} CPUs",
        f"load {machine['load']}; peers: {', '.join(machine['peers'])}",
        "",
        "Medians of the rounds; ratios are medians of the rounds' ratios. CPU is that of both sides, a message.",
        "",
        f"{'what':58s}{'us':>10s}{'p99':>10s}{'CPU us':>9s}{'/ floor':>9s}{'/ mp':>8s}",
    ]
    rest: List[str] = []
    for key, figures in found.items():
        middles = {figure: statistics.median(values) for figure, values in figures.items()}
        if "median" not in middles:
            rest.append(f"{key:58s}" + ", ".join(f"{figure} {value:.4g}" for figure, value in middles.items()))
            continue
        place = key.rpartition(", ")[2]
        size = re.search(r", \d+ bytes, ", key)
        reference = f"{_MP}{size.group() if size else ', '}{place}"
        cpu = middles.get("client_cpu", 0.0) + middles.get("server_cpu", 0.0)
        lines.append(
            f"{key:58s}{middles['median']:>10.2f}{_cell(middles.get('p99'), 10)}{_cell(cpu or None, 9)}"
            f"{_cell(ratio(found, key, f'floor, {place}'), 9)}{_cell(ratio(found, key, reference), 8)}"
        )
    lines += ["", *rest, "", f"{'goal':68s}{'':12s}{'found':>9s}  "]
    for goal in results["goals"]:
        value = "" if goal["found"] is None else f"{goal['found']:.3f}"
        of = f" ({goal['of']})" if goal["of"] else ""
        lines.append(f"{goal['what']:68s}{goal['goal']:12s}{value:>9s}  {goal['verdict']}{of}")
    for name, shape in results["random"].items():
        if f"{name}, pinned" in found:
            lines.append(f"{name}: {_odd(shape['server'])} <- {_odd(shape['client'])}")
    return "\n".join(lines)


def _odd(shape: Mapping[str, Any]) -> str:
    return ", ".join(f"{field}={value}" for field, value in shape.items())


def _cell(value: Optional[float], width: int) -> str:
    return f"{value:>{width}.2f}" if value is not None else " " * width


def page(results: Mapping[str, Any], before: Optional[Mapping[str, Any]] = None) -> str:
    """RESULTS.md: the goals, before a change and after it if there is a run of before, and all of the run."""
    machine = results["machine"]
    lines = [
        "# What messages cost",
        "",
        f"From one run of `{results['command']}`, {results['plan']['rounds']} rounds, on",
        f"{machine['python']}, {machine['kernel']}, {machine['processor']}, {machine['cpus']} CPUs.",
        f"When it ended, {machine['load']} processes wanted them (the load average of a minute, the benchmark's own",
        "included). What is compared was measured in turn, so that ratios hold on a busy machine, too; p99, and what",
        "needs a CPU of its own, do not.",
        "",
    ]
    if before is not None:
        load = before["machine"]["load"]
        lines += [f"*Before* is the same, run on the sources before the change; the load was {load} then.", ""]
    earlier = {} if before is None else {goal["what"]: goal["found"] for goal in before["goals"]}
    lines += ["| what | goal | before | now | | the worst of them |", "|---|---|---|---|---|---|"]
    for goal in results["goals"]:
        cells = [goal["what"], goal["goal"], _shown(earlier.get(goal["what"])), _shown(goal["found"]), goal["verdict"]]
        lines.append("| " + " | ".join([*cells, goal["of"] or ""]) + " |")
    lines += ["", "What keeps those from being met that are not: [GOALS.md](GOALS.md)."]
    lines += ["", "![Latency by size](latency.svg)", "", "![Throughput by clients](throughput.svg)", ""]
    return "\n".join([*lines, "```", text(results), "```", ""])


def _shown(value: Optional[float]) -> str:
    return "" if value is None else f"{value:.2f}"


# Pictures.


def draw(found: Found, directory: str) -> None:
    """Two pictures: latency.svg and throughput.svg.

    Raises:
        ImportError: there is no matplotlib.
    """
    with contextlib.suppress(ValueError):
        draw_curves(os.path.join(directory, "latency.svg"), _latencies(found), "size of message and reply (bytes)",
              "round trip (microseconds)", "Latency by size")  # fmt: skip
    with contextlib.suppress(ValueError):
        draw_curves(os.path.join(directory, "throughput.svg"), _throughputs(found), "client processes",
              "messages a second", "Throughput by clients, all CPUs free")  # fmt: skip


Curves = Dict[str, List[Tuple[float, float]]]


def _latencies(found: Found) -> Curves:
    return _curves(found, r"(?P<name>.*), (?P<x>\d+) bytes, (?P<place>\w+)", "median")


def _throughputs(found: Found) -> Curves:
    return _curves(found, r"(?P<name>.*), (?P<x>\d+) processes(?P<place>)", "per_second")


def _curves(found: Found, pattern: str, figure: str) -> Curves:
    curves: Curves = {}
    for key, figures in found.items():
        match = re.fullmatch(pattern, key)
        if match and figure in figures:
            name = ", ".join(filter(None, (match["name"], match["place"])))
            curves.setdefault(name, []).append((float(match["x"]), statistics.median(figures[figure])))
    return curves


def draw_curves(path: str, curves: Curves, x: str, y: str, title: str, is_over_time: bool = False) -> None:
    """Draw curves; an axis is logarithmic if that is what it takes to see them all, and time is not.

    Raises:
        ImportError: there is no matplotlib.
        ValueError: there are none.
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ha_qnx"  # The same figures make the same file.
    from matplotlib import pyplot

    os.makedirs(os.path.dirname(path), exist_ok=True)
    from matplotlib.ticker import FuncFormatter

    if not curves:
        raise ValueError("nothing to be drawn")
    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    names = list(dict.fromkeys(name.replace(", free", "").replace(", pinned", "") for name in curves))
    for name, points in curves.items():
        colour = f"C{names.index(name.replace(', free', '').replace(', pinned', ''))}"
        across, up = zip(*sorted(points))
        axes.plot(across, up, marker=None if is_over_time else "o", markersize=3, color=colour, label=name,
                  linestyle="--" if name.endswith(", free") else "-")  # fmt: skip
    if not is_over_time:
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({place for points in curves.values() for place, _height in points}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _position: _plain(value)))
    heights = [height for points in curves.values() for _place, height in points]
    if max(heights) > 100 * min(heights):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _plain(value: float) -> str:
    for unit, factor in (("Mi", 1 << 20), ("Ki", 1 << 10)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g}"
