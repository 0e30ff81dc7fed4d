"""``ha-qnx explain``: lines of the specification, and the tests that check them.

Both come from the installed conformance suite: the lines from SPECIFICATION.md, the names of their tests from
COVERAGE.md, and what a test expects from its source. So this needs no pytest.
"""

import argparse
import ast
import importlib.util
import json
import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from ..conformance.specification import Line, Specification

HELP = "print lines of the specification, and the tests that check them"

DESCRIPTION = """\
Prints what lines of the specification say, what they rest on, and which tests of the
conformance suite check them. Code and tests cite these lines: B73 is a fact about QNX, D17 a
decision of this project. The whole is in SPECIFICATION.md, beside the suite.
"""

EPILOG = """\
examples:
  ha-qnx explain B73 D17            two lines; b73 and 73 are B73, too
  ha-qnx explain B208-B227          a range
  ha-qnx explain B73 --json         one JSON object, for a program

exit status: 0, all lines are printed; 2, wrong use, also if one of them does not exist.
"""

_NUMBERS = re.compile(r"([BD]?)(\d{1,6})(?:-([BD]?)(\d{1,6}))?", re.IGNORECASE | re.ASCII)
_WIDTH = 100
# A row of COVERAGE.md, as ci/coverage.py writes it.
_ROW = re.compile(r"\| \[(?P<number>\w+)\]\(SPECIFICATION\.md#\w+\) \| [^|]+ \| (?P<cell>.+) \|")
_TESTS = re.compile(r"`(?P<first>[\w:]+)`(?P<others>(?:, `[\w:]+`)*)(?:; (?P<rest>.+))?")


class Coverage(NamedTuple):
    """What COVERAGE.md says of a line: its tests and what they leave, or why there is none."""

    tests: Tuple[str, ...]
    not_tested_yet: Optional[str]
    no_test_because: Optional[str]


class UnknownLineError(ValueError):
    """There is no such line; the text says which there are."""


def read_coverage(path: pathlib.Path) -> Dict[str, Coverage]:
    """What COVERAGE.md, or another file of its form, says of each line."""
    rows = (_ROW.fullmatch(row) for row in path.read_text(encoding="utf-8").splitlines())
    return {row["number"]: _coverage(row["cell"]) for row in rows if row is not None}


def _coverage(cell: str) -> Coverage:
    found = _TESTS.fullmatch(cell)
    if found is None:
        return Coverage((), None, cell)
    return Coverage((found["first"], *re.findall(r"`([\w:]+)`", found["others"])), found["rest"], None)


def expectations(suite: pathlib.Path) -> Dict[str, str]:
    """What the tests of a suite expect: the first sentence of each docstring, by the names that COVERAGE.md has."""
    found = {}
    for path in suite.rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
            inside = [("::" + node.name, method) for method in node.body] if isinstance(node, ast.ClassDef) else []
            for place, function in [("", node), *inside]:
                if isinstance(function, ast.FunctionDef):
                    sentence = (ast.get_docstring(function) or "").partition("\n\n")[0]
                    found[f"{path.stem}{place}::{function.name}"] = " ".join(sentence.split())
    return found


def select(specification: "Specification", wanted: Sequence[str]) -> List["Line"]:
    """The lines that somebody asks for, each once.

    Args:
        specification: all of them.
        wanted: numbers as people write them: ``B73``, ``d17``, ``73`` for B73, ``B73-B80``, ``B73-80``.

    Raises:
        UnknownLineError: one is no number, or no line has it. (What no line has between the ends of a range is left
            out.)
    """
    found: Dict[str, Line] = {}
    for word in wanted:
        numbers = list(_numbers(word))
        for number in (numbers[0], numbers[-1]):
            if number not in specification.lines:
                raise UnknownLineError(f"there is no line {number}: the lines are {specification.extent}")
        found.update((number, specification.lines[number]) for number in numbers if number in specification.lines)
    return list(found.values())


def _numbers(word: str) -> Iterator[str]:
    found = _NUMBERS.fullmatch(word)
    if found is None:
        raise UnknownLineError(f"{word!r} is no number of a line: write B73 for a fact, D17 for a decision, B73-B80")
    letter = found[1].upper() or "B"
    first = last = int(found[2])
    if found[4] is not None:
        last = int(found[4])
        if (found[3].upper() or letter) != letter or last < first:
            raise UnknownLineError(f"{word!r} is no range: its ends are of one kind, the lower one first")
    for number in range(first, last + 1):
        yield f"{letter}{number}"


def explain(lines: Sequence["Line"]) -> Dict[str, Any]:
    """What there is to say about some lines: a tree of plain values."""
    from ..conformance import specification

    suite = specification.FILE.parent
    coverage = read_coverage(suite / "COVERAGE.md")
    expected = expectations(suite)
    explained = []
    for line in lines:
        covered = coverage.get(line.number, Coverage((), None, "COVERAGE.md does not have this line"))
        tests = [{"name": name, "expectation": expected.get(name, "")} for name in covered.tests]
        explained.append(
            {
                "number": line.number,
                "section": line.section,
                "text": line.text,
                "status": line.status,
                "sources": line.sources,
                "tests": tests,
                "not_tested_yet": covered.not_tested_yet,
                "no_test_because": covered.no_test_because,
            }
        )
    return {"lines": explained}


def describe(line: "Line", found: Dict[str, Any]) -> str:
    """One line for a person."""
    from ..conformance.specification import plain

    parts = [line.describe(_WIDTH)]
    if line.sources:
        parts.append(plain(f"From: {line.sources}", _WIDTH, "  "))
    for test in found["tests"]:
        parts.append(f"  {test['name']}")
        if test["expectation"]:
            parts.append(plain(test["expectation"], _WIDTH, "    "))
    if found["not_tested_yet"]:
        parts.append(plain(f"Not tested yet: {found['not_tested_yet']}", _WIDTH, "  "))
    if found["no_test_because"]:
        parts.append(plain(f"No test: {found['no_test_because']}", _WIDTH, "  "))
    return "\n".join(parts) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of this command."""
    parser.add_argument("numbers", nargs="+", metavar="NUMBER", help="of a line: B73, D17, or a range, B73-B80")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the lines; returns the exit status."""
    if importlib.util.find_spec("ha_qnx.conformance") is None:
        sys.stderr.write("ha-qnx explain: the suite is missing: install the package; a source tree is not enough\n")
        return 2
    from ..conformance import specification

    try:
        lines = select(specification.read(), options.numbers)
    except UnknownLineError as error:
        sys.stderr.write(f"ha-qnx explain: {error}\n")
        return 2
    report = explain(lines)
    if options.json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join(map(describe, lines, report["lines"])))
    return 0
