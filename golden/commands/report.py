# SPDX-License-Identifier: Apache-2.0
"""A page about one quantization: both accuracies, sizes, and what the datapath changed."""

__all__ = ["report"]

import re
from collections.abc import Mapping, Sequence

from golden.deploy.notes import Note, summary
from golden.deploy.widths import stored_widths, weight_bytes
from golden.network.integers import Network
from golden.ptq.record import Record
from golden.ptq.widths import layer_widths
from vitforge.base.markdown import table


def _noise(noise: Mapping[str, Mapping[str, float]]) -> str:
    """Table with a line for each block and a column for each of its tensors."""
    def cell(found: Mapping[str, float] | None) -> str:
        return " / ".join(f"{value:.1f}" for value in found.values()) if found else ""

    lines: dict[str, dict[str, str]] = {}
    for name, found in noise.items():
        block = re.match(r"blocks\.\d+\.", name)
        row, column = (block[0][:-1], name[block.end():]) if block else ("", name)
        lines.setdefault(row, {})[column] = cell(found)
    columns = list(dict.fromkeys(column for row, line in lines.items() if row for column in line))
    single = "".join(f"{name}: {value}\n\n" for name, value in lines.pop("", {}).items())
    return single + table(("block", *columns), [
        (row, *(line.get(column, "") for column in columns)) for row, line in lines.items()])


def report(model: str, record: Record, network: Network, notes: Sequence[Note],
           counts: Mapping[str, tuple[int, int]],
           noise: Mapping[str, Mapping[str, float]] | None = None,
           figures: Mapping[str, str] | None = None) -> str:
    """Return the page as Markdown.

    Parameters
    ----------
    counts
        By network ("float", "simulated", "integer"): images right, and images.
    noise
        Of `golden.commands.report_layers.noise`.
    figures
        Captions of pictures, by the name of their files.
    """
    settings = ", ".join(f"{name} {value}" for name, value in record.settings.items())
    config = network.config
    text = [f"# {record.method} on {model}\n\n{settings}\n"]
    if counts:
        text.append("\n## Accuracy\n\n" + table(
            ("network", "right", "images", "top-1"),
            [(name, found, total, f"{found / total:.2%}")
             for name, (found, total) in counts.items()]))
    text.append(f"\n## Integer network\n\nConfiguration {config.name} ({config.hash()}), attention "
                f"in {config.attention} codes of {config.attention_bits} bits, "
                f"{weight_bytes(network):,} bytes of weights.\n\nAs deployed: "
                f"{stored_widths(network)}.\n")
    widths = layer_widths(record)
    if len({item.weights for item in widths.values()}) > 1:
        text.append("\n## Widths\n\nBits that the method gave to a layer's weights, and to what "
                    "the layer reads.\n\n" + table(
                        ("layer", "weights", "activations"),
                        [(f"`{name}`", item.weights, item.activations or "float")
                         for name, item in widths.items()]))
    for name, caption in (figures or {}).items():
        text.append(f"\n![{caption}]({name})\n\n{caption}.\n")
    if noise:
        text.append("\n## Signal to noise\n\nIn decibels against the float network, simulated / "
                    "integer. LayerNorm's results say nothing where a method has rescaled them."
                    "\n\n" + _noise(noise))
    text.append("\n## What the datapath changed\n\n" + table(
        ("tensors", "count", "decided (the first)", "deployed (the first)", "why"),
        [(f"`{note.tensor}`", count, note.decided, note.deployed, note.why)
         for count, note in summary(notes)]))
    return "".join(text)
