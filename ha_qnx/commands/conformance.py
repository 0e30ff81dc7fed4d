"""``ha-qnx conformance``: the installed conformance suite, run by pytest.

It runs where the package is installed, a QNX target included, and writes nothing there.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

import ha_qnx

from ..backends import NAMES, BackendUnavailableError, backend
from ..native.libraries import Libraries
from . import smoke
from .doctor import versions

HELP = "check a backend against the specification"

DESCRIPTION = """\
Runs the conformance suite that is installed with this package: every test checks numbered
lines of the specification of QNX's calls. It needs pytest: pip install 'ha_qnx[conformance]'
"""

EPILOG = """\
examples:
  ha-qnx conformance --smoke                             a look at the most important, in seconds
  ha-qnx conformance                                     the default backend
  ha-qnx conformance --backend native --server-backend fallback
                                                         clients on one, servers on another
  ha-qnx conformance --report found.json                 and write down what was found
  ha-qnx conformance -- -k channel -x                    what stands behind -- is for pytest

On QNX's own libraries, a test of a decision that QNX leaves open (D1, D2 ...) does not fail,
nor does a test of what was measured on QNX 6.4.1: what the library does differently is listed,
and stands in the report.

exit status: 0, every test passed, or only differs so; 1, one failed, or it was ended by SIGINT or
SIGTERM, with a report of what was found so far; 2, wrong use: no pytest, unknown options, a
backend that cannot be had, or no test that fits them.
"""

_PASSED, _FAILED, _WRONG_USE = 0, 1, 2

# pytest's own exit codes. An unusable command line and a selection without any test are wrong use; all others, an
# interrupted collection included, are failures.
_STATUS = {0: _PASSED, 4: _WRONG_USE, 5: _WRONG_USE}

# What is said of a decision when a test of it ended so, the worst first.
_SUMMARY = {
    "failed": "failed",
    "error": "failed",
    "differs": "differs",
    "not run": "not run",
    "skipped": "not run",
    "passed": "as decided",
}


class Reporter:
    """A plugin of pytest that notes what became of each test; ``recording`` has seen to what the reports carry."""

    def __init__(self) -> None:
        self.tests: Dict[str, Dict[str, Any]] = {}

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            self._test(item.nodeid, dict(item.user_properties))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note one phase of a test: it has passed if all three have."""
        known = dict(report.user_properties)
        test = self._test(report.nodeid, known)
        test["seconds"] = round(test["seconds"] + report.duration, 4)
        if report.when == "call" and test["outcome"] == "not run":
            test["outcome"] = "differs" if "differs" in known else report.outcome
        elif not report.passed:
            test["outcome"] = report.outcome if report.skipped else "error"
        if report.when == "call" and "answers" in known:
            test["answers"] = known["answers"]
        if report.when == "call" and "differs" in known:
            test["found"] = known["differs"]
            test["failure"] = report.longreprtext
        elif not report.passed:
            test["failure"] = report.longreprtext

    def pytest_report_teststatus(self, report: Any) -> Optional[Tuple[str, str, str]]:
        """Count what differs by itself."""
        if report.when == "call" and report.passed and "differs" in dict(report.user_properties):
            return "differs", "d", "DIFFERS"
        return None

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """List what differs: by its open points, and by the cases that were measured on QNX 6.4.1."""
        self._list_open_points(terminalreporter)
        answers = self._other_answers()
        if answers:
            terminalreporter.section("measured on QNX 6.4.1: what this library answers otherwise")
            for line in answers:
                terminalreporter.write_line(line)

    def _other_answers(self) -> List[str]:
        return [
            f"{found['case']}, {found['asked']}: {found['qnx641']} there, {found['here']} here"
            for test in self.tests.values()
            if test["outcome"] == "differs"
            for found in test.get("answers", [])
        ]

    def _list_open_points(self, terminalreporter: Any) -> None:
        lines = []
        for decision, found in self.open_points().items():
            differing = [test for test in found["tests"] if test["outcome"] == "differs"]
            lines += [f"{decision}:"] if differing else []
            for test in differing:
                lines += [f"  {test['id']}", f"    {_first_line(test['found'])}"]
        if lines:
            terminalreporter.section("open points: what this library does differently")
            for line in lines:
                terminalreporter.write_line(line)

    def open_points(self) -> Dict[str, Dict[str, Any]]:
        """What was found about each decision: the worst that its tests say, and those tests."""
        from ..conformance import specification

        found: Dict[str, Dict[str, Any]] = {}
        for decision in specification.read().decisions:
            tests = [test for test in self.tests.values() if decision in test["open_points"] + test["lines"]]
            outcomes = {test["outcome"] for test in tests}
            found[decision] = {
                "outcome": next((_SUMMARY[worst] for worst in _SUMMARY if worst in outcomes), "no test"),
                "tests": [{key: test[key] for key in ("id", "outcome", "found") if key in test} for test in tests],
            }
        return found

    def _test(self, name: str, known: Dict[str, Any]) -> Dict[str, Any]:
        return self.tests.setdefault(
            name,
            {
                "id": name,
                "outcome": "not run",
                "lines": known.get("lines", []),
                "open_points": known.get("open_points", []),
                "seconds": 0.0,
            },
        )


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def describe_backend(name: str) -> Dict[str, Any]:
    """Which library a backend runs on, and whether that is ours, so that the open points bind it.

    A library that is not ours is one that does not say what it is; QNX's do not.
    """
    if name == "fallback":
        return {"ours": True, "library": None}
    try:
        libraries = Libraries(with_libha=name == "native")
    except ImportError as error:
        return {"ours": True, "library": None, "problem": str(error)}
    return {
        "ours": libraries.version is not None,
        "library": libraries.path or "libc",
        "version": libraries.version,
        "declarations": f"{libraries.model.name}: {libraries.reason}",
        "missing": list(libraries.missing),
    }


def run_suite(directory: str, arguments: List[str], report: Optional[str]) -> int:
    """Run the tests of a directory; returns the exit status.

    Args:
        directory: the suite.
        arguments: more for pytest.
        report: a file to write what was found to.
    """
    import pytest

    reporter = Reporter()
    fixed = [
        directory,
        # No configuration of whoever stands in the current directory, no file beside the installed package, and the
        # modules under the names that they have in the package.
        f"--config-file={os.devnull}",
        f"--rootdir={directory}",
        f"--confcutdir={directory}",
        "--import-mode=append",
        "--strict-markers",
        "-p",
        "no:cacheprovider",
        "-p",
        "ha_qnx.commands.recording",
    ]
    with _ended_by_sigterm():
        code = int(pytest.main([*fixed, *arguments], plugins=[reporter]))
    status = _STATUS.get(code, _FAILED)
    if report is not None:
        _write_report(report, status, arguments, reporter)
    return status


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the tests as Ctrl-C does, so that what was found is reported."""
    own = os.getpid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() == own:
            signal.default_int_handler(number, frame)
        signal.signal(number, signal.SIG_DFL)  # A process that a test has forked.
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_report(path: str, status: int, arguments: List[str], reporter: Reporter) -> None:
    content = {
        "versions": versions(),
        "backends": {name: describe_backend(name) for name in NAMES},
        "arguments": arguments,
        "exit_status": status,
        "open_points": reporter.open_points(),
        "tests": list(reporter.tests.values()),
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")


def _obstacle() -> Optional[str]:
    """Why the suite cannot be run from here; None if it can."""
    if importlib.util.find_spec("pytest") is None:
        return "pytest is missing: pip install 'ha_qnx[conformance]'"
    if importlib.util.find_spec("ha_qnx.conformance") is None:
        return "the suite is missing: install the package; a source tree is not enough"
    here = os.path.join(os.getcwd(), "ha_qnx", "__init__.py")
    if os.path.exists(here) and not os.path.samefile(here, ha_qnx.__file__):
        # The suite starts other processes, and Python looks into the current directory first.
        return "the directory ha_qnx here would be taken for the installed package: run this somewhere else"
    return None


def _missing(wanted: Iterable[str]) -> Optional[str]:
    """Which of the backends that are asked for cannot be had, and why; None if all can."""
    for name in sorted(wanted):
        try:
            backend(name)
        except BackendUnavailableError as error:
            return str(error)
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of this command."""
    parser.usage = (
        "%(prog)s [-h] [--smoke] [--backend NAME] [--server-backend NAME] [--report FILE] [-- PYTEST ARGUMENTS]"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="the first minute on a target: names, messages, pulses, paths and recoveries, without pytest",
    )
    parser.add_argument(
        "--backend", action="append", choices=NAMES, help="instead of the default one; can be given more than once"
    )
    parser.add_argument(
        "--server-backend", action="append", choices=NAMES, help="for the other processes; as --backend if not given"
    )
    parser.add_argument("--report", metavar="FILE", help="write what was found, as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the suite; returns the exit status."""
    if options.smoke:
        if options.server_backend or options.rest:
            sys.stderr.write("ha-qnx conformance: --smoke takes --backend and --report, and nothing else\n")
            return _WRONG_USE
        return smoke.run(options.backend, options.report)
    obstacle = _obstacle() or _missing({*(options.backend or []), *(options.server_backend or [])})
    if obstacle is not None:
        sys.stderr.write(f"ha-qnx conformance: {obstacle}\n")
        return _WRONG_USE
    if options.report is not None:
        try:
            open(options.report, "w").close()
        except OSError as error:
            sys.stderr.write(f"ha-qnx conformance: the report cannot be written: {error}\n")
            return _WRONG_USE
    from .. import conformance

    arguments = [f"--backend={name}" for name in options.backend or []]
    arguments += [f"--server-backend={name}" for name in options.server_backend or []]
    return run_suite(os.path.dirname(conformance.__file__), [*arguments, *options.rest], options.report)
