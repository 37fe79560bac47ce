# SPDX-License-Identifier: Apache-2.0
"""Generated Verilog that many tests need, made once for all test processes of a run.

The accelerator of `tiny` takes three seconds, and a dozen files ask for it. A folder of the run has
the designs by unit, configuration and prefix; it is gone before the next run, so nothing is stale.
A test that changes the gateware asks the original: `designs.fresh`.
"""

__all__ = ["fresh", "share"]

import fcntl
import hashlib
import pickle
from pathlib import Path

from gen import elaborate as module
from gen.elaborate import Design
from vitforge.spec.config import Config

#: What generates, whatever is kept.
fresh = module.elaborate


def share(folder: Path) -> None:
    """Have `gen.elaborate` keep what it makes in a folder; before others import its function."""
    def elaborate(unit: str, config: Config, prefix: str = "") -> Design:
        if type(config) is not Config:
            return fresh(unit, config, prefix)   # it notes what is read of it
        name = hashlib.sha256(repr((unit, config, prefix)).encode()).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            kept = folder / name
            if kept.exists():
                found: Design = pickle.loads(kept.read_bytes())
                return found
            design = fresh(unit, config, prefix)
            kept.write_bytes(pickle.dumps(design))
            return design

    module.elaborate = elaborate
