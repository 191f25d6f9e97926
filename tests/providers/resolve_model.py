"""Brings an embedded model into a cache, and prints its folder: `python -m tests.providers.resolve_model ID CACHE`."""

import sys
from pathlib import Path

from runner.providers.transformers import embedded

if __name__ == "__main__":
    sys.stdout.write(embedded.resolve(sys.argv[1], cache=Path(sys.argv[2])))
