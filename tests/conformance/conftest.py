"""Fixtures: the backend, other processes, and names; whatever a test makes is ended after it."""

import contextlib
import itertools
import os
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest

import ha_qnx

from .cradle import Born, PeerPool
from .peers import Peer
from .servers import Server
from .waiting import Task

_names = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ha_qnx")
    group.addoption("--backend", action="append", metavar="NAME", help="a backend to test; can be given more than once")
    group.addoption(
        "--server-backend", action="append", metavar="NAME", help="a backend for the other processes; as --backend"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "checks(*lines): the lines of the specification that a test checks")
    config.addinivalue_line("markers", "open_point(*decisions): a decision that QNX leaves open")
    config.addinivalue_line("markers", "measured(*cases): what QNX 6.4.1 was asked, and is asked here again")


def pytest_report_header(config: pytest.Config) -> str:
    return "backends: " + ", ".join(f"{own} with {other}" for own, other in _pairs(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backends" in metafunc.fixturenames:
        pairs = _pairs(metafunc.config)
        metafunc.parametrize("backends", pairs, ids=["-".join(pair) for pair in pairs], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out what would run twice: with no other process in it, a test asks a backend the same with every other."""
    kept: List[pytest.Item] = []
    left_out: List[pytest.Item] = []
    met = set()
    for item in items:
        pair = _parameters(item).get("backends")
        alone = (item.nodeid.replace("-".join(pair), pair[0]), pair[0]) if pair and not _may_take_a_peer(item) else None
        (left_out if alone in met else kept).append(item)
        if alone is not None:
            met.add(alone)
    if left_out:
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


def _parameters(item: pytest.Item) -> Dict[str, Any]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def _may_take_a_peer(item: pytest.Item) -> bool:
    """Whether a fixture of the test names the pool of other processes, or a parameter says that there is one."""
    fixtures = getattr(item, "fixturenames", ())
    return "pool" in fixtures or not _WITH_A_PEER.isdisjoint(map(str, _parameters(item).values()))


_WITH_A_PEER = {"far", "process"}


@pytest.fixture(autouse=True)
def no_unexpected_peer(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test takes another process that was thought to need none: it would be left out with other backends."""
    taken = PeerPool.taken
    yield
    assert PeerPool.taken == taken or _may_take_a_peer(request.node), "see pytest_collection_modifyitems"


def _pairs(config: pytest.Config) -> List[Tuple[str, str]]:
    """Every backend to test, with every backend that the other processes are to have."""
    own = config.getoption("--backend") or [ha_qnx.backend_name()]
    other = config.getoption("--server-backend") or own
    return list(itertools.product(own, other))


@pytest.fixture(scope="session", autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A runtime directory of the suite's own, so that it meets nobody else's names."""
    directory = tmp_path_factory.mktemp("run")
    directory.chmod(0o700)
    before = os.environ.get("HA_QNX_RUNTIME")
    os.environ["HA_QNX_RUNTIME"] = str(directory)
    yield
    if before is None:
        del os.environ["HA_QNX_RUNTIME"]
    else:
        os.environ["HA_QNX_RUNTIME"] = before


class Recorder:
    """A backend that remembers what was made through it, and ends what is left."""

    def __init__(self, backend: ha_qnx.Backend) -> None:
        self.backend = backend
        self._undo: List[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.backend, name)
        undo = _ENDED_BY.get(name)
        if undo is None:
            return call

        def recording(*args: Any, **kwargs: Any) -> Any:
            made = call(*args, **kwargs)
            if not isinstance(made, int) or made >= 0:
                end = self.detach_or_close if undo == "ConnectDetach" else getattr(self.backend, undo)
                self._undo.append(lambda: end(made))
            return made

        return recording

    def end_all(self) -> None:
        for undo in reversed(self._undo):
            with contextlib.suppress(OSError):
                undo()

    def detach_or_close(self, number: int) -> None:
        """End a connection without a word to its server, or close an ordinary descriptor; neither stays HA-aware."""
        with contextlib.suppress(OSError):
            self.backend.ha_detach(number)
        try:
            self.backend.ConnectDetach(number)
        except OSError:
            os.close(number)


_ENDED_BY = {
    "ChannelCreate": "ChannelDestroy",
    "ConnectAttach": "ConnectDetach",
    "ha_ConnectAttach": "ConnectDetach",
    "ha_ConnectAttach_r": "ConnectDetach",
    "name_attach": "name_detach",
    "name_open": "ConnectDetach",
    "open": "ConnectDetach",
    "dup": "ConnectDetach",
    "dup2": "ConnectDetach",
    "ha_open": "ConnectDetach",
    "ha_open64": "ConnectDetach",
    "ha_creat": "ConnectDetach",
    "ha_creat64": "ConnectDetach",
    "ha_dup": "ConnectDetach",
}


@pytest.fixture
def qnx(backends: Tuple[str, str]) -> Iterator[Any]:
    """The backend under test; Any, so that tests can pass it what the type checker would refuse."""
    recorder = Recorder(ha_qnx.backend(backends[0]))
    yield recorder
    recorder.end_all()


@pytest.fixture(scope="session")
def pool() -> Iterator[PeerPool]:
    pool = PeerPool()
    yield pool
    pool.close()


@pytest.fixture
def start_peer(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Callable[[], Born]]:
    """Starts another process."""
    peers: List[Born] = []

    def start() -> Born:
        peers.append(pool.take(backends[1]))
        return peers[-1]

    yield start
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(start_peer: Callable[[], Born]) -> Born:
    """Another process."""
    return start_peer()


@pytest.fixture(scope="module")
def lasting(backends: Tuple[str, str], pool: PeerPool) -> Iterator[Peer]:
    """A process for those servers of this module that are not killed: to start one for each takes long."""
    peer = pool.take(backends[1])
    yield peer
    peer.close()


@pytest.fixture
def server(lasting: Peer, name: str) -> Iterator[Server]:
    """A server with a name, in a process that is not to be harmed."""
    made = Server(lasting, name)
    yield made
    made.end()


@pytest.fixture
def start() -> Iterator[Callable[..., Task]]:
    """Starts a call in a thread of its own."""
    tasks: List[Task] = []

    def begin(call: Callable[..., Any], *args: Any) -> Task:
        tasks.append(Task(call, *args))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.end()


@pytest.fixture
def name() -> str:
    """A name that nobody else has."""
    return f"conformance-{os.getpid()}-{next(_names)}"
