"""``python -m ha_qnx``: the same as the command ``ha-qnx``."""

import sys

from .commands.cli import main

if __name__ == "__main__":
    sys.exit(main(called="python -m ha_qnx"))
