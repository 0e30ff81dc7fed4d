"""A short run of what ``ci/faults`` does for as long as one likes; and that the account notices what goes wrong."""

import os
import pathlib
import subprocess
import sys
from collections import Counter
from typing import Any, Dict, List

import pytest

from .accounts import Record, Report, answer_of, faults_of, judge, request_of
from .parts import PARTS


def report(*answered: int, **rest: Any) -> Report:
    """Of client 1."""
    return Report([(1, number, number) for number in answered], [], [], [], [], 0)._replace(**rest)


@pytest.mark.parametrize(
    ("records", "reports", "killed", "faults"),
    [
        ([(1, 1, 50), (1, 2, 50)], [report(1, 2)], set(), {}),
        ([(1, 1, 50)], [report(1, 2)], set(), {"lost": 1}),
        ([(1, 1, 50), (1, 1, 51)], [report(1)], {50}, {}),
        ([(1, 1, 50), (1, 1, 51)], [report(1)], set(), {"doubled": 1}),
        ([(1, 1, 50), (1, 2, 50), (1, 1, 51)], [report(1, 2)], {50}, {"doubled": 1}),
        ([(1, 2, 50), (1, 1, 50), (1, 2, 51)], [report(2, abandoned=[[1, 1]])], {50}, {}),
        ([(1, 1, 50), (1, 1, 50)], [report(1)], {50}, {}),
        ([(1, 1, 50)], [report(1, wrong=[[1, 1]])], set(), {"wrong": 1}),
        (
            [],
            [report(errors=["x"], internal=["y"], leaked=2)],
            set(),
            {"given up": 1, "internal errors": 1, "leaked": 2},
        ),
    ],
)
def test_the_account_is_right(
    records: List[List[int]], reports: List[Report], killed: "set[int]", faults: Dict[str, int]
) -> None:
    """What is lost, done twice without need, or wrong, is counted."""
    assert faults_of(judge([Record(*record) for record in records], reports, killed)) == faults


def test_an_answer_belongs_to_one_request() -> None:
    """What the answers of two requests have in common does not make one right for the other."""
    requests = [request_of(client, number, size, 100) for client in (1, 2) for number in (1, 2) for size in (0, 10)]
    assert max(Counter(map(answer_of, requests)).values()) == 1
    assert {len(answer_of(request)) for request in requests} == {100}


@pytest.mark.slow
@pytest.mark.parametrize("part", list(PARTS))
def test_all_accounts_are_right(part: str, tmp_path: pathlib.Path) -> None:
    """A few seconds of each part, on two pairs."""
    ran = subprocess.run(  # noqa: S603  # our own module, in our own interpreter
        [sys.executable, "-m", "faults", "--only", part, "--minutes", "0.015", "--brief"],
        env={**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1]), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
