"""Say which lines of the specification the conformance suite checks: write COVERAGE.md, or see that it is current.

Every line has either tests, which name it in their marks, or a reason in the suite's unreached.py why it has none.

    python ci/coverage.py             write the file
    python ci/coverage.py --check     fail if it is not what would be written, or if the marks are not in order

Run it with an interpreter that has ha_qnx and pytest installed: it looks at the installed suite.
"""

import argparse
import contextlib
import io
import json
import pathlib
import runpy
import sys
import tempfile
from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

HERE = pathlib.Path(__file__).resolve().parent

# Python puts this directory first, where others would find this file when they look for the package of its name.
sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != HERE]

import ha_qnx.conformance  # noqa: E402  # the path has to be in order first

from ha_qnx.commands.conformance import run_suite  # noqa: E402  # as above

FACTS = tuple(f"B{number}" for number in range(1, 416))
DECISIONS = tuple(f"D{number}" for number in range(1, 33))
LINES = FACTS + DECISIONS

FILE = HERE.parent / "tests" / "conformance" / "COVERAGE.md"
HOW_TO_WRITE = "python ci/coverage.py"

INTRODUCTION = """\
# What the conformance suite checks

The specification of QNX's calls has numbered lines: B1 to B415 say what QNX does, D1 to D32 what this project decides
where QNX leaves something open or where a POSIX host must differ. Here is each line with the tests that check it, or
with the reason why none does. The first sentence of a test's docstring says what it expects.

`python ci/coverage.py` writes this file, from the marks of the tests and from `unreached.py`. It is not to be edited.
"""


class FaultyCollectionError(Exception):
    """pytest cannot collect the suite; its output says why."""


class Test(NamedTuple):
    """A test of the suite, whatever its parameters."""

    name: str
    lines: Tuple[str, ...]
    open_points: Tuple[str, ...]

    @property
    def all_lines(self) -> Tuple[str, ...]:
        """Whatever line it is marked with, once."""
        return tuple(dict.fromkeys(self.lines + self.open_points))


class Unreached(NamedTuple):
    """What unreached.py says: reasons, each with the lines that it holds for."""

    reasons: Dict[str, Tuple[str, ...]]
    #: Those of the reasons that will no longer hold one day.
    later: Tuple[str, ...]
    #: What is left for later of lines that have tests already.
    parts: Dict[str, Tuple[str, ...]]


def collect(suite: pathlib.Path) -> List[Test]:
    """The tests of a suite, in the order in which they run.

    Raises:
        FaultyCollectionError: there is something in it that pytest cannot collect.
    """
    with tempfile.TemporaryDirectory() as directory:
        report = pathlib.Path(directory, "report.json")
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            status = run_suite(str(suite), ["--collect-only", "-q"], str(report))
        if status:
            raise FaultyCollectionError(output.getvalue())
        items = json.loads(report.read_text(encoding="utf-8"))["tests"]
    tests: Dict[str, Test] = {}
    for item in items:
        path, _colons, function = item["id"].partition("[")[0].partition("::")
        name = f"{pathlib.PurePath(path).stem}::{function}"
        known = tests.get(name, Test(name, (), ()))
        tests[name] = Test(name, (*known.lines, *item["lines"]), (*known.open_points, *item["open_points"]))
    return list(tests.values())


def read_reasons(suite: pathlib.Path) -> Unreached:
    """What the suite says about lines without tests."""
    names = runpy.run_path(str(suite / "unreached.py"))
    return Unreached(names["REASONS"], names["LATER"], names["PARTS"])


def faults(tests: Sequence[Test], unreached: Unreached) -> Iterator[str]:
    """A sentence for everything that is not in order."""
    covered = {line for test in tests for line in test.all_lines}
    excused: Dict[str, List[str]] = {}
    for reason, lines in unreached.reasons.items():
        for line in lines:
            excused.setdefault(line, []).append(reason)
    for test in tests:
        for line in _unknown(test.all_lines):
            yield f"{test.name} is marked with {line}, and there is no such line"
        for line in test.open_points:
            if line not in DECISIONS:
                yield f"{test.name} is marked as a test of the open point {line}, which is no decision"
    for line in _unknown(excused):
        yield f"unreached.py has a reason for {line}, and there is no such line"
    for line, reasons in excused.items():
        if line in covered:
            yield f"{line} has tests, and unreached.py has a reason why it cannot have any"
        if len(reasons) > 1:
            yield f"{line} has {len(reasons)} reasons in unreached.py: one is enough"
    for line in LINES:
        if line not in covered and line not in excused:
            yield f"{line} has neither a test nor a reason in unreached.py"
    for line in sorted({line for lines in unreached.parts.values() for line in lines} - covered):
        yield f"unreached.py says what is left of {line}, which has no test"
    for reason in unreached.later:
        if reason not in unreached.reasons:
            yield f"unreached.py says that a reason is for later, and no line has it: {reason!r}"


def _unknown(lines: Iterable[str]) -> List[str]:
    return [line for line in lines if line not in LINES]


def page(tests: Sequence[Test], unreached: Unreached) -> str:
    """The content of COVERAGE.md, of a suite that is in order."""
    names: Dict[str, List[str]] = {}
    for test in tests:
        for line in test.all_lines:
            names.setdefault(line, []).append(f"`{test.name}`")
    cells = {line: ", ".join(found) for line, found in names.items()}
    for rest, lines in unreached.parts.items():
        cells.update({line: f"{cells[line]}; {rest}" for line in lines})
    counts: Dict[str, int] = {"checked by tests": len(cells), "out of reach": 0, **dict.fromkeys(unreached.later, 0)}
    for reason, lines in unreached.reasons.items():
        counts[reason if reason in unreached.later else "out of reach"] += len(lines)
        cells.update(dict.fromkeys(lines, reason))
    rows = [("lines", ""), ("---", "--:"), *counts.items(), ("in all", len(LINES))]
    sections = [INTRODUCTION.rstrip("\n"), _table(rows)]
    for title, lines in (("What QNX does", FACTS), ("What this project decides", DECISIONS)):
        rows = [("line", "tests, or why there is none"), ("---", "---"), *((line, cells[line]) for line in lines)]
        sections += [f"## {title}", _table(rows)]
    others = [f"- `{test.name}`" for test in tests if not test.all_lines]
    if others:
        sections += ["## Tests of the interface to Python, which no line speaks of", "\n".join(others)]
    return "\n\n".join(sections) + "\n"


def _table(rows: Iterable[Tuple[str, object]]) -> str:
    return "\n".join(f"| {first} | {second} |" for first, second in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if there would be something to write")
    parser.add_argument("--suite", type=pathlib.Path, default=pathlib.Path(ha_qnx.conformance.__file__).parent)
    parser.add_argument("--file", type=pathlib.Path, default=FILE)
    options = parser.parse_args()
    try:
        tests = collect(options.suite)
    except FaultyCollectionError as error:
        print(f"the suite cannot be collected\n{error}")
        return 1
    unreached = read_reasons(options.suite)
    found = list(faults(tests, unreached))
    if found:
        print("\n".join(found))
        return 1
    content = page(tests, unreached)
    if not options.check:
        options.file.write_text(content, encoding="utf-8")
    elif not options.file.exists() or options.file.read_text(encoding="utf-8") != content:
        print(f"{options.file.name} is not what the suite says now: write it anew by {HOW_TO_WRITE}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
