# SPDX-License-Identifier: Apache-2.0
"""What the site has besides the pages of `docs`, and where their links lead on it.

Pages that lie elsewhere in the repository (`README.md`, the notebooks) and those made from
docstrings are added when the site is built, so that nothing is written twice. Links are written for
the repository; one to a file that is no page becomes its path, or the reference of that module.
"""

__all__ = ["on_files", "on_page_content", "on_page_markdown"]

import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: Pages of the repository that are not in `docs`, by their names on the site.
ELSEWHERE = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md",
             "changelog.md": "CHANGELOG.md",
             "notebooks/quantize.md": "examples/notebooks/quantize.ipynb",
             "notebooks/explore.md": "examples/notebooks/explore.ipynb"}
#: Pages of the reference: title, what is on it, modules.
REFERENCE = {
    "configuration": ("Configuration", "What an accelerator can be, and the words of its streams.",
                      ("vitforge.spec.config", "vitforge.spec.limits", "vitforge.spec.words",
                       "vitforge.spec.timing")),
    "gateware": ("Gateware", "Components of Amaranth, to be instantiated in a design of your own.",
                 ("hw.units", "hw.accelerator", "hw.array.systolic", "hw.softmax.unit",
                  "hw.requant.unit", "hw.layernorm.unit", "hw.lib.stream")),
    "golden-units": ("Golden units", "The bits, and the cycles, of every unit.",
                     ("golden.units.systolic", "golden.units.packed", "golden.units.softmax",
                      "golden.units.softmax_cycles", "golden.units.requant",
                      "golden.units.requant_parameters", "golden.units.layernorm",
                      "golden.units.layernorm_cycles", "golden.units.arithmetic",
                      "golden.units.stream")),
    "formats": ("Number formats", "Codes, and the operands that they stand for.",
                ("golden.formats.formats", "golden.formats.format", "golden.formats.ptf",
                 "golden.formats.attention", "golden.formats.tangent")),
    "networks": ("Integer networks", "A network's list of operations, its integers, its run.",
                 ("golden.network.topology", "golden.network.ops", "golden.network.calibrate",
                  "golden.network.integers", "golden.network.file", "golden.network.inference")),
    "quantization": ("Quantization", "From a float network to a record of formats, to integers.",
                     ("golden.ptq.method", "golden.ptq.record", "golden.ptq.sites",
                      "golden.ptq.ranges", "golden.deploy.network", "golden.float.models",
                      "golden.float.checkpoint")),
    "machine": ("The machine's model", "Programs, what they compute, and in how many cycles.",
                ("golden.machine.program", "golden.machine.execute", "golden.machine.cycles")),
    "generators": ("Generators", "Verilog, programs and areas; each is a command as well.",
                   ("gen.verilog", "gen.elaborate", "gen.compiler.compile", "gen.compiler.fit",
                    "gen.compiler.timeline", "gen.synthesis.netlist", "gen.registers")),
    "simulation": ("Simulation", "Generated Verilog against the golden model.",
                   ("sim.run", "sim.cases.trace", "sim.accelerator.check", "sim.vectors")),
    "exploration": ("Exploration", "Spaces of designs, and what was measured of them.",
                    ("explore.space", "explore.point", "explore.table", "explore.search")),
    "driver": ("Drivers", "The one in Python; `vitforge files driver` writes out the one in C too.",
               ("vitforge.driver.vitforge_driver",)),
}
#: The page of the reference that has a module.
PLACES = {module: f"reference/{name}.md" for name, (_, _, modules) in REFERENCE.items()
          for module in modules}


def _reference(title: str, text: str, modules: tuple[str, ...]) -> str:
    return "\n\n".join([f"# {title}", text, *(f"::: {module}" for module in modules)]) + "\n"


def _fence(text: str, language: str = "") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _cells(cells: list[dict[str, Any]]) -> Iterator[str]:
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield _fence(source, "python")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/svg+xml" in data:
                yield f'<div class="figure">{"".join(data["image/svg+xml"])}</div>'
            elif output["output_type"] == "stream":
                yield _fence("".join(output["text"]))
            elif "text/plain" in data:
                yield _fence("".join(data["text/plain"]))


def _content(source: Path) -> str:
    """Return a page of the repository as Markdown; a notebook with the outputs that it holds."""
    text = source.read_text(encoding="utf-8")
    return "\n\n".join(_cells(json.loads(text)["cells"])) if source.suffix == ".ipynb" else text


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in `docs`."""
    for name, source in ELSEWHERE.items():
        files.append(File.generated(config, name, content=_content(ROOT / source)))
    for name, parts in REFERENCE.items():
        files.append(File.generated(config, f"reference/{name}.md", content=_reference(*parts)))
    return files


def _place(path: str) -> str | None:
    """Return where a file of the repository is on the site: a page's source, or a picture."""
    for name, source in ELSEWHERE.items():
        if path == source:
            return name
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return PLACES.get(path.removesuffix(".py").replace("/", "."))


def _link(found: re.Match[str], page: str) -> str:
    picture, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if re.match(r"\w+:", target) or not path:
        return found[0]
    # Links are relative to the file in the repository that the page is made from.
    folder = posixpath.dirname(ELSEWHERE.get(page, f"docs/{page}"))
    path = posixpath.normpath(posixpath.join(folder, path))
    place = _place(path)
    if place is not None:
        return (f"{picture}[{text}]({os.path.relpath(place, posixpath.dirname(page) or '.')}"
                f"{'#' + anchor if anchor else ''})")
    if not (ROOT / path).exists():
        return found[0]    # and the build fails
    return f"`{path}`" if text.strip("`") in (path, posixpath.basename(path)) \
        else f"{text} (`{path}`)"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the page's links, which lead into the repository, into the site's."""
    return re.sub(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)",
                  lambda found: _link(found, page.file.src_uri), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show what docstrings write as reStructuredText as it is meant: literals in types, ``::``."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    return re.sub(r"::</p>", ":</p>", re.sub(r"<code>``([^<`]*)``([^<`]*)</code>",
                                            r"<code>\1\2</code>", html))
