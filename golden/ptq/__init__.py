# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization methods, each a module, in float simulation."""

__all__ = ["METHODS"]

from collections.abc import Mapping

from golden.ptq.aphq import Aphq
from golden.ptq.dopq import DopqVit
from golden.ptq.erq import Erq
from golden.ptq.fimaq import FimaQ
from golden.ptq.fqvit import FqVit
from golden.ptq.gptq import Gptq
from golden.ptq.method import Method
from golden.ptq.minmax import MinMax
from golden.ptq.mptq import Mptq
from golden.ptq.repqvit import RepqVit
from golden.ptq.tsptq import Tsptq

METHODS: Mapping[str, type[Method]] = {
    kind.name: kind for kind in (MinMax, FqVit, Tsptq, Mptq, RepqVit, Gptq, Erq, DopqVit, FimaQ,
                                 Aphq)}
"""Every method by its name on the command line."""
