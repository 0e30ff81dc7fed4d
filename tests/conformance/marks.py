"""How a test says which lines of the specification it checks."""

from typing import Any, Callable, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])


def checks(*lines: str) -> Callable[[Test], Test]:
    """Mark a test with the lines that it checks: "B163", "D9"."""
    return pytest.mark.checks(*lines)


def open_point(*decisions: str) -> Callable[[Test], Test]:
    """Mark a test of a decision that QNX leaves open.

    Our own implementations have to pass it. On a real libha it records what that does, and does not fail.
    """
    return pytest.mark.open_point(*decisions)
