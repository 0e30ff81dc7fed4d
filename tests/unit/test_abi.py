"""The table of declarations, as far as it is made into other things than ctypes structures."""

import pytest

from ha_qnx import abi


@pytest.mark.parametrize("name", ["pulse", "info64", "info32", "iov"])
@pytest.mark.parametrize("model", abi.MODELS, ids=lambda model: model.name)
def test_a_structure_is_packed_as_ctypes_lays_it_out(name: str, model: abi.Model) -> None:
    """As long as it, and each number is where it is there, with its sign; an array stays zero."""
    numbers = {}
    for member, kind in abi.fields(name, model):
        if member == "value":
            numbers[member] = -9
        elif member != "zero":
            numbers[member] = -9 if kind(-9).value == -9 else 9
    packing = abi.packing(name, model)
    packed = packing.pack(*numbers.values())
    made = abi.record(name, model)()
    for member, number in numbers.items():
        if member == "value":
            made.value.sival_int = number
        else:
            setattr(made, member, number)
    assert packed == bytes(made)


def test_only_what_the_host_has_is_exported_under_another_name() -> None:
    """The C library must not take the place of the host's own functions."""
    assert (abi.posix_symbol("open"), abi.posix_symbol("MsgSend")) == ("ha_posix_open", "MsgSend")
