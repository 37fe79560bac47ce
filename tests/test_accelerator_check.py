# SPDX-License-Identifier: Apache-2.0
"""Whole networks on the generated Verilog: every byte, and every counter as predicted."""

import dataclasses
import itertools
from functools import cache

import pytest
import torch

from gen.compiler.command import input_buffer
from gen.compiler.compile import Compiled, compile_network
from golden.commands.evaluate import WEIGHTS
from golden.data import mnist
from golden.float import checkpoint
from golden.float.vit import Vit, VitSpec
from golden.machine.cycles import Buffers, Prediction, predict
from golden.network.calibrate import calibrate
from golden.network.integers import Network
from sim.__main__ import main
from sim.accelerator import check as accelerator_check
from sim.accelerator.check import check
from sim.accelerator.model import Case, Job, build, place
from sim.run import SimulationError
from tests.sample import leading
from vitforge.spec.config import Config, load
from vitforge.spec.register_map import COUNTERS

pytestmark = pytest.mark.rtl

#: Every kind of pass; no dimension is a multiple of the array's.
SPEC = VitSpec(image_size=12, patch_size=4, in_channels=3, classes=9, dim=18, depth=2, heads=3,
               mlp_hidden=22)
#: A head that is longer than all that comes before it: its weights are waited for.
HEAVY = VitSpec(image_size=8, patch_size=8, in_channels=1, classes=90, dim=24, depth=1, heads=1,
                mlp_hidden=40)


@cache
def small(spec: VitSpec, config: Config) -> Network:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(256, (3, spec.in_channels, spec.image_size, spec.image_size),
                           generator=generator).to(torch.uint8)
    return calibrate(Vit(spec).initialize(5).eval(), images, config)


@cache
def program(spec: VitSpec, config: Config) -> Compiled:
    return compile_network(small(spec, config))


def counters_are_predicted(config: Config, latencies: tuple[int, ...]) -> None:
    model, data, jobs, programs = build(config, brief=True), b"", [], []
    for spec, start in itertools.product((SPEC, HEAVY), (0, 64, 4096 - 192)):
        compiled = program(spec, config)
        image = input_buffer(torch.zeros(1, spec.in_channels, spec.image_size, spec.image_size,
                                         dtype=torch.uint8), compiled)
        # Buffers at any line, so that bursts meet pages everywhere.
        (at, image_at, output_at), more = place([
            bytes(start) + compiled.program, bytes(64) + image,
            bytes(start) + bytes(compiled.output_bytes)], start=len(data) or 4096)
        data += more[len(data):]
        jobs.append(Job(f"from {start}", (at + start, len(compiled.program)),
                        (image_at + 64, len(image)), (output_at + start, compiled.output_bytes),
                        10 ** 6))
        programs.append(compiled.program)
    for latency in latencies:
        outcomes = model.run(Case(data, jobs, {"latency": latency}))
        read = written = 0
        for job, code, outcome in zip(jobs, programs, outcomes, strict=True):
            exact = predict(code, config, latency=latency, buffers=Buffers(
                job.program[0], job.input[0], job.output[0]))
            assert {name: outcome.values[name] for name in COUNTERS} \
                == {name: getattr(exact, name) for name in COUNTERS}, (latency, job.name)
            # The memory counts beats of all jobs.
            read, written = read + exact.read_bytes, written + exact.written_bytes
            width = config.axi_bits // 8
            assert (outcome.read_beats * width, outcome.write_beats * width) == (read, written)


@pytest.mark.thorough
def test_counters_are_predicted() -> None:
    counters_are_predicted(load("tiny"), (2, 60))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), [
    ("tiny", {"fetch_beats": 16, "burst_beats": 4}), ("tiny", {"axi_bits": 512}),
    ("tiny", {"axi_bits": 128, "lanes": 1}), ("edge8", {}),
])
def test_counters_are_predicted_elsewhere(name: str, changes: dict[str, int]) -> None:
    counters_are_predicted(dataclasses.replace(load(name), **changes), (2, 3, 13, 60, 150))


def test_stalls_cost_cycles_and_change_nothing() -> None:
    seen: list[int] = []
    images = torch.randint(256, (2, 3, 12, 12), generator=torch.Generator().manual_seed(1))
    stalled = check(small(SPEC, load("tiny")), images.to(torch.uint8), stall=30, seed=2,
                    progress=seen.append)
    assert stalled.cycles > stalled.predicted.cycles
    assert seen == sorted(seen)


@pytest.mark.slow
def test_a_digit_from_memory_to_logits() -> None:
    config, sample = load("tiny"), mnist.sample()
    network = calibrate(checkpoint.load(WEIGHTS), sample.calibration.images, config)
    seen: list[int] = []
    # Without stalls, and with the cycles that are predicted then, the demo runs one.
    stalled = check(network, sample.test.images[3:4], stall=30, seed=2, progress=seen.append)
    assert stalled.logits.argmax(1).tolist() == sample.test.labels[3:4].tolist()
    assert stalled.cycles > stalled.predicted.cycles
    assert seen == sorted(seen)


@pytest.mark.slow
def test_twenty_digits() -> None:
    """Real test images on `edge8`, one after the other without a reset."""
    config, sample = load("edge8"), mnist.sample()
    network = calibrate(checkpoint.load(WEIGHTS), sample.calibration.images, config)
    found = check(network, sample.test.images[:20])
    assert (found.logits.argmax(1) == sample.test.labels[:20]).sum() >= 19


@pytest.mark.slow
def test_digits_on_twice_as_many_columns() -> None:
    config, sample = dataclasses.replace(load("edge8"), name="edge8x16", cols=16), mnist.sample()
    network = calibrate(checkpoint.load(WEIGHTS), sample.calibration.images, config)
    found = check(network, sample.test.images[:2])
    assert found.logits.argmax(1).tolist() == sample.test.labels[:2].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "heads"), [(384, 6), (768, 12)])
def test_one_block_of_larger_networks(dim: int, heads: int) -> None:
    """One encoder block of DeiT-Small and of DeiT-Base, on `edge16`."""
    spec = VitSpec(image_size=224, patch_size=16, in_channels=3, classes=1000, dim=dim, depth=1,
                   heads=heads, mlp_hidden=4 * dim)
    config = load("edge16")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 224, 224), generator=generator).to(torch.uint8)
    network = calibrate(Vit(spec).initialize(1).eval(), images, config)
    check(network, images[:1])


@pytest.mark.parametrize("change", leading(1, ["bytes", "cycles", "waits"]))
def test_a_difference_is_named(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    network = small(SPEC, load("tiny"))
    image = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    if change == "bytes":
        def wrong(*args: object) -> object:
            run = execute(*args)
            output = bytearray(run.output)
            output[-1] ^= 1            # behind the last logit: still a byte that is written
            return dataclasses.replace(run, output=bytes(output))
        execute = accelerator_check.execute
        monkeypatch.setattr(accelerator_check, "execute", wrong)
        message = "of the output is"
    else:
        def late(*args: object, **more: object) -> Prediction:
            found = exact(*args, **more)
            return dataclasses.replace(found, **{
                "cycles": {"cycles": found.cycles + 1},
                "waits": {"norm_wait": found.norm_wait - 1}}[change])
        exact = accelerator_check.predict
        monkeypatch.setattr(accelerator_check, "predict", late)
        message = "cycles is" if change == "cycles" else "norm_wait is"
    with pytest.raises(SimulationError, match=message):
        check(network, image)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--count", "0"], "the number of inputs must be at least 1, not 0"),
    (["--count", "301"], "there are 300 inputs, not 301"),
    (["--stall", "256"], "stall must be 0 to 255, not 256"),
    (["--latency", "1"], "latency must be at least 2 cycles, not 1"),
    (["resnet"], "the network must be one of"),
    (["deit_tiny_patch16_224"], "needs --checkpoint and --calibration, or --random"),
])
def test_bad_input_gets_one_line(arguments: list[str], message: str,
                                 capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerator", *arguments, "--config", "edge16"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
