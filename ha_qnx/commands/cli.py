"""The command ``ha-qnx``, also ``python -m ha_qnx``.

``demo``, ``doctor`` and ``explain`` print for a person, or with --json for a program. The exit status is 0; 1 if a
fault was found, or the host refuses something, such as the output; 2 if the command was used wrongly; 130 if the
demonstration was interrupted. ``run`` exits as its program does.
"""

import argparse
import contextlib
import os
import sys
from typing import List, Optional, Tuple

from .. import __version__
from . import conformance, doctor, explain, run
from .demo import command as demo

_DESCRIPTION = """\
QNX's client recovery library (libha) and message passing for Python.
"""

_EPILOG = """\
examples:
  ha-qnx demo            see clients survive the death of their server
  ha-qnx doctor          find out what this machine can do, and what is wrong with it
  ha-qnx run SCRIPT      run a program as it is, with connections that recover
  ha-qnx conformance     check it, line by line of the specification
  ha-qnx explain B73     print such a line

"ha-qnx COMMAND --help" tells more about each.
"""


def main(arguments: Optional[List[str]] = None, called: str = "ha-qnx") -> int:
    """Run the command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    own, rest = _split(arguments)
    parser = _parser(called)
    options = parser.parse_args(own)
    options.arguments, options.rest = arguments, rest
    if options.run is run.run:
        status: int = options.run(options)  # What goes wrong in the program is the program's.
        return status
    if rest and options.run is not conformance.run:
        parser.error(f"{options.command} takes nothing after --")
    if sys.stdout is None:
        sys.stderr.write(f"{called}: standard output is closed\n")
        return 1
    try:
        status = options.run(options)
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # Nobody reads what this prints any more, and that is no news.
            sys.stderr.write(f"{called}: {error}\n")
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # If that cannot be written, the interpreter must not find it out again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _split(arguments: List[str]) -> Tuple[List[str], List[str]]:
    """What is for us, and what is for another program: behind "--", or behind the name of a program to run."""
    if arguments[:1] == ["run"]:
        return run.split(arguments)
    if "--" not in arguments:
        return arguments, []
    border = arguments.index("--")
    return arguments[:border], arguments[border + 1 :]


def _parser(called: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ha_qnx {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    modules = {"demo": demo, "doctor": doctor, "run": run, "conformance": conformance, "explain": explain}
    for name, module in modules.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=module is not run,  # It has to know its options among those of the program.
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
