"""What a server keeps for each opening."""

from ha_qnx.ocb import Ocb, Ocbs

PID = 100


def test_a_connection_has_its_ocb() -> None:
    """It is found by its two numbers, and by no others."""
    ocbs, ocb = Ocbs(), Ocb(PID)
    assert ocbs.enter((1, 2), PID, ocb) == []
    assert ocbs.get((1, 2), PID) is ocb
    assert ocbs.get((1, 3), PID) is ocbs.get((2, 2), PID) is None


def test_the_last_connection_ends_an_ocb() -> None:
    """Duplicates share it until then."""
    ocbs, ocb = Ocbs(), Ocb(PID)
    ocbs.enter((1, 2), PID, ocb)
    ocbs.enter((1, 3), PID, ocb)
    assert ocbs.leave((1, 2)) == []
    assert ocbs.get((1, 2), PID) is None
    assert ocbs.leave((1, 3)) == [ocb]
    assert ocbs.leave((1, 3)) == []


def test_another_process_with_the_same_numbers_is_another_client() -> None:
    """It does not get what the one before has left behind."""
    ocbs, ocb = Ocbs(), Ocb(PID)
    ocbs.enter((1, 2), PID, ocb)
    assert ocbs.get((1, 2), PID + 1) is None


def test_an_opening_under_a_number_in_use_ends_what_was_there() -> None:
    """Unless it is the same: then nothing ends."""
    ocbs, first, second = Ocbs(), Ocb(PID), Ocb(PID)
    ocbs.enter((1, 2), PID, first)
    assert ocbs.enter((1, 2), PID, second) == [first]
    assert ocbs.enter((1, 2), PID, second) == []
    assert ocbs.leave((1, 2)) == [second]


def test_a_client_leaves_with_all_it_has() -> None:
    """And with nothing of others; an OCB that two clients share lives on."""
    ocbs, own, shared, other = Ocbs(), Ocb(PID), Ocb(PID), Ocb(PID + 1)
    ocbs.enter((1, 2), PID, own)
    ocbs.enter((1, 3), PID, shared)
    ocbs.enter((2, 3), PID + 1, shared)
    ocbs.enter((2, 4), PID + 1, other)
    assert ocbs.leave_client(1) == [own]
    assert ocbs.leave_client(1) == []
    assert ocbs.leave_client() == [shared, other]
