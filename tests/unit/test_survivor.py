"""A program in C, fallback/libha/tests/survivor.c, as a client of servers in Python: it outlives them."""

import os
import pathlib
import signal
import subprocess
from typing import Any, Callable, Iterator, List

import pytest
from ha_qnx.conformance.waiting import DEADLINE, eventually

pytestmark = pytest.mark.slow

LIBHA = pathlib.Path(__file__).parents[2] / "fallback" / "libha"

# Answers "3" by "SERVER got 3" and the status 3. With "dies 7" it is killed right after its seventh answer, with "keeps
# 7" it says so and does not answer the seventh message.
SERVER = """
import os, signal, sys
import ha_qnx

me, what, limit = sys.argv[1:] if sys.argv[2:] else (sys.argv[1], "", "0")
qnx = ha_qnx.backend("fallback")
chid = qnx.ChannelCreate()
qnx.resmgr_attach(chid, "/dev/survivors")
print("attached", flush=True)
room = bytearray(64)
info = ha_qnx.MessageInfo()
received = 0
while True:
    rcvid = qnx.MsgReceive(chid, room, info)
    if rcvid == 0:
        continue
    message = bytes(room[:info.msglen])
    if not message.isdigit():
        qnx.MsgReply(rcvid, 0, b"")  # The client opens the path, or closes it.
        continue
    received += 1
    if what == "keeps" and received == int(limit):
        print("kept", flush=True)
        continue
    qnx.MsgReply(rcvid, int(message), b"%s got %s" % (me.encode(), message))
    if what == "dies" and received == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def survivor(compile_c: Callable[..., str], libha: str) -> str:
    """The program, against the header and the library that is used with ha_qnx."""
    place = os.path.dirname(libha)
    return compile_c(
        "survivor", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{LIBHA / 'include'}",
        str(LIBHA / "tests" / "survivor.c"), libha, f"-Wl,-rpath,{place}",
    )  # fmt: skip


class Client:
    """The program as a process."""

    def __init__(self, survivor: str, count: int, directory: pathlib.Path) -> None:
        self.count = count
        self._stdout, self._stderr = directory / "survivor.out", directory / "survivor.err"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(  # noqa: S603  # our own program
                [survivor, "/dev/survivors", str(count)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )

    @property
    def replies(self) -> int:
        """How many there are so far."""
        return self._stdout.read_bytes().count(b"\n")

    def servers(self) -> List[str]:
        """Wait until it has ended well; who has answered each message, in order, each by its own number."""
        assert self.process.wait(60) == 0, self.errors
        servers = []
        for number, line in enumerate(self._stdout.read_text().splitlines()):
            server = line[len(f"{number}: status {number}, reply ") :].partition(" ")[0]
            assert line == f"{number}: status {number}, reply {server} got {number}"
            servers.append(server)
        assert len(servers) == self.count
        return servers

    @property
    def errors(self) -> str:
        return self._stderr.read_text()


@pytest.fixture
def start_client(survivor: str, tmp_path: pathlib.Path, shared_directory: None) -> Iterator[Callable[[int], Client]]:
    """Starts the program with so many messages."""
    clients = []

    def start(count: int) -> Client:
        clients.append(Client(survivor, count, tmp_path))
        return clients[-1]

    yield start
    for client in clients:
        client.process.kill()
        client.process.wait(DEADLINE)


def test_a_client_in_c_outlives_its_servers(
    start_program: Callable[..., Any], start_client: Callable[[int], Client]
) -> None:
    """One after the other is killed while it serves; every message has its reply, and main() has noticed nothing."""
    server = start_program(SERVER, "first", "dies", "200")
    eventually(lambda: "attached" in server.output, "the first server")
    client = start_client(600)
    for arguments in (("second", "dies", "200"), ("third",)):
        assert server.process.wait(DEADLINE) == -signal.SIGKILL
        assert client.process.poll() is None
        server = start_program(SERVER, *arguments)
    assert client.servers() == ["first"] * 200 + ["second"] * 200 + ["third"] * 200
    assert client.errors == "600 messages, 2 recoveries\n"


def test_a_client_in_c_outlives_the_server_that_has_its_message(
    start_program: Callable[..., Any], start_client: Callable[[int], Client]
) -> None:
    """Its server is killed with a message received and not answered: the next server gets that again."""
    server = start_program(SERVER, "first", "keeps", "7")
    eventually(lambda: "attached" in server.output, "the first server")
    client = start_client(20)
    eventually(lambda: "kept" in server.output, "the message that is not answered")
    assert client.replies == 6
    server.kill()
    start_program(SERVER, "second")
    assert client.servers() == ["first"] * 6 + ["second"] * 14
    assert client.errors == "20 messages, 1 recoveries\n"


def test_a_client_in_c_without_a_server_says_so(start_client: Callable[[int], Client]) -> None:
    """There is nothing to be recovered yet, so it fails."""
    client = start_client(1)
    assert client.process.wait(DEADLINE) == 1
    assert "/dev/survivors: No such file or directory" in client.errors
