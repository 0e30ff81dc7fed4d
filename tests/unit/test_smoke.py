"""``ha-qnx conformance --smoke``: the first minute on a target."""

import json
import pathlib
from typing import Any, List

import pytest

from ha_qnx.commands import smoke
from ha_qnx.commands.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_one_directory(shared_directory: None) -> None:
    """This process and the server meet."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["fallback", "native", "hybrid"])
def test_everything_that_matters_is_tried(backend: str, tmp_path: pathlib.Path, capsys: Capture) -> None:
    """All is well here, and what the documentation leaves open is as this project has decided."""
    report = tmp_path / "report.json"
    assert main(["conformance", "--smoke", "--backend", backend, "--report", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert [(step["name"], step["problem"]) for step in found["steps"]] == [
        ("names", None),
        ("messages", None),
        ("pulses", None),
        ("paths", None),
        ("recovery by name", None),
        ("recovery by path", None),
    ]
    assert [point for point in found["open_points"] if point["answer"] != point["decided"]] == []
    assert len(found["open_points"]) == len(smoke.OPEN_POINTS)
    printed = capsys.readouterr().out
    assert printed.count(" ok\n") == 6
    assert printed.count("as decided\n") == len(smoke.OPEN_POINTS)


def test_what_fails_is_told_and_the_rest_is_tried(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The exit status is 1, and no server stays."""
    servers: List[smoke.Server] = []

    def fail(_qnx: Any, server: smoke.Server) -> None:
        servers.append(server)
        raise OSError(5, "a fault")

    monkeypatch.setattr(smoke, "STEPS", (smoke.names, fail, smoke.messages))
    assert main(["conformance", "--smoke", "--backend", "fallback"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "FAILED  OSError: [Errno 5] a fault" in lines[1]
    assert [line.endswith(" ok") for line in lines[:3]] == [True, False, True]
    assert servers[0]._process is None


def test_what_differs_is_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """It is what the table is for."""
    monkeypatch.setattr(smoke, "OPEN_POINTS", (("D2", "a question", smoke.attach_nothing, "0"),))
    assert main(["conformance", "--smoke", "--backend", "fallback"]) == 0
    assert "EBADF    differs: decided is 0" in capsys.readouterr().out


def test_a_backend_that_cannot_be_had_is_wrong_use(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """One line says why, at once; so it is for the suite."""
    monkeypatch.setenv("HA_QNX_LIBHA", "/nowhere/libha.so.2")
    monkeypatch.setattr("ha_qnx.backends._made", {})
    assert main(["conformance", "--smoke", "--backend", "native"]) == 2
    assert "/nowhere/libha.so.2" in capsys.readouterr().out
    assert main(["conformance", "--backend", "native"]) == 2
    assert "/nowhere/libha.so.2" in capsys.readouterr().err


def test_smoke_is_no_selection_of_the_suite(capsys: Capture) -> None:
    """Options of the suite are wrong use."""
    assert main(["conformance", "--smoke", "--", "-k", "names"]) == 2
    assert "--smoke" in capsys.readouterr().err
