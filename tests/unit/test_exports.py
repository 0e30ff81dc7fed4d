"""The public names: what the package exports, what the contracts say, and what each backend has."""

import ctypes
import inspect
import pathlib
import pydoc
import re
from importlib import metadata
from typing import Any, Callable, List, Sequence, Tuple

import pytest
from ha_qnx.fallback.kernel import SocketKernel

import ha_qnx
from ha_qnx import constants, structures
from ha_qnx.api import Backend
from ha_qnx.kernel import Kernel
from ha_qnx.native.kernel import NativeKernel
from ha_qnx.native.libha import Native
from ha_qnx.recovery import Recovery


def calls_of(contract: type) -> List[str]:
    """The calls that a contract adds to those that it inherits."""
    return [name for name in vars(contract) if not name.startswith("_")]


def parameters(call: Callable[..., Any]) -> List[Tuple[str, Any, Any]]:
    """The names, kinds and defaults of the parameters, without self."""
    found = inspect.signature(call).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found if parameter.name != "self"]


def test_every_public_name_exists() -> None:
    """All that __all__ names can be had."""
    assert [name for name in ha_qnx.__all__ if not hasattr(ha_qnx, name)] == []
    assert len(ha_qnx.__all__) == len(set(ha_qnx.__all__))


def test_every_call_is_a_public_name() -> None:
    """What the contracts list is what the package exports."""
    assert set(ha_qnx.CALLS) <= set(ha_qnx.__all__)


def test_there_is_nothing_under_another_name() -> None:
    """A name that is none of ours is an AttributeError."""
    with pytest.raises(AttributeError, match="MsgSendPigeon"):
        _ = ha_qnx.MsgSendPigeon  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize("call", ha_qnx.CALLS)
def test_the_backend_has_every_call_with_the_signature_of_its_contract(call: str) -> None:
    """Names, kinds and defaults of all parameters agree, and there is a docstring."""
    promised = getattr(Backend, call)
    kept = getattr(ha_qnx.backend("fallback"), call)
    assert parameters(kept) == parameters(promised)
    assert inspect.getdoc(kept)


@pytest.mark.parametrize(
    ("implementation", "call"),
    [
        *((kernel, call) for kernel in (SocketKernel, NativeKernel) for call in calls_of(Kernel)),
        *((Native, call) for call in (*calls_of(Kernel), *calls_of(Backend))),
    ],
)
def test_every_call_of_the_contract_is_implemented(implementation: type, call: str) -> None:
    """By the class or what it is made of, with the signature of the contract: none is the description inherited."""
    owner = next(owner for owner in implementation.__mro__ if call in vars(owner))
    assert not getattr(owner, "_is_protocol", False), f"{implementation.__name__} has forgotten {call}"
    assert parameters(getattr(implementation, call)) == parameters(getattr(Backend, call))


@pytest.mark.parametrize("implementation", [Recovery, Native])
def test_a_backend_has_the_constants_and_the_structures(implementation: Any) -> None:
    """All that the package exports of them: a program that holds a backend needs no second name."""
    names = [*constants.__all__, *structures.__all__, "Name"]
    assert {name: getattr(implementation, name, None) for name in names} == {
        name: getattr(ha_qnx, name) for name in names
    }


def test_a_type_checker_knows_the_constants_and_the_structures_of_a_backend() -> None:
    """It finds no fault with these lines, which have no cast."""
    backend = ha_qnx.backend("fallback")
    index: int = backend.NTO_SIDE_CHANNEL
    pulse: ha_qnx.Pulse = backend.Pulse(code=5)
    assert (index, pulse.code) == (ha_qnx.NTO_SIDE_CHANNEL, 5)


def test_every_constant_is_exported() -> None:
    """What is written down in the module is in its __all__, which is what the package and the backends have."""
    assert sorted(name for name in vars(constants) if name.isupper()) == sorted(constants.__all__)


def test_there_is_one_version(libha: str) -> None:
    """The package that was installed and the C library have that of the source."""
    library = ctypes.CDLL(libha)
    library.ha_posix_version.restype = ctypes.c_char_p
    assert metadata.version("ha_qnx") == ha_qnx.__version__
    assert library.ha_posix_version() == f"libha for POSIX {ha_qnx.__version__}, wire 3".encode()


def test_every_call_is_documented() -> None:
    """The contract of each call says what it does in one sentence, and what else there is to say."""
    undocumented = [name for name in ha_qnx.CALLS if not (getattr(Backend, name).__doc__ or "").strip()]
    assert undocumented == []


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("Stats", ha_qnx.Stats._fields),
        ("RecoveryEvent", ha_qnx.RecoveryEvent._fields),
        ("Request", ("rcvid", "info", "kind", "ocb", "is_answered", "is_unblocking", "is_later", "data", "path")),
        ("Connection", ("target", "coid", "stats", "closed")),
    ],
)
def test_help_shows_the_attributes(name: str, attributes: Sequence[str]) -> None:
    """Of what a program gets, each with a word about it."""
    text = pydoc.plain(pydoc.render_doc(getattr(ha_qnx, name)))
    for attribute in attributes:
        assert re.search(rf"^ [ |]*{attribute}(: \w|$)", text, re.MULTILINE), attribute


def test_the_table_of_calls_is_complete() -> None:
    """Each call that there is stands in CALLS.md, and what stands there as missing is missing."""
    page = (pathlib.Path(__file__).parents[2] / ".github" / "CALLS.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")]
    there = {name for call, here, _why in rows if here.strip() != "no" for name in re.findall(r"`(\w+)`", call + here)}
    assert sorted(set(ha_qnx.CALLS) - there) == []
    missing = {name for call, here, _why in rows if here.strip() == "no" for name in re.findall(r"`(\w+)`", call)}
    assert sorted(missing & set(ha_qnx.CALLS)) == []
