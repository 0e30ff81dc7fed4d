"""Say what depends on what: the modules of the package, and the files of the C library.

    python ci/graph.py [CHECKOUT]             what each uses, the circles, and how long each module is
    python ci/graph.py --check [CHECKOUT]     only what breaks the bounds; fails if anything does

CHECKOUT is another checkout of this repository, to compare with; else it is the one that this file lies in.

Of a module of Python, what it imports when it is imported is told apart from what it imports later, inside a function
("later"), and from what only a type checker imports ("types"). Of a file of C, what it includes ("includes") is told
apart from what it calls, wherever a header may declare it ("calls"): a source and the header of its name count as one.
A circle is a set of modules of which each leads to each.
"""

import argparse
import ast
import pathlib
import re
import sys
from typing import Dict, Iterable, Iterator, List, NamedTuple, Sequence, Set, Tuple

# No module is longer, in lines. (A file of tests is a list, and may be.)
LONGEST = 900
# The largest circle of the C library, in files.
LARGEST_CIRCLE_IN_C = 6

Edges = Dict[str, Set[str]]


class Graph(NamedTuple):
    """What depends on what, and how."""

    #: Lines of each module.
    sizes: Dict[str, int]
    #: What leads from a module to others, by the way in which it does.
    ways: Dict[str, Edges]

    def edges(self, *ways: str) -> Edges:
        """What leads to what in any of some ways, none of it to itself."""
        return {name: {other for way in ways for other in self.ways[way].get(name, ())} - {name} for name in self.sizes}


def circles(edges: Edges) -> List[List[str]]:
    """The circles, the largest first: what is strongly connected, by Tarjan's way."""
    found: List[List[str]] = []
    order: Dict[str, int] = {}
    lowest: Dict[str, int] = {}
    open_ones: List[str] = []

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        open_ones.append(name)
        for other in sorted(edges[name]):
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in open_ones:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            start = open_ones.index(name)
            circle = sorted(open_ones[start:])
            del open_ones[start:]
            if len(circle) > 1:
                found.append(circle)

    for name in sorted(edges):
        if name not in order:
            visit(name)
    return sorted(found, key=lambda circle: (-len(circle), circle))


# Python.

# The folders of a checkout that become packages, as pyproject.toml says.
PACKAGES = (("ha_qnx", "ha_qnx"), ("fallback", "ha_qnx.fallback"), ("tests/conformance", "ha_qnx.conformance"))


def python_graph(checkout: pathlib.Path) -> Graph:
    """The modules of the package, by their names."""
    files: Dict[str, pathlib.Path] = {}
    for folder, package in PACKAGES:
        for path in sorted((checkout / folder).rglob("*.py")):
            parts = path.relative_to(checkout / folder).with_suffix("").parts
            name = ".".join((package, *parts))
            files[name[: -len(".__init__")] if parts[-1] == "__init__" else name] = path
    ways: Dict[str, Edges] = {"at once": {}, "types": {}, "later": {}}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node, way in _imports(ast.parse(path.read_text(encoding="utf-8")).body, "at once"):
            ways[way].setdefault(name, set()).update(_imported(node, package, files))
    return Graph({name: _lines(path) for name, path in files.items()}, ways)


def _imports(nodes: Iterable[ast.AST], way: str) -> Iterator[Tuple[ast.AST, str]]:
    """The import statements, each with when it is run."""
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node, way
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _imports(ast.iter_child_nodes(node), "later")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports(node.body, "types")
            yield from _imports(node.orelse, way)
        else:
            yield from _imports(ast.iter_child_nodes(node), way)


def _imported(node: ast.AST, package: str, modules: Dict[str, pathlib.Path]) -> Iterator[str]:
    """The modules of ours that an import statement names; the packages that come with them do not count."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        above = package.rsplit(".", node.level - 1)[0] if node.level else ""
        source = ".".join(filter(None, (above, node.module)))
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            if inner in modules:
                yield inner
            elif source in modules:
                yield source


# C.

_COMMENT_OR_TEXT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
_INCLUDE = re.compile(r'^#include "(.*)"', re.MULTILINE)
# Not the members of a structure.
_NAME = re.compile(r"(?<!->)(?<!\.)\b[A-Za-z_]\w*")
# A function that other files can call begins at the start of a line, and its body at the start of another one.
_FUNCTION = re.compile(r"^(?!static\b|typedef\b)[A-Za-z_][\w \t*]*?\b(\w+)\([^;{}]*\)\s*^\{", re.MULTILINE)


def c_graph(checkout: pathlib.Path) -> Graph:
    """The files of the C library, by their paths; a source and the header of its name are one."""
    found = sorted(checkout.glob("*/libha/src"))
    if not found:
        raise SystemExit(f"{checkout} has no sources of the C library")
    paths = [path for path in sorted(found[0].rglob("*")) if path.suffix in (".c", ".h")]
    names = {path: path.relative_to(found[0]).with_suffix("").as_posix() for path in paths}
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    codes = {path: _COMMENT_OR_TEXT.sub(" ", text) for path, text in texts.items()}
    owners = {function: names[path] for path in paths for function in _FUNCTION.findall(codes[path])}
    graph = Graph(dict.fromkeys(names.values(), 0), {"includes": {}, "calls": {}})
    for path, name in names.items():
        graph.sizes[name] += _lines(path)
        included = {other[: -len(".h")] for other in _INCLUDE.findall(texts[path])}
        graph.ways["includes"].setdefault(name, set()).update(included & set(graph.sizes))
        if path.suffix == ".c":
            used = {owners[word] for word in _NAME.findall(codes[path]) if word in owners}
            graph.ways["calls"].setdefault(name, set()).update(used)
    return graph


def _lines(path: pathlib.Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


# Saying it.


def describe(graph: Graph, ways: Sequence[str]) -> Iterator[str]:
    """A graph as text."""
    width = max(map(len, graph.sizes))
    for name, lines in sorted(graph.sizes.items()):
        uses = [
            f"{way}: {' '.join(sorted(others))}"
            for way, others in ((way, graph.edges(way)[name]) for way in ways)
            if others
        ]
        yield f"  {name:{width}} {lines:5}  {'; '.join(uses)}".rstrip()


def describe_circles(edges: Edges, what: str) -> Iterator[str]:
    """The circles as text."""
    found = circles(edges)
    if not found:
        yield f"  {what}: none"
    for circle in found:
        yield f"  {what}: {len(circle)} of {len(edges)}: {' '.join(circle)}"


def complaints(python: Graph, c: Graph) -> Iterator[str]:
    """What breaks the bounds."""
    for circle in circles(python.edges("at once", "later")):
        yield f"modules that import each other: {' '.join(circle)}"
    for circle in circles(c.edges("calls", "includes")):
        if len(circle) > LARGEST_CIRCLE_IN_C:
            yield f"{len(circle)} files of C that need each other, more than {LARGEST_CIRCLE_IN_C}: {' '.join(circle)}"
    for graph in (python, c):
        for name, lines in graph.sizes.items():
            if lines > LONGEST and not name.rpartition(".")[2].startswith("test_"):
                yield f"{name} has {lines} lines, more than {LONGEST}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a bound is broken, and say nothing else")
    parser.add_argument("checkout", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[1])
    options = parser.parse_args(arguments)
    python, c = python_graph(options.checkout), c_graph(options.checkout)
    if options.check:
        found = list(complaints(python, c))
        print(*found, sep="\n", end="\n" if found else "")
        return 1 if found else 0
    print("Modules of the package, their lines, what they import:")
    print(*describe(python, ("at once", "types", "later")), sep="\n")
    print("\nFiles of the C library, their lines, what they use:")
    print(*describe(c, ("calls", "includes")), sep="\n")
    print("\nCircles:")
    print(*describe_circles(python.edges("at once"), "Python, at once"), sep="\n")
    print(*describe_circles(python.edges("at once", "later"), "Python, at once and later"), sep="\n")
    print(*describe_circles(python.edges("at once", "types", "later"), "Python, with types"), sep="\n")
    print(*describe_circles(c.edges("calls"), "C, by calls"), sep="\n")
    print(*describe_circles(c.edges("includes"), "C, by includes"), sep="\n")
    print(*describe_circles(c.edges("calls", "includes"), "C, by either"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
