"""What a hostile client does costs itself its connection: the server goes on, and has in the end what it had before."""

import array
import contextlib
import fcntl
import os
import socket
import struct
from errno import EAGAIN, EBADF, ESRCH
from typing import Callable

import pytest

from ha_qnx import NTO_CHF_DISCONNECT

from .attacker import HELLO, PULSE_LANE, lane_frame, message, pipe, pulse
from .conftest import StartVictim, Victim, eventually

F_SETPIPE_SZ = 1031


def outcome(ask: Callable[[bytes], bool], text: bytes) -> "bool | int | None":
    """What a call returns, or its errno."""
    try:
        return ask(text)
    except OSError as error:
        return error.errno


def wait_until_served(victim: Victim) -> None:
    """A new client gets its room as soon as the server has seen that others have given it back."""
    eventually(lambda: outcome(victim.serves_a_new_client, b"again") is True, "the server to have room")


def test_a_window_that_was_announced_and_not_passed(victim: Victim) -> None:
    """A LANE frame that says it has a window, with two descriptors."""
    assert victim.serves()
    with victim.attack() as attacker, pipe() as there, pipe() as back:
        attacker.greet()
        attacker.send(lane_frame(window_size=1 << 16), [there[0], back[1]])
        assert victim.serves()
        assert attacker.is_dropped()
    assert victim.serves_a_new_client()
    assert not victim.errors


@pytest.mark.parametrize("free", [0, 1, 2, 3, 4, 5])
def test_a_long_message_finds_the_table_almost_full(start_victim: StartVictim, free: int) -> None:
    """There is no room for a lane with a window: its client fails, and the server goes on."""
    victim = start_victim(table=64)
    assert victim.serves(b"free %d" % free)
    for ask in (victim.serves, victim.serves_a_new_client):
        assert outcome(ask, bytes(5000)) in (True, EAGAIN, EBADF, ESRCH)
    with contextlib.suppress(OSError):  # Its connection was lost.
        assert victim.serves(b"more")
    victim.release()
    assert victim.serves_a_new_client(bytes(5000))
    assert not victim.errors


@pytest.mark.parametrize("which", [0, 1], ids=["read", "write"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_socket_whose_owner_lets_it_block(start_victim: StartVictim, which: int, threads: int) -> None:
    """What was passed shares its O_NONBLOCK with what its owner has kept, who may clear it."""
    victim = start_victim(threads=threads)
    with victim.attack() as attacker, contextlib.ExitStack() as stack:
        attacker.greet()
        lanes = []
        for _lane in range(2 * threads):
            near, far = socket.socketpair()
            stack.enter_context(near)
            stack.enter_context(far)
            attacker.send(lane_frame(), [far.fileno(), far.fileno()])
            lanes.append((near, far))
        assert victim.serves()
        for near, far in lanes:
            far.setblocking(True)
            if which == 0:
                near.send(message(b"info", room=4))  # It looks whether there is more, and there is not.
            else:
                far.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        far.send(bytes(4096))  # Its answer has no room.
                far.setblocking(True)
                near.send(message(b"x", room=1))
        assert victim.serves()
        assert victim.serves_a_new_client()
    assert victim.serves()


def test_a_lane_that_is_half_a_socket(victim: Victim) -> None:
    """Messages come by a pipe, and the socket for the answers blocks."""
    with victim.attack() as attacker, pipe() as (server_read, write):
        attacker.greet()
        near, far = socket.socketpair()
        with near, far:
            attacker.send(lane_frame(), [server_read, far.fileno()])
            assert victim.serves()
            far.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    far.send(bytes(4096))
            far.setblocking(True)
            os.write(write, message(b"x", room=1))
            assert victim.serves()
            assert victim.serves_a_new_client()


def test_a_pulse_socket_whose_owner_lets_it_block(victim: Victim) -> None:
    """The same for pulses."""
    with victim.attack() as attacker:
        attacker.greet()
        near, far = socket.socketpair()
        with near, far:
            attacker.send(PULSE_LANE, [far.fileno()])
            assert victim.serves()
            far.setblocking(True)
            for _ in range(50):
                near.send(pulse(1, 1))
                assert victim.serves()


def lingering() -> "tuple[socket.socket, socket.socket, socket.socket]":
    """A socket whose close waits for a quarter of an hour; and who keeps it so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    listener.listen()
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    near.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(1 << 16))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 900))
    return near, far, listener


@pytest.mark.parametrize("how", ["lane", "unread", "beyond"])
def test_a_socket_whose_close_waits(victim: Victim, how: str) -> None:
    """SO_LINGER and unsent data: whoever closes it last waits, as long as its owner has said."""
    with contextlib.ExitStack() as stack:
        near, far, listener = lingering()
        stack.enter_context(far)
        stack.enter_context(listener)
        attacker = stack.enter_context(victim.attack())
        attacker.greet()
        fd = near.fileno()
        with victim.stopped():
            if how == "lane":
                attacker.send(lane_frame(), [fd, fd])
            elif how == "beyond":
                attacker.send(lane_frame(), [fd] * 250)
            else:
                for _frame in range(8):
                    attacker.send(b"\xff" * 32, [fd])
            near.close()  # So the server's is the last.
        assert victim.serves()
        assert victim.serves_a_new_client()


def test_descriptors_in_an_empty_packet(victim: Victim) -> None:
    """They lie unread in a socket that is no lane: it is closed, and they with it."""
    assert victim.serves()
    before = victim.descriptors
    with victim.attack() as attacker, pipe() as passed:
        attacker.greet()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near:
            for _packet in range(5):
                near.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", passed))])
            with far:
                attacker.send(lane_frame(), [far.fileno()])
            assert attacker.is_dropped()
    eventually(lambda: victim.descriptors <= before, "the server to close what it was passed")


def test_descriptors_with_frames_that_never_end(start_victim: StartVictim) -> None:
    """Each byte of a frame brings as many descriptors as the host passes at once."""
    victim = start_victim(table=1024)
    assert victim.serves()
    before = victim.descriptors
    with victim.attack() as attacker, pipe() as (read, _write):
        attacker.greet()
        with contextlib.suppress(OSError):
            for byte in lane_frame()[:31]:
                attacker.send(bytes([byte]), [read] * 190)
        assert victim.serves()
        assert victim.descriptors <= before + 8
    assert victim.serves_a_new_client()


def test_a_client_that_takes_all_it_can_get(start_victim: StartVictim) -> None:
    """One process opens lanes and trunks until it gets no more; another one gets its connection all the same."""
    victim = start_victim(table=128)
    with contextlib.ExitStack() as stack:
        for _trunk in range(40):
            attacker = stack.enter_context(victim.attack())
            with contextlib.suppress(OSError):
                attacker.greet()
                for _lane in range(4):
                    stack.callback(attacker.lane().close)
        child = os.fork()
        if not child:
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if victim.serves_a_new_client() else 1
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    wait_until_served(victim)
    assert not victim.errors


def test_idle_connections_fill_the_table(start_victim: StartVictim) -> None:
    """The newest are refused, whoever they are; nobody waits, and nobody has the processor turn in vain."""
    victim = start_victim(table=128)
    assert victim.serves()
    with contextlib.ExitStack() as stack:
        answers = []
        for _trunk in range(200):
            attacker = stack.enter_context(victim.attack())
            try:
                answers.append(attacker.greet()[0])
            except ConnectionError:
                answers.append(0)
        assert 2 in answers
        assert answers[-1] == 3  # REFUSED, and no silence.
        assert victim.serves()
        eventually(lambda: all(victim.is_asleep() for _look in range(10)), "all threads of the server to stay asleep")
    wait_until_served(victim)


def test_an_honest_client_is_told_that_there_is_no_room(start_victim: StartVictim) -> None:
    """It fails with EAGAIN at once, and is served as soon as there is room."""
    victim = start_victim(table=128)
    with contextlib.ExitStack() as stack:
        for _trunk in range(200):
            attacker = stack.enter_context(victim.attack())
            with contextlib.suppress(ConnectionError):
                attacker.greet()
        for text in (b"short", bytes(10_000)):
            with pytest.raises(BlockingIOError):
                victim.serves_a_new_client(text)
    wait_until_served(victim)


def test_replies_that_nobody_reads(start_victim: StartVictim) -> None:
    """The server waits for nobody who has made the pipe small and does not read."""
    victim = start_victim(threads=2)
    with victim.attack() as attacker, contextlib.ExitStack() as stack:
        attacker.greet()
        for _lane in range(25):
            server_read, write = os.pipe()
            read, server_write = os.pipe()
            for fd in (server_read, write, read, server_write):
                stack.callback(os.close, fd)
            fcntl.fcntl(server_write, F_SETPIPE_SZ, 4096)
            attacker.send(lane_frame(), [server_read, server_write])
            os.write(write, message(b"long", room=32768))
        for _message in range(20):
            assert victim.serves()
        assert victim.serves_a_new_client()


def test_pulses_of_clients_that_have_left(victim: Victim) -> None:
    """A server that finds those of many clients at once keeps only so many."""
    assert victim.serves()
    before = victim.memory
    frames = pulse(1, 1) * 128
    with victim.stopped():
        for _client in range(12):
            with victim.attack() as attacker:
                attacker.send(HELLO)
                write = attacker.pulse_pipe()
                with contextlib.suppress(OSError):
                    fcntl.fcntl(write, F_SETPIPE_SZ, 1 << 20)
                os.set_blocking(write, False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        os.write(write, frames)
                os.close(write)
    with victim.attack() as urgent:  # Or it would be received behind all of them.
        urgent.greet()
        lane = urgent.lane()
        lane.send(message(b"urgent", room=6, priority=200))
        assert lane.answer().data == b"urgent"
        lane.close()
    assert victim.memory - before < 80_000_000


@pytest.mark.parametrize("carries", [0, 1], ids=["messages", "pulses"])
def test_a_trunk_as_its_own_lane(start_victim: StartVictim, carries: int) -> None:
    """Its end would never come, since the server itself would hold the other side."""
    victim = start_victim(flags=NTO_CHF_DISCONNECT)
    assert victim.serves()
    before = victim.descriptors
    for _client in range(5):
        with victim.attack() as attacker:
            attacker.greet()
            fd = attacker.sock.fileno()
            attacker.send(PULSE_LANE if carries else lane_frame(), [fd] if carries else [fd, fd])
    eventually(lambda: victim.serves() and victim.descriptors <= before, "the server to let go of it")


def test_trunks_as_each_others_lanes(start_victim: StartVictim) -> None:
    """The same, crosswise."""
    victim = start_victim()
    assert victim.serves()
    before = victim.descriptors
    with victim.attack() as one, victim.attack() as other:
        one.greet()
        other.greet()
        one.send(lane_frame(), [other.sock.fileno()] * 2)
        # It may have been shut down already, when it was found to be no lane.
        with contextlib.suppress(BrokenPipeError):
            other.send(lane_frame(), [one.sock.fileno()] * 2)
    eventually(lambda: victim.serves() and victim.descriptors <= before, "the server to let go of it")
