# SPDX-License-Identifier: Apache-2.0
"""What some tests need that `make test` doesn't bring: not every user has it, and none must.

A test without it is skipped, and says what brings it. `.ci/run` installs all of it first, and on a
machine for continuous integration fails if it can't, so nothing is skipped there. What only the
long regressions need (`SOC`, `TIMM`) it doesn't install, nor Tcl, which is the given Python's own.
"""

import importlib.util
import shutil

import pytest

import formal.prove
from examples.litex.needs import missing
from sim.toolchain import find
from sim.waves import fst
from vitforge.base.errors import ToolchainError


def _writes_fst() -> bool:
    try:
        return fst(find())
    except ToolchainError:
        return False    # and the test that builds a model says what is missing


ICARUS = pytest.mark.skipif(not shutil.which("iverilog"),
                            reason="no Icarus Verilog: apt install iverilog")
FST = pytest.mark.skipif(not _writes_fst(),
                         reason="waves are VCD here: apt install liblz4-dev zlib1g-dev")
ABC = pytest.mark.skipif(not any(map(shutil.which, formal.prove.ABC)),
                         reason="no ABC: apt install berkeley-abc")
TCL = pytest.mark.skipif(importlib.util.find_spec("_tkinter") is None,
                         reason="this Python has no Tcl: apt install python3-tk")
# timm imports torchvision, whose wheel must be made for the very build of PyTorch: those for the
# CPU are in PyTorch's own index alone. So neither the lock nor `.ci/run` can bring it for everyone.
# What timm computes is in the archive of exported networks, which no test skips.
TIMM = pytest.mark.skipif(importlib.util.find_spec("timm") is None,
                          reason="no timm: pip install timm, and the torchvision for "
                                 "this build of PyTorch")
_WITHOUT_SOC = missing()
SOC = pytest.mark.skipif(_WITHOUT_SOC is not None, reason=str(_WITHOUT_SOC))
