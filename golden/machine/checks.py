# SPDX-License-Identifier: Apache-2.0
"""What makes an instruction a fault: as the sequencer sees it, before anything of it is done."""

__all__ = ["check"]

from collections.abc import Mapping

from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import (
    DESTINATIONS,
    LINE,
    LOOPS,
    MODES,
    OPERANDS,
    OPERATIONS,
    STATISTICS,
    TABLE,
)
from vitforge.spec.pass_fields import (
    pass_doubled,
    pass_keeps,
    pass_pack,
    pass_paired,
    pass_words,
)
from vitforge.spec.sizes import doubled, most_words, paired, tables, weight_words
from vitforge.spec.softmax_widths import ShiftWidths

_FORMATS = {code: name for name, code in FORMATS.items()}


def check(kind: str, fields: Mapping[str, int], config: Config, *, image: int,
          output: int) -> tuple[str, int] | None:
    """Look at an instruction as the sequencer does: the kind and address of its first fault.

    Parameters
    ----------
    image, output
        Bytes of the input and of the output buffer.
    """
    if kind == "PASS":
        return _check_pass(fields, config, output)
    if kind == "LOAD":
        offset, size = fields["offset"], fields["bytes"]
        least, most = (config.lanes - 1).bit_length(), (config.rows - 1).bit_length()
        if not size:
            return "bad length", 0
        if size % config.rows if fields["inline"] else offset % LINE or size % LINE:
            return "misaligned address", offset
        if not fields["inline"] and offset + size > image:
            return "address outside the window", offset
        known = {DESTINATIONS["scratch"], DESTINATIONS["residual"]}
        if tables(config) and fields["inline"]:
            known.add(TABLE)
        if fields["destination"] not in known \
                or not all(fields[f"count_{loop}"] for loop in range(LOOPS)) \
                or not least <= fields["piece"] <= most:
            return "bad field", 0
    return None


def _wrong_width(fields: Mapping[str, int], config: Config) -> bool:
    """Whether a pass has more words, or another mode, than the array can have."""
    modes = [MODES[name] for name in config.modes.split("+")]
    if paired(config) and fields["mode"] not in modes:
        return True
    if pass_paired(fields, config) and fields["stationary"] and not doubled(config):
        return True
    most = most_words(config) if pass_paired(fields, config) else weight_words(config)
    return pass_words(fields, config) > most


def _lacks(fields: Mapping[str, int], config: Config) -> bool:
    """Whether a pass has operands or results of a format that the machine doesn't have."""
    raw = fields["operation"] == OPERATIONS["raw"]
    return _FORMATS[fields["operand_format"]] not in config.operand_formats \
        or (not raw and _FORMATS[fields["format"]] not in config.result_formats)


def _wrong_halves(fields: Mapping[str, int], config: Config) -> bool:
    """Whether a pass has codes of 4 bits where they can't be."""
    operation = fields["operation"]
    if pass_doubled(fields, config) and (
            fields["operand"] != OPERANDS["plain"] or fields["blank_first"]
            or fields["operand_format"] != FORMATS["uniform"]):
        return True
    if pass_keeps(fields, config) and (
            pass_doubled(fields, config) or operation == OPERATIONS["raw"]
            or fields["late"] or fields["pending"]
            or (fields["operand"] == OPERANDS["softmax"] and config.attention == "log2")):
        return True
    return bool(pass_pack(fields, config)) and operation == OPERATIONS["residual"]


def _check_pass(fields: Mapping[str, int], config: Config, output: int) -> tuple[str, int] | None:
    raw = fields["operation"] == OPERATIONS["raw"]
    normed = fields["operand"] == OPERANDS["norm"] or fields["has_norm"]
    if not 1 <= fields["tokens"] <= config.max_tokens or not fields["tiles"]:
        return "bad length", 0
    if normed and fields["tiles"] > config.max_channels // config.rows:
        return "bad length", 0
    if not fields["stationary"] and not 2 <= fields["weight_bits"] <= config.weight_bits:
        return "bad field", 0
    if fields["operand"] == 3 or fields["statistics"] == 3 \
            or (fields["destination"] == DESTINATIONS["memory"]) != raw \
            or (raw and fields["statistics"] != STATISTICS["none"]) \
            or _wrong_width(fields, config) or _wrong_halves(fields, config):
        return "bad field", 0
    if _lacks(fields, config):
        return "bad field", 0
    searched = fields["format"] >= FORMATS["log2"]
    if not raw and not 2 <= fields["bits"] <= (4 if searched else 8):
        return "bad field", 0
    if fields["operation"] in (OPERATIONS["gelu"], OPERATIONS["residual"]) \
            and fields["multiplier2"] >> config.factor_bits:
        return "bad field", 0
    uses = OPERANDS["softmax"] == fields["operand"] or STATISTICS["softmax"] == fields["statistics"]
    if uses and fields["softmax_multiplier"] >> ShiftWidths.multiplier:
        return "bad field", 0
    if raw and fields["offset"] % LINE:
        return "misaligned address", fields["offset"]
    size = fields["tokens"] * pass_words(fields, config) * config.rows * 4
    if raw and fields["offset"] + size > output:
        return "address outside the window", fields["offset"]
    return None
