"""The demonstration: how it counts, and how it ends."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict, Iterator, List

import pytest

from ha_qnx.commands.cli import main
from ha_qnx.commands.demo import command as demo
from ha_qnx.commands.demo.client import request_of
from ha_qnx.commands.demo.count import ClientReport, Comparison, Result, compare, describe, read_records
from ha_qnx.commands.demo.shared import BEGUN, RECORD, REPLYING, Board, right_reply

pytestmark = pytest.mark.slow

# Counting.


def records_of(**executed: List[int]) -> "Iterator[tuple[int, int]]":
    """Records: for c1=[1, 2], requests 1 and 2 of client 1."""
    for client, numbers in executed.items():
        for number in numbers:
            yield int(client[1:]), number


def test_a_run_in_which_all_goes_well_counts_no_faults() -> None:
    """Every request has its reply and one record."""
    reports = [ClientReport(1, 3), ClientReport(2, 2)]
    assert compare(reports, records_of(c1=[1, 2, 3], c2=[1, 2])) == Comparison(
        requests=5,
        replies=5,
        records=5,
        lost=0,
        wrong=0,
        executed_twice=0,
        unasked=0,
        retransmissions=0,
        died_unexecuted=0,
    )


def test_a_request_without_a_reply_is_lost() -> None:
    """It does not help that a server has recorded it."""
    counts = compare([ClientReport(1, 3, unanswered=[3])], records_of(c1=[1, 2, 3]))
    assert (counts.requests, counts.replies, counts.lost, counts.wrong) == (3, 2, 1, 0)


def test_a_request_without_a_record_is_lost() -> None:
    """It does not help that the client has a reply."""
    counts = compare([ClientReport(1, 3)], records_of(c1=[1, 3]))
    assert (counts.replies, counts.records, counts.lost) == (3, 2, 1)


def test_a_request_without_reply_and_record_is_lost_once() -> None:
    """One request is one loss, however much is missing."""
    assert compare([ClientReport(1, 2, unanswered=[2])], records_of(c1=[1])).lost == 1


def test_a_wrong_reply_is_counted_and_its_request_is_lost() -> None:
    """A reply that belongs to another request is no reply to this one."""
    counts = compare([ClientReport(1, 2, wrong=[1])], records_of(c1=[1, 2]))
    assert (counts.replies, counts.wrong, counts.lost) == (2, 1, 1)


def test_a_request_that_was_sent_again_may_be_executed_twice() -> None:
    """The first server executed it and died before the reply."""
    counts = compare([ClientReport(1, 2, resent={1: 1})], records_of(c1=[1, 1, 2]))
    assert (counts.executed_twice, counts.unasked, counts.lost) == (1, 0, 0)
    assert (counts.retransmissions, counts.died_unexecuted) == (1, 0)


def test_a_request_that_was_sent_again_may_be_executed_once() -> None:
    """The first server died before it executed it."""
    counts = compare([ClientReport(1, 2, resent={2: 3})], records_of(c1=[1, 2]))
    assert (counts.executed_twice, counts.unasked, counts.lost) == (0, 0, 0)
    assert (counts.retransmissions, counts.died_unexecuted) == (3, 3)


def test_a_request_executed_more_often_than_it_was_sent_is_a_fault() -> None:
    """A message must not multiply on its way."""
    counts = compare([ClientReport(1, 2, resent={2: 1})], records_of(c1=[1, 1, 2, 2, 2]))
    assert (counts.executed_twice, counts.unasked) == (2, 2)


@pytest.mark.parametrize("records", [{"c1": [3]}, {"c1": [0]}, {"c2": [1]}], ids=["number", "zero", "client"])
def test_what_nobody_asked_for_is_a_fault(records: Dict[str, List[int]]) -> None:
    """A record of a request that no client has made."""
    executed = [*records_of(c1=[1, 2]), *records_of(**records)]
    assert compare([ClientReport(1, 2)], executed).unasked == 1


def test_the_plain_client_does_not_count() -> None:
    """Its requests are lost by design."""
    counts = compare([ClientReport(1, 1)], records_of(c0=[1, 2, 3], c1=[1]))
    assert (counts.records, counts.unasked) == (1, 0)


def test_records_are_read_as_they_were_written(tmp_path: pathlib.Path) -> None:
    """Client and number come back, in order, in a file of any length."""
    written = [(number % 5, number) for number in range(10_000)]
    path = tmp_path / "records"
    path.write_bytes(b"".join(RECORD.pack(client, 4711, number) for client, number in written))
    assert list(read_records(str(path))) == written


def test_no_record_crosses_a_page() -> None:
    """A record lies within a page of the file, so that it is never written by half."""
    assert 4096 % RECORD.size == 0


def test_every_request_has_a_reply_of_its_own() -> None:
    """No two requests, of whatever client, number or content, have the same right reply."""
    requests = [request_of(client, number) for client in (1, 2) for number in range(1, 600)]
    changed = [request[:-1] + bytes([request[-1] ^ 1]) for request in requests if len(request) > 20]
    assert len({right_reply(request) for request in requests + changed}) == len(requests) + len(changed)


def test_what_a_client_prints_can_be_read() -> None:
    """A report survives its way as JSON."""
    report = ClientReport(2, 9, [3], [9], {9: 2}, 2, 1.5, 3.0, "ESRCH: No such process")
    printed = {**report._asdict(), "resent": sorted(report.resent.items())}
    assert ClientReport.from_json(json.dumps(printed)) == report
    with pytest.raises(ValueError, match="no report"):
        ClientReport.from_json('{"client": 1}')


# The verdict.


def result_of(reports: List[ClientReport], kills: int = 2, **executed: List[int]) -> Result:
    """A run with two kills asked for."""
    return Result(
        backend="fallback",
        seconds=1.0,
        clients=len(reports),
        kills_asked=2,
        kills=kills,
        reports=reports,
        comparison=compare(reports, records_of(**executed)),
        plain={"failed_after": 0.51234, "errors": ["ESRCH: No such process"]},
        faults=[],
    )


def test_a_run_without_a_fault_exits_with_0() -> None:
    """All is well, and said."""
    result = result_of([ClientReport(1, 2, resent={1: 1}, recoveries=1)], c1=[1, 1, 2])
    assert result.exit_status == 0
    assert "Nothing was lost." in describe(result)
    assert "failed for good after 0.51 s (ESRCH" in describe(result)


@pytest.mark.parametrize(
    ("report", "kills", "executed", "words"),
    [
        (ClientReport(1, 1, unanswered=[1]), 2, [1], "1 requests are lost"),
        (ClientReport(1, 1), 2, [], "1 requests are lost"),
        (ClientReport(1, 1, wrong=[1]), 2, [1], "1 replies are wrong"),
        (ClientReport(1, 1), 2, [1, 1], "1 executions were not asked for"),
        (ClientReport(1, 1, error="EBADF: Bad file descriptor"), 2, [1], "client 1 failed: EBADF"),
        (ClientReport(1, 1), 1, [1], "only 1 of 2 kills"),
    ],
    ids=["unanswered", "unrecorded", "wrong", "unasked", "failed", "kills"],
)
def test_each_fault_is_said_and_exits_with_1(report: ClientReport, kills: int, executed: List[int], words: str) -> None:
    """Whatever must not happen is named, and decides the exit status."""
    result = result_of([report], kills, c1=executed)
    assert result.exit_status == 1
    assert words in describe(result)
    assert "Nothing was lost." not in describe(result)
    assert any(words in fault for fault in result.as_json()["faults"])


def test_a_wrong_server_is_found_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1 if the run says so."""
    result = result_of([ClientReport(1, 1, wrong=[1])], c1=[1])
    monkeypatch.setattr(demo.Demonstration, "run", lambda _self: result)
    assert main(["demo", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == 1


# The board.


def test_the_board_shows_what_another_process_writes(tmp_path: pathlib.Path) -> None:
    """Rows and words are the same for everybody who has the board open, and do not overlap."""
    path = str(tmp_path / "board")
    ours, theirs = Board.create(path, 2), Board(path)
    ours.frozen = 4711
    for client in range(3):
        ours.row(client)[BEGUN] = 10 + client
        ours.row(client)[REPLYING] = 20 + client
    assert theirs.frozen == 4711
    assert not theirs.stop
    theirs.stop = True
    assert ours.stop
    assert [list(theirs.row(client)) for client in range(3)] == [[10 + n, 0, 20 + n, 0] for n in range(3)]


# The whole.


def run_demo(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the command; it is not over before every process that it started is gone: they hold stderr open, too."""
    command = [sys.executable, "-m", "ha_qnx", "demo", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60)  # noqa: S603  # ours


def test_a_short_run_loses_nothing_and_its_figures_add_up() -> None:
    """Requests, replies, records, kills and recoveries fit each other, in one line of JSON."""
    ended = run_demo("--seconds", "2", "--kills", "3", "--clients", "3", "--json")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.count(b"\n") == 1
    figures: Dict[str, Any] = json.loads(ended.stdout)
    assert (figures["kills"], figures["kills_asked"], figures["clients"]) == (3, 3, 3)
    assert (figures["lost"], figures["wrong"], figures["unasked"], figures["faults"]) == (0, 0, 0, [])
    assert figures["requests"] == figures["replies"] > 0
    assert figures["retransmissions"] == figures["recoveries"] >= 1
    assert figures["requests"] + figures["retransmissions"] == figures["records"] + figures["died_unexecuted"]
    assert figures["executed_twice"] <= figures["records"] - figures["requests"]
    assert 0 < figures["mean_ms"] <= figures["longest_gap_ms"]
    assert 0 <= figures["plain_client_failed_after"] <= figures["seconds"]


def test_without_kills_nobody_fails_or_recovers() -> None:
    """With a server that lives, the plain client does as well as the others."""
    figures = json.loads(run_demo("--seconds", "0.2", "--kills", "0", "--clients", "1", "--json").stdout)
    assert (figures["kills"], figures["recoveries"], figures["retransmissions"]) == (0, 0, 0)
    assert (figures["plain_client_failed_after"], figures["plain_client_errors"]) == (None, [])


def test_a_person_sees_progress_and_a_summary() -> None:
    """Where nothing can be overwritten, each kill has a line of its own; the result is told in words."""
    ended = run_demo("--seconds", "0.5", "--kills", "2", "--clients", "2")
    assert ended.returncode == 0
    output = ended.stdout.decode()
    assert [f"{kill} of 2 kills" in output for kill in (1, 2)] == [True, True]
    assert "Nothing was lost." in output
    assert "\r" not in output


def test_in_a_terminal_one_line_changes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each state overwrites the one before, however long that was."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = demo.Progress(quiet=False)
    progress.show(1.0, 1000, 0, 0, 8)
    progress.show(2.0, 0, 0, 0, 8)
    progress.end()
    before, first, second = capsys.readouterr().out.split("\r")
    assert before == ""
    assert first == "   1.0 s   1,000 replies   0 of 8 kills   0 recoveries"
    assert second == "   2.0 s   0 replies   0 of 8 kills   0 recoveries    \n\n"


def test_a_backend_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No traceback, but a sentence, and status 1."""
    monkeypatch.setenv("HA_QNX_LIBHA", "/no/such/library.so")
    ended = run_demo("--backend", "native")
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"ha-qnx demo: no backend for ha_qnx ('native' was asked for)")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_survives_the_command(number: signal.Signals) -> None:
    """However the command ends, it takes all that it started along."""
    command = [sys.executable, "-m", "ha_qnx", "demo", "--seconds", "60", "--kills", "600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603  # ours
    try:
        assert process.stdout is not None
        assert b"kills" in process.stdout.readline()
        process.send_signal(number)
        # The children hold stderr open: it ends when the last of them has.
        _output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert b"Traceback" not in errors


def test_what_ends_the_command_waits_until_a_process_that_it_starts_is_known() -> None:
    """Else that one went on, and found nothing any more of what it needs."""
    steps = []

    def start() -> None:
        with demo._signals_wait():
            signal.raise_signal(signal.SIGINT)
            steps.append("started")
        steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        start()
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("client", [0, 1], ids=["plain", "HA-aware"])
def test_a_client_that_connects_while_all_end_says_nothing(client: int, tmp_path: pathlib.Path) -> None:
    """The server may end before its clients, when the command is killed: that is no failure of theirs."""
    Board.create(str(tmp_path / "board"), 2)
    arguments = ["fallback", "of-nobody", str(tmp_path / "board"), str(client)]
    command = [sys.executable, "-m", "ha_qnx.commands.demo.client", *arguments]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)  # noqa: S603  # ours
    assert (ended.returncode, ended.stderr) == (1, b"")


_COMMAND_WITH_FROZEN_SERVER = """
import os, signal, sys, time
from ha_qnx.commands.demo.command import Child
from ha_qnx.commands.demo.shared import Board
directory = sys.argv[1]
board = Board.create(directory + "/board", 1)
open(directory + "/records", "x").close()
server = Child("server", "fallback", "frozen", directory + "/board", directory + "/records")
server.expect("ready", 30)
server.go()
server.expect("serving", 30)
client = Child("client", "fallback", "frozen", directory + "/board", "1")
client.expect("ready", 30)
client.go()
board.frozen = server.process.pid
server.freeze()
print("frozen", flush=True)
signal.pause()
"""


def test_not_even_a_frozen_server_survives_the_command(tmp_path: pathlib.Path) -> None:
    """A server that is stopped when the command is killed cannot end itself: a client ends it."""
    command = [sys.executable, "-c", _COMMAND_WITH_FROZEN_SERVER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603  # ours
    assert process.stdout is not None
    assert process.stdout.readline() == b"frozen\n"
    process.kill()
    try:
        # The server holds stderr open, too.
        _output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.kill(Board(str(tmp_path / "board")).frozen, signal.SIGKILL)
        raise
    assert errors == b""
