"""Keeps what a process has in the runtime directory: somebody who cleans up may remove it under a living server.

A server that waits looks now and then whether its channel, its names and its paths can still be found, and enters again
what is gone. The host wakes it for that; where it cannot, nobody looks.
"""

from typing import Any, Callable, Iterable, Mapping, Set

from ha_qnx.logs import logger

from .channels import Channel
from .runtime import Claim, Runtime


class Keeper:
    """Looks after the entries of one process."""

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        lock: Any,
        channels: Mapping[int, Channel],
        claims: Iterable[Mapping[Any, Claim]],
    ) -> None:
        """Look after what is in these tables, under their lock."""
        self._runtime, self._lock, self._channels, self._claims = runtime, lock, channels, claims
        # What could not be entered again, and was said so.
        self._reported: Set[str] = set()

    def look(self) -> None:
        """Enter again what is gone."""
        if not self._lock.acquire(blocking=False):
            return  # Another time: this thread is to receive.
        try:
            runtime = self._runtime()
            for channel in list(self._channels.values()):
                if channel.entry is not None and not runtime.has_channel(channel.address, channel.entry):
                    self._enter_again(runtime, f"channel {channel.address.chid}", channel.listen_again)
            for table in self._claims:
                for claim in list(table.values()):
                    if not claim.is_there():
                        self._enter_again(runtime, str(claim), claim.enter_again)
        finally:
            self._lock.release()

    def _enter_again(self, runtime: Runtime, what: str, enter: Callable[[Runtime], None]) -> None:
        try:
            enter(runtime)
        except OSError as error:
            if what not in self._reported:
                self._reported.add(what)
                logger().error("%s was removed from %s, and cannot be found: %s", what, runtime.path, error)
        else:
            self._reported.discard(what)
            logger().warning("%s was removed from %s, and is there again", what, runtime.path)
