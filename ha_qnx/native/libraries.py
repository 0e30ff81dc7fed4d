"""Finding libha and the kernel calls, and declaring what was found.

On a QNX target libha is a library of the image, and the kernel calls are in libc. Elsewhere both are in one library,
libha for POSIX hosts (``fallback/libha``), which platform wheels of this package bring along. It says what it is, so
that nobody takes it for QNX's.
"""

import ctypes
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

from packaging.version import InvalidVersion, Version

from ..abi import BY_NAME, FUNCTIONS, HOST_NAMES, ILP32_6, LIBC, LIBHA, LP64_7, LP64_8, Model, posix_symbol, types_of
from ..platforms import is_qnx

# What libha is called on QNX, the newest first; and what the one for POSIX hosts is, which is for Linux only.
_USUAL_NAMES = ("libha.so.2", "libha.so.1", "libha.so")
_OWN_NAME = "libha_posix.so"
# Functions that releases before 8.0 have, and later ones have not.
_BEFORE_8 = ("MsgReadiov", "MsgReceivePulsev", "MsgKeyData", "ChannelCreateExt")
# What libha covers is taken from there (D11), as far as it exports it.
_COVERS = frozenset(name for name in BY_NAME if name.startswith("MsgSend")) | HOST_NAMES
# Without these there is no libha. What else may be missing has a substitute.
_NEEDED_OF_LIBHA = frozenset(
    function.name for function in FUNCTIONS if function.library == LIBHA and not function.name.endswith(("64", "_r"))
)
# Serving paths goes by a handle for a channel or, where libc makes none, by what lies under it.
_BY_HANDLE = frozenset(("dispatch_create_channel", "dispatch_destroy", "resmgr_attach", "resmgr_detach"))
_UNDER_IT = "pathmgr_link"
# What libc has from 7.0 or 7.1 on; before, it is not needed, or another call does it.
_NOT_IN_6 = frozenset(("MsgRegisterEvent", "MsgUnregisterEvent", "MsgSendPulsePtr", "MsgSendPulsePtr_r"))
_NEEDED_OF_LIBC = (
    frozenset(function.name for function in FUNCTIONS if function.library == LIBC and not function.name.endswith("_r"))
    - {_UNDER_IT}
    - _NOT_IN_6
)

# What puts a connection in place of another one. Those of the library for POSIX hosts recover nothing by themselves.
_HOLDING = frozenset(("ha_reopen", "ha_ReConnectAttach"))


class Libraries:
    """What was loaded: functions as attributes of ``functions``, and what ``ha-qnx doctor`` tells about it."""

    def __init__(self, with_libha: bool) -> None:
        """Load the libraries.

        Args:
            with_libha: whether libha's own functions are wanted, or the kernel calls alone.

        Raises:
            ImportError: a library is missing or unfit. It names the file and the symbol.
        """
        #: The path or name of the library that was loaded beside libc; None if libc has all that was wanted.
        self.path: Optional[str] = None
        #: What that library says that it is; None for one that does not say, as QNX's.
        self.version: Optional[str] = None
        self.functions: Dict[str, Any] = {}
        #: What ends the wait of a thread, which it is told by its identity; None where a signal has to do that, on QNX.
        self.unblock: Any = None
        self._places: Dict[str, Tuple[ctypes.CDLL, str]] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        libha = self._load(with_libha)
        #: Which declarations apply, and why.
        self.model, self.reason = self._choose_model()
        is_own = self.version is not None
        for function in FUNCTIONS:
            if function.library == LIBC or with_libha or (is_own and function.name in _HOLDING):
                self._declare(function.name, libha)
        #: Whether a number can be held while it gets another connection: recovery in Python does it so, too, then.
        self.holds = is_own and self.functions.keys() >= _HOLDING
        #: What libha was expected to export and does not, so that a substitute is used (D11).
        self.missing: Sequence[str] = self._find_missing(with_libha, libha)

    def fast(self, name: str) -> Any:
        """A function once more, without argtypes: with them ctypes takes twice as long for each argument.

        Whoever calls it passes objects that have the right type already, or an int for an int.
        """
        library, symbol = self._places[name]
        function = library[symbol]
        function.restype = self.functions[name].restype
        return function

    def _load(self, with_libha: bool) -> Optional[ctypes.CDLL]:
        if not with_libha and is_qnx():
            return None
        failures: List[str] = []
        for name in candidates():
            try:
                library = ctypes.CDLL(name, use_errno=True)
            except OSError as error:
                failures.append(str(error) if name in str(error) else f"{name}: {error}")
                continue
            self.path = name
            self.version = _version_of(library)
            if hasattr(library, "ha_posix_interrupt_main_only"):
                # Python's signal handlers run in the main thread, and end calls there and nowhere else (D19).
                library.ha_posix_interrupt_main_only(1)
            if hasattr(library, "ha_posix_unblock"):
                self.unblock = library.ha_posix_unblock
                self.unblock.argtypes = [ctypes.c_ulong]
            return library
        raise ImportError("; ".join(failures) or _nothing_to_load())

    def _choose_model(self) -> Tuple[Model, str]:
        """Which declarations apply.

        Raises:
            ImportError: none that are known.
        """
        if ctypes.sizeof(ctypes.c_void_p) == 4:
            return ILP32_6, "pointers have 32 bits"
        if self.version is not None:
            return LP64_7, f"it is {self.version}, whose interface is that of SDP 7.x on 64 bits"
        if not is_qnx():
            raise ImportError(
                f"{self.path}: it does not export ha_posix_version, so it is not libha for POSIX hosts, and any other"
                " works on QNX only"
            )
        release = os.uname().release
        try:
            version = Version(release)
        except InvalidVersion:
            raise ImportError(
                f"the release {release!r} of this system is not known to the table of declarations"
            ) from None
        old = [name for name in _BEFORE_8 if hasattr(self._libc, name)]
        if version.major == 8 and not old:
            return (
                LP64_8,
                f"pointers have 64 bits, the release is {release}, and libc has none of {', '.join(_BEFORE_8)}",
            )
        if version.major == 7:
            return LP64_7, f"pointers have 64 bits, and the release is {release}"
        also = f" whose libc has {', '.join(old)}" if old else ""
        raise ImportError(
            f"the release {release}{also} is not known to the table of declarations: there are 7.x and 8.x"
        )

    def _declare(self, name: str, libha: Optional[ctypes.CDLL]) -> None:
        function = BY_NAME[name]
        own = self.version is not None
        symbol = posix_symbol(name) if own else name
        places = [libha]
        if function.library == LIBC and not own:
            covered = name in _COVERS
            # A form that returns its error is not taken from libc in place of a cover: the plain form may have one.
            places = [libha, self._libc] if covered and not name.endswith("_r") else places if covered else [self._libc]
        for library in places:
            if library is not None and hasattr(library, symbol):
                found = library[symbol]
                found.restype, found.argtypes = types_of(function, self.model)
                self.functions[name] = found
                self._places[name] = library, symbol
                return

    def _find_missing(self, with_libha: bool, libha: Optional[ctypes.CDLL]) -> Sequence[str]:
        of_libha = _NEEDED_OF_LIBHA - set(self.functions) if with_libha else frozenset()
        of_libc = _NEEDED_OF_LIBC - set(self.functions)
        if self.version is not None:
            of_libha, of_libc = of_libha | of_libc, frozenset()
        elif _UNDER_IT in self.functions:
            of_libc -= _BY_HANDLE
        lacking = [
            f"{where}: it does not export {', '.join(sorted(names))}"
            for where, names in ((self.path, of_libha), ("libc", of_libc))
            if names
        ]
        if lacking:
            raise ImportError("; ".join(lacking))
        if not with_libha or libha is None:
            return ()
        covers = {name for name in _COVERS if self._places.get(name, (None,))[0] is not libha}
        substituted = covers | (set(BY_NAME) - set(self.functions) - _BY_HANDLE - {_UNDER_IT})
        return sorted(substituted - (_NOT_IN_6 - set(self.functions)))

    def substitute(self, name: str) -> str:
        """What takes the place of a function that is missing in libha."""
        if name in ("MsgSendPulse", "MsgSendPulsePtr"):
            return "libc's, which ha_qnx makes recover"
        if name in self.functions:
            return "libc's, which does not recover"
        if name.endswith("_r"):
            return f"{name[: -len('_r')]}, whose errno is returned"
        return name[: -len("64")]


def candidates() -> Sequence[str]:
    """The libraries to try, by path or by name, in order."""
    chosen = os.environ.get("HA_QNX_LIBHA")
    if chosen:
        return (chosen,)
    if is_qnx():
        return _USUAL_NAMES
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    own = os.path.join(package, _OWN_NAME)
    return (own,) if os.path.exists(own) else ()


def _nothing_to_load() -> str:
    return (
        f"this installation has no {_OWN_NAME}: install a platform wheel, or build from source with a C compiler and"
        " CMake, or name a library in HA_QNX_LIBHA"
    )


def _version_of(library: ctypes.CDLL) -> Optional[str]:
    """What libha for POSIX hosts says that it is."""
    if not hasattr(library, "ha_posix_version"):
        return None
    library.ha_posix_version.restype = ctypes.c_char_p
    version: bytes = library.ha_posix_version()
    return version.decode()
