# SPDX-License-Identifier: Apache-2.0
"""What the accelerator keeps between passes: banks, norm parameters, statistics of rows."""

__all__ = ["State"]

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from golden.machine.program import Array, Columns, Fault
from golden.units.encoding import SEARCH
from golden.units.softmax import ShiftScale, row_offset, statistics
from vitforge.spec.config import Config
from vitforge.spec.formats import MIDDLE
from vitforge.spec.instruction import DESTINATIONS, LOOPS, TABLE
from vitforge.spec.sizes import ENTRY, stream_bits, stream_tokens, tables
from vitforge.spec.softmax_widths import ShiftWidths

#: Width of a word address.
_ADDRESS = (1 << 24) - 1
#: Places of pieces are counted modulo this.
_PLACES = 1 << 28


class State:
    """All memories of the accelerator, zero at first.

    Attributes
    ----------
    banks
        Codes int64 ``[words, rows]`` of "scratch", "residual" and "stationary".
    norm
        Two halves of the norm parameters, a dict of columns each.
    factors
        Per token of the stream, int64 ``[tokens, 3]``: channels, sum and sum of squares of the last
        rows that were finished.
    probabilities
        Two halves of the softmax statistics, int64 ``[max_tokens]``: ``log2(sum 2**y)``.
    sums, references, totals
        Statistics of rows under way.
    table
        Indices of tokens, int64.
    thresholds
        The last that a pass has brought.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        words = {"scratch": config.scratch_words, "residual": config.residual_words,
                 "stationary": config.stationary_words}
        self.banks = {name: torch.zeros(count, config.rows, dtype=torch.int64)
                      for name, count in words.items()}
        self.norm: list[dict[str, Tensor]] = [{}, {}]
        self.factors = torch.zeros(stream_tokens(config), 3, dtype=torch.int64)
        several = config.rows * 8 // ENTRY
        self.table = torch.zeros(-(-config.table_tokens // several) * several, dtype=torch.int64)
        self.probabilities = torch.zeros(2, config.max_tokens, dtype=torch.int64)
        self.sums = torch.zeros(config.max_tokens, 2, dtype=torch.int64)
        self.references = torch.zeros(config.max_tokens, dtype=torch.int64)
        self.totals = torch.zeros_like(self.references)
        self.thresholds: tuple[int, ...] = (0,) * SEARCH

    def index(self, bank: str, addresses: Array, instruction: int) -> Tensor:
        """Check word addresses against a bank's size."""
        wrapped = addresses & _ADDRESS
        if int(wrapped.max()) >= len(self.banks[bank]):
            raise Fault("scratchpad overflow", instruction,
                        why=f"word {int(wrapped.max())} of {bank}")
        return torch.from_numpy(wrapped)

    def read(self, bank: str, addresses: Array, instruction: int) -> Tensor:
        """Return codes int64 ``[..., rows]``."""
        return self.banks[bank][self.index(bank, addresses, instruction)]

    def load(self, fields: Mapping[str, int], data: bytes, instruction: int) -> None:
        """Scatter the pieces of a LOAD, or copy the words of an inline one.

        Raises
        ------
        Fault
            If the bytes are over before the loops, or a piece lies beyond the bank.
        """
        if fields["destination"] == TABLE:
            self._load_table(fields, data, instruction)
            return
        bank = _bank(fields["destination"])
        size, wanted = self.config.rows, len(data) // self.config.rows
        loops: list[tuple[int, int]] = []
        if not fields["inline"]:
            loops = [(fields[f"count_{n}"], fields[f"delta_{n}"]) for n in range(LOOPS)]
            size, wanted = 1 << fields["piece"], math.prod(count for count, _ in loops)
        # As many as there are: the placer has put these away when it finds that more are wanted.
        rest = np.arange(min(wanted, len(data) // size))
        places, gone = rest if fields["inline"] else np.zeros_like(rest), 0
        for count, delta in loops:
            # A delta is from the last place of the inner loops to the first of the next step.
            step = (delta + gone) % _PLACES
            places = places + rest % count * step
            rest = rest // count
            gone += (count - 1) * step
        places = (places + fields["base"]) % _PLACES
        elements = (places * size)[:, None] + np.arange(size)
        elements %= (_ADDRESS + 1) * self.config.rows
        self.index(bank, elements // self.config.rows, instruction)
        pieces = np.frombuffer(data, np.uint8, len(places) * size).astype(np.int64)
        self.banks[bank].view(-1)[torch.from_numpy(elements)] = \
            torch.from_numpy(pieces).reshape(-1, size)
        if wanted > len(places):
            raise Fault("bad length", instruction, why="the loops take more than the bytes")

    def _load_table(self, fields: Mapping[str, int], data: bytes, instruction: int) -> None:
        """Take the indices of an inline LOAD, a word of `rows` bytes after the other."""
        several = self.config.rows * 8 // ENTRY
        words = np.frombuffer(data, "<u2").reshape(-1, several)
        places = fields["base"] + np.arange(len(words)) & _ADDRESS
        if int(places.max()) >= -(-self.config.table_tokens // several):
            raise Fault("scratchpad overflow", instruction, why="indices beyond the table")
        index = words.astype(np.int64) & (1 << stream_bits(self.config)) - 1
        self.table.view(-1, several)[torch.from_numpy(places)] = torch.from_numpy(index)

    def tokens(self, fields: Mapping[str, int]) -> Tensor:
        """Tokens whose words a pass reads, counted from `a_base`.

        Raises
        ------
        ValueError
            If the table has no indices there.
        """
        count = fields["tokens"]
        if not tables(self.config) or not fields["gathers"]:
            return torch.arange(count)
        if fields["a_table"] + count > self.config.table_tokens:
            raise ValueError("indices of tokens beyond the table")
        return self.table[fields["a_table"]:fields["a_table"] + count]

    def first(self, fields: Mapping[str, int]) -> int:
        """Token of the stream that is a pass's first."""
        return fields["f_base"] if tables(self.config) else 0

    def store_norm(self, slot: int, columns: Columns) -> None:
        """Keep the norm parameters that came with a pass."""
        self.norm[slot] = {name: torch.from_numpy(column) for name, column in columns.items()}

    def gather_norm(self, fields: Mapping[str, int], codes: Tensor, shift: Tensor) -> None:
        """Add codes ``[T, channels]`` to the sums of their rows, elements cut to `norm_bits`."""
        half = 1 << self.config.norm_bits - 1
        x = (codes - fields["zero_point"] << shift) + half
        x = (x & 2 * half - 1) - half
        sums = torch.stack((x.sum(1), (x * x).sum(1)), 1)
        tokens = len(codes)
        self.sums[:tokens] = sums if fields["statistics_first"] else self.sums[:tokens] + sums
        if fields["statistics_last"]:
            first = self.first(fields)
            if first + tokens > len(self.factors):
                raise ValueError("norm statistics of tokens beyond the stream")
            self.factors[first:first + tokens, 0] = fields["channels"]
            self.factors[first:first + tokens, 1:] = self.sums[:tokens]

    def gather_softmax(self, fields: Mapping[str, int], codes: Tensor) -> None:
        """Add score codes ``[T, channels]``, the first `valid` of them keys, to their rows.

        A row's reference and sum stay between its passes, each of which has its own multiplier.
        """
        tokens = len(codes)
        keep = (torch.arange(codes.shape[1]) < fields["valid"]).expand(codes.shape)
        before = None if fields["statistics_first"] else \
            (self.references[:tokens], self.totals[:tokens])
        reference, total = statistics(
            codes - MIDDLE, keep, ShiftScale(fields["softmax_multiplier"]), self.config, before)
        self.references[:tokens], self.totals[:tokens] = reference, total
        if fields["statistics_last"]:
            first = self.first(fields)
            if first + tokens > self.config.max_tokens:
                raise ValueError("softmax statistics of tokens that are not kept")
            self.probabilities[fields["probability_slot"], first:first + tokens] = row_offset(
                reference, total, ShiftWidths(self.config))


def _bank(destination: int) -> str:
    return next(name for name, number in DESTINATIONS.items() if number == destination)
