# SPDX-License-Identifier: Apache-2.0
"""Figures as SVG text, to be put into a page or a file."""

__all__ = ["text"]

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure


def text(figure: Figure) -> str:
    """Return a figure as SVG: text stays text, and equal pictures are equal bytes."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitforge"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
