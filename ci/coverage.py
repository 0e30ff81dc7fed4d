"""Say which lines of the specification the conformance suite checks: write COVERAGE.md, or see that it is current.

Every line has either tests, which name it in their marks, or a reason in the suite's unreached.py why it has none. And
whoever cites a line, in code, tests or pages, cites one that exists. Which lines there are, SPECIFICATION.md says.

    python ci/coverage.py             write the file
    python ci/coverage.py --check     fail if it is not what would be written, or if marks or citations are not in order

Run it with an interpreter that has ha_qnx and pytest installed: it looks at the installed suite.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import re
import runpy
import sys
import tempfile
from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

HERE = pathlib.Path(__file__).resolve().parent

# Python puts this directory first, where others would find this file when they look for the package of its name.
sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != HERE]

from ha_qnx.conformance import specification  # noqa: E402  # the path has to be in order first

from ha_qnx.commands.conformance import run_suite  # noqa: E402  # as above

FILE = HERE.parent / "tests" / "conformance" / "COVERAGE.md"
HOW_TO_WRITE = "python ci/coverage.py"

# Where lines are cited, below the checkout. (The names of lint rules in pyproject.toml look the same.)
CITING = ("*.md", ".github/**/*", "ci/**/*", "fallback/**/*", "ha_qnx/**/*", "tests/**/*")
NOT_CITING = (".json", ".tsv", ".pyc", ".so")
CITATION = re.compile(r"(?<!\w)[BD][1-9]\d*(?!\w)")
# Its rules have such names, too.
NOQA = re.compile(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)*")

INTRODUCTION = """\
# What the conformance suite checks

[The specification](SPECIFICATION.md) of QNX's calls has numbered lines, {extent}: the former say
what QNX does, the latter what this project decides where QNX leaves something open or where a POSIX host must differ.
Here is each line with the tests that check it, or with the reason why none does. The first sentence of a test's
docstring says what it expects. `ha-qnx explain B73` prints a line and its tests.

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
    # Which tests there are depends on no plugin that happens to be installed, and loading them takes most of the time.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
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


def faults(known: specification.Specification, tests: Sequence[Test], unreached: Unreached) -> Iterator[str]:
    """A sentence for everything in the suite that is not in order."""
    covered = {line for test in tests for line in test.all_lines}
    excused: Dict[str, List[str]] = {}
    for reason, lines in unreached.reasons.items():
        for line in lines:
            excused.setdefault(line, []).append(reason)
    for test in tests:
        for line in _unknown(known.lines, test.all_lines):
            yield f"{test.name} is marked with {line}, and there is no such line"
        for line in test.open_points:
            if line not in known.decisions:
                yield f"{test.name} is marked as a test of the open point {line}, which is no decision"
    for line in _unknown(known.lines, excused):
        yield f"unreached.py has a reason for {line}, and there is no such line"
    for line, reasons in excused.items():
        if line in covered:
            yield f"{line} has tests, and unreached.py has a reason why it cannot have any"
        if len(reasons) > 1:
            yield f"{line} has {len(reasons)} reasons in unreached.py: one is enough"
    for line, text in known.lines.items():
        if line not in covered and line not in excused and text.status != specification.WITHDRAWN:
            yield f"{line} has neither a test nor a reason in unreached.py"
    for line in sorted({line for lines in unreached.parts.values() for line in lines} - covered):
        yield f"unreached.py says what is left of {line}, which has no test"
    for reason in unreached.later:
        if reason not in unreached.reasons:
            yield f"unreached.py says that a reason is for later, and no line has it: {reason!r}"


def _unknown(known: Iterable[str], lines: Iterable[str]) -> List[str]:
    return [line for line in lines if line not in known]


def lost_citations(known: specification.Specification, root: pathlib.Path) -> Iterator[str]:
    """A sentence for each citation below a directory that leads to no line."""
    for path in sorted({path for pattern in CITING for path in root.glob(pattern)}):
        if path.suffix in NOT_CITING or path == FILE or not path.is_file():
            continue
        for place, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            for line in _unknown(known.lines, CITATION.findall(NOQA.sub("", text))):
                yield f"{path.relative_to(root)}:{place}: {line} is cited, and there is no such line"


def page(known: specification.Specification, tests: Sequence[Test], unreached: Unreached) -> str:
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
    untested = [line for line in known.lines if line not in cells]
    if untested:
        counts["withdrawn, and tested no more"] = len(untested)
        cells.update(dict.fromkeys(untested, specification.WITHDRAWN))
    statuses = [line.status for line in known.lines.values()]
    sections = [
        INTRODUCTION.rstrip("\n").format(extent=known.extent),
        _table([("lines", ""), ("---", "--:"), *counts.items(), ("in all", len(statuses))]),
        _table(
            [
                ("what they rest on", "that is", "lines"),
                ("---", "---", "--:"),
                *((status, meaning, statuses.count(status)) for status, meaning in specification.STATUSES.items()),
            ]
        ),
    ]
    for title, numbers in (("What QNX does", known.facts), ("What this project decides", known.decisions)):
        rows = [
            (f"[{line.number}](SPECIFICATION.md#{line.anchor})", line.status, cells[line.number])
            for line in (known.lines[number] for number in numbers)
        ]
        header = [("line", "rests on", "tests, or why there is none"), ("---", "---", "---")]
        sections += [f"## {title}", _table([*header, *rows])]
    others = [f"- `{test.name}`" for test in tests if not test.all_lines]
    if others:
        sections += ["## Tests of the interface to Python, which no line speaks of", "\n".join(others)]
    return "\n\n".join(sections) + "\n"


def _table(rows: Iterable[Tuple[object, ...]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if there would be something to write")
    parser.add_argument("--suite", type=pathlib.Path, default=specification.FILE.parent)
    parser.add_argument("--file", type=pathlib.Path, default=FILE)
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent, help="whose citations are checked")
    options = parser.parse_args()
    try:
        known = specification.read(options.suite / specification.FILE.name)
        tests = collect(options.suite)
    except specification.SpecificationError as error:
        print(error)
        return 1
    except FaultyCollectionError as error:
        print(f"the suite cannot be collected\n{error}")
        return 1
    unreached = read_reasons(options.suite)
    found = [*faults(known, tests, unreached), *lost_citations(known, options.root)]
    if found:
        print("\n".join(found))
        return 1
    content = page(known, tests, unreached)
    if not options.check:
        options.file.write_text(content, encoding="utf-8")
    elif not options.file.exists() or options.file.read_text(encoding="utf-8") != content:
        print(f"{options.file.name} is not what the suite says now: write it anew by {HOW_TO_WRITE}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
