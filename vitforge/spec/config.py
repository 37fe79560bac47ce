# SPDX-License-Identifier: Apache-2.0
"""Every generation-time parameter of ViTForge, in one frozen dataclass.

A configuration is a named preset (``tiny``, ``edge8``, ``edge16``, ``swin16``; ``ecp5-85k-w8``,
``ecp5-85k-w4``, ``ecp5-85k-w4a4``) or a TOML file with any of the fields below; a field that is not
given keeps its default, which is the one of ``edge16``.
"""

__all__ = ["Config", "ConfigError", "load", "preset_names"]

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitforge.spec.formats import ATTENTION, CODE_BITS, GELUS, SUBSETS, attention_format

PRESETS = Path(__file__).parent / "presets"


class ConfigError(ValueError):
    """A configuration that can't be had; the message names the field or the file."""


def _integer(low: int, high: int, text: str, *, default: int) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "help": text})


def _choice(*choices: str, text: str) -> Any:
    return field(default=choices[0], metadata={"choices": choices, "help": text})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Parameters of the units and of the accelerator; widths are in bits.

    Raises
    ------
    ConfigError
        If a field has the wrong type, lies outside its range, or contradicts another.
    """

    name: str = field(default="edge16", metadata={"help": "name that appears in file names"})

    rows: int = _integer(1, 64, "rows of the systolic array = operands per activation word",
                         default=16)
    cols: int = _integer(1, 64, "columns of the systolic array = partial sums per output word",
                         default=16)
    weight_bits: int = _integer(2, 8, "signed width of a weight", default=8)
    mantissa_bits: int = _integer(2, 9, "signed width of an operand before its shift", default=9)
    operand_bits: int = _integer(4, 18, "signed width of an operand after its shift", default=17)
    pe_style: str = _choice("wide", "shift", text="shift the operand before the multiplier, or "
                            "the product after it")
    multiplier: str = _choice("18x18", "25x18", "27x18", "none", text="ports of the device's "
                              "multipliers; none: products are made of LUTs")
    modes: str = _choice("single", "single+pair", "single+pair+quad", "single+quad", "pair",
                         "pair+quad", "quad", text="products that a multiplier may make at once: "
                         "one; of two narrow weights; of those by the operands of two tokens")
    packed_weight_bits: int = _integer(2, 8, "signed width of a narrow weight, of which the "
                                       "array takes all values but the least", default=4)
    acc_bits: int = _integer(16, 40, "signed width of an accumulator", default=32)

    lanes: int = _integer(1, 64, "elements per cycle of softmax, requantizer and LayerNorm",
                          default=4)

    score_bits: int = _integer(4, 12, "signed width of an attention score code", default=8)
    max_keys: int = _integer(1, 4095, "longest softmax row", default=1024)
    exponential: str = _choice("shift", "iexp", text="softmax exponential: shift-based, or "
                               "FQ-ViT's polynomial")
    attention: str = _choice(*ATTENTION, "linear",
                             text="softmax output: the codes that the accelerator multiplies, or "
                             "linear probabilities for the requantizer (the unit alone)")
    attention_bits: int = _integer(3, CODE_BITS, "width of an attention code: " + ", ".join(
        f"{kind} 3 to {widest}" for kind, widest in ATTENTION.items()), default=4)
    exp_fraction_bits: int = _integer(4, 14, "fraction bits of the base-2 exponents", default=10)
    exp_table_bits: int = _integer(0, 6, "log2 of the segments of the 2**-f and log2(1+f) tables",
                                   default=3)
    iexp_shift: int = _integer(16, 30, "the constant n of FQ-ViT's exponential", default=20)

    drain_products: str = _choice("multipliers", "luts", text="products of an accelerator's drain: "
                                  "all by multipliers, or by LUTs but for one a lane, with shifts "
                                  "by shifters")
    multiplier_bits: int = _integer(1, 18, "unsigned width of a dyadic multiplier; 1: powers of "
                                    "two only", default=16)
    factor_bits: int = _integer(4, 18, "unsigned width of the factor of GeLU's result, and of a "
                                "residual", default=16)
    gelu: str = _choice(*GELUS, text="what the table of GELU is of: the exact one, or QuickGELU, "
                        "x sigmoid(1.702 x), as in OpenAI's CLIP")
    formats: str = _choice(*SUBSETS, text="codes that a requantizer makes and an operand may have; "
                           "those of `attention` the operands of P V have besides")
    value_bits: int = _integer(10, 24, "signed width of a requantized value before its encoding",
                               default=16)

    norm_bits: int = _integer(8, 16, "signed width of a LayerNorm input after its shift",
                              default=12)
    max_channels: int = _integer(1, 2048, "longest LayerNorm row", default=1024)
    rsqrt_bits: int = _integer(8, 18, "significant bits of the reciprocal square root",
                               default=16)

    max_tokens: int = _integer(1, 4095, "longest sequence: depth of the accumulators", default=256)
    table_tokens: int = _integer(0, 1 << 16, "indices of tokens that a program may keep, by which "
                                 "passes gather operands; 0: none can, and a residual is where its "
                                 "sum goes", default=0)
    stream_tokens: int = _integer(0, 1 << 14, "with tables, tokens of a residual stream; 0: "
                                  "max_tokens", default=0)
    scratch_words: int = _integer(16, 1 << 20, "words of the scratchpad's bank of activations",
                                  default=40960)
    residual_words: int = _integer(16, 1 << 20, "words of the bank of the residual stream",
                                   default=10240)
    stationary_words: int = _integer(16, 1 << 20, "words of the bank of keys and values",
                                     default=5120)
    axi_bits: int = _integer(64, 512, "width of the memory bus, a power of two", default=128)
    burst_beats: int = _integer(1, 256, "longest burst on the memory bus", default=16)
    fetch_beats: int = _integer(16, 4096, "beats of the program that are fetched ahead, a power "
                                "of two", default=256)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            self._validate(item)
        for name in ("axi_bits", "fetch_beats"):
            if getattr(self, name) & getattr(self, name) - 1:
                raise ConfigError(f"{name} must be a power of two, not {getattr(self, name)}")
        if self.burst_beats * 2 > self.fetch_beats:
            raise ConfigError(f"fetch_beats must be at least twice burst_beats "
                              f"({self.burst_beats}), not {self.fetch_beats}")
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(f"name must be letters, digits, '-' and '_', not {self.name!r}")
        widest = ATTENTION.get(self.attention, CODE_BITS)
        if self.attention_bits > widest:
            raise ConfigError(f"attention_bits of {self.attention} codes must be 3 to {widest}, "
                              f"not {self.attention_bits}")
        if self.operand_bits < self.mantissa_bits:
            raise ConfigError(f"operand_bits must be at least mantissa_bits ({self.mantissa_bits})"
                              f", not {self.operand_bits}")
        for name in ("max_keys", "max_channels"):
            if getattr(self, name) < self.lanes:
                raise ConfigError(f"{name} must be at least lanes ({self.lanes}), "
                                  f"not {getattr(self, name)}")
        if self.sum_bits > self.acc_bits:
            raise ConfigError(f"acc_bits must be at least {self.sum_bits} to hold one tile's "
                              f"partial sums, not {self.acc_bits}")

    def _validate(self, item: dataclasses.Field[Any]) -> None:
        value, meta = getattr(self, item.name), item.metadata
        if "low" in meta:
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{item.name} must be an integer, not {value!r}")
            if not meta["low"] <= value <= meta["high"]:
                raise ConfigError(f"{item.name} must be between {meta['low']} and {meta['high']}, "
                                  f"not {value}")
        elif not isinstance(value, str) or not value:
            raise ConfigError(f"{item.name} must be a string, not {value!r}")
        elif "choices" in meta and value not in meta["choices"]:
            raise ConfigError(f"{item.name} must be one of {', '.join(meta['choices'])}, "
                              f"not {value!r}")

    @property
    def max_shift(self) -> int:
        """Largest left shift of an operand: a mantissa of 1 must stay below the sign bit.

        0 where no format has one.
        """
        return self.operand_bits - 2 if self.shifts_operands else 0

    @property
    def shift_bits(self) -> int:
        """Width of an operand's shift; 1, of which nothing is made, where all shifts are 0."""
        return max(1, self.max_shift.bit_length())

    @property
    def result_formats(self) -> frozenset[str]:
        """Formats of the codes that the requantizer makes."""
        return frozenset(self.formats.split("+"))

    @property
    def operand_formats(self) -> frozenset[str]:
        """Formats that an operand may have: those, and the one of the attention codes."""
        return self.result_formats | {attention_format(self.attention)}

    @property
    def shifts_operands(self) -> bool:
        """Whether some format shifts mantissas; if none does, an operand is a mantissa."""
        return not self.operand_formats.isdisjoint({"two-scale", "log2"})

    @property
    def counts_thresholds(self) -> bool:
        """Whether some format's code is how many thresholds a value reaches."""
        return not self.result_formats.isdisjoint({"log2", "table"})

    def partial_sum_bits(self, rows: int) -> int:
        """Signed width of the sum of `rows` products.

        ``|operand| <= 2**(operand_bits-1)`` and ``|weight| <= 2**(weight_bits-1)``, so the sum lies
        in ``+-rows * 2**(operand_bits+weight_bits-2)``, both ends included.
        """
        return (rows << self.operand_bits + self.weight_bits - 2).bit_length() + 1

    @property
    def sum_bits(self) -> int:
        """Signed width of the partial sums that leave the array."""
        return self.partial_sum_bits(self.rows)

    def to_dict(self) -> dict[str, int | str]:
        """All fields, in order, as plain values."""
        return dataclasses.asdict(self)

    def hash(self) -> str:
        """Eight hexadecimal digits that name this set of values (the name left out)."""
        values = {k: v for k, v in self.to_dict().items() if k != "name"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def preset_names() -> list[str]:
    """Names that `load` takes beside a path."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load(source: str | Path) -> Config:
    """Read a preset by name, or a TOML file by path.

    Raises
    ------
    ConfigError
        If there is no such preset or file, or the file isn't a configuration; the message says
        which field or file, and what would be accepted.
    """
    path = PRESETS / f"{source}.toml"
    if str(source) not in preset_names():
        path = Path(source)
        if path.suffix != ".toml":
            raise ConfigError(f"no configuration {str(source)!r}: give one of "
                              f"{', '.join(preset_names())}, or a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    known = [item.name for item in dataclasses.fields(Config)]
    for key in values:
        if key not in known:
            raise ConfigError(f"{path}: no field {key!r}; the fields are {', '.join(known)}")
    try:
        return Config(**{"name": path.stem, **values})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
