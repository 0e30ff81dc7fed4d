"""The account of the demonstration: requests, replies and records, compared.

Nothing in it is assumed:

* A *request* carries the number of its client and its own; a client has one under way at a time. A *reply* is right if
  it repeats both numbers and the checksum of the whole request.
* A server *records* each request it executes, before it replies, in a file that outlives it.
* *Lost* is a request without the right reply, or without a record. *Wrong* is a reply that belongs to another request.
* *Executed twice* is a request with more than one record: libha promises that a request is executed at least once.
* A *recovery* is a recovery function that brought its connection back. A *retransmission* is a request that the library
  sent again. A client is one thread, so that each recovery is followed by one retransmission, of the request that met
  the failure; the client counts them for each request. Either the request had been executed already, and gets a second
  record, or it *died unexecuted*: its server was killed before it could record it.
* A record that no sending of a request accounts for is *unasked*: there must be none.
"""

import json
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .shared import PLAIN_CLIENT, RECORD


class ClientReport(NamedTuple):
    """What a client with the library says of its requests, which it numbers from 1."""

    client: int
    requests: int
    wrong: Sequence[int] = ()
    unanswered: Sequence[int] = ()
    resent: Mapping[int, int] = {}
    recoveries: int = 0
    longest_ms: float = 0.0
    waited_ms: float = 0.0
    error: Optional[str] = None

    @classmethod
    def from_json(cls, text: str) -> "ClientReport":
        """Read what a client printed.

        Raises:
            ValueError: it printed something else.
        """
        fields = json.loads(text)
        try:
            return cls(**{**fields, "resent": dict(fields["resent"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no report of a client: {text!r}") from error


class Comparison(NamedTuple):
    """Requests, replies and records, compared."""

    requests: int
    replies: int
    records: int
    lost: int
    wrong: int
    executed_twice: int
    unasked: int
    retransmissions: int
    died_unexecuted: int


def compare(reports: Iterable[ClientReport], records: Iterable[Tuple[int, int]]) -> Comparison:
    """Compare what the clients say with what the servers recorded.

    Args:
        reports: of the clients.
        records: client and number of each request that was executed. Those of the plain client don't count.
    """
    by_client = {report.client: report for report in reports}
    executed = {report.client: bytearray(report.requests + 1) for report in by_client.values()}
    counted = unasked = 0
    for client, number in records:
        if client == PLAIN_CLIENT:
            continue
        counted += 1
        counts = executed.get(client)
        if counts is None or not 0 < number < len(counts):
            unasked += 1
            continue
        if counts[number] > by_client[client].resent.get(number, 0):
            unasked += 1
        counts[number] = min(counts[number] + 1, 255)

    lost = twice = died = 0
    for client, counts in executed.items():
        report = by_client[client]
        without_record = counts.count(0, 1)
        bad = {*report.wrong, *report.unanswered}
        lost += without_record + sum(1 for number in bad if counts[number])
        twice += report.requests - without_record - counts.count(1, 1)
        died += sum(max(1 + again - counts[number], 0) for number, again in report.resent.items())
    requests = sum(report.requests for report in by_client.values())
    return Comparison(
        requests=requests,
        replies=requests - sum(len(report.unanswered) for report in by_client.values()),
        records=counted,
        lost=lost,
        wrong=sum(len(report.wrong) for report in by_client.values()),
        executed_twice=twice,
        unasked=unasked,
        retransmissions=sum(sum(report.resent.values()) for report in by_client.values()),
        died_unexecuted=died,
    )


def read_records(path: str) -> Iterator[Tuple[int, int]]:
    """Client and number of each request that was executed, in order."""
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(RECORD.size * 4096), b""):
            for client, _pid, number in RECORD.iter_unpack(chunk):
                yield client, number


class Result(NamedTuple):
    """What a run has shown."""

    backend: str
    seconds: float
    clients: int
    kills_asked: int
    kills: int
    reports: List[ClientReport]
    comparison: Comparison
    plain: Dict[str, Any]
    faults: List[str]

    @property
    def all_faults(self) -> List[str]:
        """One sentence for each thing that must not happen."""
        counts = self.comparison
        found = list(self.faults)
        found += [f"client {report.client} failed: {report.error}" for report in self.reports if report.error]
        if counts.lost:
            found.append(f"{counts.lost} requests are lost")
        if counts.wrong:
            found.append(f"{counts.wrong} replies are wrong")
        if counts.unasked:
            found.append(f"{counts.unasked} executions were not asked for")
        if self.kills != self.kills_asked:
            found.append(f"only {self.kills} of {self.kills_asked} kills could be made")
        return found

    @property
    def exit_status(self) -> int:
        """0, or 1 if anything went wrong."""
        return 1 if self.all_faults else 0

    def as_json(self) -> Dict[str, Any]:
        """Every figure."""
        counts = self.comparison
        requests = max(counts.requests, 1)
        return {
            "backend": self.backend,
            "seconds": round(self.seconds, 3),
            "clients": self.clients,
            "requests": counts.requests,
            "replies": counts.replies,
            "records": counts.records,
            "kills_asked": self.kills_asked,
            "kills": self.kills,
            "recoveries": sum(report.recoveries for report in self.reports),
            "retransmissions": counts.retransmissions,
            "lost": counts.lost,
            "wrong": counts.wrong,
            "died_unexecuted": counts.died_unexecuted,
            "executed_twice": counts.executed_twice,
            "unasked": counts.unasked,
            "longest_gap_ms": round(max((report.longest_ms for report in self.reports), default=0.0), 3),
            "mean_ms": round(sum(report.waited_ms for report in self.reports) / requests, 4),
            "plain_client_failed_after": _rounded(self.plain.get("failed_after")),
            "plain_client_errors": self.plain.get("errors", []),
            "faults": self.all_faults,
        }


def _rounded(seconds: Optional[float]) -> Optional[float]:
    return None if seconds is None else round(seconds, 3)


def describe(result: Result) -> str:
    """The result in words."""
    figures = result.as_json()
    table = [
        ("requests", f"{figures['requests']:,}", ""),
        ("replies", f"{figures['replies']:,}", f"{figures['wrong']} of them wrong"),
        ("lost", f"{figures['lost']:,}", ""),
        ("recoveries", f"{figures['recoveries']:,}", ""),
        ("sent again", f"{figures['retransmissions']:,}", f"{figures['died_unexecuted']} had not been executed yet"),
        ("executed twice", f"{figures['executed_twice']:,}", "the promise is: at least once"),
        ("longest wait", f"{figures['longest_gap_ms']:,.1f} ms", "for one reply, death and recovery included"),
        ("mean wait", f"{figures['mean_ms']:,.3f} ms", ""),
    ]
    lines = [
        f"SIGKILL for the server, {figures['kills']} of {figures['kills_asked']} times in {result.seconds:.1f} s, "
        "each time while a request was under way.",
        f"A successor, started ahead, took its place. Backend: {figures['backend']}; clients: {figures['clients']}.",
        "",
        "With the library:",
        *(f"  {label:<16}{figure:>12}   {remark}".rstrip() for label, figure, remark in table),
        "",
        "Without the library:",
        f"  {_plain_client(figures)}",
        "",
        *([f"FAULT: {fault}." for fault in figures["faults"]] or ["Nothing was lost."]),
    ]
    return "\n".join(lines) + "\n"


def _plain_client(figures: Mapping[str, Any]) -> str:
    after = figures["plain_client_failed_after"]
    if after is None:
        return "The plain client did not fail."
    return f"The plain client failed for good after {after:.2f} s ({'; '.join(figures['plain_client_errors'])})."
