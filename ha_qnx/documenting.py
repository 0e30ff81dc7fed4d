"""Docstrings of calls are written once, in the contracts."""

from typing import Callable, Type, TypeVar

T = TypeVar("T")


def documented_by(contract: type) -> Callable[[Type[T]], Type[T]]:
    """Give the methods of a class the docstrings of its contract."""

    def document(implementation: Type[T]) -> Type[T]:
        for name, method in vars(implementation).items():
            if not name.startswith("_") and callable(method) and not method.__doc__:
                method.__doc__ = getattr(contract, name).__doc__
        return implementation

    return document
