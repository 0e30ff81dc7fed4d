"""A program that knows nothing of this library reads a table whose server is killed in the middle.

python -m ha_qnx.examples.unedited
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from typing import Iterator

import ha_qnx as ha
from ha_qnx.service import Request, Service

PATH = "/dev/example-unedited"
ROWS = 5000

# The program. Under plain python it would read any file.
READER = """\
import csv, sys

total = 0
with open(sys.argv[1], newline="") as table:
    for number, row in enumerate(csv.reader(table), 1):
        assert int(row[0]) == number, f"row {number} is {row}"
        total += int(row[1])
print(f"{number} rows, which add up to {total}")
"""


class Table(Service):
    """A table of two columns, for reading."""

    content = "".join(f"{number},{number * number}\n" for number in range(1, ROWS + 1)).encode()
    is_doomed = False

    def read(self, request: Request, nbytes: int) -> bytes:
        if self.is_doomed and request.ocb.offset > len(self.content) // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.content[request.ocb.offset :][:nbytes]


@contextlib.contextmanager
def running(*arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.STDOUT)  # noqa: S603  # our own
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def main() -> None:
    with running("ha_qnx.examples.unedited", "doomed") as doomed, tempfile.TemporaryDirectory() as directory:
        ha.connect(PATH, os.O_RDONLY, wait=10).close()
        script = os.path.join(directory, "reader.py")
        with open(script, "w") as file:
            file.write(READER)
        print(f"ha-qnx run reader.py {PATH}, where reader.py is:\n\n{READER}", flush=True)
        with running("ha_qnx", "run", "--verbose", script, PATH) as program:
            doomed.wait(30)
            print("the server was killed in the middle of the table; here comes the next one", flush=True)
            with running("ha_qnx.examples.unedited", "healthy"):
                status = program.wait(30)
    expected = sum(number * number for number in range(1, ROWS + 1))
    print(f"the program has ended with status {status}; it should have found {ROWS} rows and {expected}")
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1:]:
        Table.is_doomed = sys.argv[1] == "doomed"
        Table(PATH).serve()
    else:
        main()
