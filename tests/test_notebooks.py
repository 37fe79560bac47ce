# SPDX-License-Identifier: Apache-2.0
"""The notebooks run, and print what they are kept with."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "examples" / "notebooks"
#: A measurement of a float network may differ in its last digit from one processor to another.
MEASURED = re.compile(r"\d+\.\d+ %")


def _printed(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error"
            if output.output_type == "stream":
                assert output.name == "stdout", output.text
                yield MEASURED.sub("N %", output.text)
            elif "image/svg+xml" in output.data:
                yield "a picture" if output.data["image/svg+xml"].startswith("<svg") else ""
            else:
                yield output.data["text/plain"]


@pytest.mark.filterwarnings("default")     # Jupyter's own
@pytest.mark.parametrize("name", ["quantize", pytest.param("explore", marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_a_notebook_prints_what_it_holds(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    kept = nbformat.read(path, as_version=4)
    run = nbformat.read(path, as_version=4)
    NotebookClient(run, timeout=600, kernel_name="python3",
                   resources={"metadata": {"path": str(ROOT)}}).execute()
    printed = list(_printed(run))
    assert printed == list(_printed(kept))
    assert "a picture" in printed and len(printed) >= 3


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_small(path):
    assert path.stat().st_size < 50_000
