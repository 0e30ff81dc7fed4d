"""``ha-qnx conformance``: how the suite is run and reported."""

import importlib.util
import json
import pathlib
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple

import pytest

import ha_qnx
from ha_qnx import suite
from ha_qnx.cli import main

ONE_TEST = "test_a_channel_id_is_positive"


def run_suite(directory: pathlib.Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command in a directory."""
    command = [sys.executable, "-m", "ha_qnx", "conformance", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, timeout=120)  # noqa: S603  # ours


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


def test_a_backend_that_cannot_be_had_fails(tmp_path: pathlib.Path) -> None:
    """The tests of a backend that was asked for don't vanish with it."""
    report = tmp_path / "found.json"
    ended = run_suite(tmp_path, "--backend", "native", "--report", str(report), "--", "-q", "-k", ONE_TEST)
    assert ended.returncode == 1
    (test,) = json.loads(report.read_text())["tests"]
    assert test["outcome"] == "error"


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
    program = "import os, sys; from ha_qnx.cli import main; os.chdir(sys.argv[1]); sys.exit(main(['conformance']))"
    ended = subprocess.run(  # noqa: S603  # ours
        [sys.executable, "-c", program, str(tmp_path)], cwd="/", stderr=subprocess.PIPE, timeout=60
    )
    assert ended.returncode == 2
    assert b"run this somewhere else" in ended.stderr


class Phase:
    """A report of pytest, as the reporter needs it."""

    def __init__(self, when: str, outcome: str) -> None:
        self.nodeid = "test"
        self.when = when
        self.outcome = outcome
        self.passed = outcome == "passed"
        self.skipped = outcome == "skipped"
        self.duration = 0.25


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], "passed"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "passed")], "failed"),
        ([("setup", "failed"), ("teardown", "passed")], "error"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "error"),
        ([("setup", "skipped"), ("teardown", "passed")], "skipped"),
        ([], "not run"),
    ],
    ids=["passed", "failed", "setup", "teardown", "skipped", "not-run"],
)
def test_a_test_has_passed_if_all_its_phases_have(phases: List[Any], outcome: str) -> None:
    """What fails before or after the test itself is an error, and is not taken for a pass."""
    reporter = suite.Reporter()
    test: Dict[str, Any] = {"outcome": "not run", "seconds": 0.0}
    reporter.tests["test"] = test
    for when, phase in phases:
        reporter.pytest_runtest_logreport(Phase(when, phase))
    assert (test["outcome"], test["seconds"]) == (outcome, 0.25 * len(phases))
