# SPDX-License-Identifier: Apache-2.0
"""The memory of the simulations keeps its timing, and sees what a master does wrong."""

import json
import random

import pytest
from cocotb_tools.runner import get_results

from sim.accelerator.model import HERE
from sim.run import Runner
from sim.toolchain import find

pytestmark = pytest.mark.rtl

BITS, BYTES, LATENCY = 64, 1 << 13, 20
OKAY, SLVERR, DECERR = 0, 2, 3
DATA = [random.Random(1).getrandbits(BITS) for _ in range(BYTES // 8)]
READ = {"arsize": 3, "arburst": 1, "arvalid": 1, "rready": 1}
WRITE = {"awsize": 3, "awburst": 1, "awvalid": 1, "bready": 1, "write_high": BYTES}
BEAT = {"wstrb": 255, "wvalid": 1}


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    (folder / "memory.hex").write_text("\n".join(f"{word:016x}" for word in DATA))
    runner = Runner(find(), False)
    # No warning is waived.
    runner.build(sources=[HERE / "memory.v"], hdl_toplevel="memory", build_dir=folder,
                 build_args=["-Wall"], timescale=("1ns", "1ps"), log_file=folder / "build.log",
                 parameters={"BITS": BITS, "BYTES": BYTES, "LATENCY": LATENCY})

    def run(*scenes, cycles=60, **plusargs):
        scenes = [[*steps, *[{}] * cycles] for steps in scenes]
        (folder / "play.json").write_text(json.dumps(scenes))
        report = runner.test(
            test_module="sim.testing.memory_bench", hdl_toplevel="memory",
            hdl_toplevel_lang="verilog",
            build_dir=folder, test_dir=folder, log_file=folder / "run.log",
            extra_env={"VITFORGE_PLAY": str(folder / "play.json"),
                       "VITFORGE_RESULT": str(folder / "result.json")},
            plusargs=[f"+memory={folder / 'memory.hex'}",
                      *(f"+{name}={value}" for name, value in plusargs.items())])
        assert get_results(report) == (1, 0)
        return json.loads((folder / "result.json").read_text())

    return run


def read(address, beats):
    return READ | {"araddr": address, "arlen": beats - 1}


def write(address, beats):
    return WRITE | {"awaddr": address, "awlen": beats - 1}


def beats_of(found):
    """Cycles, data, responses and ends of R, with `rready` always high."""
    return [(cycle, one["rdata"], one["rresp"], one["rlast"])
            for cycle, one in enumerate(found) if one["rvalid"]]


NO_AR, NO_AW, NO_W = ({f"{name}valid": 0} for name in ("ar", "aw", "w"))


def test_reads_come_as_documented(play):
    steps = [read(8, 3), read(4096, 1), NO_AR, {}, {}, read(64, 2), NO_AR, *[{}] * 40, read(0, 1),
             NO_AR]
    (found,) = play(steps)
    first = LATENCY
    cycles = [first, first + 1, first + 2, first + 3, first + 5, first + 6, 47 + LATENCY]
    words = [1, 2, 3, 512, 8, 9, 0]
    assert beats_of(found) == [(cycle, DATA[word], OKAY, word in (3, 512, 9, 0))
                               for cycle, word in zip(cycles, words, strict=True)]
    assert found[-1]["violation"] == 0 and found[-1]["read_beats"] == 7
    assert [one["pending"] for one in found] == [1] * (first + 7) + [0] * (47 - first - 7) \
        + [1] * (LATENCY + 1) + [0] * (len(found) - 48 - LATENCY)
    # Nothing may depend on what is there while nothing is valid.
    assert found[0]["rresp"] == 3 and found[first - 1]["rdata"] == DATA[1] ^ (1 << BITS) - 1


def test_a_beat_waits_for_its_master(play):
    steps = [read(0, 4) | {"rready": 0}, NO_AR, *[{"rready": number % 3 == 2}
                                                 for number in range(50)]]
    (found,) = play(steps, stall_r=150)
    ready = [0, 0, *(number % 3 == 2 for number in range(50))]
    taken, held = [], None
    for one, take in zip(found, ready, strict=False):
        assert held is None or (one["rvalid"] and one["rdata"] == held)
        held = one["rdata"] if one["rvalid"] and not take else None
        if one["rvalid"] and take:
            taken.append(one["rdata"])
    assert taken == DATA[:4]


def test_data_may_come_before_their_address(play):
    lates = (-3, 0, 1, 5)

    def scene(late):
        """Three beats, and their address `late` cycles after the first."""
        steps = [{} for _ in range(20)]
        for number in range(3):
            steps[5 + number] |= BEAT | {"wdata": 100 + number, "wlast": number == 2,
                                         "wstrb": 15 if number else 255}
        steps[8] |= NO_W
        steps[5 + late] |= write(64 * late + 232, 3)
        steps[6 + late] |= NO_AW
        return steps + [{"peek_address": 64 * late + 232 + 8 * number} for number in range(3)]

    for late, found in zip(lates, play(*map(scene, lates)), strict=True):
        words = DATA[8 * late + 29:][:3]
        assert [one["peek_data"] for one in found[20:23]] == [
            100, *(100 + number | words[number] >> 32 << 32 for number in (1, 2))]
        answers = [cycle for cycle, one in enumerate(found) if one["bvalid"]]
        # Beats that wait for their address are put away one a cycle.
        assert answers == [max(7, 5 + late + 2 if late > 0 else 0) + LATENCY]
        assert found[answers[0]]["bresp"] == OKAY
        assert (found[-1]["violation"], found[-1]["stray"], found[-1]["pending"]) == (0, 0, 0)
        assert found[-1]["write_beats"] == 3


@pytest.mark.thorough
@pytest.mark.parametrize(("order", "address_first", "data_first"), [
    # Cycles in which AW, the beat and the answer pass, if the other channel comes 10 cycles later.
    (0, (0, 10, 10 + LATENCY), (10, 0, 10 + LATENCY)),
    (1, (0, 10, 10 + LATENCY), (10, 11, 11 + LATENCY)),
    (2, (11, 10, 11 + LATENCY), (10, 0, 10 + LATENCY)),
    (3, (10, 10, 10 + LATENCY), (10, 10, 10 + LATENCY)),
])
def test_orders_of_address_and_data(play, order, address_first, data_first):
    def scene(starts, ends):
        steps = [{} for _ in range(30)]
        beat = BEAT | {"wlast": 1, "wdata": 7}
        for start, end, on, off in zip(starts, ends, (write(64, 1), beat), (NO_AW, NO_W),
                                       strict=True):
            steps[start] |= on
            steps[end + 1] |= off
        return [*steps, {"peek_address": 64}]

    found = play(scene((0, 10), address_first[:2]), scene((10, 0), data_first[:2]), order=order)
    offered = ((0, 10), (10, 0))
    for one, wanted, starts in zip(found, (address_first, data_first), offered, strict=True):
        taken = [next(cycle for cycle, step in enumerate(one) if step[name] and cycle >= start)
                 for name, start in zip(("awready", "wready"), starts, strict=True)]
        answers = [cycle for cycle, step in enumerate(one) if step["bvalid"]]
        assert (*taken, *answers) == wanted
        assert one[30]["peek_data"] == 7
        assert (one[-1]["violation"], one[-1]["pending"], one[-1]["write_beats"]) == (0, 0, 1)


def test_orders_vary_by_burst(play):
    # Bursts of one beat, one after the other: sometimes the address goes first, sometimes the beat.
    steps = [write(0, 1) | BEAT | {"wlast": 1}, *[{}] * 300]
    for stall in (0, 100):
        (found,) = play(steps, latency=2, order=4, stall=stall)
        ahead, seen = 0, set()
        for one in found:
            ahead += one["awready"] - one["wready"]
            seen.add(ahead)
        assert {-1, 0, 1} <= seen
        assert found[-1]["violation"] == 0 and found[-1]["write_beats"] > 60


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_each_channel_has_its_own_stalls(play, channel):
    # Bursts of one beat, one after the other.
    steps = [read(0, 1) | write(0, 1) | BEAT | {"wlast": 1}, *[{}] * 250]
    (found,) = play(steps, latency=2, **{f"stall_{channel}": 128})
    rates = {name: sum(one[output] for one in found[50:250]) / 200
             for name, output in (("ar", "arready"), ("r", "rvalid"), ("aw", "awready"),
                                  ("w", "wready"), ("b", "bvalid"))}
    assert 0.4 < rates[channel] < 0.6
    # The others go on as fast as this one lets them.
    pair = ("ar", "r") if channel in ("ar", "r") else ("aw", "w", "b")
    assert all(rate == 1 for name, rate in rates.items() if name not in pair)


def test_latencies_vary_by_burst_and_keep_the_order(play):
    apart = [one for number in range(8) for one in (read(64 * number, 1), NO_AR, *[{}] * 98)]
    near = [*(read(64 * number, 1) for number in range(8)), NO_AR]
    found = [beats_of(one) for one in play(apart, near, cycles=100, jitter=63, seed=4)]
    for beats in found:
        assert [data for _, data, _, _ in beats] == DATA[0:64:8]
    waits = [cycle - 100 * number for number, (cycle, _, _, _) in enumerate(found[0])]
    assert min(waits) >= LATENCY and max(waits) <= LATENCY + 63 and len(set(waits)) > 4


@pytest.mark.parametrize(("given", "reads", "writes"), [
    ({"error": SLVERR}, SLVERR, SLVERR), ({"read_error": DECERR}, DECERR, OKAY),
    ({"write_error": DECERR}, OKAY, DECERR), ({"error": 3, "read_error": 2}, SLVERR, DECERR),
], ids=str)
def test_errors_of_reads_and_of_writes(play, given, reads, writes):
    (found,) = play([read(0, 4) | write(8, 1) | BEAT | {"wlast": 1, "wdata": 5},
                     NO_AR | write(16, 2) | {"wdata": 6, "wlast": 0},
                     NO_AW | {"wdata": 7, "wlast": 1}, NO_W, *[{}] * 60,
                     *({"peek_address": address} for address in (8, 16, 24))],
                    error_low=16, error_high=24, **given)
    beats = beats_of(found)
    assert [response for _, _, response, _ in beats] == [OKAY, OKAY, reads, OKAY]
    assert all(response == OKAY or data not in DATA for _, data, response, _ in beats)
    assert [one["bresp"] for one in found if one["bvalid"]] == [OKAY, writes]
    assert [one["peek_data"] for one in found[64:67]] == [5, 6 if writes == OKAY else DATA[2], 7]


def test_beyond_the_memory_nobody_answers(play):
    (found,) = play([read(BYTES - 8, 1) | write(BYTES, 1) | BEAT | {"wlast": 1},
                     read(BYTES, 1) | NO_AW | NO_W, read(0xFFFFFFF8, 1), NO_AR])
    assert [response for _, _, response, _ in beats_of(found)] == [OKAY, DECERR, DECERR]
    assert [one["bresp"] for one in found if one["bvalid"]] == [DECERR]
    assert found[-1]["peek_data"] == DATA[0]
    assert found[-1]["stray"] == 1


def test_bytes_beside_the_buffer_are_seen(play):
    cases = [(64, 255, 0), (56, 255, 1), (56, 0, 0), (120, 255, 0), (128, 1, 1), (128, 0, 0),
             (0, 128, 1)]
    scenes = [[write(address, 1) | BEAT | {"wlast": 1, "wstrb": strobes, "write_low": 64,
                                           "write_high": 128}, NO_AW | NO_W]
              for address, strobes, _ in cases]
    for (_, _, stray), found in zip(cases, play(*scenes, cycles=5), strict=True):
        assert (found[-1]["stray"], found[-1]["violation"]) == (stray, 0)


AR, AW = read(0, 4), write(0, 4)

#: Scenes and the rules that they break, with a memory that takes nothing.
UNTAKEN = [
    (0, [AR, AR | {"araddr": 64}]), (0, [AR, AR | {"arlen": 4}]), (0, [AR, NO_AR]),
    (0, [AR | {"arvalid": 0}, AR, NO_AR]),
    (1, [AW, AW | {"awaddr": 64}]), (1, [AW, AW | {"awlen": 4}]), (1, [AW, NO_AW]),
    (2, [BEAT, {"wdata": 1}]), (2, [BEAT, {"wstrb": 1}]), (2, [BEAT, NO_W]),
    (2, [BEAT, {"wlast": 1}]),
    (None, [AR, AR, AR, AR]), (None, [AW, AW, AW]), (None, [BEAT, BEAT, BEAT]),
]
#: The same with one that takes everything.
TAKEN = [
    (3, [AR | {"arsize": 2}, NO_AR]), (3, [AR | {"arburst": 0}, NO_AR]),
    (3, [AR | {"arburst": 2}, NO_AR]), (3, [AR | {"araddr": 4}, NO_AR]),
    (4, [AW | {"awsize": 2}, NO_AW]), (4, [AW | {"awburst": 2}, NO_AW]),
    (4, [AW | {"awaddr": 2}, NO_AW]),
    (5, [read(4096 - 24, 4), NO_AR]), (5, [read(2056, 256), NO_AR]),
    (6, [write(4096 - 24, 4), NO_AW]),
    (7, [write(0, 2) | BEAT | {"wlast": 1}, NO_AW | {"wlast": 0}, NO_W]),
    (7, [write(0, 2) | BEAT, NO_AW, NO_W]), (7, [write(0, 1) | BEAT, NO_AW | NO_W]),
    (8, [{"rst": 1}, AR, {}]), (8, [{"rst": 1}, AW]), (8, [{"rst": 1}, BEAT]),
    (None, [read(4096 - 32, 4), NO_AR]), (None, [write(4096 - 32, 4), NO_AW]),
    (None, [read(0, 256), read(2048, 256), NO_AR]), (None, [AR, AR | {"araddr": 32}, NO_AR]),
    # What is offered in the first cycle of a reset may be from before.
    (None, [{"rst": 1}, {}, {"rst": 0}]), (None, [AR, NO_AR, {"rst": 1}, {}]),
    (None, [AR, {"rst": 1}, NO_AR]),
]


@pytest.mark.parametrize(("cases", "plusargs"), [(UNTAKEN, {"stall": 256}), (TAKEN, {})],
                         ids=["untaken", "taken"])
def test_broken_rules_are_named(play, cases, plusargs):
    found = play(*([{}, *steps] for _, steps in cases), cycles=2, **plusargs)
    assert [one[-1]["violation"] for one in found] == [
        0 if rule is None else 1 << rule for rule, _ in cases]
