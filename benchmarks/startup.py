"""How long the program takes before it does anything.

    python -m benchmarks.startup [--repeats 11]

Whole processes, beside one that starts Python and does nothing; medians of one run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import drpo": ["-c", "import drpo"],
    "drpo --help": ["-m", "drpo", "--help"],
    "drpo optimize --help": ["-m", "drpo", "optimize", "--help"],
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    took: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats + 1):  # in turn, so that a slow moment of the machine hits all of them
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
            took[name].append(1000 * (time.perf_counter() - began))
    print(f"{'command':<24}{'ms (median)':>12}{'fastest':>10}")
    for name, times in took.items():
        counted = times[1:]  # the first one compiles bytecode
        print(f"{name:<24}{statistics.median(counted):>12.0f}{min(counted):>10.0f}")


if __name__ == "__main__":
    main()
