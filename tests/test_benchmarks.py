# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: the yardstick's closed forms, and the table of whole networks."""

import csv

import pytest

from benchmarks import networks, scalesim
from golden import models

#: SCALE-Sim 3.0.0's own totals without stalls, for the three dataflows.
TOTALS = {8: (21_265_028, 21_889_486, 21_747_406), 16: (5_953_720, 6_123_442, 6_200_950),
          32: (1_838_114, 1_861_750, 1_972_714)}


@pytest.mark.parametrize("side", TOTALS)
def test_closed_forms_give_what_the_tool_gave(side):
    spec = models.lookup("deit_tiny_patch16_224").spec
    assert tuple(scalesim.cycles(spec, side, side).values()) == TOTALS[side]
    assert scalesim.best(spec, side, side) <= min(TOTALS[side])


def test_products_of_a_network():
    assert models.lookup("deit_tiny_patch16_224").spec.products == 1_253_683_200


@pytest.mark.slow
def test_the_table_of_networks(tmp_path, capsys):
    assert networks.main(["deit_tiny_patch16_224", "-o", str(tmp_path / "out")]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "networks.csv").open()))
    assert [row["array"] for row in rows] == ["8x8", "16x16", "32x32"]
    for row in rows:
        assert int(row["cycles"]) < int(row["scalesim_best_by_layer"])
    assert float(rows[1]["utilisation"]) >= 0.98
    assert int(rows[1]["bytes"]) <= 7_000_000


@pytest.mark.parametrize(("arguments", "message"), [
    (["resnet"], "the network must be one of"), (["--clock", "0"], "clock must be above 0, not 0"),
])
def test_bad_input_gets_one_line(arguments, message, tmp_path, capsys):
    assert networks.main([*arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
