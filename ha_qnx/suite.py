"""``ha-qnx conformance``: the installed conformance suite, run by pytest.

It runs where the package is installed, a QNX target included, and writes nothing there.
"""

import argparse
import importlib.util
import json
import os
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

import ha_qnx

from .backends import NAMES
from .doctor import versions

HELP = "check a backend against the specification"

DESCRIPTION = """\
Runs the conformance suite that is installed with this package: every test checks numbered
lines of the specification of QNX's calls. It needs pytest: pip install 'ha_qnx[conformance]'
"""

EPILOG = """\
examples:
  ha-qnx conformance                                     the default backend
  ha-qnx conformance --backend native --server-backend fallback
                                                         clients on one, servers on another
  ha-qnx conformance --report found.json                 and write down what was found
  ha-qnx conformance -- -k channel -x                    what stands behind -- is for pytest

exit status: 0, every test passed; 1, one failed; 2, wrong use: no pytest, unknown options,
or no test that fits them.
"""

_PASSED, _FAILED, _WRONG_USE = 0, 1, 2

# pytest's own exit codes. An unusable command line and a selection without any test are wrong use; all others, an
# interrupted collection included, are failures.
_STATUS = {0: _PASSED, 4: _WRONG_USE, 5: _WRONG_USE}


class Reporter:
    """A plugin of pytest that notes what became of each test."""

    def __init__(self) -> None:
        self.tests: Dict[str, Dict[str, Any]] = {}

    def pytest_itemcollected(self, item: Any) -> None:
        """Let each report carry what the test checks, also from another process that ran it (pytest-xdist)."""
        item.user_properties.append(("lines", _arguments_of_markers(item, "checks")))
        item.user_properties.append(("open_points", _arguments_of_markers(item, "open_point")))

    def pytest_collection_finish(self, session: Any) -> None:
        for item in session.items:
            self._test(item.nodeid, item.user_properties)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note one phase of a test: it has passed if all three have."""
        test = self._test(report.nodeid, report.user_properties)
        test["seconds"] = round(test["seconds"] + report.duration, 4)
        if report.when == "call" and test["outcome"] == "not run":
            test["outcome"] = report.outcome
        elif not report.passed:
            test["outcome"] = report.outcome if report.skipped else "error"
        if not report.passed:
            test["failure"] = report.longreprtext

    def _test(self, name: str, properties: Sequence[Tuple[str, Any]]) -> Dict[str, Any]:
        known = dict(properties)
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


def _arguments_of_markers(item: Any, name: str) -> List[str]:
    return [argument for marker in item.iter_markers(name) for argument in marker.args]


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
    ]
    code = int(pytest.main([*fixed, *arguments], plugins=[reporter]))
    status = _STATUS.get(code, _FAILED)
    if report is not None:
        _write_report(report, status, arguments, list(reporter.tests.values()))
    return status


def _write_report(path: str, status: int, arguments: List[str], tests: List[Dict[str, Any]]) -> None:
    content = {"versions": versions(), "arguments": arguments, "exit_status": status, "tests": tests}
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of this command."""
    parser.usage = "%(prog)s [-h] [--backend NAME] [--server-backend NAME] [--report FILE] [-- PYTEST ARGUMENTS]"
    parser.add_argument(
        "--backend", action="append", choices=NAMES, help="instead of the default one; can be given more than once"
    )
    parser.add_argument(
        "--server-backend", action="append", choices=NAMES, help="for the other processes; as --backend if not given"
    )
    parser.add_argument("--report", metavar="FILE", help="write what was found, as JSON")


def run(options: argparse.Namespace) -> int:
    """Run the suite; returns the exit status."""
    obstacle = _obstacle()
    if obstacle is not None:
        sys.stderr.write(f"ha-qnx conformance: {obstacle}\n")
        return _WRONG_USE
    if options.report is not None:
        try:
            open(options.report, "w").close()
        except OSError as error:
            sys.stderr.write(f"ha-qnx conformance: the report cannot be written: {error}\n")
            return _WRONG_USE
    from . import conformance

    arguments = [f"--backend={name}" for name in options.backend or []]
    arguments += [f"--server-backend={name}" for name in options.server_backend or []]
    return run_suite(os.path.dirname(conformance.__file__), [*arguments, *options.rest], options.report)
