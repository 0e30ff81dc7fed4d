"""How a test asks what was asked of a real kernel, and what happens to the answers.

``@measured("CH01", "CH02")`` makes a test of a generator that yields the names of these cases, each with the answer
that it was given here. What it yields is compared with the table when it has ended.
"""

import functools
import inspect
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

from . import table
from .table import Case

Answers = Iterator[Tuple[str, str]]
Scene = Callable[..., Answers]

#: The test that asks a case.
asked_by: Dict[str, str] = {}


class DifferentAnswersError(AssertionError):
    """What was answered is not what the table says. ``differences`` has each case with both answers."""

    def __init__(self, differences: List[Dict[str, str]], asked: int) -> None:
        names = ", ".join(difference["case"] for difference in differences)
        lines = [f"{len(differences)} of {asked} answers are others than expected: {names}"]
        for found in differences:
            lines += [
                f"{found['case']}: {found['asked']}",
                f"    QNX 6.4.1  {found['qnx641']}",
                *([f"    decided    {found['decided']}"] if "decided" in found else []),
                f"    here       {found['here']}",
            ]
        super().__init__("\n".join(lines))
        self.differences = differences


def measured(*names: str, variant: str = "") -> Callable[[Scene], Callable[..., None]]:
    """Make a test of a generator that asks these cases.

    Args:
        names: the cases, without their variants.
        variant: the parameter of the test whose value stands behind their names in the table.
    """

    def decorate(scene: Scene) -> Callable[..., None]:
        test_name = f"{scene.__module__.rpartition('.')[2]}::{scene.__name__}"
        chosen = _chosen(names, with_variants=bool(variant))
        for case in chosen:
            assert case.is_asked, f"{case.name} is not to be asked"
            assert asked_by.setdefault(case.name, test_name) == test_name, f"{case.name} is asked twice"

        @functools.wraps(scene)
        def test(of_ours: bool, **given: Any) -> None:
            __tracebackhide__ = True
            suffix = f".{given[variant]}" if variant else ""
            _compare(scene(**given), {name: table.cases()[name + suffix] for name in names}, of_ours)

        signature = inspect.signature(scene)
        of_ours = inspect.Parameter("of_ours", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[of_ours, *signature.parameters.values()]
        )
        lines = dict.fromkeys(line for case in chosen for line in (*case.lines, *case.decisions))
        marks = [pytest.mark.measured(*(case.name for case in chosen)), pytest.mark.checks(*lines)]
        return functools.reduce(lambda marked, mark: mark(marked), marks, test)

    return decorate


def _chosen(names: Tuple[str, ...], with_variants: bool) -> List[Case]:
    """The cases of the table that a test asks."""
    found: Dict[str, List[Case]] = {}
    for case in table.cases().values():
        found.setdefault(case.without_variant if with_variants else case.name, []).append(case)
    missing = [name for name in names if name not in found]
    assert not missing, f"the table has no {', '.join(missing)}"
    return [case for name in names for case in found[name]]


def _compare(answers: Answers, expected: Dict[str, Case], of_ours: bool) -> None:
    """Ask, and compare what was answered; also what was answered before something else went wrong."""
    __tracebackhide__ = True
    found: Dict[str, str] = {}
    problem = None
    try:
        for name, answer in answers:
            assert name in expected, f"{name} was not to be asked"
            assert name not in found, f"{name} was asked twice"
            found[name] = answer
    except Exception as error:
        problem = error
    differences = [
        _difference(expected[name], answer, of_ours)
        for name, answer in found.items()
        if answer != expected[name].expected(of_ours)
    ]
    if differences:
        raise DifferentAnswersError(differences, len(found)) from problem
    if problem is not None:
        raise problem
    missing = [name for name in expected if name not in found]
    assert not missing, f"not asked: {', '.join(missing)}"


def _difference(case: Case, answer: str, of_ours: bool) -> Dict[str, str]:
    decided = {"decided": f"{case.ours} ({' '.join(case.decisions)})"} if of_ours and case.is_decided else {}
    return {"case": case.name, "asked": case.asked, "qnx641": case.qnx, **decided, "here": answer}
