"""Batched text generation, measured: one configuration in, outcomes, metrics and an MLflow run out."""

import sys
from pathlib import Path

if (
    sys.argv[:1] == ["-m"]  # as long as Python looks for the module to run
    and not sys.flags.safe_path
    and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]
):
    del sys.path[0]  # the working directory: it may have been sent by somebody, with modules in it
