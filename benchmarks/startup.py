"""How long `tamiz --help` takes as a whole process, from its start to its end.

Measured: wall time of ``python -m app.cli --help``, interpreter start included, one process after the other; the
first run, which may have to compile and read files from disk, is not counted. A further process lists the modules
that the same command imports.

To reach: a median below 0.5 s, and none of tensorflow, pandas and pyarrow among the modules.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from measurement import Measurement, verdict

TARGET_SECONDS = 0.5
COMMAND = (sys.executable, "-m", "app.cli", "--help")
HEAVY = ("tensorflow", "keras", "pandas", "pyarrow")


def measure_help() -> float:
    """Returns the wall time of one process, in seconds."""
    start = time.perf_counter()
    subprocess.run(COMMAND, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def imported_modules() -> set[str]:
    """Returns the names of the top-level packages that the command imports."""
    timed = (COMMAND[0], "-X", "importtime", *COMMAND[1:])
    result = subprocess.run(timed, capture_output=True, text=True, check=True)
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="3 runs instead of 10")
    runs = 3 if parser.parse_args().quick else 10
    measure_help()
    measured = Measurement("tamiz --help", [measure_help() for _ in range(runs)])
    print(measured)
    reached = verdict(reached=measured.median < TARGET_SECONDS)
    print(f"ratio to the limit of {TARGET_SECONDS} s: {measured.median / TARGET_SECONDS:.2f} ({reached})")
    heavy = sorted(imported_modules().intersection(HEAVY))
    print(f"heavy modules imported: {', '.join(heavy) or 'none'} ({verdict(reached=not heavy)})")


if __name__ == "__main__":
    main()
