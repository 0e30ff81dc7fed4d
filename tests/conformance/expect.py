"""What tests expect of failures."""

import contextlib
import os
from typing import Iterator

import pytest


@contextlib.contextmanager
def fails_with(number: int) -> Iterator[None]:
    """The block raises OSError with this errno."""
    with pytest.raises(OSError) as failure:  # noqa: PT011  # the errno is compared below
        yield
    assert failure.value.errno == number, f"{failure.value!r} rather than {os.strerror(number)}"
