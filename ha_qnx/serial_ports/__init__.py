"""pyserial on a path that a server has attached: once this is imported, its URLs may begin with ``qnx://``.

    import serial
    import ha_qnx.serial_ports

    with serial.serial_for_url("qnx:///dev/ser1", timeout=1) as port:
        port.write(b"status?")

The port is a connection of ``ha_qnx.connect``, so it survives the death of its server, under ``ha-qnx run`` and
without.

``serial.Serial("/dev/ser1")`` is for a device of the host: it sets it up by termios, and what QNX's termios sends to a
server has not been seen yet, so that it is not guessed at. A server of ours has no speed, no parity and no control
lines: what a program sets of these is kept, and goes nowhere.
"""

import importlib
from typing import Any

_serial: Any = importlib.import_module("serial")
if __name__ not in _serial.protocol_handler_packages:
    _serial.protocol_handler_packages.append(__name__)
