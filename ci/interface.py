"""Write what repeats the list of the calls, of the constants and of the structures; or see that it is current.

The contracts in ha_qnx/kernel.py and ha_qnx/api.py are the one list of the calls, constants.py that of the constants,
structures.py that of the structures. What follows from them is written into two files, which are not to be edited: two,
because what the contracts are made of cannot be in one file with what is made of a backend.

    python ci/interface.py             write the files
    python ci/interface.py --check     fail if they are not what would be written

It reads the sources, and imports none of them: what it writes may be broken, or in conflict, and is put in order by it.
"""

import argparse
import ast
import pathlib
import sys
from typing import Dict, Iterable, Iterator, List

PACKAGE = pathlib.Path(__file__).resolve().parent.parent / "ha_qnx"
HOW_TO_WRITE = "python ci/interface.py"

DERIVED = '''\
"""What backends have beside their own calls, as far as it follows from other lists.

Made by `python ci/interface.py`, from the contracts, the constants and the structures. It is not to be edited.
"""

from typing import ClassVar, Protocol, Type

from . import constants, kernel, structures
from .kernel import Kernel

__all__ = ["PlainCalls", "Vocabulary"]


class Vocabulary(Protocol):
    """QNX's constants, and the structures that messages and pulses are read with, as attributes of a backend."""

{vocabulary}


class PlainCalls:
    """The calls that have nothing to do with recovery: the kernel's own, as attributes of a backend that recovers."""

    def _pass_on(self, kernel: Kernel) -> None:
{plain}
'''

CALLS = '''\
"""The calls of the default backend under their own names: what ``ha_qnx`` exports of them.

Made by `python ci/interface.py`, from the contracts in ``ha_qnx.kernel`` and ``ha_qnx.api``. It is not to be edited.
"""

from typing import TYPE_CHECKING, Any

from .backends import backend

__all__ = [
{names}
]

if TYPE_CHECKING:
    _default = backend()
{typed}
else:

    def __getattr__(name: str) -> Any:
        """Find a call in the default backend, which is made when the first of them is used."""
        if name in __all__:
            return getattr(backend(), name)
        raise AttributeError(f"module {{__name__!r}} has no attribute {{name!r}}")
'''


class Sources:
    """The modules of the package, as they are written down."""

    def __init__(self, package: pathlib.Path) -> None:
        self._modules = {path.stem: ast.parse(path.read_bytes()) for path in _sources(package)}
        self._classes: Dict[str, ast.ClassDef] = {
            node.name: node
            for module in self._modules.values()
            for node in module.body
            if isinstance(node, ast.ClassDef)
        }

    def assigned(self, module: str, name: str) -> Iterable[str]:
        """The words that are assigned to a name in a module."""
        for node in self._modules[module].body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == [name]:
                words: Iterable[str] = ast.literal_eval(node.value)
                return words
        raise LookupError(f"{module}.py has no {name}")

    def methods(self, class_name: str) -> List[str]:
        """The public methods that a class defines itself, in order."""
        return [
            node.name
            for node in self._classes[class_name].body
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
        ]

    def inherited(self, class_name: str) -> Iterator[str]:
        """The public methods of a class and of those in this package that it is made of."""
        yield from self.methods(class_name)
        for base in self._classes[class_name].bases:
            if isinstance(base, ast.Name) and base.id in self._classes:
                yield from self.inherited(base.id)


def _sources(package: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in sorted(package.glob("*.py")) if path.name not in WRITTEN)


def derived(sources: Sources) -> str:
    """The content of derived.py."""
    constants = [f"    {name}: ClassVar[int] = constants.{name}" for name in sources.assigned("constants", "__all__")]
    records = [(name, f"structures.{name}") for name in sources.assigned("structures", "__all__")]
    classes = [f"    {name}: ClassVar[Type[{where}]] = {where}" for name, where in (*records, ("Name", "kernel.Name"))]
    covered = set(sources.inherited("Recovery"))
    plain = [name for name in sources.methods("Kernel") if name not in covered]
    passed = [f"        self.{name} = kernel.{name}" for name in plain]
    return DERIVED.format(vocabulary=_lines(constants + classes), plain=_lines(passed))


def calls(sources: Sources) -> str:
    """The content of calls.py."""
    names = [name for contract in ("Kernel", "Backend") for name in sources.methods(contract)]
    public = [name for name in names if name not in sources.assigned("api", "_NOT_PUBLIC")]
    listed = [f'    "{name}",' for name in sorted(public, key=lambda name: (name[0].islower(), name))]
    typed = [f"    {name} = _default.{name}" for name in public]
    return CALLS.format(names=_lines(listed), typed=_lines(typed))


WRITTEN = {"derived.py": derived, "calls.py": calls}


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if there would be something to write")
    parser.add_argument("--package", type=pathlib.Path, default=PACKAGE, help="where the sources are (ha_qnx)")
    options = parser.parse_args()
    sources = Sources(options.package)
    outdated = []
    for name, content_of in WRITTEN.items():
        path, content = options.package / name, content_of(sources)
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        outdated.append(name)
        if not options.check:
            path.write_text(content, encoding="utf-8")
    if outdated and options.check:
        print(f"{' and '.join(outdated)}: not what the contracts say now: write it anew by {HOW_TO_WRITE}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
