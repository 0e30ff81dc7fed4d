"""The errors of all backends."""

import os
from errno import EINTR


def failure(number: int) -> OSError:
    """The OSError of an errno."""
    text = "interrupted by a signal handler" if number == EINTR else os.strerror(number)
    return OSError(number, text)
