"""Counts the recorded answers: python -m ha_qnx.conformance.answers."""

import sys

from .table import Count, counts, reasons


def main() -> None:
    """Print the counts, and why some cases are not asked."""
    lines = ["\t".join(name.replace("_", " ") for name in Count._fields)]
    lines += ["\t".join(str(value) for value in count) for count in counts()]
    lines += ["", "not asked, because"]
    lines += [f"{number:4}  {reason}" for reason, number in reasons().items()]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
