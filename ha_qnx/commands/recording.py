"""A plugin of pytest for ``ha-qnx conformance``: what a test checks, and what a library did about an open point.

It is loaded wherever tests run, also in the processes of pytest-xdist, and what it finds travels with the reports. The
report of a failure has the text of the lines that the test checks. A decision about what QNX leaves open binds our own
implementations; on a library that is not ours, a test of it records what the library does instead, and does not fail.
Neither does a test of what one release of QNX has answered: another release may answer otherwise.
"""

import functools
from typing import Any, Iterable, Iterator, List, Tuple

import pytest

from . import conformance


def pytest_itemcollected(item: pytest.Item) -> None:
    item.user_properties.append(("lines", _arguments_of_markers(item, "checks")))
    item.user_properties.append(("open_points", _arguments_of_markers(item, "open_point")))


def _arguments_of_markers(item: pytest.Item, name: str) -> List[str]:
    return [argument for marker in item.iter_markers(name) for argument in marker.args]


@pytest.fixture
def of_ours(backends: Tuple[str, str]) -> bool:
    """Whether both libraries that take part are our own, so that our decisions bind them."""
    return _are_ours(backends)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Iterator[None]:
    """Make a difference of a failure that only tells what somebody else's library does; explain any other one."""
    outcome: Any = yield
    report = outcome.get_result()
    if not report.failed:
        return
    differences = getattr(call.excinfo and call.excinfo.value, "differences", None)
    if differences is not None:
        report.user_properties.append(("answers", differences))
    if report.when == "call" and _may_differ(item):
        # For pytest it has passed, so that -x goes on and the exit status stays.
        report.outcome = "passed"
        report.user_properties.append(("differs", _message(report)))
    else:
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


def _may_differ(item: pytest.Item) -> bool:
    """Whether a test asks what a library that is not ours may answer otherwise, and such a library takes part."""
    asks = any(item.iter_markers("open_point")) or any(item.iter_markers("measured"))
    callspec = getattr(item, "callspec", None)
    return asks and callspec is not None and not _are_ours(callspec.params.get("backends", ()))


def _are_ours(backends: Iterable[str]) -> bool:
    return all(_is_ours(name) for name in backends)


@functools.lru_cache(maxsize=None)
def _is_ours(name: str) -> bool:
    return bool(conformance.describe_backend(name)["ours"])


def _message(report: pytest.TestReport) -> str:
    """The assertion's text, or what was raised instead."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else report.longreprtext
