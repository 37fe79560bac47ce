# SPDX-License-Identifier: Apache-2.0
"""The signals that the states of the sequencer share."""

__all__ = ["PARTS", "SequencerState"]

from amaranth.hdl import Signal

from hw.lib.layouts import weight_span_bits
from vitforge.spec.config import Config
from vitforge.spec.instruction import LINE
from vitforge.spec.pass_fields import PASSES
from vitforge.spec.requant_fields import THRESHOLDS
from vitforge.spec.sizes import ADDRESS_BITS, most_words

#: Parts of `rows` bytes in the parameters of `rows` channels.
PARTS = 8


class SequencerState:
    """Registers, and the wires `push` and `take`, of one `hw.control.sequencer.Sequencer`."""

    def __init__(self, config: Config):
        #: Words of a line, which an instruction and its thresholds take.
        self.head_words = max(1, LINE // config.rows)
        self.line = Signal(LINE * 8, reset_less=True)
        # Of a LOAD whose data is in the program: the next word of the bank, and bytes to come.
        self.address = Signal(ADDRESS_BITS, reset_less=True)
        self.left = Signal(32, reset_less=True)
        # The word's number in its block, or in its tile, and that of the tile.
        self.place = Signal(range(max(self.head_words, PARTS * most_words(config), config.rows)))
        self.tile = Signal(12)
        self.final_tile = Signal()
        self.slot = Signal(2)
        self.under_way = Signal(range(PASSES + 1))
        self.push = Signal()
        self.take = Signal()
        # Much of what is in front of the sequencer waits for these, so they are registers: the
        # state takes words, hands them on as weights, or as those of a LOAD; the next word is the
        # last of its block.
        self.takes = Signal(init=1)
        self.weighs = Signal()
        self.inlines = Signal()
        self.ending = Signal(init=self.head_words == 1)
        self.bits = Signal(4, init=8)
        # How many times `rows` elements a word has, less one; where it may be more than one.
        if width := weight_span_bits(config):
            self.span = Signal(width)
        self.levels = Signal((config.value_bits + 1) * (THRESHOLDS + 1), reset_less=True)
        self.starved = Signal()
        # An instruction has been read, which its number says later.
        self.finished = Signal()
