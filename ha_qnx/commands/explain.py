"""``ha-qnx explain``: lines of the specification, and the tests that check them.

Both come from the installed conformance suite. Its tests are read, not run, so that this needs no pytest.
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
_MARKS = ("checks", "open_point")
_WIDTH = 100


class SuiteTest(NamedTuple):
    """A test of the suite, as its source tells."""

    #: The module and the function, as COVERAGE.md has them.
    name: str
    #: The first sentence of its docstring.
    expectation: str
    #: What it is marked with, whatever its parameters.
    lines: Tuple[str, ...]


class UnknownLineError(ValueError):
    """There is no such line; the text says which there are."""


def tests_of(suite: pathlib.Path) -> List[SuiteTest]:
    """The tests of a suite, found in its source."""
    return [test for path in sorted(suite.glob("test_*.py")) for test in _tests_of_module(path)]


def _tests_of_module(path: pathlib.Path) -> Iterator[SuiteTest]:
    for node in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                yield from _test(method, f"{path.stem}::{node.name}", node.decorator_list)
        else:
            yield from _test(node, path.stem, [])


def _test(node: ast.stmt, place: str, inherited: List[ast.expr]) -> Iterator[SuiteTest]:
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
        expectation = (ast.get_docstring(node) or "").partition("\n\n")[0]
        lines = _marked_lines([*node.decorator_list, *inherited])
        yield SuiteTest(f"{place}::{node.name}", " ".join(expectation.split()), lines)


def _marked_lines(decorators: Sequence[ast.expr]) -> Tuple[str, ...]:
    """The lines in the marks among some decorators, also in those of a parameter."""
    found: Dict[str, None] = {}
    for decorator in decorators:
        for call in ast.walk(decorator):
            if isinstance(call, ast.Call) and _name(call.func) in _MARKS:
                found.update((line, None) for line in map(_text, call.args) if line is not None)
    return tuple(found)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _text(argument: ast.expr) -> Optional[str]:
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def select(specification: "Specification", wanted: Sequence[str]) -> List["Line"]:
    """The lines that somebody asks for, each once.

    Args:
        specification: all of them.
        wanted: numbers as people write them: ``B73``, ``d17``, ``73`` for B73, ``B73-B80``, ``B73-80``.

    Raises:
        UnknownLineError: one is no number, or no line has it.
    """
    found: Dict[str, Line] = {}
    for word in wanted:
        for number in _numbers(word):
            if number not in specification.lines:
                raise UnknownLineError(f"there is no line {number}: the lines are {specification.extent}")
            found[number] = specification.lines[number]
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
    from ..conformance import specification, unreached

    tests = tests_of(specification.FILE.parent)
    return {
        "lines": [
            {
                "number": line.number,
                "section": line.section,
                "text": line.text,
                "status": line.status,
                "sources": line.sources,
                "tests": [
                    {"name": test.name, "expectation": test.expectation} for test in tests if line.number in test.lines
                ],
                "no_test_because": _reason(line.number, unreached.REASONS),
                "not_tested_yet": _reason(line.number, unreached.PARTS),
            }
            for line in lines
        ]
    }


def _reason(number: str, reasons: Dict[str, Tuple[str, ...]]) -> Optional[str]:
    return next((reason for reason, lines in reasons.items() if number in lines), None)


def describe(line: "Line", found: Dict[str, Any]) -> str:
    """One line for a person."""
    from ..conformance.specification import WITHDRAWN, plain

    parts = [line.describe(_WIDTH)]
    if line.sources:
        parts.append(plain(f"From: {line.sources}", _WIDTH, "  "))
    for test in found["tests"]:
        parts.append(f"  {test['name']}")
        if test["expectation"]:
            parts.append(plain(test["expectation"], _WIDTH, "    "))
    if found["no_test_because"]:
        parts.append(plain(f"No test: {found['no_test_because']}", _WIDTH, "  "))
    elif not found["tests"]:
        parts.append("  No test." if line.status != WITHDRAWN else "  No test, since it holds no more.")
    if found["not_tested_yet"]:
        parts.append(plain(f"Not tested yet: {found['not_tested_yet']}", _WIDTH, "  "))
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
