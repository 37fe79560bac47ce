# SPDX-License-Identifier: Apache-2.0
"""Machines without some formats: exact on what they have; what they lack is refused, or a fault."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from gen.compiler.compile import compile_network, supported
from gen.compiler.steps import pass_fields
from gen.compiler.stored import stored
from golden.deploy.activations import deploy_gelu
from golden.float.vit import Vit
from golden.formats.formats import Uniform
from golden.machine.program import Fault, Instruction, assemble, parse
from golden.network import file as network_file
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from golden.ptq.formats import TensorFormat
from golden.ptq.statistics import Observed
from tests.sample import later
from tests.test_not_square import SPECS, Work, compare, named, of_network, of_passes, outcomes
from vitforge.spec.config import Config, ConfigError, load
from vitforge.spec.formats import FORMATS, SUBSETS
from vitforge.spec.instruction import LINE, OPERATIONS, PARAMETER
from vitforge.spec.register_map import FAULTS

TINY = load("tiny")
UNIFORM = dataclasses.replace(TINY, name="tiny-uniform", formats="uniform", attention="uniform",
                              attention_bits=8, operand_bits=9, axi_bits=128)
#: Log2 codes of attention alone; and two-scale ones beside log-sqrt2 attention, which has their
#: operands.
MACHINES = [UNIFORM, dataclasses.replace(TINY, name="tiny-log2-attention", formats="uniform"),
            dataclasses.replace(TINY, name="tiny-two-scale", formats="uniform+two-scale",
                                attention="log-sqrt2")]
NAMES = {code: name for name, code in FORMATS.items()}
#: Operands and results of every format.
PASSES = [(operand, result) for operand in NAMES for result in NAMES]


def program(config: Config, operand: int, result: int, operation: str) -> bytes:
    """Return a pass of one token with operands and results of two formats."""
    raw = operation == "raw"
    fields = pass_fields(
        operation=OPERATIONS[operation], destination=3 if raw else 0, tokens=1, tiles=1,
        weight_bits=8, bits=4, operand_bits=4, operand_format=operand, format=result, d_base=8)
    rows = config.rows
    item = Instruction("PASS", fields, None,
                       {item.name: np.zeros(rows, np.int64) for item in PARAMETER.fields},
                       np.zeros((1, rows, rows), np.int8))
    return assemble([item, Instruction("END", {})], config)


def lacks(config: Config, operand: int, result: int, operation: str) -> bool:
    """Whether a machine lacks a format of a pass, from its fields as they are written."""
    have = config.formats.split("+")
    attention = {"log-sqrt2": "two-scale"}.get(config.attention, config.attention)
    return NAMES[operand] not in (*have, attention) \
        or (operation != "raw" and NAMES[result] not in have)


@pytest.mark.parametrize("config", [TINY, *MACHINES], ids=named)
def test_a_format_that_a_machine_lacks_is_a_bad_field(config: Config) -> None:
    refused = 0
    for operand, result in PASSES:
        for operation in ("linear", "raw"):
            code = program(config, operand, result, operation)
            if not lacks(config, operand, result, operation):
                assert len(list(parse(code, config))) == 2
                continue
            with pytest.raises(Fault, match="bad field") as caught:
                list(parse(code, config))
            assert caught.value.checked and caught.value.instruction == 0
            refused += 1
    assert refused == {"tiny": 0, "tiny-uniform": 15 + 12, "tiny-log2-attention": 14 + 8,
                       "tiny-two-scale": 12 + 8}[config.name]


@pytest.mark.rtl
@pytest.mark.parametrize("config", [MACHINES[0], *map(later, MACHINES[1:])], ids=named)
@pytest.mark.thorough
def test_a_format_that_a_machine_lacks_is_a_fault_of_the_hardware(config: Config) -> None:
    kinds = [(*formats, operation) for formats in PASSES for operation in ("linear", "raw")]
    works = [Work(program(config, *kind), bytes(LINE), bytes(LINE)) for kind in kinds]
    found = [outcome.FAULT for outcome, _ in outcomes(config, works)]
    assert found == [FAULTS["bad field"] * lacks(config, *kind) for kind in kinds]


@pytest.mark.rtl
@pytest.mark.parametrize("config", [MACHINES[0], *map(later, MACHINES[1:])], ids=named)
@pytest.mark.thorough
def test_networks_and_random_passes_are_exact(config: Config) -> None:
    compare(config, [*(of_network(spec, config) for spec in SPECS),
                     *(of_passes(config, seed, 40) for seed in range(4))])


def network(config: Config, gelu: str | None = None) -> Network:
    images = torch.randint(256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(7))
    return calibrate(Vit(SPECS[0]).initialize(7).eval(), images.to(torch.uint8), config, gelu=gelu)


def test_calibration_takes_the_codes_that_a_machine_has() -> None:
    for config in (UNIFORM, MACHINES[2], TINY):
        kinds = {layer.encoding.kind for layer in network(config).requantizations.values()}
        assert kinds == {"uniform", "two-scale"} & config.result_formats


def test_calibration_refuses_gelu_codes_that_a_machine_lacks() -> None:
    with pytest.raises(ConfigError, match=(
            r"^formats must have two-scale for the codes of blocks\.0\.mlp\.act, not be uniform "
            r"\(or take gelu='uniform'\)$")):
        network(UNIFORM, "two-scale")


def test_the_compiler_refuses_a_network_whose_formats_a_machine_lacks(tmp_path: Path) -> None:
    made = network(dataclasses.replace(UNIFORM, formats=SUBSETS[0]))
    network_file.save(tmp_path / "network.json", made)
    less = stored(tmp_path / "network.json", UNIFORM)
    with pytest.raises(ConfigError, match=(
            r"^formats must have two-scale for the codes of blocks\.0\.mlp\.fc1, not be uniform "
            r"\(or quantize it to uniform codes\)$")):
        compile_network(less)
    # A network of other codes needs none of them.
    network_file.save(tmp_path / "plain.json", network(dataclasses.replace(
        UNIFORM, formats=SUBSETS[0]), "uniform"))
    assert compile_network(stored(tmp_path / "plain.json", UNIFORM)).program
    luts = dataclasses.replace(UNIFORM, drain_products="luts")    # products, not what they are
    assert compile_network(stored(tmp_path / "plain.json", luts)).program


def test_a_record_gets_uniform_codes_where_there_are_no_others() -> None:
    item = TensorFormat(kind="two-scale", bits=8, scale=0.01, m=4, signed=True)
    rows = torch.linspace(-0.17, 3, 64).reshape(1, -1)
    seen = Observed(low=rows.amin()[None], high=rows.amax()[None], rows=(rows,))
    for decided in (item, None):
        found = deploy_gelu(decided, lambda: seen, UNIFORM)
        assert isinstance(found.format, Uniform) and found.why


def test_operands_are_as_narrow_as_their_formats() -> None:
    with pytest.raises(ConfigError, match=(
            r"^operand_bits must be mantissa_bits \(9, as attention is uniform and formats are "
            r"uniform\) for an accelerator, not 17$")):
        supported(SPECS[0], dataclasses.replace(UNIFORM, operand_bits=17))
    assert UNIFORM.sum_bits == TINY.sum_bits - 8
    with pytest.raises(ConfigError, match=r"^formats must be one of uniform\+two-scale\+log2\+ta"):
        Config(formats="log2")
