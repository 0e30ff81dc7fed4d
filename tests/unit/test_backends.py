"""The choice of a backend."""

import pathlib
import shutil
import subprocess
import sys

import pytest

import ha_qnx
from ha_qnx import backends


def test_the_argument_chooses_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins over HA_QNX_BACKEND."""
    monkeypatch.setenv("HA_QNX_BACKEND", "hybrid")
    assert ha_qnx.backend("fallback").name == "fallback"


def test_the_environment_chooses_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """HA_QNX_BACKEND wins over the platform."""
    monkeypatch.setattr(backends, "candidates_of_platform", lambda: ["native"])
    monkeypatch.setenv("HA_QNX_BACKEND", "fallback")
    assert ha_qnx.backend_name() == "fallback"


def test_the_platform_chooses_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A QNX target tries native, then hybrid; any other platform has fallback."""
    monkeypatch.delenv("HA_QNX_BACKEND", raising=False)
    assert ha_qnx.backend_name() == "fallback"
    monkeypatch.setattr("sys.platform", "qnx")
    assert backends.candidates_of_platform() == ["native", "hybrid"]


def test_one_name_is_one_backend() -> None:
    """Asking twice gives the same object."""
    assert ha_qnx.backend("fallback") is ha_qnx.backend("fallback")


def test_an_unknown_name_is_refused() -> None:
    """It is a ValueError that lists the backends there are."""
    with pytest.raises(ValueError, match=r"'pigeon'.*native, hybrid, fallback"):
        ha_qnx.backend("pigeon")


def test_what_the_environment_asks_for_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that cannot be had is an ImportError that says who asked for it and why it failed."""
    monkeypatch.setenv("HA_QNX_BACKEND", "pigeon")
    with pytest.raises(ImportError, match=r"HA_QNX_BACKEND is 'pigeon'.*no such backend"):
        ha_qnx.backend()


def test_every_candidate_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a platform whose backends all fail lists each of them."""

    def fail() -> ha_qnx.Backend:
        raise ImportError("no libha here")

    def fail_otherwise() -> ha_qnx.Backend:
        raise ImportError("no libc there")

    monkeypatch.delenv("HA_QNX_BACKEND", raising=False)
    monkeypatch.setattr(backends, "candidates_of_platform", lambda: ["native", "hybrid"])
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(backends, "_MAKERS", {"native": fail, "hybrid": fail_otherwise})
    with pytest.raises(ha_qnx.BackendUnavailableError, match="native: no libha here; hybrid: no libc there") as raised:
        ha_qnx.backend()
    assert [candidate.name for candidate in raised.value.candidates] == ["native", "hybrid"]


def test_the_next_candidate_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a platform with two, the second serves where the first fails."""

    def fail() -> ha_qnx.Backend:
        raise ImportError("no libha here")

    fallback = ha_qnx.backend("fallback")
    monkeypatch.delenv("HA_QNX_BACKEND", raising=False)
    monkeypatch.setattr(backends, "candidates_of_platform", lambda: ["native", "hybrid"])
    monkeypatch.setattr(backends, "_made", {})
    monkeypatch.setattr(backends, "_MAKERS", {"native": fail, "hybrid": lambda: fallback})
    assert ha_qnx.backend() is fallback


def test_a_checkout_says_how_it_is_used(tmp_path: pathlib.Path) -> None:
    """There, the fallback lies beside the package, and not in it."""
    package = pathlib.Path(ha_qnx.__file__).parent
    shutil.copytree(package, tmp_path / "ha_qnx", ignore=shutil.ignore_patterns("fallback", "conformance"))
    command = [sys.executable, "-S", "-c", "import ha_qnx; ha_qnx.backend('fallback')"]
    tried = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)  # noqa: S603  # ours
    assert "this is a checkout, where sh ci/dev makes ha_qnx importable" in tried.stderr
