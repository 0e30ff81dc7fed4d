"""Fixtures of the recorded answers: who asks whom."""

import pathlib
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from ..clients import Client, Start
from ..peers import Peer
from ..servers import StartPeer
from .cradle import Cradle

_MODULES = [
    f"{__package__}.{path.stem}"
    for path in pathlib.Path(__file__).parent.glob("*.py")
    if path.stem[:2] not in ("__", "co")
]


class Nursery:
    """Where processes come from: a cradle for each backend."""

    def __init__(self) -> None:
        self._cradles: Dict[str, Cradle] = {}

    def bear(self, backend: str) -> Peer:
        """A fresh process."""
        if backend not in self._cradles:
            self._cradles[backend] = Cradle(backend, _MODULES)
        return self._cradles[backend].bear()

    def close(self) -> None:
        for cradle in self._cradles.values():
            cradle.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def alone(backends: Tuple[str, str], nursery: Nursery) -> Iterator[Peer]:
    """A fresh process with the backend of the clients: it has made nothing yet, and its numbers can be told exactly."""
    peer = nursery.bear(backends[0])
    yield peer
    peer.close()


@pytest.fixture
def start_peer(backends: Tuple[str, str], nursery: Nursery) -> Iterator[StartPeer]:
    """Makes another process."""
    peers: List[Peer] = []

    def start() -> Peer:
        peers.append(nursery.bear(backends[1]))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture(scope="module")
def other(backends: Tuple[str, str], nursery: Nursery) -> Iterator[Peer]:
    """A process for those that are not harmed."""
    peer = nursery.bear(backends[1])
    yield peer
    peer.close()


@pytest.fixture(params=["thread", "process"])
def where(request: pytest.FixtureRequest) -> str:
    """Where the client is: a thread of the process that asks, or another process."""
    return str(request.param)


@pytest.fixture
def client(qnx: Any, start: Start, where: str, request: pytest.FixtureRequest) -> Client:
    """A client of the channels of this process."""
    return Client(qnx, start, request.getfixturevalue("other") if where == "process" else None)
