"""Every test has a runtime directory of its own."""

import pathlib

import pytest


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The directory that HA_QNX_RUNTIME names; it does not exist yet."""
    directory = tmp_path / "run"
    monkeypatch.setenv("HA_QNX_RUNTIME", str(directory))
    return directory
