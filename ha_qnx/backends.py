"""Which backend is used, and why not another.

The choice: the argument, else HA_QNX_BACKEND, else the platform. What was asked for and cannot be had is an error that
names every candidate and the reason it failed, never a silent second choice.
"""

import os
import sys
import threading
from typing import Callable, Dict, List, NamedTuple, Optional

from .api import Backend
from .platforms import is_qnx
from .recovery import Recovery

NAMES = ("native", "hybrid", "fallback")


class Candidate(NamedTuple):
    """A backend that was tried, and why it cannot be had."""

    name: str
    reason: str


class BackendUnavailableError(ImportError):
    """No backend that would do can be had."""

    def __init__(self, wanted_by: str, candidates: List[Candidate]) -> None:
        self.wanted_by = wanted_by
        self.candidates = candidates
        super().__init__(wanted_by, candidates)

    def __str__(self) -> str:
        tried = "; ".join(f"{candidate.name}: {candidate.reason}" for candidate in self.candidates)
        return f"no backend for ha_qnx ({self.wanted_by}): {tried}"


def _make_fallback() -> Backend:
    if not hasattr(os, "register_at_fork"):
        raise ImportError("it needs a POSIX host")
    try:
        from .fallback.kernel import SocketKernel
    except ModuleNotFoundError as error:
        if error.name != "ha_qnx.fallback":
            raise
        raise ImportError(
            "this is a checkout, where sh ci/dev makes ha_qnx importable: see .github/CONTRIBUTING.md"
        ) from None

    return Recovery("fallback", SocketKernel())


def _make_native() -> Backend:
    from .native.libha import Native
    from .native.libraries import Libraries

    return Native(Libraries(with_libha=True))


def _make_hybrid() -> Backend:
    from .native.kernel import NativeKernel
    from .native.libraries import Libraries

    return Recovery("hybrid", NativeKernel(Libraries(with_libha=False)))


_MAKERS: Dict[str, Callable[[], Backend]] = {
    "native": _make_native,
    "hybrid": _make_hybrid,
    "fallback": _make_fallback,
}

_lock = threading.RLock()
_made: Dict[str, Backend] = {}


def candidates_of_platform() -> List[str]:
    """The backends that this platform tries by itself, in order."""
    return ["native", "hybrid"] if is_qnx() else ["fallback"]


def backend(name: Optional[str] = None) -> Backend:
    """A backend, with the whole interface as its attributes: calls, constants, structures.

    The same name gives the same object.

    Args:
        name: "native", "hybrid" or "fallback"; without it, HA_QNX_BACKEND, else what suits the platform.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailableError: an ImportError; it cannot be had here. It says what was tried, and what is missing.
    """
    if name is not None:
        if name not in _MAKERS:
            raise ValueError(f"there is no backend {name!r}: there are {', '.join(NAMES)}")
        return _first_of([name], f"{name!r} was asked for")
    chosen = os.environ.get("HA_QNX_BACKEND")
    if chosen:
        return _first_of([chosen], f"HA_QNX_BACKEND is {chosen!r}")
    return _first_of(candidates_of_platform(), f"chosen for the platform {sys.platform!r}")


def _first_of(names: List[str], wanted_by: str) -> Backend:
    failures: List[Candidate] = []
    with _lock:
        for name in names:
            try:
                if name not in _MAKERS:
                    raise ImportError(f"there is no such backend: there are {', '.join(NAMES)}")
                if name not in _made:
                    _made[name] = _MAKERS[name]()
                return _made[name]
            except ImportError as error:
                failures.append(Candidate(name, str(error)))
    raise BackendUnavailableError(wanted_by, failures)


def made() -> List[Backend]:
    """The backends that this process has used so far."""
    return list(_made.values())


def backend_name() -> str:
    """The name of the backend that the module's own names stand for."""
    return backend().name
