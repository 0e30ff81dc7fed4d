"""The log of this package."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


def logger() -> "logging.Logger":
    """The logger ``ha_qnx``, for who has something to say: logging takes as long to import as half of this package."""
    import logging

    return logging.getLogger("ha_qnx")
