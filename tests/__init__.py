"""Tests, in the folders of the modules that they test; tests/pipeline runs the real DVC."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# params.yaml as committed, also after `make demo` has changed this one line.
COMMITTED_PARAMS = (
    (REPOSITORY / "params.yaml").read_text(encoding="utf-8").replace("weights: untrained", "weights: imagenet")
)

# Test processes that run side by side use one thread each. OpenMP reads the variable once, when torch loads it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
