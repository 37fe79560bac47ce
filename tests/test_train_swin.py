# SPDX-License-Identifier: Apache-2.0
"""The recipe of the project's Swin: its start, the smaller image that it sees first, its step."""

import torch
from torch.nn import functional

from golden.data import cifar10
from golden.float.swin import Swin, position_index
from golden.training.muon import Muon
from golden.training.swin import FALL, FLOOR, SwinTask, inner
from golden.training.task import Plan, descend


def test_a_smaller_window_has_the_middle_of_the_table() -> None:
    table = torch.arange(49 * 2).reshape(49, 2)
    found = inner(table, 3)
    assert found.shape == (25, 2)
    # Of every pair of tokens of a window of 3 the row is that of the same distance.
    large, small = position_index(4).reshape(4, 4, 4, 4), position_index(3).reshape(3, 3, 3, 3)
    assert torch.equal(found[small], table[large[:3, :3, :3, :3]])
    assert torch.equal(inner(table, 4), table)


def test_a_head_prefers_one_place_at_first() -> None:
    task = SwinTask()
    one, again = (task.build(seed) for seed in (1, 1))
    for name, value in one.named_parameters():
        assert torch.equal(value, dict(again.named_parameters())[name])
        if not name.endswith("table"):
            continue
        assert float(value.detach().min()) == FLOOR and float(value.detach().max()) > -FALL
        side = round(len(value) ** 0.5)
        for head in value.detach().T.reshape(-1, side, side):
            row, column = divmod(int(head.argmax()), side)
            assert abs(row - side // 2) <= 2 and abs(column - side // 2) <= 2


def test_a_part_of_an_image_is_seen_with_the_same_parameters() -> None:
    task = SwinTask()
    model = task.build(3)
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    small = Swin(task.part)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in small.named_parameters():
            value.copy_(inner(state[name], 3) if name.endswith("table") else state[name])
        assert torch.allclose(task.partly(model, images), small(images), atol=1e-6)
    loss = task.partly(model, images).square().mean()
    loss.backward()   # type: ignore[no-untyped-call]
    assert all(value.grad is not None for value in model.parameters())


def test_a_step_of_either_size_makes_the_loss_smaller() -> None:
    task = SwinTask()
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (8, 3, 32, 32), generator=generator).to(torch.uint8)
    labels = torch.arange(8)
    for share in (0.0, 0.9):
        model = task.build(1)
        optimizers = task.optimizers(model)
        muon, other = optimizers
        assert isinstance(muon, Muon)
        known = {id(p) for group in muon.param_groups for p in group["params"]}
        tables = {id(p) for name, p in model.named_parameters() if name.endswith("table")}
        assert not known & tables and tables <= {
            id(p) for group in other.param_groups for p in group["params"]}
        with torch.no_grad():
            before = float(functional.cross_entropy(model(cifar10.pixels(images)), labels))
        for _ in range(4):
            descend(model, task.loss(model, images, labels, share, generator), optimizers, 0.01)
        with torch.no_grad():
            after = float(functional.cross_entropy(model(cifar10.pixels(images)), labels))
        assert after < before
    assert task.rate(Plan(epochs=2), 0, 50) < task.rate(Plan(epochs=2), 3, 50)
