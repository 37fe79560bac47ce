# SPDX-License-Identifier: Apache-2.0
"""Designs that test processes share are those that would be generated anew."""

import dataclasses
from pathlib import Path

import pytest

from tests import designs
from vitforge.spec.config import Config, load


@pytest.mark.thorough
def test_a_design_is_made_once_for_a_configuration_and_a_prefix(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, generate = [], designs.fresh
    monkeypatch.setattr(designs, "fresh", lambda *given: (made.append(given), generate(*given))[1])
    monkeypatch.setattr(designs.module, "elaborate", None)
    designs.share(tmp_path / "designs")
    shared, config = designs.module.elaborate, load("tiny")
    wanted = generate("layernorm", config)
    assert [shared("layernorm", config) for _ in range(2)] == [wanted] * 2
    assert made == [("layernorm", config, "")]
    assert shared("layernorm", config, "other_").top == "other_layernorm"
    assert shared("layernorm", dataclasses.replace(config, lanes=4)).verilog != wanted.verilog
    assert len(made) == 3

    class Watched(Config):
        """What exploration generates with; the fields that are read must be."""

    watched = Watched(**config.to_dict())
    assert shared("layernorm", watched) == shared("layernorm", watched) == wanted
    assert len(made) == 5
