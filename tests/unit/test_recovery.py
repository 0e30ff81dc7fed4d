"""Recovery in Python: what becomes of the arguments and of the errors of its calls."""

from errno import EBADF
from typing import Any

import pytest
from ha_qnx.conformance.expect import fails_with

import ha_qnx
from ha_qnx.constants import HA_RECOVERY_SUSPEND, NTO_SIDE_CHANNEL
from ha_qnx.recovery import Recovery

pytestmark = pytest.mark.usefixtures("shared_directory")


@pytest.fixture
def qnx(shared_directory: None) -> Recovery:
    """The backend."""
    backend = ha_qnx.backend("fallback")
    assert isinstance(backend, Recovery)
    return backend


class Number:
    """An integer that is no int."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


def raise_it(_coid: int, _handle: Any) -> int:
    raise LookupError("nobody there")


@pytest.mark.parametrize("function", [lambda _coid, _handle: -1, raise_it])
@pytest.mark.parametrize("size", [10, 5000])
def test_the_reply_buffer_is_free_after_a_failure(qnx: Recovery, no_collection: None, function: Any, size: int) -> None:
    """It can be resized at once, not only after a garbage collection."""
    chid = qnx.ChannelCreate()
    coid = qnx.ha_ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, 0, function)
    qnx.ChannelDestroy(chid)
    reply = bytearray(size)
    assert qnx.MsgSend_r(coid, b"message", reply) == -EBADF
    reply.append(1)
    assert qnx.MsgSendsv_r(coid, b"message", [reply]) == -EBADF
    reply.append(1)
    qnx.ConnectDetach(coid)


@pytest.mark.parametrize("number", [1 << 40, -(1 << 40)])
def test_a_number_that_c_cannot_hold_is_a_value_error(qnx: Recovery, number: int) -> None:
    """As it is where C is called, whether or not there could be such a connection."""
    for call in (
        qnx.ha_detach,
        qnx.ha_ConnectDetach,
        qnx.ha_ConnectDetach_r,
        qnx.ha_close,
        qnx.ha_dup,
        lambda coid: qnx.ha_connection_ctrl(coid, HA_RECOVERY_SUSPEND),
        lambda coid: qnx.ha_attach(coid, raise_it),
        lambda index: qnx.ha_ReConnectAttach(-1, 0, 0, 1, index, 0),
        qnx.ConnectDetach,
        qnx.name_close,
        qnx.close,
        lambda fd: qnx.dup2(fd, 0),
        lambda fd2: qnx.dup2(0, fd2),
    ):
        with pytest.raises(ValueError, match="must be between"):
            call(number)


def test_a_connection_is_ended_by_any_integer(qnx: Recovery) -> None:
    """What has ``__index__`` names the same connection: what is made under its number later is an ordinary one."""
    chid = qnx.ChannelCreate()
    for end in (qnx.ConnectDetach, qnx.ha_ConnectDetach):
        coid = qnx.ha_ConnectAttach(0, 0, chid, NTO_SIDE_CHANNEL, 0, raise_it)
        end(Number(coid))  # type: ignore[arg-type]
        assert coid not in qnx.descriptors
        with fails_with(EBADF):
            qnx.ha_detach(coid)
    qnx.ChannelDestroy(chid)
