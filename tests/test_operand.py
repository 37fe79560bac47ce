# SPDX-License-Identifier: Apache-2.0
"""The operand path: every mode against its golden function, in any order, on every cycle."""

from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch

from golden.formats.attention import level_format
from golden.machine.engines.operand import (
    Norm,
    factors,
    half,
    keys,
    normalised,
    plain,
    probabilities,
)
from golden.units.layernorm import offset
from golden.units.softmax import ShiftScale, log_softmax
from golden.units.softmax_levels import level_words
from hw.array.systolic import SystolicArray
from hw.operand.format import OperandFormat
from hw.operand.path import OperandPath
from tests.engine_bench import Cycle, Trace, simulate
from tests.sample import later, thorough
from vitforge.spec.config import Config, load
from vitforge.spec.elements import Element
from vitforge.spec.formats import ATTENTION, FORMATS, MIDDLE
from vitforge.spec.instruction import MODES, NORM_PARAMETER, OPERANDS
from vitforge.spec.layernorm_widths import GAMMA_BITS
from vitforge.spec.sizes import doubled
from vitforge.spec.softmax_widths import ShiftWidths
from vitforge.spec.timing import OPERAND

CONFIGS = [
    load("tiny"),
    Config(name="8x8", rows=8, cols=8, lanes=4, max_channels=96, max_tokens=20, max_keys=64,
           norm_bits=16, exp_fraction_bits=14, rsqrt_bits=18),
    Config(name="3x3", rows=3, cols=3, lanes=3, max_channels=8, max_tokens=5, max_keys=20,
           norm_bits=9, exp_fraction_bits=4, rsqrt_bits=8, attention_bits=3, operand_bits=18),
    Config(name="channels", rows=4, cols=4, lanes=2, max_channels=1024, max_tokens=9, max_keys=30),
    Config(name="log2-attention-alone", rows=2, cols=2, lanes=2, max_channels=8, max_tokens=9,
           max_keys=30, formats="uniform"),
    *(Config(name=f"{kind}-alone", rows=2, cols=2, lanes=2, max_channels=8, max_tokens=9,
             max_keys=30, formats="uniform", attention=kind, operand_bits=9)
      for kind in ("uniform", "table")),
    Config(name="log2-5", rows=4, cols=4, lanes=2, max_channels=32, max_tokens=9, max_keys=30,
           attention_bits=5),
    *(Config(name=f"pairs-of-tokens-{multiplier}", rows=4, cols=4, lanes=4, max_channels=64,
             max_tokens=9, max_keys=30, modes="single+pair+quad", multiplier=multiplier,
             attention="uniform", attention_bits=4) for multiplier in ("18x18", "27x18")),
    *(Config(name=f"{kind}-{bits}-{rows}", rows=rows, cols=rows, lanes=rows, max_channels=channels,
             max_tokens=9, max_keys=30, attention=kind, attention_bits=bits, **more)
      for kind, bits, rows, channels, more in (
          ("uniform", 8, 3, 60, {}), ("uniform", 3, 2, 16, {"norm_bits": 9, "rsqrt_bits": 8}),
          ("two-scale", 8, 4, 64, {"exp_fraction_bits": 4}), ("two-scale", 6, 2, 8, {}),
          ("table", 4, 4, 256, {"norm_bits": 16, "exp_fraction_bits": 14}),
          ("table", 3, 2, 8, {"norm_bits": 9}), ("log-sqrt2", 3, 2, 8, {}),
          *((kind, widest, 3, 9, {}) for kind, widest in ATTENTION.items()))),
]
#: Of each of the two rounds.
WORDS = 250
#: Every format, at an end of its bits at least; the others have another width of the same.
SLOW = ("8x8", "3x3", "channels", "log2-attention-alone", "uniform-alone", "log2-5",
        "pairs-of-tokens-18x18", "uniform-3-2", "two-scale-8-4", "two-scale-6-2", "table-4-4",
        "log-sqrt2-3-2", "table-4-3", "table-3-2")
THOROUGH = ("uniform-8-3", "table-alone", "two-scale-8-3")
by_name = pytest.mark.parametrize("config", [
    later(config) if config.name in SLOW else thorough(config) if config.name in THOROUGH
    else config for config in CONFIGS],
    ids=lambda config: config.name)


class Random:
    """Integers of one generator."""

    def __init__(self, seed):
        self.rng = torch.Generator().manual_seed(seed)

    def below(self, high, low=0):
        return int(torch.randint(low, high, (1,), generator=self.rng))

    def tensor(self, low, high, *shape):
        return torch.randint(low, high, shape, generator=self.rng)

    def shuffle(self, values):
        order = torch.randperm(len(values), generator=self.rng).tolist()
        values[:] = [values[index] for index in order]

    def chance(self, probability):
        return float(torch.rand(1, generator=self.rng)) < probability


@dataclass
class Word:
    """A request, the word of the bank that it gets, and the operands that it must give."""

    fields: dict
    codes: list
    operands: list = field(default_factory=list)
    kept: list = field(default_factory=list)   # codes


class Case:
    """Contents of the memories, and words that use them."""

    def __init__(self, config, rng):
        self.config, self.rng = config, rng
        tokens = range(config.max_tokens)
        self.norms = [self._norm(slot) for slot in range(2)]
        self.rows = [self._row(token) for token in tokens]
        self.keys = [[self._keys(token) for token in tokens] for _ in range(2)]

    def _norm(self, slot):
        """Channels, zero points and parameters of a slot."""
        config, rng = self.config, self.rng
        tiles = config.max_channels // config.rows
        channels = config.rows * (tiles if slot else rng.below(tiles + 1, 1))
        gain = (1 << GAMMA_BITS - 1) - 1
        gamma = rng.tensor(-4000, 4001, channels)
        gamma[rng.tensor(0, 9, channels) == 0] = gain
        gamma[rng.tensor(0, 9, channels) == 0] = -gain - 1
        return Norm(zero_point=rng.below(256), to=rng.below(256), gamma=gamma,
                    shift=rng.tensor(0, min(7, config.norm_bits - 9) + 1, channels),
                    beta=rng.tensor(-40000, 40001, channels))

    def _row(self, token):
        """Codes of a token."""
        rng, channels = self.rng, self.norms[token % 2].channels
        middle = rng.below(256)
        codes = [rng.tensor(0, 256, channels),
                 torch.full((channels,), middle),
                 torch.where(rng.tensor(0, 2, channels) == 0, 0, 255),
                 (middle + rng.tensor(-1, 2, channels)).clamp(0, 255)][token % 4]
        if token % 8 == 6:
            # As far from the mean as an element can be.
            codes = torch.full((channels,), middle)
            codes[rng.below(channels)] = 255
        return codes

    def _keys(self, token):
        """Scores of a token, and their offset."""
        config, rng = self.config, self.rng
        count = rng.below(config.max_keys + 1, 1)
        spread, middle = 1 << rng.below(9), rng.below(256)
        scores = (rng.tensor(-spread // 2, (spread + 1) // 2, count) + middle).clamp(0, 255)
        top = (1 << ShiftWidths.multiplier) - 1
        multiplier = [1, top, rng.below(top, 1), rng.below(2000, 1)][token % 4]
        row = keys(scores - MIDDLE, multiplier, config)
        if config.attention == "log2":
            keep = torch.ones(count, dtype=torch.bool)
            assert torch.equal(log_softmax(row.scores, keep, ShiftScale(multiplier), config),
                               row.log2_codes(config))
        if rng.chance(0.5):
            # An offset beside the end of a code, for the likeliest key.
            octaves = rng.below(20, 1) << ShiftWidths(config).fraction
            row = replace(row, offset=int(row.exponents(config).max()) + octaves - rng.below(2)
                          - half(config))
        return row

    def writes(self):
        """Yield what the ports `norm_write`, `factor_write` and `probability_write` get."""
        config = self.config
        part_bits = config.cols * 8
        for slot, norm in enumerate(self.norms):
            words = NORM_PARAMETER.pack({
                "gamma": norm.gamma.numpy(), "shift": norm.shift.numpy(),
                "offset": offset(norm.beta, norm.to).numpy(),
                "reserved": self.rng.tensor(0, 1 << 23, norm.channels).numpy()})
            for tile in range(norm.channels // config.rows):
                bits = sum(word << 64 * n for n, word in
                           enumerate(words[tile * config.rows:(tile + 1) * config.rows]))
                for part in range(8):
                    yield "norm_write", {
                        "slot": slot, "tile": tile, "part": part,
                        "data": bits >> part * part_bits & (1 << part_bits) - 1}
        for token, codes in enumerate(self.rows):
            yield "factor_write", {"token": token, "payload": factors(
                codes, self.norms[token % 2], config)}
        for slot, rows in enumerate(self.keys):
            for token, row in enumerate(rows):
                yield "probability_write", {"slot": slot, "token": token,
                                            "offset": row.stored(config)}

    def word(self):
        """Draw a word of any mode; what a mode doesn't use is noise."""
        config, rng = self.config, self.rng
        token = rng.below(config.max_tokens)
        fields = {
            "valid": 1, "token": token, "tile": rng.below(OperandFormat(config).tiles),
            "last": rng.below(2), "blank": int(rng.chance(0.05)),
            "valid_rows": rng.below(config.rows + 1), "operand": 0,
            "operand_format": rng.below(4), "operand_zero_point": rng.below(256),
            "operand_m": rng.below(8), "operand_signed": rng.below(2),
            "operand_bits": rng.below(9, 2), "norm_zero_point": rng.below(256),
            "norm_slot": rng.below(2), "probability_slot": rng.below(2),
            "softmax_multiplier": rng.below(1 << 18), "softmax_shift": rng.below(1 << 12)}
        if list(FORMATS)[fields["operand_format"]] not in config.operand_formats:
            fields["operand_format"] = FORMATS["uniform"]
        mode = ("plain", "norm", "softmax")[rng.below(3)]
        fields["operand"] = OPERANDS[mode]
        if doubled(config):
            fields |= {"mode": rng.below(2), "keep": rng.below(2)}
            if mode == "plain" and rng.chance(0.5):
                fields |= {"mode": MODES["quad"], "operand_format": FORMATS["uniform"]}
        word = {"plain": self._plain, "norm": self._normalised, "softmax": self._softmax}[mode](
            fields)
        if fields["blank"]:
            word.operands = [(0, None)] * config.rows
            word.kept = [0] * config.rows
        return word

    def _plain(self, fields):
        config, rng = self.config, self.rng
        high = 256
        if fields["operand_format"] == FORMATS["two-scale"]:
            high = 1 << fields["operand_bits"]
        elif fields["operand_format"] == FORMATS["log2"]:
            fields["operand_bits"] = rng.below(5, 2)
            high = 1 << fields["operand_bits"]
        codes = rng.tensor(0, high, config.rows)
        codes[rng.tensor(0, 5, config.rows) == 0] = high - 1
        if fields.get("mode") == MODES["quad"]:
            zero, bits = fields["operand_zero_point"] & 15, Element(config).operand_bits["quad"]
            both = ((codes >> 4) - zero << bits) + (codes & 15) - zero
            return Word(fields, codes.tolist(), [(value, 0) for value in both.tolist()],
                        codes.tolist())
        return Word(fields, codes.tolist(), plain(fields, codes), codes.tolist())

    def _softmax(self, fields):
        config, rng = self.config, self.rng
        row = self.keys[fields["probability_slot"]][fields["token"]]
        start = rng.below(-(-len(row.scores) // config.rows)) * config.rows
        row = row.at(slice(start, start + config.rows))
        fields |= {"softmax_multiplier": row.multiplier, "valid_rows": len(row.scores)}
        noise = rng.tensor(0, 256, config.rows - len(row.scores))
        shift = m = 0
        if config.attention != "log2":
            shift = rng.below(2048, -2048) if rng.chance(0.1) else rng.below(300, -1300)
            # Beyond the bits of an operand m is no use, but nothing else may suffer.
            root = config.attention == "log-sqrt2"
            m = 1 << config.attention_bits - 2 if root else rng.below(8)
            fields |= {"operand_format": 0, "operand_zero_point": 0, "operand_signed": 0,
                       **level_format(shift, m, config).probability_fields(),
                       "softmax_shift": shift & 0xFFF, "operand_m": m}
        codes = row.scores + MIDDLE
        kept = [0] * len(codes) if config.attention == "log2" else level_words(
            row.scores, torch.tensor(row.offset), row.multiplier, shift, m, config).tolist()
        return Word(fields, [*codes.tolist(), *noise.tolist()],
                    [*probabilities(row, shift, m, config), *[(0, None)] * len(noise)],
                    [*kept, *[0] * len(noise)])

    def _normalised(self, fields):
        config, token = self.config, fields["token"]
        norm, codes = self.norms[token % 2], self.rows[token]
        tile = self.rng.below(norm.channels // config.rows)
        here = slice(tile * config.rows, (tile + 1) * config.rows)
        fields |= {"norm_slot": token % 2, "tile": tile, "norm_zero_point": norm.zero_point}
        operands = normalised(codes, norm, fields, config)
        kept = [value + fields["operand_zero_point"] for value, _ in operands[here]]
        return Word(fields, codes[here].tolist(), operands[here], kept)


def _shows(word, payload, config):
    """Whether a word of the array has the operands of a request."""
    found = SystolicArray.words(config)["a"].unpack([payload])
    lanes = [(mantissa, shift) if wanted is not None else (mantissa << shift, None)
             for mantissa, shift, (_, wanted) in zip(
                 found["mantissa"][0].tolist(), found["shift"][0].tolist(), word.operands,
                 strict=True)]
    modes = [found[name][0] for name in ("mode",) if name in found]
    return (found["last"][0], lanes, modes) == (
        word.fields["last"], word.operands, [word.fields["mode"]] if modes else [])


def _kept(words, advance, config):
    """Return what is kept of a request one step before its operands leave."""
    word = words[len(words) - OPERAND + 1] if len(words) >= OPERAND - 1 else None
    en = bool(advance and word and word.fields["keep"])
    return {"kept.en": en} | ({
        "kept.last": word.fields["last"],
        "kept.data": sum((code & 15) << 4 * n for n, code in enumerate(word.kept))} if en else {})


def _trace(config, rng, words):
    """Cycles of two rounds of words, one with steps without a gap; None stands for no word."""
    bank = [0, 0]
    quiet = {name: {"en": 0} for name in ("norm_write", "factor_write", "probability_write")}

    def cycle(word, advance, **writes):
        """Present a request; the bank answers two steps later, the path `OPERAND` steps later."""
        leaves = words[len(words) - OPERAND] if len(words) >= OPERAND else None
        outputs = {"o.valid": leaves is not None}
        if leaves is not None:
            outputs["o.payload"] = partial(_shows, leaves, config=config)
        if doubled(config):
            outputs |= _kept(words, advance, config)
        found = Cycle({"advance": advance, "i": word.fields if word else {"valid": 0},
                       "codes": bank[0], **(quiet | writes)},
                      outputs)
        if advance:
            bank.append(sum(code << 8 * n for n, code in enumerate(word.codes)) if word
                        else rng.below(1 << 62))
            bank.pop(0)
            words.append(word)
        return found

    for free in (True, False):
        case = Case(config, rng)
        # The last words of the round before have just left, and the first follow at once.
        writes = list(case.writes())
        rng.shuffle(writes)
        for name, value in writes:
            yield cycle(None, free or rng.chance(0.5), **{name: value | {"en": 1}})
            quiet[name] = value | {"en": 0}
        for _ in range(WORDS):
            word = case.word() if rng.chance(0.9) else None
            while not (free or rng.chance(0.7)):
                yield cycle(word, 0)
            yield cycle(word, 1)
        for _ in range(OPERAND - 1):
            yield cycle(None, 1)


@by_name
def test_words_of_all_modes_one_after_the_other(config):
    words = []
    dut = OperandPath(config)
    assert dut.latency == OPERAND
    trace = Trace(dut, _trace(config, Random(1), words))
    simulate(dut, [trace])
    assert len(words) - words.count(None) > 1.6 * WORDS
    modes = {word.fields["operand"] for word in words if word}
    assert modes == set(OPERANDS.values())


@pytest.mark.parametrize(("name", "values"), [
    ("exponential", {"exponential": "iexp"}),
    ("attention", {"attention": "linear"}), ("score_bits", {"score_bits": 9}),
    ("mantissa_bits", {"mantissa_bits": 8}),
    ("operand_bits", {"attention_bits": 5, "operand_bits": 16}),
    ("max_channels", {"max_channels": 8})])
def test_what_it_does_not_do_is_refused_by_name(name, values):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        OperandPath(Config(**({"rows": 16, "cols": 16} | values)))
