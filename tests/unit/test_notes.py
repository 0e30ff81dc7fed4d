"""ci/notes.py: the notes of a release are what the changelog says of its version."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

CHANGELOG = """\
# Changelog

What changed for users.

## [Unreleased]

- Not yet.

## [1.2.0] - 2026-01-31

### Added

- A thing, with a [link][there].

### Fixed

- Another.

## [1.1.0] - 2025-12-01

## [1.0.0] - 2025-11-01

- The beginning.

[there]: nowhere.html
[1.2.0]: somewhere.html
"""


def run(directory: pathlib.Path, tag: str) -> "subprocess.CompletedProcess[str]":
    """Run it on this changelog."""
    file = directory / "CHANGELOG.md"
    file.write_text(CHANGELOG, encoding="utf-8")
    command = [sys.executable, str(ROOT / "ci" / "notes.py"), tag, "--file", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours


@pytest.mark.parametrize(
    ("tag", "notes"),
    [
        ("v1.2.0", "### Added\n\n- A thing, with a [link][there].\n\n### Fixed\n\n- Another.\n"),
        ("1.0.0", "- The beginning.\n"),
        ("Unreleased", "- Not yet.\n"),
    ],
)
def test_the_notes_are_what_stands_below_the_heading(tmp_path: pathlib.Path, tag: str, notes: str) -> None:
    """A tag has a v before its version; the headings of other versions and the links at the end are no part of it."""
    done = run(tmp_path, tag)
    assert (done.stdout, done.stderr, done.returncode) == (notes, "", 0)


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("v1.1.0", "nothing stands below the heading of 1.1.0"),
        ("v2.0.0", "there is no heading for 2.0.0; there are those of Unreleased, 1.2.0, 1.1.0, 1.0.0"),
        ("v1.2", "there is no heading for 1.2;"),
    ],
)
def test_a_version_without_notes_is_not_released(tmp_path: pathlib.Path, tag: str, says: str) -> None:
    """Whoever forgot to write down what is new is told so, and the release stops there."""
    done = run(tmp_path, tag)
    assert done.returncode == 1
    assert (done.stdout, says in done.stderr) == ("", True)


def test_our_changelog_can_be_read() -> None:
    """There is something new, or a version that was released."""
    command = [sys.executable, str(ROOT / "ci" / "notes.py"), "Unreleased"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603  # ours
    assert done.returncode == 0 or "those of none" not in done.stderr
