"""Servers in a few lines."""

import contextlib
import itertools
import logging
import os
import pathlib
import signal
import socket
import threading
from errno import EACCES, EBADF, EINVAL, EIO, EMSGSIZE, ENOENT, ENOSYS, EOVERFLOW, ESRCH, ETIMEDOUT
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Type

import pytest
from ha_qnx.conformance.expect import fails_with
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx.connection import connect
from ha_qnx.service import LATER, Ocb, Request, Service

pytestmark = pytest.mark.usefixtures("shared_directory")

NAME = "service"
PATH = f"/dev/{NAME}"


class Recording(Service):
    """A service whose handlers are told by a test what to do, and note what they see."""

    def __init__(self) -> None:
        super().__init__(NAME, PATH, flags=ha_qnx.RESMGR_FLAG_SELF)
        self.requests: List[Request] = []
        self.seen: List[Tuple[Any, ...]] = []
        self.answer: Callable[[Request], Any] = lambda request: request.data
        self.content = bytearray(b"0123456789")

    def message(self, request: Request) -> Any:
        self.requests.append(request)
        return self.answer(request)

    def read(self, request: Request, nbytes: int) -> bytes:
        self.seen.append(("read", request.ocb.offset, nbytes))
        return bytes(self.content[request.ocb.offset :])

    def write(self, request: Request, data: bytes) -> Optional[int]:
        self.seen.append(("write", request.ocb.offset, data))
        part = data[:4]
        self.content[request.ocb.offset : request.ocb.offset + len(part)] = part
        return len(part) if len(part) < len(data) else None

    def size(self, request: Request) -> int:
        return len(self.content)

    def opened(self, request: Request) -> None:
        self.seen.append(("opened", request.ocb.ioflag))

    def closed(self, ocb: Ocb) -> None:
        self.seen.append(("closed", ocb.data))

    def pulse(self, code: int, value: int) -> None:
        self.seen.append(("pulse", code, value))


@pytest.fixture
def server() -> Iterator[Recording]:
    recording = Recording()
    with recording.running():
        yield recording


@pytest.fixture
def coid(server: Recording) -> Iterator[int]:
    """An ordinary connection to the server, opened for reading and writing."""
    with connect(PATH, recover=None) as connection:
        yield connection.coid


# Messages.


@pytest.mark.parametrize(
    ("answer", "status", "reply"),
    [
        (None, 0, b"...."),
        (7, 7, b"...."),
        (b"ab", 2, b"ab.."),
        (bytearray(b"ab"), 2, b"ab.."),
        ((7, b"ab"), 7, b"ab.."),
        ((7, None), 7, b"...."),
    ],
)
def test_what_a_handler_returns_is_the_answer(
    server: Recording, coid: int, answer: Any, status: int, reply: bytes
) -> None:
    """None, a status, data, or both."""
    server.answer = lambda request: answer
    received = bytearray(b"....")
    assert ha_qnx.MsgSend(coid, b"message", received) == status
    assert received == reply


def test_a_long_message_is_there_in_full(server: Recording, coid: int) -> None:
    """However little of it was received at first."""
    message = bytes(2) + os.urandom(300_000)  # What it begins with is the type of no I/O message.
    reply = bytearray(len(message))
    ha_qnx.MsgSend(coid, message, reply)
    assert reply == message


def test_a_message_that_is_too_long_is_refused(server: Recording, coid: int) -> None:
    """EMSGSIZE, when the handler asks for its data."""
    server.max_message = 10_000
    with fails_with(EMSGSIZE):
        ha_qnx.MsgSend(coid, bytes(10_001))
    assert ha_qnx.MsgSend(coid, bytes(10_000)) == 10_000


@pytest.mark.parametrize("message", [b"", b"\1", b"\0\0", (0x200).to_bytes(2, "little"), b"\xff\xff"])
def test_what_is_no_io_message_is_the_handlers(server: Recording, coid: int, message: bytes) -> None:
    """Empty ones, and those whose type is outside of the range of I/O messages."""
    assert ha_qnx.MsgSend(coid, message) == len(message)
    assert server.requests[0].data == message


def test_the_client_is_known(server: Recording, coid: int) -> None:
    """Its process and its credentials, as the kernel vouches for them."""
    clients: List[Tuple[int, int, int]] = []
    server.answer = lambda request: clients.append((request.info.pid, request.client.pid, request.client.cred.euid))
    ha_qnx.MsgSend(coid, b"x")
    assert clients == [(os.getpid(), os.getpid(), os.geteuid())]


# Errors.


def raising(error: BaseException) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (FileNotFoundError(ENOENT, "no such thing"), ENOENT),
        (OSError(EOVERFLOW, "too much"), EOVERFLOW),
        (OSError(9999, "unknown"), 9999),
        (OSError("without a number"), EIO),
        (OSError(0, "no error"), EIO),
        (OSError(-5, "no error of ours"), EIO),
        (OSError(1 << 40, "no error of C's"), EIO),
        (OSError("no number", "at all"), EIO),
        (ValueError("a bug"), EIO),
    ],
)
def test_an_exception_is_an_error_number_for_the_client(
    server: Recording, coid: int, error: Exception, errno: int, caplog: pytest.LogCaptureFixture
) -> None:
    """That of an OSError, else EIO. It is logged with its traceback, and the server lives on."""
    caplog.set_level(logging.INFO, "ha_qnx")
    server.answer = raising(error)
    with fails_with(errno):
        ha_qnx.MsgSend(coid, b"x")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.levelno == (logging.INFO if isinstance(error, OSError) else logging.ERROR)
    server.answer = lambda request: 1
    assert ha_qnx.MsgSend(coid, b"x") == 1


@pytest.mark.parametrize("errno", [EBADF, ESRCH])
def test_an_exception_does_not_look_like_the_death_of_the_server(server: Recording, errno: int) -> None:
    """EBADF and ESRCH of a handler's own troubles become EIO: the client must not recover because of them."""
    server.answer = raising(OSError(errno, "a descriptor of the server"))
    with connect(PATH) as connection:
        with fails_with(EIO):
            connection.send(b"x")
        assert connection.stats.failures == 0


NO_ANSWERS = {
    "text": "text",
    "text-as-data": (0, "text"),
    "a-status-that-is-too-large": 1 << 70,
    "the-same-with-data": (1 << 70, b""),
    "memory-with-gaps": memoryview(b"abcd")[::2],
}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_an_answer_that_is_none_is_an_error(server: Recording, coid: int, answer: Any) -> None:
    """The client is not left waiting for one that cannot be given: it gets EIO."""
    server.answer = lambda request: answer
    sending = Task(ha_qnx.MsgSend, coid, b"x")
    assert sending.errno() == EIO


def test_another_answer_can_follow_one_that_is_none(server: Recording, coid: int) -> None:
    """Whoever gives an answer for LATER that cannot be sent is told so, and can give a better one."""
    server.answer = lambda request: LATER
    sending = Task(ha_qnx.MsgSend, coid, b"x")
    eventually(lambda: server.requests, "the request")
    text: Any = "text"
    with pytest.raises(TypeError):
        server.requests[0].reply(0, text)
    assert server.requests[0].reply(7) is True
    assert sending.result() == 7


def test_a_service_without_handlers_knows_nothing() -> None:
    """ENOSYS for everything but opening and closing."""
    with Service(PATH).running(), connect(PATH, recover=None) as connection:
        calls: List[Callable[[], Any]] = [
            lambda: connection.send(b"x"),
            lambda: ha_qnx.read(connection, 1),
            lambda: ha_qnx.write(connection, b"x"),
            lambda: ha_qnx.MsgSend(connection, ha_qnx.IO_STAT.to_bytes(2, "little") + bytes(14)),
            lambda: ha_qnx.MsgSend(connection, ha_qnx.IO_CONNECT.to_bytes(2, "little") + bytes(38)),
        ]
        for call in calls:
            with fails_with(ENOSYS):
                call()
        with fails_with(EINVAL):
            ha_qnx.lseek(connection, 0, os.SEEK_END)


@pytest.mark.parametrize("kind", [ha_qnx.IO_READ, ha_qnx.IO_WRITE, ha_qnx.IO_LSEEK, ha_qnx.IO_DUP, ha_qnx.IO_CONNECT])
def test_an_io_message_that_is_cut_short_is_refused(server: Recording, coid: int, kind: int) -> None:
    """EINVAL, and no bug of ours in the log."""
    for size in (2, 4, 15):
        with fails_with(EINVAL):
            ha_qnx.MsgSend(coid, kind.to_bytes(2, "little") + bytes(size - 2))


def test_a_handler_can_end_the_service() -> None:
    """SystemExit in a handler: the client gets EIO, serve ends in order and raises it."""
    service = Recording()
    service.answer = raising(SystemExit(3))

    def run() -> None:
        with service.running(threads=2), connect(PATH, recover=None) as connection, fails_with(EIO):
            connection.send(b"x")

    with pytest.raises(SystemExit):
        run()
    with fails_with(ENOENT):
        ha_qnx.name_open(NAME)


# Answers that are left for later.


def test_an_answer_can_be_left_for_later(server: Recording, coid: int) -> None:
    """Another thread gives it; the server serves others meanwhile."""
    server.answer = lambda request: LATER if request.data == b"later" else b"at once"
    reply = bytearray(8)
    waiting = Task(ha_qnx.MsgSend, coid, b"later", reply)
    eventually(lambda: server.requests, "the request")
    with connect(PATH, recover=None) as other:
        assert other.ask(b"x") == b"at once"
    assert server.requests[0].reply(5, b"at last") is True
    assert waiting.result() == 5
    assert reply == b"at last\0"


def test_a_request_is_answered_once(server: Recording, coid: int) -> None:
    """Every further answer is told that there is nobody to get it."""
    answers: List[bool] = []

    def answer(request: Request) -> int:
        answers.extend([request.reply(1), request.reply(2), request.error(EIO)])
        return 3

    server.answer = answer
    assert ha_qnx.MsgSend(coid, b"x") == 1
    eventually(lambda: len(answers) == 3, "the handler to go on")
    assert answers == [True, False, False]


def test_a_later_answer_can_be_an_error(server: Recording, coid: int) -> None:
    """EBADF and ESRCH included, if it is so said."""
    server.answer = lambda request: request.error(ESRCH) and LATER
    with fails_with(ESRCH):
        ha_qnx.MsgSend(coid, b"x")


def timed_send(coid: int, message: bytes) -> int:
    """Send, and want to be freed at once."""
    ha_qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_REPLY, 20_000_000)
    return ha_qnx.MsgSend(coid, message)


def test_a_client_that_waits_for_later_is_freed(server: Recording, coid: int) -> None:
    """When its time is over, it gets the reason, and the server no longer has its request in hand."""
    server.answer = lambda request: LATER
    with fails_with(ETIMEDOUT):
        timed_send(coid, b"x")
    (request,) = server.requests
    assert request.is_unblocking
    assert request.reply(0) is False


def test_a_service_decides_about_clients_that_want_to_be_freed(
    server: Recording, coid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``unblock`` is called once, and may answer what it likes."""
    unblocked: List[Request] = []

    def unblock(request: Request) -> None:
        unblocked.append(request)
        request.reply(9)

    server.answer = lambda request: LATER
    monkeypatch.setattr(server, "unblock", unblock)
    assert timed_send(coid, b"x") == 9
    assert unblocked == server.requests


def test_a_handler_at_work_sees_that_its_client_wants_to_be_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """If ``unblock`` leaves it to the handler, the handler's answer counts."""
    service = Recording()
    monkeypatch.setattr(service, "unblock", lambda request: None)

    def answer(request: Request) -> int:
        eventually(lambda: request.is_unblocking, "the unblock pulse")
        return 4

    service.answer = answer
    with service.running(threads=2), connect(PATH, recover=None) as connection:
        assert timed_send(connection.coid, b"x") == 4


@pytest.mark.parametrize("threads", [1, 4])
def test_a_client_is_freed_while_the_handler_of_its_message_runs(threads: int) -> None:
    """By default, also where the service has no other thread for messages; what the handler says later goes nowhere."""
    service = Recording()
    go_on, answered = threading.Event(), []

    def answer(request: Request) -> Any:
        go_on.wait(DEADLINE)
        answered.append(request.reply(4))
        return LATER

    service.answer = answer
    with service.running(threads=threads), connect(PATH, recover=None) as connection:
        with fails_with(ETIMEDOUT):
            timed_send(connection.coid, b"x")
        assert service.requests[0].is_unblocking
        go_on.set()
        eventually(lambda: answered, "the end of the handler")
    assert answered == [False]


def test_handlers_of_one_thread_never_run_side_by_side() -> None:
    """A pulse, and the end of an opening, wait for the handler that runs; neither is lost."""
    service = Recording()
    inside, go_on = threading.Event(), threading.Event()

    def answer(request: Request) -> None:
        inside.set()
        go_on.wait(DEADLINE)

    service.answer = answer
    with service.running(), connect(PATH, recover=None) as connection:
        other = connect(PATH, recover=None)
        sending = Task(connection.send, b"x")
        assert inside.wait(DEADLINE)
        service.seen.clear()
        for value in range(100):
            other.pulse(5, value)
        forged = Task(other.backend.MsgSendPulse, other.coid, -1, ha_qnx.PULSE_CODE_UNBLOCK, service.requests[0].rcvid)
        assert forged.result() == 0
        assert not sending.done, "a pulse that only looks like an unblock pulse frees nobody"
        assert service.seen == []
        go_on.set()
        sending.result()
        eventually(lambda: len(service.seen) == 100, "the pulses")
        assert service.seen == [("pulse", 5, value) for value in range(100)]
        other.close()


def test_pulses_of_one_thread_keep_their_order() -> None:
    """They come while short handlers run, and long ones, beside which another thread takes them in."""
    service, pauses = Recording(), itertools.cycle([0.0, 0.0, 0.0, 0.0, 0.03])
    count, is_over = 3000, threading.Event()

    def answer(request: Request) -> None:
        is_over.wait(next(pauses))

    service.answer = answer

    def ask() -> None:
        with connect(PATH, recover=None) as connection:
            while not is_over.is_set():
                connection.send(b"x")

    with service.running(), connect(NAME, recover=None) as connection:
        service.seen.clear()
        asking = Task(ask)
        for value in range(count):
            connection.pulse(5, value)
        eventually(lambda: sum(entry[0] == "pulse" for entry in service.seen) == count, "the pulses")
        is_over.set()
        asking.result()
    assert [entry[2] for entry in service.seen if entry[0] == "pulse"] == list(range(count))


def test_a_handler_that_returns_a_str_is_told_to_encode_it(server: Recording, caplog: pytest.LogCaptureFixture) -> None:
    """In the log; the client gets EIO."""
    server.answer = lambda request: "text"
    with connect(NAME, recover=None) as connection, fails_with(EIO):
        connection.ask(b"x")
    assert "encode it" in caplog.text


def test_a_service_can_be_told_that_nothing_is_an_io_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that begins like one, as some of protobuf do, is the handler's then."""
    service = Recording()
    message = b"\x08\x01 a message of another kind"
    with service.running(), connect(NAME, recover=None) as connection:
        with fails_with(ENOSYS):
            connection.ask(message)
        monkeypatch.setattr(Recording, "takes_io", False)
        assert connection.ask(message) == message


def test_a_wish_to_be_freed_that_came_before_later_is_not_forgotten() -> None:
    """The pulse came while the handler ran, and the handler leaves the answer for later all the same."""
    service = Recording()

    def answer(request: Request) -> Any:
        eventually(lambda: request.is_unblocking, "the unblock pulse")
        return LATER

    service.answer = answer
    with service.running(threads=2), connect(PATH, recover=None) as connection, fails_with(ETIMEDOUT):
        timed_send(connection.coid, b"x")


@pytest.mark.parametrize("gives_up", [True, False])
def test_an_open_that_was_given_up_leaves_nothing(gives_up: bool) -> None:
    """``closed`` is called at once for what ``opened`` has made, though the client stays and has other connections."""
    service = Recording()
    opening, closed = threading.Event(), threading.Event()

    def opened(request: Request) -> None:
        if request.path:
            opening.set()
            if gives_up:
                eventually(lambda: request.is_refused, "the client to give up")
            request.ocb.data = "made"

    def note(ocb: Any) -> None:
        if ocb.data:
            closed.set()

    service.opened = opened  # type: ignore[method-assign]
    service.closed = note  # type: ignore[method-assign]
    service._flags = ha_qnx.RESMGR_FLAG_DIR
    with service.running(threads=2), connect(PATH, recover=None):
        if gives_up:
            ha_qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_REPLY, 20_000_000)
            with fails_with(ETIMEDOUT):
                ha_qnx.open(f"{PATH}/below", os.O_RDWR)
            assert closed.wait(DEADLINE)
        else:
            fd = ha_qnx.open(f"{PATH}/below", os.O_RDWR)
            assert not closed.is_set()
            ha_qnx.close(fd)
            assert closed.wait(DEADLINE)


# Opening and closing.


def test_an_opening_has_an_ocb_until_it_is_closed(server: Recording) -> None:
    """What handlers put there stays there; ``opened`` sees how it was opened."""
    server.answer = lambda request: setattr(request.ocb, "data", [*(request.ocb.data or []), request.data])
    for oflag, ioflag in ((os.O_RDONLY, 1), (os.O_WRONLY, 2), (os.O_RDWR, 3)):
        with connect(PATH, oflag, recover=None) as connection:
            connection.send(b"a")
            connection.send(b"b")
        assert server.seen == [("opened", ioflag), ("closed", [b"a", b"b"])]
        server.seen.clear()


def test_an_opening_can_be_refused(server: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errno that ``opened`` raises is what open fails with; nothing is closed that was never opened."""
    monkeypatch.setattr(server, "opened", raising(PermissionError(EACCES, "no")))
    with fails_with(EACCES):
        ha_qnx.open(PATH, os.O_RDWR)
    assert server.seen == []


def test_a_connection_that_was_not_opened_is_asked_about_by_its_first_message(
    server: Recording, coid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever attaches to the channel directly does not get around ``opened``, which can refuse it."""
    info = ha_qnx.MessageInfo()
    ha_qnx.ConnectServerInfo(0, coid, info)
    direct = ha_qnx.ConnectAttach(0, info.pid, info.chid)
    server.seen.clear()
    ha_qnx.MsgSend(direct, b"x")
    ha_qnx.MsgSend(direct, b"x")
    assert server.seen == [("opened", 0)]
    other = ha_qnx.ConnectAttach(0, info.pid, info.chid)
    monkeypatch.setattr(server, "opened", raising(PermissionError(EACCES, "no")))
    for _attempt in range(2):
        with fails_with(EACCES):
            ha_qnx.MsgSend(other, b"x")
    ha_qnx.ConnectDetach(direct)
    ha_qnx.ConnectDetach(other)


def test_duplicates_share_an_ocb(server: Recording) -> None:
    """It is closed with the last of them."""
    server.answer = lambda request: setattr(request.ocb, "data", request.data)
    fd = ha_qnx.open(PATH, os.O_RDWR)
    duplicate = ha_qnx.dup(fd)
    ha_qnx.read(fd, 3)
    ha_qnx.MsgSend(fd, b"data")
    ha_qnx.close(fd)
    assert ha_qnx.read(duplicate, 3) == b"345"
    assert server.seen[-1] == ("read", 3, 3)
    ha_qnx.close(duplicate)
    assert [what for what in server.seen if what[0] != "read"] == [("opened", 3), ("closed", b"data")]


def test_an_opening_under_a_number_that_was_left_open_ends_the_old_one(server: Recording, coid: int) -> None:
    """ConnectDetach tells a server nothing; the next opening of the same number does."""
    first = ha_qnx.open(PATH, os.O_RDWR)
    ha_qnx.ConnectDetach(first)
    server.seen.clear()
    lower = []
    while True:  # What was free below it is taken, so that the next one gets its number.
        taken = os.open(os.devnull, os.O_RDONLY)
        if taken >= first:
            break
        lower.append(taken)
    os.close(taken)
    second = ha_qnx.open(PATH, os.O_RDWR)
    assert (second, server.seen) == (first, [("opened", 3), ("closed", None)])
    ha_qnx.close(second)
    for fd in lower:
        os.close(fd)


CLIENT = """
import os, sys, ha_qnx
opened = [ha_qnx.open("/dev/service", os.O_RDWR) for _ in range(2)]
ha_qnx.MsgSend(opened[0], b"here")
if sys.argv[1:] == ["fork"]:
    ha_qnx.read(opened[0], 4)
    child = os.fork()
    if not child:
        sys.stdout.write(ha_qnx.read(opened[0], 2).decode())
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
ha_qnx.MsgSend(opened[0], b"wait")
"""


def test_what_a_dead_client_had_open_is_closed(server: Recording, start_program: Callable[..., Any]) -> None:
    """The disconnect pulse ends all openings of the process."""
    server.answer = lambda request: LATER if request.data == b"wait" else 0
    client = start_program(CLIENT)
    eventually(lambda: len(server.requests) == 2, "the client")
    assert server.seen == [("opened", 3)] * 2
    client.kill()
    eventually(lambda: server.seen == [("opened", 3)] * 2 + [("closed", None)] * 2, "the disconnect pulse")


def test_a_forked_child_shares_its_parents_ocb(server: Recording, start_program: Callable[..., Any]) -> None:
    """It reads on where the parent was."""
    server.answer = lambda request: LATER if request.data == b"wait" else 0
    client = start_program(CLIENT, "fork")
    eventually(lambda: len(server.requests) == 2, "the client", DEADLINE)
    assert client.output == "45"
    assert server.seen.count(("opened", 3)) == 2


# Files.


def test_a_server_of_files_keeps_positions(server: Recording, coid: int) -> None:
    """Read and write move them by what was done, lseek by what is said; each opening has its own."""
    with connect(PATH, recover=None) as other:
        assert ha_qnx.read(coid, 3) == b"012"
        assert ha_qnx.read(other, 2) == b"01"
        assert ha_qnx.write(coid, b"abc") == 3
        assert ha_qnx.write(coid, b"defgh") == 4  # The handler takes four at once.
        assert ha_qnx.read(coid, 3) == b""
        assert ha_qnx.lseek(coid, 2, os.SEEK_SET) == 2
        assert ha_qnx.lseek(coid, 1, os.SEEK_CUR) == 3
        assert ha_qnx.read(coid, 4) == b"abcd"
        assert ha_qnx.lseek(coid, -2, os.SEEK_END) == 8
        assert ha_qnx.read(coid, 100) == b"fg"
        for offset, whence in ((-1, os.SEEK_SET), (-11, os.SEEK_CUR), (0, 77)):
            with fails_with(EINVAL):
                ha_qnx.lseek(coid, offset, whence)
        assert ha_qnx.lseek(coid, 0, os.SEEK_CUR) == 10


@pytest.mark.parametrize("count", [-1, 4])
def test_nobody_takes_more_than_was_written(
    server: Recording, coid: int, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A count that cannot be is a bug of the handler's: EIO, and the position stays."""
    assert ha_qnx.lseek(coid, 5, os.SEEK_SET) == 5
    monkeypatch.setattr(server, "write", lambda request, data: count)
    with fails_with(EIO):
        ha_qnx.write(coid, b"abc")
    assert ha_qnx.lseek(coid, 0, os.SEEK_CUR) == 5


def test_transfers_of_one_opening_do_not_overlap() -> None:
    """Threads that read on one descriptor get each part once."""
    content = bytes(range(200))

    class Slow(Service):
        running_now = 0

        def read(self, request: Request, nbytes: int) -> bytes:
            self.running_now += 1
            assert self.running_now == 1
            offset = request.ocb.offset
            threading.Event().wait(0.001)  # Time for others to come in between.
            self.running_now -= 1
            return content[offset:][:nbytes]

    parts: List[bytes] = []
    with Slow(PATH).running(threads=4), connect(PATH, recover=None) as connection:
        tasks = [
            Task(lambda: parts.extend(iter(lambda: ha_qnx.read(connection.coid, 10), b""))) for _thread in range(4)
        ]
        for task in tasks:
            task.result()
    assert sorted(parts) == [content[start : start + 10] for start in range(0, 200, 10)]


# Pulses.


def failing_pulse(_code: int, _value: int) -> None:
    raise ValueError("a bug")


def test_pulses_reach_their_handler(
    server: Recording, coid: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that raises is logged, and the server lives on."""
    ha_qnx.MsgSendPulse(coid, 10, 5, -6)
    eventually(lambda: ("pulse", 5, -6) in server.seen, "the pulse")
    monkeypatch.setattr(server, "pulse", failing_pulse)
    ha_qnx.MsgSendPulse(coid, 10, 5, -6)
    eventually(lambda: caplog.records, "the line in the log")
    assert ha_qnx.MsgSend(coid, b"x") == 1


# Coming and going.

SLOW = """
import os, sys, threading
from ha_qnx.service import Service
class Slow(Service):
    go_on = threading.Event()
    def ready(self):
        print("ready", flush=True)
    def message(self, request):
        if request.data == b"slow":
            print("slow", flush=True)
            self.go_on.wait(20)
        else:
            self.go_on.set()
        return b"%d" % os.getpid()
    def closed(self, ocb):
        print("closed", flush=True)
    def stop(self):
        super().stop()
        print("stopping", flush=True)
Slow("service", "/dev/service").serve(int(sys.argv[1]))
print("over", flush=True)
"""


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_a_signal(start_program: Callable[..., Any], threads: int, number: int) -> None:
    """It exits with 0; the openings are closed."""
    program = start_program(SLOW, str(threads))
    with connect(PATH, recover=None, wait=DEADLINE):
        eventually(lambda: "ready" in program.output, "the server")
        program.process.send_signal(number)
        assert program.process.wait(DEADLINE) == 0
    assert program.output.split() == ["ready", "stopping", "closed", "over"]
    assert program.errors == ""


def test_the_requests_in_hand_are_answered_at_the_end(start_program: Callable[..., Any]) -> None:
    """The name is free at once, for a successor; SIGTERM waits for the handler that runs."""
    program = start_program(SLOW, "2")
    with connect(PATH, recover=None, wait=DEADLINE) as slow, connect(PATH, recover=None) as quick:
        waiting = Task(slow.ask, b"slow")
        eventually(lambda: "slow" in program.output, "the handler")
        program.process.terminate()
        eventually(lambda: "stopping" in program.output, "the signal")
        successor = start_program(SLOW, "1")
        eventually(lambda: "ready" in successor.output, "the successor")
        assert not waiting.done
        # The other thread of the old server no longer receives: what comes now is for the successor.
        pushing = Task(quick.send, b"go on")
        pushing.wait_until_blocked()
        program.kill()
        assert waiting.errno() == pushing.errno() == ESRCH


def test_a_handler_has_time_to_end(start_program: Callable[..., Any]) -> None:
    """Its client gets the answer after the signal, and the server exits with 0."""
    source = SLOW.replace("self.go_on.wait(20)", "[None for _ in iter(lambda: self._now.is_stopping, True)]")
    program = start_program(source, "1")
    with connect(PATH, recover=None, wait=DEADLINE) as slow:
        waiting = Task(slow.ask, b"slow")
        eventually(lambda: "slow" in program.output, "the handler")
        assert program.terminate() == 0
        assert waiting.result() == b"%d" % program.pid


def test_the_end_does_not_wait_for_ever() -> None:
    """After ``grace`` seconds, requests that are left for later fail with ESRCH."""
    service = Recording()
    service.answer = lambda request: LATER
    connections: Dict[str, Any] = {}
    with service.running(grace=0.05):
        connections["client"] = connect(PATH, recover=None)
        waiting = Task(connections["client"].send, b"x")
        eventually(lambda: service.requests, "the request")
    assert waiting.errno() == ESRCH
    connections["client"].close()


def test_a_client_that_recovers_does_not_notice_the_change(start_program: Callable[..., Any]) -> None:
    """One server ends in order, the next one takes over, again and again."""
    program = start_program(SLOW, "3")
    with connect(PATH, wait=DEADLINE) as connection:
        for _change in range(3):
            assert connection.ask(b"x") == b"%d" % program.pid
            successor = start_program(SLOW, "3")
            assert program.terminate() == 0
            program = successor


def test_a_name_that_is_taken_is_waited_for_and_then_refused(server: Recording) -> None:
    """EEXIST, if it does not become free in time."""
    with fails_with(17):
        Service(NAME).serve(name_timeout=0.05)


def test_stop_before_serve_ends_it_at_once() -> None:
    """A signal that comes early is not lost. After that, the service can serve again."""
    service = Recording()
    service.stop()
    Task(service.serve).result()
    with service.running(), connect(PATH, recover=None) as connection:
        assert connection.ask(b"x") == b"x"


def test_a_service_that_cannot_start_says_why(server: Recording) -> None:
    """``running`` raises what serve raised, rather than waiting."""
    service = Service("")
    with fails_with(EINVAL), service.running():
        pytest.fail("it serves")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"threads": 0}, ValueError),
        ({"threads": -1}, ValueError),
        ({"threads": "2"}, TypeError),
        ({"threads": 1.5}, TypeError),
        ({"grace": "x"}, TypeError),
        ({"grace": float("nan")}, ValueError),
        ({"name_timeout": None}, TypeError),
    ],
    ids=str,
)
def test_what_cannot_be_served_with_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, arguments: Dict[str, Any], error: Type[Exception]
) -> None:
    """Before the name is taken."""
    service = Recording()
    monkeypatch.setattr(service, "_take_name", lambda deadline: pytest.fail("the name is taken"))
    with pytest.raises(error, match=next(iter(arguments))):
        service.serve(**arguments)
    if "name_timeout" not in arguments:
        with pytest.raises(error, match=next(iter(arguments))), service.running(**arguments):
            pytest.fail("it serves")


def test_the_end_can_be_given_all_the_time_there_is() -> None:
    """An infinite grace is as long as a thread can wait."""
    service = Recording()
    service.answer = lambda request: LATER
    with contextlib.ExitStack() as stack:
        with service.running(threads=2, grace=float("inf")):
            connection = stack.enter_context(connect(PATH, recover=None))
            waiting = Task(connection.send, b"x")
            eventually(lambda: service.requests, "the request")
            service.stop()
            service.requests[0].reply(3)
        assert waiting.result() == (3, b"")


def test_a_service_is_served_once_at_a_time(server: Recording) -> None:
    """The second time is refused, and the first one goes on: it can still be stopped."""
    with pytest.raises(RuntimeError, match="served already"):
        server.serve()
    with pytest.raises(RuntimeError, match="served already"), server.running():
        pytest.fail("it serves twice")
    with connect(PATH, recover=None) as connection:
        assert connection.ask(b"x") == b"x"


def test_the_signals_get_their_handlers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main thread, serve borrows SIGTERM and SIGINT; in others it leaves them alone."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    service = Recording()
    seen: List[Any] = []

    def ready() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        service.stop()

    monkeypatch.setattr(service, "ready", ready)
    service.serve()
    assert seen[0] not in before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    Task(service.serve).result()
    assert seen[1] == before[0]


def test_the_signals_get_their_handlers_back_when_one_is_none() -> None:
    """Those that came before it in the list, too."""
    before = signal.getsignal(signal.SIGTERM)
    with fails_with(EINVAL):
        Recording().serve(signals=(signal.SIGTERM, signal.SIGKILL))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_standby_takes_over_when_the_server_dies(start_program: Callable[..., Any]) -> None:
    """It waits for the name for as long as another server has it; told to end meanwhile, it ends."""
    source = SLOW.replace('"service", "/dev/service"', '"service"').replace("serve(", "serve(standby=True, threads=")
    first = start_program(source, "1")
    eventually(lambda: "ready" in first.output, "the first server")
    second, third = start_program(source, "1"), start_program(source, "1")
    with connect(NAME) as connection:
        assert connection.ask(b"x") == b"%d" % first.pid
        first.kill()
        successor = int(connection.ask(b"x"))
        assert successor in (second.pid, third.pid)
        idle = third if successor == second.pid else second
        eventually(lambda: takes_signals(idle.pid, signal.SIGTERM), "the other one to be ready for the signal")
        assert idle.terminate() == 0
        assert (idle.output, idle.errors) == ("stopping\nover\n", "")


def takes_signals(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << (number - 1))


class Supervising:
    """A stand-in for systemd: the socket that it would name."""

    def __init__(self, path: pathlib.Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.settimeout(DEADLINE)

    def hear(self) -> str:
        return self._socket.recv(100).decode()

    def forget(self) -> None:
        """Drop what has been said so far."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(100)
        self._socket.settimeout(DEADLINE)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervising]:
    supervising = Supervising(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", supervising.address)
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    yield supervising
    supervising.close()


def test_systemd_is_told_how_the_service_is(systemd: Supervising) -> None:
    """When clients can come, again and again that the channel is answered, and that it ends."""
    with Recording().running():
        assert systemd.hear() == "READY=1"
        assert [systemd.hear() for _time in range(3)] == ["WATCHDOG=1"] * 3
    eventually(lambda: systemd.hear() == "STOPPING=1", "the last word")


@pytest.mark.parametrize("threads", [1, 3])
def test_a_service_whose_handlers_hang_is_not_alive(systemd: Supervising, threads: int) -> None:
    """As soon as no thread is left that answers, systemd hears nothing any more; then it hears again."""
    service = Recording()
    go_on = threading.Event()
    service.answer = lambda request: go_on.wait(DEADLINE)
    with service.running(threads=threads), connect(NAME, recover=None) as connection:
        tasks = [Task(connection.send, b"x") for _thread in range(threads)]
        eventually(lambda: len(service.requests) == threads, "the handlers")
        systemd.forget()
        systemd._socket.settimeout(0.3)
        with contextlib.suppress(socket.timeout):
            systemd.hear()  # One that was on its way.
        with pytest.raises(socket.timeout):
            systemd.hear()
        systemd._socket.settimeout(DEADLINE)
        go_on.set()
        assert systemd.hear() == "WATCHDOG=1"
        for task in tasks:
            task.result()


def test_the_end_waits_until_an_answer_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel stays as long as a thread is inside of MsgReply, so that the client does not see it go first."""
    service = Recording()
    service.answer = lambda request: LATER
    inside, go_on, is_over = threading.Event(), threading.Event(), threading.Event()
    reply, destroy = service.backend.MsgReply, service.backend.ChannelDestroy

    def slow_reply(rcvid: int, status: int, data: Any = None) -> int:
        inside.set()
        assert go_on.wait(DEADLINE)
        return reply(rcvid, status, data)

    def noted_destroy(chid: int) -> int:
        is_over.set()
        return destroy(chid)

    with connect_to(service) as (connection, serving):
        waiting = Task(connection.send, b"x")
        eventually(lambda: service.requests, "the request")
        monkeypatch.setattr(service.backend, "MsgReply", slow_reply)
        monkeypatch.setattr(service.backend, "ChannelDestroy", noted_destroy)
        replying = Task(service.requests[0].reply, 6)
        assert inside.wait(DEADLINE)
        service.stop()
        assert not is_over.wait(0.05)
        go_on.set()
        assert replying.result() is True
        assert waiting.result() == (6, b"")
        serving.result()


@contextlib.contextmanager
def connect_to(service: Service) -> Iterator[Tuple[Any, Task]]:
    """A connection to a service, and the thread that serves."""
    ready = threading.Event()
    service.ready = ready.set  # type: ignore[method-assign]  # for this object
    serving = Task(service.serve)
    assert ready.wait(DEADLINE)
    with connect(PATH, recover=None) as connection:
        yield connection, serving
