"""What does an unreachable tracking server cost a run? Whole commands, compared with tracking=off.

Which of the two is first alternates, because the speed of a shared machine varies within a minute: read the ratio.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

_RUN = ("provider=echo", "batch.size=1", "provider.latency_s=0.3")
_DOWN = "tracking.uri=http://127.0.0.1:9"
"""Nothing listens on the discard port."""


def main(*, repeats: int) -> None:
    """Measure and print."""
    ratios = []
    for repeat in range(repeats):
        order = (_DOWN, "tracking=off") if repeat % 2 else ("tracking=off", _DOWN)
        seconds = {tracking: _seconds(tracking) for tracking in order}
        ratios.append(seconds[_DOWN] / seconds["tracking=off"])
        print(f"off {seconds['tracking=off']:.2f} s   down {seconds[_DOWN]:.2f} s   ratio {ratios[-1]:.4f}")
    print(f"down / off = {statistics.median(ratios):.4f} (median of {repeats})")


def _seconds(tracking: str) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "runner", *_RUN, tracking], cwd=scratch, check=True, capture_output=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    main(**vars(parser.parse_args()))
