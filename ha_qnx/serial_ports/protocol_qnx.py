"""What pyserial makes for a URL that begins with ``qnx://``."""

import importlib
import time
from errno import ETIMEDOUT
from typing import Any, Optional

from ..connection import Connection, connect
from ..constants import NOTIFY_ACTION_POLL, NOTIFY_COND_INPUT
from ..deadlines import within

_serial: Any = importlib.import_module("serial")
_SCHEME = "qnx://"


class Serial(_serial.SerialBase):  # type: ignore[misc]  # pyserial has no types
    """A port whose other end is a server."""

    is_open: bool
    _connection: Optional[Connection] = None

    def open(self) -> None:
        """Connect to the path behind ``qnx://``.

        Raises:
            SerialException: there is no port; what ``ha_qnx.connect`` says, as an OSError with its errno.
        """
        if self.is_open or not str(self.portstr).lower().startswith(_SCHEME):
            raise _serial.SerialException(
                f"{self.portstr!r} is no port to be opened: qnx:///dev/ser1 is, if it was closed"
            )
        try:
            self._connection = connect(self.portstr[len(_SCHEME) :])
        except OSError as error:
            raise _serial.SerialException(error.errno, f"could not open port {self.portstr}: {error}") from error
        self.is_open = True

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        closing, self._connection = self._connection, None
        if closing is not None:
            closing.close()

    @property
    def in_waiting(self) -> int:
        """1 if the server says that there is something to read, by ionotify; how much, nobody knows."""
        connection = self._opened()
        return int(bool(connection.backend.ionotify(connection.coid, NOTIFY_ACTION_POLL, NOTIFY_COND_INPUT)))

    def read(self, size: int = 1) -> bytes:
        """Read so many bytes; fewer when the port's timeout is over, or the server says that there are no more."""
        connection, read = self._opened(), bytearray()
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while len(read) < size and (self._timeout != 0 or self.in_waiting):
            buffer = memoryview(bytearray(size - len(read)))
            left = None if not end or self._timeout == 0 else max(1e-9, end - time.monotonic())
            try:
                count = within(connection.backend, left, connection.backend.readinto, connection.coid, buffer)
            except OSError as error:
                if error.errno != ETIMEDOUT:
                    raise _serial.SerialException(error.errno, f"read failed: {error}") from error
                break
            if not count:
                break
            read += buffer[:count]
        return bytes(read)

    def write(self, data: Any) -> int:
        """Write all of it.

        Raises:
            SerialTimeoutException: the port's ``write_timeout`` is over.
            SerialException: what the server says, as an OSError with its errno.
        """
        connection, rest = self._opened(), memoryview(_serial.to_bytes(data))
        length = len(rest)
        end = None if self._write_timeout is None else time.monotonic() + self._write_timeout
        while rest:
            left = None if end is None else max(1e-9, end - time.monotonic())
            try:
                count = within(connection.backend, left, connection.backend.write, connection.coid, rest)
            except OSError as error:
                if error.errno == ETIMEDOUT:
                    raise _serial.SerialTimeoutException("Write timeout") from error
                raise _serial.SerialException(error.errno, f"write failed: {error}") from error
            rest = rest[count:]
        return length

    def _opened(self) -> Connection:
        if self._connection is None:
            raise _serial.PortNotOpenError
        return self._connection

    # What a server of ours does not have.

    def _reconfigure_port(self) -> None:
        pass

    _update_break_state = _update_rts_state = _update_dtr_state = _reconfigure_port

    def reset_input_buffer(self) -> None:
        """Nothing is buffered here."""
        self._opened()

    reset_output_buffer = flush = reset_input_buffer

    @property
    def cts(self) -> bool:
        return bool(self._opened())

    dsr = cd = cts

    @property
    def ri(self) -> bool:
        return not self._opened()


__all__ = ["Serial"]
