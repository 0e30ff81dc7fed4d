"""Fixtures of the recorded answers: who asks whom."""

from typing import Any, Iterator, Tuple

import pytest

from ..clients import Client, Start
from ..cradle import PeerPool
from ..peers import Peer


@pytest.fixture
def alone(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Peer]:
    """A fresh process with the backend of the clients: it has made nothing yet, and its numbers can be told exactly."""
    peer = pool.take(backends[0])
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def other(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Peer]:
    """A process for those that are not harmed."""
    peer = pool.take(backends[1])
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
