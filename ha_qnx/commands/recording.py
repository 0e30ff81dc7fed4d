"""A plugin of pytest for ``ha-qnx conformance``: what a test checks, and what a library did about an open point.

It is loaded wherever tests run, also in the processes of pytest-xdist, and what it finds travels with the reports. The
report of a failure has the text of the lines that the test checks. A decision about what QNX leaves open binds our own
implementations; on a library that is not ours, a test of it records what the library does instead, and does not fail.
"""

import functools
from typing import Any, Iterator, List

import pytest

from . import conformance


def pytest_itemcollected(item: pytest.Item) -> None:
    item.user_properties.append(("lines", _arguments_of_markers(item, "checks")))
    item.user_properties.append(("open_points", _arguments_of_markers(item, "open_point")))


def _arguments_of_markers(item: pytest.Item, name: str) -> List[str]:
    return [argument for marker in item.iter_markers(name) for argument in marker.args]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Make a difference of a failure that only tells what somebody else's library does; explain any other one."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed and _arguments_of_markers(item, "open_point") and _is_recorded(item):
        # For pytest it has passed, so that -x goes on and the exit status stays.
        report.outcome = "passed"
        report.user_properties.append(("differs", _message(report)))
    elif report.failed:
        lines = [*_arguments_of_markers(item, "checks"), *_arguments_of_markers(item, "open_point")]
        if lines:
            report.sections.append(("what the test checks", _describe(lines)))


def _describe(numbers: List[str]) -> str:
    """The text of some lines of the specification."""
    from ..conformance import specification

    known = specification.read().lines
    return "\n".join(
        known[number].describe() if number in known else f"{number} (there is no such line)"
        for number in dict.fromkeys(numbers)
    )


def _is_recorded(item: pytest.Item) -> bool:
    """Whether a library that is not ours takes part, as client or as server."""
    callspec = getattr(item, "callspec", None)
    backends = callspec.params.get("backends", ()) if callspec is not None else ()
    return any(not _is_ours(name) for name in backends)


@functools.lru_cache(maxsize=None)
def _is_ours(name: str) -> bool:
    return bool(conformance.describe_backend(name)["ours"])


def _message(report: pytest.TestReport) -> str:
    """The assertion's text, or what was raised instead."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else report.longreprtext
