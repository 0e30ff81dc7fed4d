"""The public names: what the package exports, what the contracts say, and what each backend has."""

import inspect
from typing import Any, Callable

import pytest
from ha_qnx.fallback.kernel import SocketKernel

import ha_qnx
from ha_qnx.api import Backend
from ha_qnx.kernel import Kernel


def parameters(call: Callable[..., Any]) -> "list[tuple[str, Any]]":
    """The names and defaults of the parameters, without self."""
    found = inspect.signature(call).parameters.values()
    return [(parameter.name, parameter.default) for parameter in found if parameter.name != "self"]


def test_every_public_name_exists() -> None:
    """All that __all__ names can be had."""
    assert [name for name in ha_qnx.__all__ if not hasattr(ha_qnx, name)] == []
    assert len(ha_qnx.__all__) == len(set(ha_qnx.__all__))


def test_every_call_is_a_public_name() -> None:
    """What the contracts list is what the package exports."""
    assert set(ha_qnx.CALLS) <= set(ha_qnx.__all__)


def test_the_static_types_know_every_call() -> None:
    """The names that a type checker sees are those that exist when the package runs."""
    source = inspect.getsource(ha_qnx)
    assert [call for call in ha_qnx.CALLS if f"    {call} = _default.{call}\n" not in source] == []


def test_there_is_nothing_under_another_name() -> None:
    """A name that is none of ours is an AttributeError."""
    with pytest.raises(AttributeError, match="MsgSendPigeon"):
        _ = ha_qnx.MsgSendPigeon  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize("call", ha_qnx.CALLS)
def test_the_backend_has_every_call_with_the_signature_of_its_contract(call: str) -> None:
    """Names and defaults of all parameters agree, and there is a docstring."""
    promised = getattr(Backend, call)
    kept = getattr(ha_qnx.backend("fallback"), call)
    assert parameters(kept) == parameters(promised)
    assert inspect.getdoc(kept)


@pytest.mark.parametrize("call", [name for name in vars(Kernel) if not name.startswith("_")])
def test_the_socket_kernel_keeps_the_contract_of_a_kernel(call: str) -> None:
    """Every call is implemented, not just inherited from its description."""
    assert call in vars(SocketKernel)
    assert parameters(getattr(SocketKernel, call)) == parameters(getattr(Kernel, call))


def test_every_call_is_documented() -> None:
    """The contract of each call says what it does in one sentence, and what else there is to say."""
    undocumented = [name for name in ha_qnx.CALLS if not (getattr(Backend, name).__doc__ or "").strip()]
    assert undocumented == []
