# SPDX-License-Identifier: Apache-2.0
"""Batches on several cores give what they give one after the other, on any device."""

import copy
import threading
from collections.abc import Iterator
from functools import cache

import pytest
import torch

from golden.commands.evaluate import WEIGHTS
from golden.commands.quantize import classified, configured
from golden.data import mnist
from golden.data.parallel import ordered
from golden.deploy.network import deploy, suited
from golden.float import checkpoint, models
from golden.network.fast import pixel_network
from golden.ptq import METHODS
from tests.sample import later, leading, thorough
from vitforge.spec.config import load


def test_results_are_in_order_and_items_are_taken_as_they_are_needed():
    taken: list[int] = []
    gate = [threading.Event() for _ in range(20)]

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    def late(number: int) -> tuple[int, int]:
        if number % 2 == 0:   # even ones wait for the next
            assert gate[number + 1].wait(10)
        gate[number].set()
        return number, torch.get_num_threads()

    before = torch.get_num_threads()
    found = ordered(late, items(), 3)
    assert next(found) == (0, 1) and len(taken) == 4
    assert list(found) == [(number, 1) for number in range(1, 20)]
    assert torch.get_num_threads() == before
    assert list(ordered(lambda item: item, iter([3, 1, 2]), 1)) == [3, 1, 2]


def test_a_failure_comes_out_and_ends_it():
    def fails(number: int) -> int:
        if number == 2:
            raise ValueError("number 2")
        return number

    before = torch.get_num_threads()
    found = ordered(fails, iter(range(100)), 2)
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match=r"^number 2$"):
        next(found)
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def work():
    model, sample = checkpoint.load(WEIGHTS), mnist.sample()

    @cache
    def made(name: str):
        method = configured(name, {"weights": 4, "activations": 6}, [])
        statistics = method.observe(model, [sample.calibration.images[:16].float()[:, None] / 255])
        return method, statistics, method.decide(statistics)
    return model, sample.test, made


@pytest.mark.parametrize("name", [
    name if name == "mptq-vit" else thorough(name) if name == "dopq-vit" else later(name)
    for name in METHODS])
def test_batches_at_a_time_are_classified_as_one_after_the_other(work, name):
    model, split, made = work
    method, statistics, record = made(name)
    how = models.lookup("mnist_vit").preprocessing
    network, _ = deploy(model, record, suited(load("edge16"), record), statistics=statistics,
                        preprocessing=how)
    images = split.images[:60].float()[:, None] / 255
    for classify in (method.apply(model, record), pixel_network(network, how)):
        alone, together = ([classes.tolist() for classes, _ in classified(
            classify, iter([(part, split.labels[:5]) for part in images.split(5)]), threads)]
            for threads in (1, 4))
        assert alone == together and len({c for part in alone for c in part}) == 10


# LIS asks whether a score is masked, which a tensor without values can't tell.
@pytest.mark.parametrize("name", leading(
    3, (name for name in METHODS if name != "fq-vit")))
def test_simulated_networks_stay_on_their_device(work, name):
    model, _, made = work
    method, _, record = made(name)
    moved = copy.deepcopy(method.apply(model, record)).to("meta")
    # Operations that mix devices are refused.
    assert moved(torch.empty(2, 1, 28, 28, device="meta")).shape == (2, 10)
