"""``ha-qnx conformance``: how the suite is run and reported."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
from ha_qnx.conformance import specification

import ha_qnx
from ha_qnx import abi
from ha_qnx.commands import conformance as suite
from ha_qnx.commands.cli import main

pytestmark = pytest.mark.slow

ONE_TEST = "test_a_channel_id_is_positive"

# To load those that happen to be installed takes longer than all the rest of a run.
WITHOUT_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_suite(directory: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command in a directory."""
    command = [sys.executable, "-m", "ha_qnx", "conformance", *arguments]
    environment = {**os.environ, **WITHOUT_PLUGINS}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, timeout=120)  # noqa: S603  # ours


class Run(NamedTuple):
    """A run of one test of the suite, in a directory of somebody else's project."""

    directory: pathlib.Path
    ended: "subprocess.CompletedProcess[bytes]"
    report: Dict[str, Any]
    added: List[pathlib.Path]


@pytest.fixture(scope="module")
def one_test(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What stands behind -- selects the test."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (directory / "conftest.py").write_text("raise RuntimeError('not for this suite')\n")
    before = files_of_the_package()
    report = tmp_path_factory.mktemp("report") / "found.json"
    ended = run_suite(directory, "--backend", "fallback", "--report", str(report), "--", "-q", "-k", ONE_TEST)
    added = [path for path in files_of_the_package() if path not in before]
    return Run(directory, ended, json.loads(report.read_text()), added)


def files_of_the_package() -> List[pathlib.Path]:
    """All but the compiled modules, which Python itself may write."""
    package = pathlib.Path(ha_qnx.__file__).parent
    return [path for path in package.rglob("*") if "__pycache__" not in path.parts]


def test_the_installed_suite_runs(one_test: Run) -> None:
    """The tests are found where the package is installed, whatever configuration the current directory has."""
    assert one_test.ended.returncode == 0, one_test.ended.stdout + one_test.ended.stderr
    assert b"1 passed" in one_test.ended.stdout


def test_what_was_found_is_reported(one_test: Run) -> None:
    """The report has versions and arguments, and of each test its lines and its outcome."""
    report = one_test.report
    assert report["versions"]["python"] == sys.version.split()[0]
    assert report["exit_status"] == 0
    assert "--backend=fallback" in report["arguments"]
    (test,) = report["tests"]
    assert test["id"].endswith(f"test_channels.py::{ONE_TEST}[fallback-fallback]")
    assert (test["outcome"], test["lines"], test["open_points"]) == ("passed", ["B11"], [])
    assert test["seconds"] >= 0


def test_nothing_is_written_but_the_report(one_test: Run) -> None:
    """Neither beside the suite, which may be read-only, nor in the directory where it is run."""
    assert one_test.added == []
    assert sorted(path.name for path in one_test.directory.iterdir()) == ["conftest.py", "pytest.ini"]


def test_a_backend_that_cannot_be_had_is_wrong_use(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of a backend that was asked for don't vanish with it: nothing is run, and nothing reported."""
    monkeypatch.setenv("HA_QNX_LIBHA", str(tmp_path / "missing.so"))
    report = tmp_path / "found.json"
    ended = run_suite(tmp_path, "--backend", "native", "--report", str(report), "--", "-q", "-k", ONE_TEST)
    assert ended.returncode == 2
    assert ended.stdout == b""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(b"ha-qnx conformance: ")
    assert b"missing.so" in line
    assert not report.exists()


def test_sigterm_leaves_a_report(tmp_path: pathlib.Path) -> None:
    """Of what was found so far, and what was not run."""
    (tmp_path / "test_waiting.py").write_text(
        "import threading\n\n\ndef test_passes(): ...\n\n\n"
        "def test_waits():\n    print('waits', flush=True)\n    threading.Event().wait(60)\n"
    )
    report = tmp_path / "found.json"
    program = (
        "import sys; from ha_qnx.commands.conformance import run_suite; "
        "sys.exit(run_suite(sys.argv[1], ['-s', '-q'], sys.argv[2]))"
    )
    with subprocess.Popen(  # noqa: S603  # ours
        [sys.executable, "-c", program, str(tmp_path), str(report)], cwd="/", stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert any(b"waits" in line for line in running.stdout)
        running.terminate()
        running.stdout.read()
        assert running.wait(60) == 1
    found = json.loads(report.read_text())
    assert found["exit_status"] == 1
    assert [test["outcome"] for test in found["tests"]] == ["passed", "not run"]


def test_no_test_at_all_is_wrong_use(tmp_path: pathlib.Path) -> None:
    """A selection that fits nothing must not look like success."""
    assert run_suite(tmp_path, "--", "-q", "-k", "no_test_has_this_name").returncode == 2


def test_an_option_that_pytest_does_not_know_is_wrong_use(tmp_path: pathlib.Path) -> None:
    """It ends with 2, as every wrong use."""
    ended = run_suite(tmp_path, "--", "--no-such-option")
    assert ended.returncode == 2
    assert b"--no-such-option" in ended.stderr


def test_without_pytest_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and status 2."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pytest" else object())
    assert main(["conformance"]) == 2
    assert "pip install 'ha_qnx[conformance]'" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_found_out_first(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after all tests have run."""
    assert main(["conformance", "--report", str(tmp_path / "missing" / "found.json")]) == 2
    output = capsys.readouterr()
    assert "the report cannot be written" in output.err
    assert output.out == ""


def test_another_package_of_this_name_in_the_current_directory_is_refused(tmp_path: pathlib.Path) -> None:
    """Beside a source tree, the suite's other processes would import that."""
    (tmp_path / "ha_qnx").mkdir()
    (tmp_path / "ha_qnx" / "__init__.py").touch()
    program = (
        "import os, sys; from ha_qnx.commands.cli import main; os.chdir(sys.argv[1]); sys.exit(main(['conformance']))"
    )
    ended = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-c", program, str(tmp_path)], cwd="/", stderr=subprocess.PIPE, timeout=60
    )
    assert ended.returncode == 2
    assert b"run this somewhere else" in ended.stderr


class Phase:
    """A report of pytest, as the reporter needs it."""

    def __init__(self, when: str, outcome: str, *properties: Tuple[str, Any]) -> None:
        self.nodeid = "test"
        self.when = when
        self.outcome = outcome
        self.passed = outcome == "passed"
        self.skipped = outcome == "skipped"
        self.duration = 0.25
        self.longreprtext = f"{outcome} in {when}"
        self.user_properties = list(properties)


DIFFERS = ("differs", "assert 1 == 2")


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], "passed"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "passed")], "failed"),
        ([("setup", "failed"), ("teardown", "passed")], "error"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "error"),
        ([("setup", "skipped"), ("teardown", "passed")], "skipped"),
        ([], "not run"),
        ([("setup", "passed"), ("call", "passed", DIFFERS), ("teardown", "passed")], "differs"),
        ([("setup", "passed"), ("call", "passed", DIFFERS), ("teardown", "failed")], "error"),
    ],
    ids=["passed", "failed", "setup", "teardown", "skipped", "not-run", "differs", "differs-and-teardown"],
)
def test_a_test_has_passed_if_all_its_phases_have(phases: List[Any], outcome: str) -> None:
    """What fails before or after the test itself is an error, and is not taken for a pass or for a difference."""
    reporter = suite.Reporter()
    test: Dict[str, Any] = {"outcome": "not run", "seconds": 0.0}
    reporter.tests["test"] = test
    for phase in phases:
        reporter.pytest_runtest_logreport(Phase(*phase))
    assert (test["outcome"], test["seconds"]) == (outcome, 0.25 * len(phases))


# Open points. A small suite, and a library that is somebody else's as far as conformance.py can tell.

CONFTEST = """
import pytest

def pytest_configure(config):
    config.addinivalue_line("markers", "checks(*lines)")
    config.addinivalue_line("markers", "open_point(*decisions)")
    config.addinivalue_line("markers", "measured(*cases)")

@pytest.fixture(params=[("native", "fallback")])
def backends(request): return request.param

@pytest.fixture
def broken(): raise OSError("no connection")
"""
AS_DECIDED = """
@pytest.mark.checks("B1")
@pytest.mark.open_point("D1")
def test_as_decided(backends): ...
"""
DIFFERENT = """
@pytest.mark.checks("B2", "D2")
@pytest.mark.open_point("D2", "D3")
def test_different(backends): assert 1 + 1 == 3, "EBADF was to be expected"

@pytest.mark.open_point("D3")
def test_of_another_error(backends): raise OSError(9, "Bad file descriptor")
"""
OF_A_LINE = """
@pytest.mark.checks("B3", "D4")
def test_of_a_line(backends): assert False
"""
NOT_SET_UP = """
@pytest.mark.open_point("D4")
def test_not_set_up(backends, broken): ...
"""
MEASURED = """
from ha_qnx.conformance.answers.asking import measured

@measured("CH01", "CH02", "CH03")
def test_measured(backends):
    \"\"\"Two answers are as expected, and one is not.\"\"\"
    yield "CH01", "1 2 3"
    yield "CH02", "-1 EINVAL"
    yield "CH03", "2"

@measured("CH05")
def test_decided(backends):
    \"\"\"What QNX 6.4.1 answers, and ours does not.\"\"\"
    yield "CH05", "6"
"""
OF_NO_BACKEND = """
@pytest.mark.open_point("D5")
def test_of_no_backend(): assert False
"""
PROGRAM = """
import sys
from ha_qnx import abi
from ha_qnx.commands import conformance as suite

OURS = sys.argv[1] == "ours"
suite.describe_backend = lambda name: {"ours": name == "fallback" or OURS}
sys.exit(suite.run_suite(sys.argv[2], sys.argv[4:], sys.argv[3]))
"""


class Found(NamedTuple):
    """What became of a run of a suite."""

    status: int
    report: Dict[str, Any]
    printed: str

    @property
    def outcomes(self) -> Dict[str, str]:
        """Of each test, by its function."""
        return {re.split(r"::|\[", test["id"])[1]: test["outcome"] for test in self.report["tests"]}


def run_tests(directory: pathlib.Path, owner: str, tests: str, *arguments: str) -> Found:
    """Run tests as a suite; ``owner`` of the native library is "ours" or anything else."""
    directory.mkdir()
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text("import pytest\n" + tests)
    report = directory.parent / "found.json"
    ended = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-c", PROGRAM, owner, str(directory), str(report), *arguments],
        cwd=directory.parent,
        env={**os.environ, **WITHOUT_PLUGINS},
        stdout=subprocess.PIPE,
        timeout=60,
    )
    return Found(ended.returncode, json.loads(report.read_text()), ended.stdout.decode())


@pytest.fixture(scope="module")
def differing(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """A run on a library that is not ours, and differs."""
    return run_tests(tmp_path_factory.mktemp("differing") / "suite", "theirs", AS_DECIDED + DIFFERENT)


def test_a_library_that_is_not_ours_may_differ_in_an_open_point(differing: Found) -> None:
    """A failing test of an open point is recorded as a difference, and the run has passed."""
    assert (differing.status, differing.report["exit_status"]) == (0, 0)
    assert differing.outcomes == {
        "test_as_decided": "passed",
        "test_different": "differs",
        "test_of_another_error": "differs",
    }
    assert "1 passed, 2 differs" in differing.printed


def test_the_report_tells_what_was_found_about_each_open_point(differing: Found) -> None:
    """All decisions are there, each with its tests, and with the assertion's text of those that differ."""
    points = differing.report["open_points"]
    assert list(points) == list(specification.read().decisions)
    assert [points[name]["outcome"] for name in ("D1", "D2", "D3", "D4")] == [
        "as decided",
        "differs",
        "differs",
        "no test",
    ]
    (test,) = points["D2"]["tests"]
    assert test["id"] == "test_it.py::test_different[backends0]"
    assert test["found"].startswith("AssertionError: EBADF was to be expected\nassert (1 + 1) == 3")
    assert [test["found"].splitlines()[0] for test in points["D3"]["tests"]] == [
        "AssertionError: EBADF was to be expected",
        "OSError: [Errno 9] Bad file descriptor",
    ]


def test_what_differs_is_printed_under_its_open_point(differing: Found) -> None:
    """A person need not read the report to see it; what is as decided is not listed."""
    printed = differing.printed
    assert (
        "D2:\n"
        "  test_it.py::test_different[backends0]\n"
        "    AssertionError: EBADF was to be expected\n"
        "D3:\n"
        "  test_it.py::test_different[backends0]\n"
        "    AssertionError: EBADF was to be expected\n"
        "  test_it.py::test_of_another_error[backends0]\n"
        "    OSError: [Errno 9] Bad file descriptor\n"
    ) in printed
    assert "D1:" not in printed


def test_a_difference_does_not_stop_the_run(tmp_path: pathlib.Path) -> None:
    """With -x pytest stops at the first failure; a difference is none."""
    found = run_tests(tmp_path / "suite", "theirs", DIFFERENT + AS_DECIDED, "-x")
    assert found.status == 0
    assert found.outcomes["test_as_decided"] == "passed"


@pytest.mark.parametrize(
    ("tests", "function", "outcome"),
    [
        (OF_A_LINE, "test_of_a_line", "failed"),
        (NOT_SET_UP, "test_not_set_up", "error"),
        (OF_NO_BACKEND, "test_of_no_backend", "failed"),
    ],
    ids=["a line of QNX's", "not even set up", "without a library"],
)
def test_anything_else_fails_on_any_library(tmp_path: pathlib.Path, tests: str, function: str, outcome: str) -> None:
    """Only what a library does about an open point is excused; one real failure beside it fails the run."""
    found = run_tests(tmp_path / "suite", "theirs", tests + DIFFERENT)
    assert (found.status, found.report["exit_status"]) == (1, 1)
    assert (found.outcomes[function], found.outcomes["test_different"]) == (outcome, "differs")


def test_a_decision_that_is_no_open_point_is_reported_beside_them(tmp_path: pathlib.Path) -> None:
    """It is only checked, so the failure is one; but what was found about it stands where one looks for it."""
    found = run_tests(tmp_path / "suite", "theirs", OF_A_LINE)
    assert found.report["open_points"]["D4"]["outcome"] == "failed"


def test_our_own_library_has_to_pass(tmp_path: pathlib.Path) -> None:
    """The decisions bind it: the same failures fail the run, and the open point is reported as failed."""
    found = run_tests(tmp_path / "suite", "ours", AS_DECIDED + DIFFERENT)
    assert found.status == 1
    assert found.outcomes["test_different"] == "failed"
    assert found.report["open_points"]["D2"]["outcome"] == "failed"
    assert "differs" not in found.printed


def test_a_failure_says_what_the_test_checks(tmp_path: pathlib.Path) -> None:
    """The text of each line is printed with the failure, whichever phase fails; a test of no line has none."""
    tests = OF_A_LINE + NOT_SET_UP + "\ndef test_of_no_line(): assert False\n"
    printed = " ".join(run_tests(tmp_path / "suite", "ours", tests).printed.split())
    lines = specification.read().lines
    assert printed.count("- what the test checks -") == 2
    for number, count in (("B3", 1), ("D4", 2)):
        assert printed.count(" ".join(lines[number].describe().split())) == count


def test_what_passes_or_differs_is_not_explained(differing: Found) -> None:
    """Only of a failure somebody wants to know more."""
    assert "what the test checks" not in differing.printed


def test_a_failure_is_explained_from_another_process_too(tmp_path: pathlib.Path) -> None:
    """What pytest-xdist runs elsewhere is reported here."""
    printed = " ".join(
        run_tests(tmp_path / "suite", "ours", OF_A_LINE, "-p", "xdist.plugin", "-n", "1").printed.split()
    )
    assert " ".join(specification.read().lines["D4"].describe().split()) in printed


def test_a_mark_with_no_line_does_not_hide_the_failure(tmp_path: pathlib.Path) -> None:
    """While somebody writes a test, its line may not exist yet."""
    found = run_tests(tmp_path / "suite", "ours", OF_A_LINE.replace('"B3"', '"B0"'))
    assert found.outcomes == {"test_of_a_line": "failed"}
    assert "B0 (there is no such line)\n" in found.printed


def test_a_library_that_is_not_ours_may_answer_otherwise_than_qnx_641(tmp_path: pathlib.Path) -> None:
    """What it answers is recorded, case by case, and listed; the run has passed."""
    found = run_tests(tmp_path / "suite", "theirs", MEASURED)
    assert (found.status, found.outcomes) == (0, {"test_measured": "differs", "test_decided": "passed"})
    (answers,) = (test["answers"] for test in found.report["tests"] if "answers" in test)
    assert answers == [{"case": "CH02", "asked": "ChannelDestroy(second)", "qnx641": "0", "here": "-1 EINVAL"}]
    assert "measured on QNX 6.4.1: what this library answers otherwise" in found.printed
    assert "\nCH02, ChannelDestroy(second): 0 there, -1 EINVAL here\n" in found.printed


def test_our_own_library_answers_as_the_table_says(tmp_path: pathlib.Path) -> None:
    """As QNX 6.4.1, or as the decision has it that the table names; then an answer of QNX's is wrong."""
    found = run_tests(tmp_path / "suite", "ours", MEASURED)
    assert (found.status, found.outcomes) == (1, {"test_measured": "failed", "test_decided": "failed"})
    answers = [answer for test in found.report["tests"] for answer in test["answers"]]
    assert [(answer["case"], answer.get("decided")) for answer in answers] == [("CH02", None), ("CH05", "5 (D28)")]
    assert "what this library answers otherwise" not in found.printed


def test_an_open_point_whose_test_did_not_run_is_not_known(tmp_path: pathlib.Path) -> None:
    """Whoever stops a run early must not find that all was as decided."""
    found = run_tests(tmp_path / "suite", "theirs", OF_A_LINE + AS_DECIDED, "-x")
    assert found.report["open_points"]["D1"]["outcome"] == "not run"


class Library:
    """What conformance.py asks of the libraries that a backend has loaded."""

    path = "libha.so.2"
    model = abi.LP64_7
    reason = "the release is 7.1.0"
    missing = ("MsgSendPulse",)

    def __init__(self, version: Optional[str]) -> None:
        self.version = version


@pytest.mark.parametrize(("version", "ours"), [(None, False), ("libha for POSIX 0.1.0", True)])
def test_a_library_that_says_what_it_is_is_ours(
    monkeypatch: pytest.MonkeyPatch, version: Optional[str], ours: bool
) -> None:
    """QNX's libraries say nothing; the report tells which one it was."""
    monkeypatch.setattr(suite, "Libraries", lambda with_libha: Library(version))
    assert suite.describe_backend("native") == {
        "ours": ours,
        "library": "libha.so.2",
        "version": version,
        "declarations": "LP64, SDP 7.x: the release is 7.1.0",
        "missing": ["MsgSendPulse"],
    }


def test_the_backends_of_this_machine_are_ours(one_test: Run) -> None:
    """None of them has QNX's libraries here, and the report of a real run says so."""
    assert {name: found["ours"] for name, found in one_test.report["backends"].items()} == {
        "native": True,
        "hybrid": True,
        "fallback": True,
    }
