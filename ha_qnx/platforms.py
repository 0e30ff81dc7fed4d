"""What kind of system this is."""

import sys


def is_qnx() -> bool:
    """Whether this is a QNX target."""
    return sys.platform.startswith(("qnx", "nto"))
