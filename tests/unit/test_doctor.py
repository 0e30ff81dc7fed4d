"""What ``ha-qnx doctor`` finds."""

import json
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any, Dict, Tuple

import pytest
from ha_qnx.conformance.waiting import eventually

from ha_qnx import doctor
from ha_qnx.cli import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def no_chosen_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have chosen one."""
    monkeypatch.delenv("HA_QNX_BACKEND", raising=False)


def examined(capsys: Capture, *arguments: str) -> Tuple[int, Dict[str, Any]]:
    """The exit status and the JSON object of a run."""
    status = main(["doctor", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def told(capsys: Capture, *arguments: str) -> str:
    """What a person is told."""
    main(["doctor", *arguments])
    return capsys.readouterr().out


def test_a_machine_in_order_has_no_faults(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """The default backend can be had, and its directory can be made when it is needed; nothing is made now."""
    status, report = examined(capsys)
    assert (status, report["faults"]) == (0, [])
    assert report["default"] == {"backend": "fallback", "why": report["default"]["why"], "problem": None}
    assert report["runtime"]["path"] == str(runtime_directory)
    assert not report["runtime"]["exists"]
    assert not runtime_directory.exists()
    text = told(capsys)
    assert "Backend in use: fallback" in text
    assert "the first program that needs it makes it" in text
    assert "No fault found." in text


def test_it_says_what_runs_here(capsys: Capture) -> None:
    """The versions that a bug report needs."""
    _status, report = examined(capsys)
    versions = report["versions"]
    assert versions["ha_qnx"][0].isdigit()
    assert (versions["python"], versions["machine"]) == (platform.python_version(), platform.machine())


def test_every_backend_is_listed_with_the_reason_it_cannot_be_had(capsys: Capture) -> None:
    """Each candidate says what is missing; one that can be had says nothing."""
    _status, report = examined(capsys)
    problems = {entry["name"]: entry["problem"] for entry in report["backends"] if not entry["available"]}
    assert [entry["name"] for entry in report["backends"]] == ["native", "hybrid", "fallback"]
    assert "libha" in problems["native"]
    assert "fallback" not in problems
    assert f"native    cannot be had: {problems['native']}" in told(capsys)


def test_a_library_is_described_with_what_it_lacks() -> None:
    """Of a backend that binds a library, a person reads which one, where it is, and what is missing in it."""
    report = doctor.examine()
    library = {"what": "libha 2", "path": "/usr/lib/libha.so.2", "missing_symbols": ["ha_dup"]}
    report["backends"][0] = {"name": "native", "available": True, "problem": None, "library": library}
    assert "native    available; libha 2, /usr/lib/libha.so.2, missing symbols: ha_dup\n" in doctor.describe(report)


def test_a_chosen_backend_that_cannot_be_had_is_a_fault(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """HA_QNX_BACKEND is named as the reason, and so is what its backend lacks."""
    monkeypatch.setenv("HA_QNX_BACKEND", "hybrid")
    status, report = examined(capsys)
    assert status == 1
    assert report["default"]["backend"] is None
    assert report["default"]["why"] == "HA_QNX_BACKEND is 'hybrid'"
    assert "libc" in report["faults"][0]
    assert "FAULT: " in told(capsys)


def test_an_unknown_chosen_backend_is_a_fault(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt HA_QNX_BACKEND is found."""
    monkeypatch.setenv("HA_QNX_BACKEND", "falback")
    status, report = examined(capsys)
    assert status == 1
    assert "there is no such backend" in report["faults"][0]


def test_one_backend_can_be_asked_for(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """--backend answers for a program that asks for this one, whatever the environment says."""
    monkeypatch.setenv("HA_QNX_BACKEND", "fallback")
    status, report = examined(capsys, "--backend", "native")
    assert (status, report["default"]["backend"]) == (1, None)
    assert report["default"]["why"] == "'native' is asked for"


def test_a_directory_that_others_can_change_is_a_fault(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """Mode 0777 is unsafe, and it is said what to do."""
    runtime_directory.mkdir()
    runtime_directory.chmod(0o777)
    status, report = examined(capsys)
    assert status == 1
    assert report["runtime"]["mode"] == "0777"
    assert "chmod 700" in report["faults"][0]
    assert str(runtime_directory) in report["faults"][0]


def test_a_safe_directory_is_described(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """Owner and mode are shown."""
    runtime_directory.mkdir(mode=0o700)
    status, report = examined(capsys)
    assert status == 0
    assert (report["runtime"]["exists"], report["runtime"]["mode"]) == (True, "0700")
    assert report["runtime"]["owner"] == runtime_directory.owner()
    assert "nobody else can change it" in told(capsys)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_no_directory_is_a_fault(capsys: Capture, runtime_directory: pathlib.Path, kind: str) -> None:
    """A file, or a link to somewhere else, where the directory should be."""
    if kind == "file":
        runtime_directory.touch()
    else:
        runtime_directory.symlink_to("/nonexistent/ha_qnx")
    status, report = examined(capsys)
    assert status == 1
    assert "no directory" in report["faults"][0]


def test_a_directory_that_cannot_be_made_is_a_fault(
    capsys: Capture, runtime_directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found before a program fails."""
    runtime_directory.touch()
    monkeypatch.setenv("HA_QNX_RUNTIME", str(runtime_directory / "below" / "a file"))
    status, report = examined(capsys)
    assert status == 1
    assert "cannot be made" in report["faults"][0]


def test_the_place_of_the_directory_is_explained(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """It says which variable has chosen it, or that none has."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert examined(capsys)[1]["runtime"]["chosen_by"] == "HA_QNX_RUNTIME"
    monkeypatch.delenv("HA_QNX_RUNTIME")
    assert examined(capsys)[1]["runtime"]["chosen_by"] == "XDG_RUNTIME_DIR"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert examined(capsys)[1]["runtime"]["chosen_by"] == "default"
    assert "neither HA_QNX_RUNTIME nor XDG_RUNTIME_DIR is set" in told(capsys)


def test_names_are_listed_with_their_servers(capsys: Capture, tmp_path: pathlib.Path) -> None:
    """A live server's name is listed with its process; after SIGKILL it is free again."""
    program = "import ha_qnx, sys; ha_qnx.name_attach('a/b'); print('attached', flush=True); sys.stdin.read()"
    server = subprocess.Popen(  # noqa: S603  # our own server
        [sys.executable, "-c", program], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"attached\n"
        (entry,) = examined(capsys)[1]["runtime"]["names"]
        assert (entry["name"], entry["pid"], entry["alive"]) == ("a/b", server.pid, True)
        assert f"a/b: process {server.pid}, channel {entry['chid']}\n" in told(capsys)
    finally:
        server.kill()
    # It is a zombie until somebody waits for it, and dead as a server already.
    eventually(lambda: not examined(capsys)[1]["runtime"]["names"][0]["alive"], "the server to be seen dead")
    server.communicate()
    assert examined(capsys)[1]["runtime"]["names"][0]["alive"] is False
    assert f"a/b: free again, process {server.pid} is dead\n" in told(capsys)


def test_what_is_no_name_is_passed_over(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """A file that no server has completed yet is no name, and no fault."""
    (runtime_directory / "names").mkdir(parents=True)
    runtime_directory.chmod(0o700)
    (runtime_directory / "names" / "empty").touch()
    (runtime_directory / "names" / "other").write_bytes(b"\xff\xfe something else")
    status, report = examined(capsys)
    assert (status, report["runtime"]["names"]) == (0, [])


def test_nothing_is_changed(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """A look leaves a directory as it was: no files, no changed mode."""
    runtime_directory.mkdir(mode=0o700)
    examined(capsys)
    assert os.listdir(runtime_directory) == []
