"""``ha-qnx doctor``: what this machine can do, and what is wrong with it.

The report is a tree of plain values, the same for a person and for a program. ``faults`` has a sentence for each thing
that must be mended; the exit status is 1 if there is one.
"""

import argparse
import contextlib
import grp
import json
import os
import platform
import pwd
import stat
import sys
from typing import Any, Dict, List, Optional

from .. import __version__
from ..backends import NAMES, BackendUnavailableError, backend, candidates_of_platform
from ..native.libraries import Libraries

HELP = "tell what this machine can do, and what is wrong with it"

DESCRIPTION = """\
Tells which backend is used and why, why another one cannot be had, which library a backend
has loaded, where processes find each other, whether that directory is safe, who may do what
there, and which names and paths servers have attached.
"""

EPILOG = """\
examples:
  ha-qnx doctor                      for a person
  ha-qnx doctor --json               one JSON object, for a program or a bug report
  ha-qnx doctor --backend native     what a program that asks for this backend gets
  ha-qnx doctor --setup /run/ha_qnx --clients plant
                                     a runtime directory of this user's, to whose servers the
                                     members of the group "plant" may connect

exit status: 0, all is well; 1, the backend cannot be had, or the runtime directory cannot
be used safely; 2, wrong use.
"""


def examine(wanted: Optional[str] = None) -> Dict[str, Any]:
    """Examine this machine, without changing anything.

    Args:
        wanted: the backend that a program would ask for; None for the default.
    """
    backends = [_examine_backend(name) for name in NAMES]
    default = _examine_default(wanted)
    runtime = _examine_runtime()
    faults = []
    if default["backend"] is None:
        faults.append(f"no backend can be had: {default['problem']}")
    if runtime is not None and runtime["problem"]:
        faults.append(runtime["problem"])
    for lost in runtime["removed"] if runtime is not None else ():
        faults.append(
            f"process {lost['pid']} serves {lost['name']!r} and cannot be found: its entry was removed from the "
            "runtime directory; if it does not enter itself again at once, start it again"
        )
    return {"versions": versions(), "default": default, "backends": backends, "runtime": runtime, "faults": faults}


def versions() -> Dict[str, str]:
    """What runs here."""
    return {
        "ha_qnx": __version__,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "platform": sys.platform,
    }


# Backends.


def _examine_default(wanted: Optional[str]) -> Dict[str, Any]:
    """Which backend a program gets, and why."""
    try:
        name, problem = backend(wanted).name, None
    except BackendUnavailableError as error:
        name, problem = None, str(error)
    chosen = os.environ.get("HA_QNX_BACKEND")
    if wanted:
        why = f"{wanted!r} is asked for"
    elif chosen:
        why = f"HA_QNX_BACKEND is {chosen!r}"
    else:
        why = f"the platform is {sys.platform!r}, where {' and then '.join(candidates_of_platform())} is tried"
    return {"backend": name, "why": why, "problem": problem}


def _examine_backend(name: str) -> Dict[str, Any]:
    """Whether a backend can be had, and what it has loaded.

    ``library`` is for a backend that binds one; the one that is written in Python has none.
    """
    found: Dict[str, Any] = {"name": name, "available": True, "problem": None, "library": None}
    try:
        backend(name)
        if name != "fallback":
            found["library"] = _examine_libraries(Libraries(with_libha=name == "native"))
    except BackendUnavailableError as error:
        found["available"] = False
        found["problem"] = "; ".join(candidate.reason for candidate in error.candidates)
    return found


def _examine_libraries(libraries: Libraries) -> Dict[str, Any]:
    """Which library it is, whose declarations apply to it and why, and what it lacks, with what takes its place."""
    return {
        "path": libraries.path or "libc",
        "what": libraries.version,
        "is_qnxs": libraries.version is None,
        "data_model": libraries.model.name,
        "because": libraries.reason,
        "missing_symbols": {name: libraries.substitute(name) for name in libraries.missing},
    }


# The runtime directory.


def _examine_runtime() -> Optional[Dict[str, Any]]:
    """The directory in which processes find each other; None where the backend that uses it cannot even be imported."""
    try:
        from ..fallback import door, runtime
    except ImportError:
        return None
    path = runtime.directory_path()
    found: Dict[str, Any] = {
        "path": path,
        "chosen_by": _runtime_chosen_by(),
        "exists": os.path.lexists(path),
        "owner": None,
        "mode": None,
        "problem": None,
        "shared": False,
        "rights": [],
        "hidden": False,
        "names": [],
        "paths": [],
        "removed": [],
    }
    rooms = runtime.wire_directory()
    found["removed"] = [{"name": name, "pid": pid} for _room, name, pid in runtime.removed_entries(rooms)]
    try:
        if not found["exists"]:
            found["problem"] = _why_it_cannot_be_made(path)
            return found
        status = os.lstat(path)
        found["owner"] = _user_name(status.st_uid)
        found["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
        found["shared"] = door.is_shared(path, rooms)
        if found["shared"]:
            door.check_shared(path, rooms)
        else:
            door.check_directory(path)
        found["rights"] = _rights(path, rooms) if found["shared"] else [f"{found['owner']} may do everything"]
        found["hidden"] = not os.access(os.path.join(rooms, "names"), os.R_OK) and os.path.isdir(rooms)
        found["names"] = [_examine_place(*held) for held in runtime.names_in(os.path.join(rooms, "names"))]
        found["paths"] = [_examine_place(*held) for held in runtime.paths_in(os.path.join(rooms, "paths"))]
    except OSError as error:
        found["problem"] = f"{error.strerror}: {error.filename or path}"
    return found


def _runtime_chosen_by() -> str:
    for variable in ("HA_QNX_RUNTIME", "XDG_RUNTIME_DIR"):
        if os.environ.get(variable):
            return variable
    return "default"


def _why_it_cannot_be_made(path: str) -> Optional[str]:
    """Why a directory that does not exist cannot be made on first use; None if it can."""
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK):
        return None
    return f"the runtime directory cannot be made in {parent}: make it, or name another one in HA_QNX_RUNTIME: {path}"


def _user_name(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _rights(path: str, rooms: str) -> List[str]:
    """Who may do what in a shared directory, a sentence for each."""
    gate, names = os.stat(path), os.stat(os.path.join(rooms, "names"))
    clients = "every user" if gate.st_mode & stat.S_IXOTH else f"group {_group_name(gate.st_gid)}"
    servers = (
        f"group {_group_name(names.st_gid)}, where it may connect," if names.st_mode & stat.S_IWGRP else "nobody else"
    )
    owner = _user_name(gate.st_uid) + (" and root" if gate.st_uid else "")
    return [
        f"{owner} may attach, see and remove everything",
        f"{clients} may connect, and make channels",
        f"{servers} may attach names and paths, and remove its own",
    ]


def _group_name(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def _examine_place(name: str, address: Any) -> Dict[str, Any]:
    """A name or a path, with the process that has attached it.

    The locks, which tell for certain, are not tried: that would disturb a server that takes its name at this moment.
    """
    from ..fallback.runtime import is_ending

    return {"name": name, "pid": address.pid, "chid": address.chid, "alive": not is_ending(address.pid)}


# The command.


def describe(report: Dict[str, Any]) -> str:
    """The report for a person."""
    found = report["versions"]
    default = report["default"]
    lines = [
        f"ha_qnx {found['ha_qnx']}, Python {found['python']} ({found['implementation']}), "
        f"{found['system']} {found['release']} on {found['machine']}",
        "",
        f"Backend in use: {default['backend'] or 'none'}",
        f"  because {default['why']}",
        "",
        "Backends:",
        *(f"  {entry['name']:<9} {_describe_backend(entry)}" for entry in report["backends"]),
        "",
        *_describe_runtime(report["runtime"]),
        "",
        *([f"FAULT: {fault}" for fault in report["faults"]] or ["No fault found."]),
    ]
    return "\n".join(lines) + "\n"


def _describe_backend(entry: Dict[str, Any]) -> str:
    if not entry["available"]:
        return f"cannot be had: {entry['problem']}"
    library = entry["library"]
    if library is None:
        return "available; written in Python, it loads no library"
    whose = library["path"] if library["is_qnxs"] else f"{library['what']}, not QNX's own: {library['path']}"
    lines = [
        f"available; {whose}",
        f"declarations: {library['data_model']}, because {library['because']}",
        "missing symbols: none" if not library["missing_symbols"] else "missing symbols, and what takes their place:",
        *(f"  {name}: {substitute}" for name, substitute in library["missing_symbols"].items()),
    ]
    return "\n            ".join(lines)


def _describe_runtime(runtime: Optional[Dict[str, Any]]) -> List[str]:
    if runtime is None:
        return ["Runtime directory: none is used here"]
    chosen_by = runtime["chosen_by"]
    if chosen_by == "default":
        chosen_by += ": neither HA_QNX_RUNTIME nor XDG_RUNTIME_DIR is set"
    lines = [f"Runtime directory: {runtime['path']}", f"  chosen by {chosen_by}"]
    if runtime["mode"] is not None:
        lines.append(f"  owner {runtime['owner']}, mode {runtime['mode']}")
    if runtime["problem"]:
        return lines
    if not runtime["exists"]:
        return [*lines, "  not there yet: the first program that needs it makes it"]
    if runtime["shared"]:
        lines += ["  safe, and set up for several users:", *(f"    {right}" for right in runtime["rights"])]
    else:
        lines.append("  safe: nobody else can change it, or connect")
    if runtime["hidden"]:
        return [*lines, "  which names and paths there are, only its owner and root may see"]
    for what in ("names", "paths"):
        held = [f"    {_describe_name(entry)}" for entry in runtime[what]]
        lines += [f"  {what}:", *held] if held else [f"  no {what}"]
    return lines


def _describe_name(entry: Dict[str, Any]) -> str:
    if entry["alive"]:
        return f"{entry['name']}: process {entry['pid']}, channel {entry['chid']}"
    return f"{entry['name']}: free again, process {entry['pid']} is dead"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of this command."""
    parser.add_argument("--backend", choices=NAMES, help="the backend that a program would ask for")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--setup", metavar="DIRECTORY", help="set up a runtime directory for several users")
    parser.add_argument("--clients", metavar="GROUP", help="with --setup: who may connect (default: every user)")
    parser.add_argument(
        "--servers", metavar="GROUP", help="with --setup: who may attach names and paths (default: only its owner)"
    )


def run(options: argparse.Namespace) -> int:
    """Examine this machine and print what was found; returns the exit status."""
    if options.setup:
        return _set_up(options.setup, options.clients, options.servers)
    if options.clients or options.servers:
        sys.stderr.write("ha-qnx doctor: --clients and --servers go with --setup\n")
        return 2
    report = examine(options.backend)
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else describe(report))
    return 1 if report["faults"] else 0


def _set_up(path: str, clients: Optional[str], servers: Optional[str]) -> int:
    """Set up a runtime directory for several users; 0, or 1 if that failed, or 2."""
    from ..fallback import door, runtime

    path = os.path.abspath(path)
    try:
        groups = [None if name is None else _group(name) for name in (clients, servers)]
    except KeyError as error:
        sys.stderr.write(f"ha-qnx doctor: {error.args[0]}\n")
        return 2
    try:
        done = door.set_up(path, runtime.wire_directory(path), *groups)
    except OSError as error:
        sys.stderr.write(f"ha-qnx doctor: {error.strerror}: {error.filename or path}\n")
        return 1
    sys.stdout.write("".join(f"{command}\n" for command in done))
    sys.stdout.write(f"\nServers and clients find it by HA_QNX_RUNTIME={path}\n")
    return 0


def _group(name: str) -> int:
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
