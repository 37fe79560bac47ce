# SPDX-License-Identifier: Apache-2.0
"""The checker of AXI4's rules finds every rule that is broken, and nothing else."""

import pytest
from axi_rules import CHANNELS, BrokenRule, Rules, Seen

IDLE = {name: Seen(False, True) for name in CHANNELS}
AW = Seen(True, True, (0x100, 1, 3, 1))
AR = Seen(True, True, (0x100, 1, 3, 1))
BEAT, LAST = Seen(True, True, (5, 255, 0)), Seen(True, True, (6, 255, 1))
B = Seen(True, True, (0,))
R, RLAST = Seen(True, True, (7, 0, 0)), Seen(True, True, (8, 0, 1))


def held(seen):
    return seen._replace(ready=False)


def run(*cycles, patience=4):
    rules = Rules(8, 8, patience)
    for cycle in cycles:
        rules.cycle(IDLE | cycle)
    return rules


@pytest.mark.parametrize(("text", "cycles"), [
    ("WVALID fell", [{"w": held(BEAT)}, {}]),
    ("AWVALID fell", [{"aw": held(AW), "w": BEAT}, {}]),
    ("ARVALID fell", [{"ar": held(AR)}, {}]),
    ("AW changed", [{"aw": held(AW)}, {"aw": AW._replace(payload=(0x100, 2, 3, 1))}]),
    ("AR changed", [{"ar": held(AR)}, {"ar": AR._replace(payload=(0x108, 1, 3, 1))}]),
    ("W changed", [{"w": held(BEAT)}, {"w": BEAT._replace(payload=(5, 254, 0))}]),
    ("AW is no incrementing", [{"aw": AW._replace(payload=(0x100, 1, 2, 1))}]),
    ("AW is no incrementing", [{"aw": AW._replace(payload=(0x100, 1, 3, 2))}]),
    ("AR is no incrementing", [{"ar": AR._replace(payload=(0x104, 1, 3, 1))}]),
    ("AR of 9 beats", [{"ar": AR._replace(payload=(0x100, 8, 3, 1))}]),
    ("AW crosses 4 KiB at 0xff8", [{"aw": AW._replace(payload=(0xFF8, 1, 3, 1))}]),
    ("WLAST with beat 1 of 2", [{"aw": AW}, {"w": LAST}]),
    ("WLAST with beat 1 of 2", [{"w": LAST}, {"aw": AW}]),
    ("a beat more", [{"aw": AW}, {"w": BEAT}, {"w": BEAT}, {"w": BEAT}]),
    ("WLAST with beat 3 of 2", [{"w": BEAT}, {"w": BEAT}, {"w": LAST}, {"aw": AW}]),
    ("WVALID waits for AWREADY", [{"aw": held(AW)}] * 5),
    ("WVALID waits for AWREADY", [{"aw": held(AW), "w": BEAT}, *[{"aw": held(AW)}] * 5]),
    ("AWVALID waits for WREADY", [{"w": held(BEAT)}] * 5),
    ("BVALID before", [{"aw": AW}, {"w": BEAT}, {"w": LAST, "b": B}]),
    ("BVALID before", [{"w": BEAT}, {"w": LAST}, {"b": B}]),
    ("RVALID for nothing", [{"ar": AR, "r": R}]),
    ("RLAST", [{"ar": AR}, {"r": R}, {"r": R}]),
    ("RLAST", [{"ar": AR}, {"r": RLAST}]),
])
def test_a_broken_rule_is_named(text, cycles):
    run(*cycles[:-1])
    with pytest.raises(BrokenRule, match=f"cycle {len(cycles) - 1}: {text}"):
        run(*cycles)


@pytest.mark.parametrize(("order", "cycles"), [
    ("before the data", [{"aw": AW}, {"w": BEAT}, {"w": LAST}]),
    ("before a beat", [{"aw": AW, "w": held(BEAT)}, {"w": BEAT}, {"w": LAST}]),
    ("with the first beat", [{"aw": AW, "w": BEAT}, {"w": LAST}]),
    ("among the beats", [{"w": BEAT}, {"aw": AW}, {"w": LAST}]),
    ("with the last beat", [{"aw": held(AW), "w": BEAT}, {"aw": AW, "w": LAST}]),
    ("after the last beat", [{"w": BEAT}, {"w": LAST}, {"aw": AW}]),
])
def test_orders_are_told_apart(order, cycles):
    rules = run(*cycles, *[{"aw": held(AW), "w": held(BEAT)}] * 20,
                {"aw": AW, "w": BEAT}, {"w": LAST}, {"b": held(B)}, {"b": B})
    assert rules.pending
    rules.cycle(IDLE | {"b": B})
    assert not rules.pending
    rules.orders.subtract(["with the first beat"])
    assert +rules.orders == {order: 1}
    assert rules.transfers == {"ar": 0, "r": 0, "aw": 2, "w": 4, "b": 2}


def test_reads_may_overlap():
    rules = run({"ar": AR}, {"ar": AR, "r": held(R)}, {"r": R}, {"r": RLAST}, {"r": R},
                {"r": RLAST})
    assert not rules.pending and rules.cycles == 6
    assert rules.transfers == {"ar": 2, "r": 4, "aw": 0, "w": 0, "b": 0}
