# SPDX-License-Identifier: Apache-2.0
"""The timeline: every bar is where its engine works, and says so; colours that differ."""

import re
from types import SimpleNamespace

from gen.compiler.timeline import draw
from golden.machine.cycles import Prediction
from vitforge.base.vector import COLOURS, bar

LAYERS = ("patch_embed.proj", "blocks.0.attn.qkv", "blocks.0.attn.scores",
          "blocks.0.attn.context", "blocks.0.attn.proj", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2",
          "blocks.1.attn.qkv", "head")


def _drawn(spans):
    found = Prediction(cycles=9000, array_busy=8000, spans=spans)
    return draw(found, SimpleNamespace(steps=[SimpleNamespace(layer=name) for name in LAYERS],
                                       config=SimpleNamespace(name="edge8")))


def _bars(text):
    return [(float(x), float(width), title) for x, width, title in re.findall(
        r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"[^>]*><title>(.*?)</title>', text)]


def test_bars_are_where_engines_work():
    text = _drawn([("load", 0, 89, 0)]
                  + [("array", 1000 * n, 1000 * n + 999, n) for n in range(9)])
    bars = _bars(text)
    scale = (1000 - 132 - 12) / 9000
    for n, layer in enumerate(LAYERS):
        title = f"{layer}: cycles {1000 * n:,} to {1000 * n + 999:,}, 1,000"
        x, width, _ = next(item for item in bars if item[2] == title)
        assert abs(x - (132 + 1000 * n * scale)) < 0.01 and abs(width - 1000 * scale) < 0.01
    assert bars[0][2] == "pixels: cycles 0 to 89, 90"
    # The second panel has the first block alone, as wide as the picture.
    assert sum("blocks.0.mlp.fc1" in title for *_, title in bars) == 2
    assert sum("blocks.1" in title for *_, title in bars) == 1
    assert "weights</text>" in text and "keys and values</text>" in text


def test_bars_that_touch_are_one():
    bars = _bars(_drawn([("drain", 0, 10, 8), ("drain", 11, 20, 8), ("drain", 22, 30, 8),
                         ("drain", 4000, 4010, 8)]))
    assert [title for *_, title in bars] == ["head: cycles 0 to 30, 31",
                                             "head: cycles 4,000 to 4,010, 11"]


def test_layers_that_follow_each_other_differ_in_colour():
    text = _drawn([("array", 1000 * n, 1000 * n + 999, n) for n in range(9)])
    paint = re.findall(r'class="(?:ink )?hot"(?: fill="(#\w+)")?><title>(\S+):', text)
    assert len({colour for colour, _ in paint[:7]}) == 7 and paint[8][0] == ""
    assert {colour for colour, _ in paint} <= {*COLOURS, ""}


def test_a_bar_has_its_name_where_there_is_room():
    assert "MLP 1" in bar(0, 0, 50, 20, COLOURS[0], "", "MLP 1")
    assert "MLP 1" not in bar(0, 0, 40, 20, COLOURS[0], "", "MLP 1")
