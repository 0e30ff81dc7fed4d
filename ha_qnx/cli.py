"""The command ``ha-qnx``, also ``python -m ha_qnx``.

Every subcommand prints for a person, or with --json for a program, and exits with 0, with 1 if it found a fault, or
with 2 if it was used wrongly.
"""

import argparse
import os
import sys
from typing import List, Optional, Tuple

from . import demo, doctor, run, suite

_DESCRIPTION = """\
QNX's client recovery library (libha) and message passing for Python.
"""

_EPILOG = """\
examples:
  ha-qnx demo            see clients survive the death of their server
  ha-qnx doctor          find out what this machine can do, and what is wrong with it
  ha-qnx run SCRIPT      run a program as it is, with connections that recover
  ha-qnx conformance     check it, line by line of the specification

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
    if rest and options.run is not suite.run:
        parser.error(f"{options.command} takes nothing after --")
    try:
        status = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads what this prints any more; the interpreter must not find that out again when it ends.
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
    parser.add_argument("--version", action="version", version=f"ha_qnx {doctor.package_version()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in (("demo", demo), ("doctor", doctor), ("run", run), ("conformance", suite)):
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
