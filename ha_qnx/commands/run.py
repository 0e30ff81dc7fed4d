"""``ha-qnx run``: a program that knows nothing of this library, with connections that recover.

On a QNX target the program is started again with libha preloaded, so that the calls of libc recover, too, and not only
those of Python.
"""

import argparse
import ctypes
import errno
import functools
import importlib.machinery
import importlib.util
import json
import logging
import math
import os
import pkgutil
import runpy
import sys
import types
from typing import Any, Dict, List, NoReturn, Optional, Tuple

from .. import backends, dropin, watching
from ..native.libraries import candidates
from ..platforms import is_qnx

HELP = "run a program as it is, with connections that recover"

DESCRIPTION = """\
Runs a Python program, unedited. A path that a server has attached is opened as a connection
that is opened again when its server dies: the program waits for the next server and goes on,
at the position where it was. Everything else is as if python had run it.
"""

EPILOG = """\
One path can stand for another, so that a program with fixed paths needs no change:
HA_QNX_PATHS=/dev/ser1=/dev/fakeser,/dev/ser2=/dev/other

A call whose server dies is made again: at least once, not exactly once. That is safe for
reading and for writing files; what a server does for each message, it may do twice.

examples:
  ha-qnx run report.py --input /dev/journal   a script and its arguments
  ha-qnx run -m json.tool /dev/config         a module
  ha-qnx run --wait 5 --json report.py        and tell of each recovery, as JSON

exit status: 0 or what else the program exits with; 2, wrong use.
"""

_WRONG_USE = 2
# Set in the process that has libha preloaded.
_PRELOADED = "HA_QNX_PRELOADED"
_OPTIONS_WITH_VALUE = ("--backend", "--wait")


def split(arguments: List[str]) -> Tuple[List[str], List[str]]:
    """What is for ``ha-qnx run``, the program's name included; and what is for the program, whatever it looks like."""
    place = 1
    while place < len(arguments) and arguments[place].startswith("-"):
        if arguments[place].startswith("-m"):
            place += arguments[place] == "-m"
            break
        place += 2 if arguments[place] in _OPTIONS_WITH_VALUE else 1
    return arguments[: place + 1], arguments[place + 1 :]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("-m", dest="module", metavar="MODULE", help="a module to run, as with python -m")
    program.add_argument("script", nargs="?", metavar="SCRIPT", help="a script to run; the rest is for the program")
    parser.add_argument("--wait", type=_seconds, default=30.0, metavar="N", help="seconds to wait for a server (30)")
    parser.add_argument("--backend", choices=backends.NAMES, help="instead of the default one")
    parser.add_argument("--verbose", action="store_true", help="tell of each recovery on standard error")
    parser.add_argument("--json", action="store_true", help="the same, as one line of JSON each")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise argparse.ArgumentTypeError(f"invalid number of seconds: {text!r}")
    return seconds


def run(options: argparse.Namespace) -> int:
    """Run the program; returns the exit status, unless the program itself exits."""
    try:
        if options.module is not None:
            _put_first(os.getcwd())
            _check_module(options.module)
        elif not os.path.exists(options.script):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), options.script)
        paths = dropin.parse_paths(os.environ.get(dropin.PATHS_VARIABLE, ""))
        backend = backends.backend(options.backend)
    except (ImportError, OSError, ValueError) as error:
        _say(f"ha-qnx run: {error}")
        return _WRONG_USE
    if is_qnx() and _PRELOADED not in os.environ:
        library = _preloadable()
        if library is not None:
            _start_again(library, options.arguments)
    if options.verbose or options.json:
        watching.on_event(functools.partial(_tell, options.json))
    # Lines about a recovery are not for the program's own log, which may lie behind the connection that is recovered.
    logging.getLogger("ha_qnx").propagate = False
    # It stays: threads of the program, and what it does at its exit, come after this returns.
    dropin.install(backend, recover_within=options.wait, paths=paths)
    # As under python it stays the module __main__: its threads, pickle, and what it does at its exit look there.
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if options.module is not None:
        sys.argv = [options.module, *options.rest]
        runpy._run_module_as_main(options.module)  # type: ignore[attr-defined]  # what python -m calls
    else:
        sys.argv = [options.script, *options.rest]
        _run_script(options.script, main)
    return 0


def _run_script(path: str, main: types.ModuleType) -> None:
    """Run a file, or the __main__ of a directory or an archive."""
    absolute = os.path.abspath(path)
    if pkgutil.get_importer(absolute) is not None:
        _put_first(absolute, is_searched=True)
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]  # as python does
        return
    _put_first(os.path.dirname(os.path.realpath(path)))
    main.__file__ = absolute if sys.version_info >= (3, 9) else path
    loader: Any
    if path.endswith(".pyc"):
        loader = importlib.machinery.SourcelessFileLoader("__main__", main.__file__)
        code = loader.get_code("__main__")
    else:
        loader = importlib.machinery.SourceFileLoader("__main__", main.__file__)
        code = loader.source_to_code(loader.get_data(absolute), main.__file__)  # Its get_code would write a .pyc.
    main.__loader__ = loader
    exec(code, vars(main))  # noqa: S102  # the program


def _put_first(directory: str, is_searched: bool = False) -> None:
    """Let the program find the modules beside it, as python does where it is not told otherwise (-P, -I).

    Args:
        directory: where they are.
        is_searched: the program itself is to be found there, whatever python was told.
    """
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = directory
    elif is_searched:
        sys.path.insert(0, directory)


def _check_module(name: str) -> None:
    """See whether there is a module, without importing the package that it is in: it belongs to the program.

    Raises:
        ImportError: there is none.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise ImportError(f"No module named {name}")


def _preloadable() -> Optional[str]:
    """What the loader finds libha under; None on an image that has none."""
    for name in candidates():
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return name
    return None


def _start_again(library: str, arguments: List[str]) -> NoReturn:
    """Become the same command, with libha before libc in the order of symbols (B405)."""
    preloaded = ":".join(filter(None, (library, os.environ.get("LD_PRELOAD"))))
    environment = {**os.environ, "LD_PRELOAD": preloaded, _PRELOADED: "1"}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "ha_qnx", *arguments], environment)  # noqa: S606  # ourselves


def _tell(as_json: bool, event: watching.RecoveryEvent) -> None:
    if not as_json:
        _say(f"ha-qnx run: {event}")
        return
    record: Dict[str, Any] = {
        "coid": event.coid,
        "path": event.target,
        "time": round(event.time, 6),
        "attempts": event.attempts,
        "seconds": round(event.duration, 6),
        "recovered": event.recovered,
        "old_pid": event.old_pid,
        "new_pid": event.new_pid,
    }
    _say(json.dumps(record))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
