# SPDX-License-Identifier: Apache-2.0
"""ReLU for GELU: MLPs trained for it, records that say so, and integers that need nothing new."""

import dataclasses

import pytest
import torch

from gen.compiler.command import memory_image
from gen.compiler.compile import compile_network
from golden.commands.options import WEIGHTS
from golden.data import mnist
from golden.deploy.network import deploy, suited
from golden.float import checkpoint, models
from golden.machine.execute import execute
from golden.machine.program import read_logits
from golden.network import inference
from golden.network.fast import Fast
from golden.ptq.aphq import Aphq, AphqSettings
from golden.ptq.folding import activated, changes
from golden.ptq.method import apply
from golden.ptq.reconstruction_plan import Plan
from golden.ptq.reconstruction_run import prepared, reconstructed
from golden.ptq.record import Record
from golden.ptq.rectify import rectified
from vitforge.spec.config import load

PLAN = Plan(loss="perturbation", steps=60, batch=8, rate=2e-3, probes=16)
METHOD = Aphq(AphqSettings(relu=True, weights=4, activations=4, steps=20, step_images=8,
                           probes=16))


def silent(text, total):
    return lambda done: None


@pytest.fixture(scope="module")
def model():
    return checkpoint.load(WEIGHTS)


@pytest.fixture(scope="module")
def images():
    return mnist.sample().calibration.images[:48].float()[:, None] / 255


@pytest.fixture(scope="module")
def made(model, images):
    source = prepared(METHOD, model, lambda: images, silent)
    statistics = METHOD.observe(source, images[:32].split(16))
    record = METHOD.decide(statistics)
    record = dataclasses.replace(record, parameters={**changes(model, source),
                                                     **record.parameters})
    return statistics, reconstructed(METHOD, model, record, images, silent)


@pytest.mark.thorough
def test_trained_mlps_make_up_for_relu(model, images):
    told = []
    trained = rectified(model, images, PLAN, advance=told.append)
    test = mnist.sample().test.images[:100].float()[:, None] / 255
    with torch.no_grad():
        real, plain, found = (net(test) for net in (model, activated(model, "relu"), trained))
    assert float((found - real).square().mean()) < 0.3 * float((plain - real).square().mean())
    assert sum(told) == 4 * PLAN.steps
    assert all(".mlp.fc" in name for name in changes(model, trained))
    # Cores change no bit, and the network that is given stays.
    again = rectified(model, images, PLAN, threads=2)
    assert not changes(trained, again)
    assert isinstance(model.blocks[0].mlp.act, torch.nn.GELU)


def test_a_stopped_training_goes_on(model, images):
    kept = {}
    whole = rectified(model, images, PLAN, save=kept.__setitem__)
    assert list(kept) == [f"blocks.{n}.mlp" for n in range(4)]
    saved = []
    half = {name: kept[name] for name in list(kept)[:2]}
    found = rectified(model, images, PLAN, load=half.get,
                      save=lambda unit, result: saved.append(unit))
    assert saved == list(kept)[2:] and not changes(whole, found)


@pytest.mark.thorough
def test_the_record_says_relu_and_the_simulation_has_it(model, made, tmp_path):
    _, record = made
    assert record.activation == "relu" and record.formats["blocks.0.mlp.act"].zero_point == 0
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
    simulated = apply(model, record)
    assert all(isinstance(block.mlp.act, torch.nn.ReLU) for block in simulated.blocks)
    few = mnist.Split(*(part[:100] for part in (mnist.sample().test.images,
                                                mnist.sample().test.labels)))
    assert mnist.accuracy(simulated, few) >= 0.95
    plain = dataclasses.replace(record, activation="gelu")
    assert mnist.accuracy(apply(model, plain), few) < mnist.accuracy(simulated, few) + 0.01


@pytest.mark.thorough
def test_the_datapath_runs_it(model, made):
    """Integers equal the golden machine's, and are as good as the simulation."""
    statistics, record = made
    config = suited(load("edge8"), record)
    whole, _ = deploy(model, record, config, statistics=statistics,
                      preprocessing=models.lookup("mnist_vit").preprocessing)
    assert {whole.requantizations[f"blocks.{n}.mlp.fc1"].operation for n in range(4)} == {"linear"}
    codes = mnist.sample().test.images[:100, None]
    logits = inference.run(whole, codes)
    assert torch.equal(Fast(whole)(codes), logits)
    labels = mnist.sample().test.labels[:100]
    assert int((logits.argmax(1) == labels).sum()) >= 93
    compiled = compile_network(whole)
    memory = memory_image(compiled, codes[:1])
    done = execute(memory.program, memory.input, compiled.config, compiled.output_bytes)
    assert read_logits(done.output, compiled.spec.classes, compiled.config).tolist() \
        == logits[0].tolist()


def test_without_reconstruction_it_is_refused():
    with pytest.raises(ValueError, match="relu needs a reconstruction"):
        AphqSettings(relu=True, reconstruct="no")
    with pytest.raises(ValueError, match="activation must be one of gelu, relu, not 'silu'"):
        Record(method="", settings={}, formats={}, activation="silu")
