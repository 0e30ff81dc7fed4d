"""Limits: what is bounded, and what is bounded by memory only."""

import mmap
import os
from errno import EINVAL, ENAMETOOLONG
from typing import Any, Tuple

import pytest

from ha_qnx import RESMGR_FLAG_DIR, MessageInfo, Pulse

from .clients import Client, Start, expect_nothing_waits
from .expect import fails_with
from .marks import checks, open_point
from .peers import Peer
from .servers import Server

GIBIBYTE = 1 << 30


@pytest.fixture(params=["near", "far"])
def client(request: pytest.FixtureRequest, qnx: Any, start: Start) -> Client:
    """A client in this process, and then one in another process."""
    return Client(qnx, start, request.getfixturevalue("peer") if request.param == "far" else None)


# Where the big message differs from zero, and with what.
PLACES = {0: b"first", GIBIBYTE // 2 - 3: b"middle", GIBIBYTE - 4: b"last"}
BLOCK = 1 << 24


def send_a_gibibyte(qnx: Any, coid: int) -> Tuple[int, bytes, bytes]:
    """Send a gibibyte, with as much room for the reply; the status, and both ends of the reply buffer."""
    with mmap.mmap(-1, GIBIBYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for place, data in PLACES.items():
            memory[place : place + len(data)] = data
        status = qnx.MsgSend(coid, memory, memory)
        return status, memory[:5], memory[-5:]


@checks("B348")
@open_point("D22")
def test_a_gibibyte_is_no_limit(qnx: Any, start: Start, peer: Peer) -> None:
    """A message of a gibibyte arrives whole in another process, and its reply may be as long."""
    chid = qnx.ChannelCreate(0)
    call = peer.start(send_a_gibibyte, Client(qnx, start, peer).attach(chid))
    info, block, nothing = MessageInfo(), bytearray(BLOCK), bytes(BLOCK)
    rcvid = qnx.MsgReceive(chid, block, info)
    assert (info.msglen, info.srcmsglen, info.dstmsglen) == (BLOCK, GIBIBYTE, GIBIBYTE)
    for offset in range(0, GIBIBYTE, BLOCK):
        assert qnx.MsgRead(rcvid, block, offset) == BLOCK
        for place, data in PLACES.items():
            for index, byte in enumerate(data, place - offset):
                if 0 <= index < BLOCK:
                    assert block[index] == byte
                    block[index] = 0
        assert block == nothing, offset
    assert qnx.MsgRead(rcvid, block, GIBIBYTE - 10) == 10
    assert qnx.MsgWrite(rcvid, b"FIRST", 0) == 5
    assert qnx.MsgWrite(rcvid, b"LAST and more", GIBIBYTE - 4) == 4
    qnx.MsgReply(rcvid, 7)
    assert call.result(60.0) == (7, b"FIRST", b"\0LAST")


@checks("D63", "B143")
@open_point("D63")
@pytest.mark.parametrize("room", [4000, 100_000])
def test_a_client_that_is_stopped_is_alive(qnx: Any, start: Start, peer: Peer, room: int) -> None:
    """However often its server writes for it, and whether it reads that now or later: it gets all of it."""
    chid = qnx.ChannelCreate(0)
    client = Client(qnx, start, peer)
    call = client.send(client.attach(chid), b"message", room)
    rcvid = qnx.MsgReceive(chid, bytearray(20))
    peer.stop()
    for offset in range(0, room, 8):
        assert qnx.MsgWrite(rcvid, offset.to_bytes(8, "big"), offset) == 8
    qnx.MsgReply(rcvid, 7)
    peer.resume()
    assert call.result() == (7, b"".join(offset.to_bytes(8, "big") for offset in range(0, room, 8)))


def send_many_parts(qnx: Any, coid: int, count: int) -> Tuple[int, bytes]:
    """Send a message of parts of two bytes each, and receive the reply in parts of one byte."""
    reply = [bytearray(1) for _ in range(count)]
    status = qnx.MsgSendv(coid, [part.to_bytes(2, "big") for part in range(count)], reply)
    return status, b"".join(reply)


@checks("B351")
@open_point("D22")
def test_the_parts_of_a_message_are_not_counted(qnx: Any, client: Client) -> None:
    """A vector may have more parts than the host's writev would take."""
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for count in (1024, 1025, 5000):
        call = client.start(send_many_parts, coid, count)
        parts = [bytearray(3) for _ in range(count)]
        rcvid = qnx.MsgReceivev(chid, parts)
        message = b"".join(part.to_bytes(2, "big") for part in range(count))
        assert b"".join(parts) == message.ljust(3 * count, b"\0")
        assert qnx.MsgWritev(rcvid, [b"w"] * count, 0) == count
        assert qnx.MsgReadv(rcvid, parts, 1) == 2 * count - 1
        assert qnx.MsgReplyv(rcvid, count, [bytes([n % 251]) for n in range(count - 1)]) == 0
        assert call.result() == (count, bytes(n % 251 for n in range(count - 1)) + b"w")


@checks("B355")
@open_point("D30")
def test_the_priorities_of_pulses(qnx: Any) -> None:
    """A pulse has a priority from 1 to 255; 256 and what is far beyond are EINVAL, and send nothing."""
    chid = qnx.ChannelCreate(0)
    coid = qnx.ConnectAttach(0, 0, chid)
    for wrong in (256, -2, 512, 2**31 - 1):
        with fails_with(EINVAL):
            qnx.MsgSendPulse(coid, wrong, 1, 0)
    for priority in (1, 255):
        qnx.MsgSendPulse(coid, priority, 1, priority)
    pulse = Pulse()
    for priority in (255, 1):
        assert qnx.MsgReceive(chid, pulse) == 0
        assert pulse.value.sival_int == priority


def send_pulses(qnx: Any, coid: int, count: int) -> int:
    """Send pulses, numbered, until the host holds no more; how many it has taken."""
    for value in range(count):
        try:
            qnx.MsgSendPulse(coid, 10, 1, value)
        except BlockingIOError:
            return value
    return count


@checks("B235", "B250", "B356")
def test_many_pulses_wait(qnx: Any, client: Client) -> None:
    """Pulses that nobody receives are kept, as many as the host has room for; a pulse beyond that is EAGAIN.

    All that were taken arrive, in order, and then there is room again.
    """
    chid = qnx.ChannelCreate(0)
    coid = client.attach(chid)
    for _ in range(2):
        count = client.run(send_pulses, coid, 10_000)
        assert count >= 1_000
        pulse = Pulse()
        for value in range(count):
            assert qnx.MsgReceive(chid, pulse) == 0
            assert pulse.value.sival_int == value
    expect_nothing_waits(qnx, chid)


@checks("B357")
def test_a_long_path(qnx: Any, start: Start, server: Server) -> None:
    """A path of 1,100 characters below one that is attached with RESMGR_FLAG_DIR reaches its server."""
    below = f"{server.path}-dir"
    server.attach(below, RESMGR_FLAG_DIR)
    rest = ("component/" * 110)[: 1100 - len(below) - 1].rstrip("/").ljust(1100 - len(below) - 1, "x")
    task = start(qnx.open, f"{below}/{rest}", os.O_RDWR)
    assert server.answer().data[40:] == rest.encode() + b"\0"
    task.result()


@checks("B357")
def test_a_path_that_is_too_long(qnx: Any) -> None:
    """A path that is longer than any is ENAMETOOLONG."""
    with fails_with(ENAMETOOLONG):
        qnx.open("/dev/" + "component/" * 500, os.O_RDWR)
