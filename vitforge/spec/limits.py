# SPDX-License-Identifier: Apache-2.0
"""What an accelerator may be, and its parts: the configurations that can be built, and be used.

Every limit stands here once. A core asks before it is built, the compiler and calibration before
they begin; so what one takes, the others take. A part of an accelerator, or a network
that no core need run, asks for less.
"""

__all__ = ["LIMITS", "Limit", "Part", "check", "check_format", "fits",
           "same_gelu"]

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from vitforge.spec.config import Config, ConfigError
from vitforge.spec.elements import PORTS, holds
from vitforge.spec.formats import ATTENTION
from vitforge.spec.packing import ELEMENT
from vitforge.spec.sizes import columns, doubled, paired
from vitforge.spec.softmax_widths import log2_depth


class Part(StrEnum):
    """Who may ask, as a refusal calls it."""

    ACCELERATOR = "an accelerator"
    ARRAY = "a systolic array"
    DRAIN = "a drain"
    OPERAND = "an operand path"
    PLACER = "a placer"
    #: `golden.network`: its integers, on whatever array.
    NETWORK = "an integer network"
    #: A network whose steps a published method decided.
    RECORD = "a record's network"


@dataclass(frozen=True)
class Limit:
    """A field, and what it must be.

    Attributes
    ----------
    field
        Name of the field.
    good
        Whether a configuration keeps the limit.
    wanted
        What would be accepted, with other fields in braces.
    parts
        Who asks.
    """

    field: str
    good: Callable[[Config], bool]
    wanted: str
    parts: frozenset[Part]


def _power_of_two(value: int) -> bool:
    return value & value - 1 == 0


def operand_bits(config: Config) -> int:
    """Return the narrowest operand: a log2 code's is a one in front of as many zeros."""
    if config.attention == "log2":
        return log2_depth(config.attention_bits) + 2
    return 9


def _limit(field: str, parts: str, wanted: str, good: Callable[[Config], bool]) -> Limit:
    return Limit(field, good, wanted, frozenset(Part[name] for name in parts.split()))


#: All limits; the first that isn't kept is the one that is said.
LIMITS = (
    _limit("rows", "ACCELERATOR", "4, 8, 16, 32 or 64", lambda c: c.rows in (4, 8, 16, 32, 64)),
    _limit("rows", "PLACER", "a power of two", lambda c: _power_of_two(c.rows)),
    _limit("cols", "ACCELERATOR DRAIN", "1, 2 or 4 times rows ({rows})",
           lambda c: c.cols in (c.rows, 2 * c.rows, 4 * c.rows)),
    _limit("modes", "ACCELERATOR", "single, single+pair or single+pair+quad",
           lambda c: c.modes in ("single", "single+pair", "single+pair+quad")),
    _limit("lanes", "ACCELERATOR", "a power of two from {least_lanes} to {most_lanes} ({rows} "
           "rows, {cols} cols)", lambda c: _power_of_two(c.lanes) and columns(c) <= 8 * c.lanes
           and c.lanes << (not doubled(c)) <= c.rows),
    _limit("lanes", "DRAIN", "a divisor of rows ({rows})", lambda c: c.rows % c.lanes == 0),
    _limit("lanes", "PLACER", "a power of two up to rows ({rows})",
           lambda c: _power_of_two(c.lanes) and c.lanes <= c.rows),
    _limit("multiplier", "ACCELERATOR", f"one of {', '.join(PORTS)}",
           lambda c: c.multiplier in PORTS),
    _limit("modes", "ARRAY", "single (products are made of LUTs)",
           lambda c: c.modes == "single" or c.multiplier in PORTS),
    _limit("pe_style", "ACCELERATOR ARRAY", "wide (modes are {modes})",
           lambda c: c.modes == "single" or c.pe_style == "wide"),
    _limit("packed_weight_bits", "ACCELERATOR", f"at most {ELEMENT // 2} (two of them are one of "
           "the stream's elements)",
           lambda c: not paired(c) or c.packed_weight_bits <= ELEMENT // 2),
    _limit("packed_weight_bits", "ACCELERATOR", f"{ELEMENT // 2} (two keys of quad are a byte)",
           lambda c: not doubled(c) or c.packed_weight_bits == ELEMENT // 2),
    _limit("packed_weight_bits", "ARRAY", "at most {widest} (modes are {modes}, multiplier is "
           "{multiplier})", lambda c: c.modes == "single" or c.packed_weight_bits <= holds(c)),
    _limit("weight_bits", "ACCELERATOR", "8 (keys and values are weights)",
           lambda c: c.weight_bits == 8),
    _limit("mantissa_bits", "ACCELERATOR OPERAND NETWORK", "9 (8-bit codes less a zero point)",
           lambda c: c.mantissa_bits == 9),
    _limit("score_bits", "ACCELERATOR DRAIN OPERAND", "8", lambda c: c.score_bits == 8),
    _limit("multiplier_bits", "ACCELERATOR", "at most 16", lambda c: c.multiplier_bits <= 16),
    _limit("multiplier_bits", "RECORD", "at least 2 (the ratios of its steps are no powers of two)",
           lambda c: c.multiplier_bits >= 2),
    _limit("acc_bits", "ACCELERATOR", "at most 32", lambda c: c.acc_bits <= 32),
    _limit("attention", "ACCELERATOR DRAIN OPERAND NETWORK", f"one of {', '.join(ATTENTION)}",
           lambda c: c.attention in ATTENTION),
    _limit("exponential", "ACCELERATOR DRAIN OPERAND", "shift", lambda c: c.exponential == "shift"),
    _limit("exponential", "NETWORK", "shift (attention is {attention})",
           lambda c: c.attention == "log2" or c.exponential == "shift"),
    _limit("operand_bits", "ACCELERATOR OPERAND NETWORK", "at least {least} (attention codes are "
           "{attention} of {attention_bits} bits)", lambda c: c.operand_bits >= operand_bits(c)),
    _limit("operand_bits", "ACCELERATOR ARRAY OPERAND", "mantissa_bits ({mantissa_bits}, as "
           "attention is {attention} and formats are {formats})",
           lambda c: c.shifts_operands or c.operand_bits == c.mantissa_bits),
    _limit("norm_bits", "ACCELERATOR NETWORK", "at least mantissa_bits ({mantissa_bits})",
           lambda c: c.norm_bits >= c.mantissa_bits),
    _limit("value_bits", "ACCELERATOR NETWORK", "at least norm_bits ({norm_bits})",
           lambda c: c.value_bits >= c.norm_bits),
    _limit("table_tokens", "ACCELERATOR", "0 (modes are {modes}, whose tokens go two by two)",
           lambda c: not c.table_tokens or "quad" not in c.modes),
    _limit("max_tokens", "ACCELERATOR", "at least 2", lambda c: c.max_tokens >= 2),
    _limit("max_channels", "ACCELERATOR", "a multiple of rows ({rows})",
           lambda c: c.max_channels % c.rows == 0),
    _limit("max_channels", "OPERAND", "at least 2, and rows ({rows})",
           lambda c: c.max_channels >= max(2, c.rows)),
)


def check(config: Config, part: Part = Part.ACCELERATOR) -> None:
    """Refuse a configuration of which a part can't be made.

    Raises
    ------
    ConfigError
        The message names the field, and what would be accepted.
    """
    for limit in LIMITS:
        if part in limit.parts and not limit.good(config):
            widest = holds(config) if "{widest}" in limit.wanted else 0
            wanted = limit.wanted.format(least=operand_bits(config), widest=widest,
                                         least_lanes="cols / 4" if paired(config) else "cols / 8",
                                         most_lanes="rows" if doubled(config) else "rows / 2",
                                         **config.to_dict())
            raise ConfigError(f"{limit.field} must be {wanted} for {part}, "
                              f"not {getattr(config, limit.field)}")


def check_format(config: Config, kind: str, name: str, instead: str) -> None:
    """Refuse codes that a machine can't make.

    Parameters
    ----------
    kind
        Of `vitforge.spec.formats.FORMATS`.
    name
        What has these codes.
    instead
        What would do, beside a machine that has them.

    Raises
    ------
    ConfigError
        The message names all of them.
    """
    if kind not in config.result_formats:
        raise ConfigError(f"formats must have {kind} for the codes of {name}, not be "
                          f"{config.formats} ({instead})")


def same_gelu(config: Config, gelu: str) -> None:
    """Refuse a configuration whose table is of another GELU than a network has.

    Raises
    ------
    ConfigError
        The message names the field, and what would be accepted.
    """
    if config.gelu != gelu:
        raise ConfigError(f"gelu must be {gelu!r} for this network's MLPs, not {config.gelu!r}")


def fits(config: Config, **least: int) -> None:
    """Refuse a configuration whose rows are shorter than a network's.

    Parameters
    ----------
    least
        Of `max_tokens`, `max_keys`, `max_channels`, `stream_tokens` or `table_tokens`, what the
        network needs.

    Raises
    ------
    ConfigError
        The message names the field, and what would be accepted.
    """
    what = {"max_tokens": "tokens", "max_keys": "keys", "max_channels": "channels",
            "stream_tokens": "residual stream", "table_tokens": "tables"}
    for name, value in least.items():
        has = max(config.max_tokens, config.stream_tokens) if name == "stream_tokens" \
            else getattr(config, name)
        if has < value:
            raise ConfigError(f"{name} must be at least {value} for this network's {what[name]}, "
                              f"not {getattr(config, name)}")
