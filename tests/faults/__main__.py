"""``ci/faults``: attack servers and clients, and give account of every request."""

import argparse
import os
import random
import sys
import tempfile
import time
from typing import List

from . import shim


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="about how long, all together (10)")
    parser.add_argument("--only", action="append", help="one part, such as random-kills; --list tells them")
    parser.add_argument("--pair", action="append", metavar="CLIENT/SERVER", help="backends, such as native/fallback")
    parser.add_argument("--seed", type=int, help="of all that is left to chance")
    parser.add_argument(
        "--from", type=int, default=0, dest="first", help="where an earlier run of errno-... has stopped"
    )
    parser.add_argument("--brief", action="store_true", help="two pairs, and of what is done step by step, samples")
    parser.add_argument("--list", action="store_true", help="the parts")
    options = parser.parse_args()
    if "HA_QNX_SHIM" not in os.environ:
        return _again_with_shim()

    from . import parts

    if options.list:
        print(*parts.PARTS, sep="\n")
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    chosen = options.only or list(parts.PARTS)
    pairs = [parts.pair_of(pair) for pair in options.pair] if options.pair else parts.PAIRS
    if options.brief:
        pairs = [("fallback", "native"), ("native", "fallback")]
    print(f"seed {seed}", flush=True)
    failed: List[str] = []
    for name in chosen:
        began = time.monotonic()
        seconds = 60 * options.minutes / len(chosen)
        if not parts.run(name, pairs, seed, seconds, options.brief, options.first):
            failed.append(name)
        print(f"== {name}: {time.monotonic() - began:.0f} s", flush=True)
    print("FAILED: " + ", ".join(failed) if failed else "all accounts are right")
    return 1 if failed else 0


def _again_with_shim() -> int:
    """Run this in a process that has the shim."""
    with tempfile.TemporaryDirectory() as directory:
        library = shim.build(directory)
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", __package__, *sys.argv[1:]],
            # What is preloaded already comes first: the library of a sanitizer insists on that.
            {**os.environ, "LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}", "HA_QNX_SHIM": library},
        )
        status = os.waitpid(pid, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
