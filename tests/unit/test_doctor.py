"""What ``ha-qnx doctor`` finds."""

import json
import os
import pathlib
import platform
import shutil
import stat
import subprocess
import sys
from typing import Any, Dict, List, Tuple

import pytest
from ha_qnx.conformance.waiting import eventually
from ha_qnx.fallback import wire
from ha_qnx.fallback.kernel import SocketKernel
from ha_qnx.fallback.runtime import Runtime

import ha_qnx
from ha_qnx import backends
from ha_qnx.abi import LP64_8
from ha_qnx.commands import doctor
from ha_qnx.commands.cli import main
from ha_qnx.native import libraries

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have chosen a backend, or a library; one may be installed with the package, or not."""
    monkeypatch.delenv("HA_QNX_BACKEND", raising=False)
    monkeypatch.delenv("HA_QNX_LIBHA", raising=False)
    monkeypatch.setattr(libraries, "_OWN_NAME", "libha_nowhere.so")
    monkeypatch.setattr(backends, "_made", {"fallback": ha_qnx.backend("fallback")})


@pytest.fixture
def with_libha(libha: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of libha for POSIX hosts, which can be had here."""
    monkeypatch.setenv("HA_QNX_LIBHA", libha)
    return libha


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
    assert versions["ha_qnx"] == ha_qnx.__version__
    assert (versions["python"], versions["machine"]) == (platform.python_version(), platform.machine())


def test_every_backend_is_listed_with_the_reason_it_cannot_be_had(capsys: Capture) -> None:
    """Each candidate says what is missing; one that can be had says nothing."""
    _status, report = examined(capsys)
    problems = {entry["name"]: entry["problem"] for entry in report["backends"] if not entry["available"]}
    assert [entry["name"] for entry in report["backends"]] == ["native", "hybrid", "fallback"]
    assert "libha" in problems["native"]
    assert "fallback" not in problems
    assert f"native    cannot be had: {problems['native']}" in told(capsys)


def test_a_library_is_described(capsys: Capture, with_libha: str) -> None:
    """Of a backend that binds a library: which file it is, what it says that it is, and whose declarations apply."""
    _status, report = examined(capsys)
    text = told(capsys)
    found = {entry["name"]: entry["library"] for entry in report["backends"]}
    assert found["fallback"] is None
    for name in ("native", "hybrid"):
        library = found[name]
        assert library["path"] == with_libha
        assert library["what"].startswith("libha for POSIX ")
        assert library["is_qnxs"] is False
        assert library["data_model"] == "LP64, SDP 7.x"
        assert library["what"] in library["because"]
        assert library["missing_symbols"] == {}
        assert f"  {name:<9} available; {library['what']}, not QNX's own: {with_libha}\n" in text
    assert text.count(f"declarations: LP64, SDP 7.x, because {found['native']['because']}\n") == 2
    assert text.count("missing symbols: none\n") == 2


def test_qnxs_own_library_is_described_by_its_path(
    capsys: Capture, with_libha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not say what it is. Each symbol that it lacks is listed with what takes its place."""

    class Found:
        version = None
        model = LP64_8
        reason = "the release is 8.0.0"

        def __init__(self, with_libha: bool) -> None:
            self.path = "libha.so.2" if with_libha else None
            self.missing = ["MsgSendPulse", "ha_open64"] if with_libha else []

        def substitute(self, name: str) -> str:
            return f"instead of {name}"

    monkeypatch.setattr(doctor, "Libraries", Found)
    _status, report = examined(capsys)
    text = told(capsys)
    native, hybrid = report["backends"][0]["library"], report["backends"][1]["library"]
    assert (native["path"], native["what"], native["is_qnxs"]) == ("libha.so.2", None, True)
    assert native["missing_symbols"] == {
        "MsgSendPulse": "instead of MsgSendPulse",
        "ha_open64": "instead of ha_open64",
    }
    assert (hybrid["path"], hybrid["missing_symbols"]) == ("libc", {})
    assert "native    available; libha.so.2\n" in text
    assert "hybrid    available; libc\n" in text
    assert "declarations: LP64, SDP 8.x, because the release is 8.0.0\n" in text
    assert "missing symbols, and what takes their place:\n" in text
    assert "MsgSendPulse: instead of MsgSendPulse\n" in text
    assert "not QNX's own" not in text


def test_a_library_that_cannot_be_used_is_named(
    capsys: Capture, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason names the file that HA_QNX_LIBHA names."""
    monkeypatch.setenv("HA_QNX_LIBHA", str(tmp_path / "libha.so.2"))
    status, report = examined(capsys)
    assert status == 0  # Nobody has asked for it.
    for entry in report["backends"][:2]:
        assert not entry["available"]
        assert entry["library"] is None
        assert str(tmp_path / "libha.so.2") in entry["problem"]


def test_a_chosen_backend_that_cannot_be_had_is_a_fault(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """HA_QNX_BACKEND is named as the reason, and so is what its backend lacks."""
    monkeypatch.setenv("HA_QNX_BACKEND", "hybrid")
    status, report = examined(capsys)
    assert status == 1
    assert report["default"]["backend"] is None
    assert report["default"]["why"] == "HA_QNX_BACKEND is 'hybrid'"
    assert "libha_nowhere.so" in report["faults"][0]
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
    rooms = runtime_directory / "wire-3"
    for room in (rooms / "names", rooms / "paths" / "%2Fdev%2Fser1="):
        room.mkdir(parents=True)
        (room / "empty").touch()
        (room / "other").write_bytes(b"\xff\xfe something else")
    runtime_directory.chmod(0o700)
    status, report = examined(capsys)
    assert (status, report["runtime"]["names"], report["runtime"]["paths"]) == (0, [], [])


@pytest.mark.parametrize("name", ["a/b", "x" * 199, "x" * 200, "a name with spaces/" * 20 + "end"], ids=len)
def test_names_and_paths_of_any_length_are_listed(capsys: Capture, tmp_path: pathlib.Path, name: str) -> None:
    """Also those that take several pieces in the directory."""
    program = (
        "import ha_qnx, sys; name = ha_qnx.name_attach(sys.argv[1]);"
        " ha_qnx.resmgr_attach(name.chid, '/dev/' + sys.argv[1]); print('attached', flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(  # noqa: S603  # our own server
        [sys.executable, "-c", program, name], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"attached\n"
        status, report = examined(capsys)
        assert status == 0
        assert [entry["name"] for entry in report["runtime"]["names"]] == [name]
        assert [entry["name"] for entry in report["runtime"]["paths"]] == [f"/dev/{name}"]
        assert f"/dev/{name}: process {server.pid}" in told(capsys)
    finally:
        server.kill()
        server.communicate()


def test_nothing_is_changed(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """A look leaves a directory as it was: no files, no changed mode."""
    runtime_directory.mkdir(mode=0o700)
    examined(capsys)
    assert os.listdir(runtime_directory) == []


@pytest.mark.parametrize(
    ("groups", "modes", "rights"),
    [
        ([], [0o755, 0o755, 0o1777, 0o711, 0o711], "every user may connect"),
        (["--clients", str(os.getgid())], [0o750, 0o755, 0o1777, 0o711, 0o711], "nobody else may attach"),
        (["--servers", str(os.getgid())], [0o755, 0o755, 0o1777, 0o1731, 0o1731], "where it may connect, may attach"),
    ],
    ids=["all", "clients", "servers"],
)
def test_a_directory_is_set_up_for_several_users(
    capsys: Capture, runtime_directory: pathlib.Path, groups: List[str], modes: List[int], rights: str
) -> None:
    """Whatever the umask; a second time sets right what somebody has changed. Who may do what is told."""
    rooms = runtime_directory / f"wire-{wire.VERSION}"
    made = [runtime_directory, rooms, *(rooms / room for room in ("channels", "names", "paths"))]
    for before in (None, 0o700):
        for directory in made if before else ():
            directory.chmod(before or 0)
        assert "chmod" not in told(capsys, "--setup", str(runtime_directory), *groups)
        assert [stat.S_IMODE(directory.stat().st_mode) for directory in made] == modes
    assert rights in told(capsys)
    status, report = examined(capsys)
    assert (status, report["runtime"]["shared"]) == (0, True)
    kernel = SocketKernel()  # That of this process has a directory already, or would keep this one.
    assert kernel.name_detach(kernel.name_attach("set-up")) == 0


def test_a_shared_directory_may_be_called_as_a_room_in_it(capsys: Capture, tmp_path: pathlib.Path) -> None:
    """Its group is that of the clients, whatever its name."""
    directory, group = tmp_path / "channels", os.getgid()
    done = told(capsys, "--setup", str(directory), "--clients", str(group)).splitlines()
    assert done[0] == f"install -d -m 0750 -g {group} {directory}"


def test_what_is_wrong_with_a_shared_directory_is_told(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """Which part of it, and what mode it should have."""
    main(["doctor", "--setup", str(runtime_directory)])
    names = runtime_directory / f"wire-{wire.VERSION}" / "names"
    names.chmod(0o777)
    capsys.readouterr()
    assert examined(capsys)[1]["faults"] == [
        f"others may write to the runtime directory (mode 0777): it should be 1731: {names}"
    ]
    with pytest.raises(PermissionError, match="it should be 1731"):
        Runtime()


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--setup", "/proc/none"], 1),
        (["--setup", "/nowhere", "--clients", "no-such-group"], 2),
        (["--clients", "0"], 2),
    ],
)
def test_what_cannot_be_set_up_is_told(capsys: Capture, arguments: List[str], status: int) -> None:
    """1, the host does not let us; 2, wrong use."""
    assert main(["doctor", *arguments]) == status
    assert capsys.readouterr().err.startswith("ha-qnx doctor: ")


HOLD = """
import signal
import ha_qnx
held = ha_qnx.name_attach("a/name")
ha_qnx.resmgr_attach(held.chid, "/dev/path")
print("held", flush=True)
signal.pause()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shows what others have open")
def test_a_server_whose_entry_was_removed_is_a_fault(capsys: Capture, runtime_directory: pathlib.Path) -> None:
    """It lives, and nobody finds it."""
    server = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE)  # noqa: S603  # ours
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"held\n"
        shutil.rmtree(runtime_directory)
        status, report = examined(capsys)
        assert status == 1
        assert report["runtime"]["removed"] == [
            {"name": "a/name", "pid": server.pid},
            {"name": "/dev/path", "pid": server.pid},
        ]
        for fault, name in zip(report["faults"], ("a/name", "/dev/path")):
            assert fault.startswith(f"process {server.pid} serves {name!r} and cannot be found")
    finally:
        server.kill()
        server.communicate()
    assert examined(capsys)[1]["faults"] == []
