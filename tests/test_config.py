# SPDX-License-Identifier: Apache-2.0
"""Configurations: presets, files, and one clear line for everything that can't be had."""

import ast
import dataclasses
from pathlib import Path

import pytest

from vitforge.spec.config import Config, ConfigError, load, preset_names


def test_presets_load_and_differ():
    configs = {name: load(name) for name in preset_names()}
    assert set(configs) == {"tiny", "edge8", "edge16", "ecp5-85k-w8", "ecp5-85k-w4",
                            "ecp5-85k-w4a4", "swin16"}
    assert [configs[name].rows for name in ("tiny", "edge8", "edge16")] == [4, 8, 16]
    assert configs["edge16"] == Config(), "edge16 is the default"
    assert len({config.hash() for config in configs.values()}) == len(configs)
    assert all(config.name == name for name, config in configs.items())


def test_a_file_overrides_the_defaults_and_names_itself(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("rows = 12\npe_style = 'shift'\n")
    config = load(path)
    assert config == Config(name="mine", rows=12, pe_style="shift")
    assert config.hash() == Config(name="other", rows=12, pe_style="shift").hash()
    assert config.hash() != Config(rows=12).hash()


@pytest.mark.parametrize(("text", "message"), [
    ("rows = 0", r"rows must be between 1 and 64, not 0$"),
    ("rows = 2.5", r"rows must be an integer, not 2\.5$"),
    ("rows = true", r"rows must be an integer, not True$"),
    ("weight_bits = 9", r"weight_bits must be between 2 and 8, not 9$"),
    ("pe_style = 'fast'", r"pe_style must be one of wide, shift, not 'fast'$"),
    ("name = 7", r"name must be a string, not 7$"),
    ("name = 'a/b'", r"name must be letters, digits"),
    ("colums = 8", r"no field 'colums'; the fields are name, rows, cols"),
    ("mantissa_bits = 9\noperand_bits = 8", r"operand_bits must be at least mantissa_bits \(9\)"),
    ("acc_bits = 20", r"acc_bits must be at least 29 to hold one tile's partial sums, not 20$"),
    ("lanes = 8\nmax_keys = 4", r"max_keys must be at least lanes \(8\), not 4$"),
    ("rows = ", r"is not TOML: "),
])
def test_a_bad_file_gets_one_line_that_names_the_field(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(("source", "message"), [
    ("edge12", (r"no configuration 'edge12': give one of ecp5-85k-w4, ecp5-85k-w4a4, ecp5-85k-w8, "
                r"edge16, edge8, swin16, tiny, or a \.toml file$")),
    ("missing.toml", r"can't read missing\.toml: No such file or directory$"),
])
def test_a_missing_configuration_says_what_would_do(source, message):
    with pytest.raises(ConfigError, match=message):
        load(source)


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().rows = 3


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 17])
def test_partial_sums_hold_the_worst_case_and_no_bit_more(rows):
    config = Config(rows=rows)
    worst = rows * 2 ** (config.operand_bits - 1) * 2 ** (config.weight_bits - 1)
    assert worst <= 2 ** (config.sum_bits - 1) - 1 < 2 * worst


def test_every_field_is_explained_and_read():
    read = set()
    root = Path(__file__).parents[1]
    for room in ("vitforge", "hw", "golden", "gen"):
        for path in {*(root / room).rglob("*.py")} - {root / "vitforge" / "spec" / "config.py"}:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                     and isinstance(node.ctx, ast.Load)}
    for field in dataclasses.fields(Config):
        assert field.metadata["help"], field.name
        assert field.name in read, f"nothing reads {field.name}"
        if "low" in field.metadata:
            assert field.metadata["low"] <= field.default <= field.metadata["high"], field.name
