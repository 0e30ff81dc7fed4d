"""Limits of time that outlast a recovery."""

import threading
from typing import Callable, Iterator

import pytest
from ha_qnx.conformance.waiting import DEADLINE, Task, eventually

import ha_qnx
from ha_qnx.deadlines import within


@pytest.fixture
def lost(qnx: ha_qnx.Backend) -> Iterator[Callable[[Callable[[], int]], int]]:
    """Makes an HA-aware connection to a server that goes when it has a message; the next one is made by a function."""
    coids = []

    def connect(next_server: Callable[[], int]) -> int:
        first = qnx.ChannelCreate()

        def receive_and_go() -> None:
            qnx.MsgReceive(first, bytearray(16))
            qnx.ChannelDestroy(first)

        threading.Thread(target=receive_and_go, daemon=True).start()

        def recover(coid: int, _handle: object) -> int:
            return qnx.ha_ReConnectAttach(coid, 0, 0, next_server(), coid, 0)

        coids.append(qnx.ha_ConnectAttach(0, 0, first, 0, 0, recover))
        return coids[-1]

    yield connect
    for coid in coids:
        qnx.ha_ConnectDetach(coid)


def test_what_is_sent_again_is_limited_too(qnx: ha_qnx.Backend, lost: Callable[[Callable[[], int]], int]) -> None:
    """A server that never answers keeps nobody, be it the first one or its successor."""
    coid = lost(lambda: qnx.ChannelCreate())

    def send() -> int:
        return within(qnx, 0.2, qnx.MsgSend, coid, b"x", bytearray(8))

    sending = Task(send)
    with pytest.raises(TimeoutError):
        sending.result()


def test_what_another_thread_recovers_is_sent_again_within_its_limit(qnx: ha_qnx.Backend) -> None:
    """Of threads that have lost their messages together one recovers; none is kept by a server that never answers."""
    chids = [qnx.ChannelCreate()]

    def recover(coid: int, _handle: object) -> int:
        chids.append(qnx.ChannelCreate())
        return qnx.ha_ReConnectAttach(coid, 0, 0, chids[-1], coid, 0)

    coid = qnx.ha_ConnectAttach(0, 0, chids[0], 0, 0, recover)
    sending = [Task(lambda: within(qnx, 0.5, qnx.MsgSend, coid, b"x", bytearray(8))) for _thread in range(4)]
    for _message in sending:
        qnx.MsgReceive(chids[0], bytearray(16))
    qnx.ChannelDestroy(chids[0])
    for each in sending:
        with pytest.raises(TimeoutError):
            each.result()
    assert len(chids) == 2
    qnx.ha_ConnectDetach(coid)
    qnx.ChannelDestroy(chids[1])


@pytest.mark.parametrize("qnx", ["native"], indirect=True)
def test_a_signal_sees_to_that_where_there_is_nothing_else(by_signal: ha_qnx.Backend) -> None:
    """As on QNX: it is caught since a connection was made HA-aware."""
    test_what_another_thread_recovers_is_sent_again_within_its_limit(by_signal)


def test_what_is_sent_after_that_has_no_limit_left(
    qnx: ha_qnx.Backend, lost: Callable[[Callable[[], int]], int]
) -> None:
    """The limit is that of one call, however often it was sent."""
    chids = []

    def serve() -> int:
        chids.append(qnx.ChannelCreate())
        return chids[-1]

    coid = lost(serve)

    def send_twice() -> int:
        with pytest.raises(TimeoutError):
            within(qnx, 0.05, qnx.MsgSend, coid, b"x", bytearray(8))
        return qnx.MsgSend(coid, b"y", bytearray(8))

    sending = Task(send_twice)
    eventually(lambda: chids, "the next server")
    buffer = bytearray(16)
    while buffer[:1] != b"y":
        qnx.TimerTimeout(ha_qnx.NTO_TIMEOUT_RECEIVE, int(DEADLINE * 1e9))
        rcvid = qnx.MsgReceive(chids[0], buffer)
    qnx.MsgReply(rcvid, 5)
    assert sending.result() == 5
