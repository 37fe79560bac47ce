# SPDX-License-Identifier: Apache-2.0
"""A weight-stationary systolic array that never waits for weights."""

__all__ = ["SystolicArray"]

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.array.load import WeightLoader
from hw.array.packed import PackedGrid
from hw.array.tables import table_product
from hw.array.words import packed_words
from hw.lib.stream import Skid, delay, signature
from vitforge.spec.config import Config
from vitforge.spec.elements import Element, array_latency, table_stages
from vitforge.spec.limits import Part, check
from vitforge.spec.names import PRODUCT
from vitforge.spec.words import Field, Word


class SystolicArray(wiring.Component):
    """Multiply rows of shifted operands by tiles of weights, one row per cycle.

    ``sums[c] = sum over r of (mantissa[r] << shift[r]) * weights[r, c]``

    Rounding: none, sums are exact.

    Bit-exact with :func:`golden.units.systolic.matmul`, cycle-exact with
    :class:`golden.units.systolic.SystolicModel`, in both of `pe_style`: ``wide`` shifts the operand
    before the array and multiplies a wide operand, ``shift`` multiplies the mantissa and shifts
    the product. Where no format of the configuration shifts, shifts are 0 and not looked at.

    `latency` cycles from an activation word to its sums, initiation interval 1. A tile of weights
    is loaded into shadow registers while its predecessor is used; tiles with at least as many
    activation words as weight words follow each other without an idle cycle, and tiles with fewer
    at the period of their weight words.

    Widths. ``mantissa << shift`` must fit `operand_bits` signed bits: the formats guarantee it, and
    nothing checks it. A product then lies in ``+-2**(operand_bits+weight_bits-2)``, and the sum of
    the first r rows in r times that: `vitforge.spec.config.Config.partial_sum_bits` of r, to which
    row r - 1 is built, so that nothing is rounded, saturated or lost.

    Packed modes. With `modes` other than ``single`` an element multiplies two weights at once, of
    one token's operand (`pair`) or of two tokens' (`quad`); :mod:`vitforge.spec.elements` has the
    arithmetic. Every activation word has its mode: ``single`` with a tile of single weights, any
    other with a packed one; a change costs no cycle. The operand after its shift must fit the width
    of its mode, `mantissa_bits` in `pair` and 4 bits (5 with the longer ports) in `quad`, and no
    packed weight may be the least of its width; nothing checks that. Bit-exact with
    :func:`golden.units.packed.matmul_packed` and :func:`golden.units.packed.segments`.

    Parameters
    ----------
    config
        The shape and the widths.
    flowing
        Whoever takes the sums is always ready; the same on every cycle, with fewer LUTs.
    late
        Cycles from a weight word to its `weights`, for which nothing waits: less than both sides.

    Members
    -------
    w : In(signature(words(config)["w"]))
        Weight words. A tile is `rows` words of `cols` weights (word k is ``weights[k, :]``), or
        `cols` words of `rows` weights (word c is ``weights[:, c]``) if `by_column` of its first
        word is set, and packed if its `packed` is. Elements beyond are ignored, as are both flags
        of other words. Ready while the shadow tile is incomplete, and in the cycle in which it is
        swapped (a function of ``a.valid``).
    a : In(signature(words(config)["a"]))
        Activation words: one mantissa and shift for each row. The first after reset and the first
        after one with `last` start with the next tile of weights, and wait until it is complete.
    o : Out(signature(words(config)["o"]))
        For each activation word the sums of all columns, and its `last`; with packed modes its
        mode, and of every sum the segments.
    opens, completes : Out(1)
        Only if `flowing`: in the next cycle the next activation word begins a tile; its weights are
        complete. So ``a.ready`` will be ``~opens | completes``, and ``w.ready`` the opposite of
        `completes`, or 1 if a word that opens is offered.
    """

    def __init__(self, config: Config, *, flowing: bool = False, late: int = 0):
        self.config = config
        check(config, Part.ARRAY)
        self.flowing = flowing
        self.late = late
        self.element = Element(config)
        self.latency = array_latency(config)
        word = self.words(config)
        super().__init__({"w": In(signature(word["w"])), "a": In(signature(word["a"])),
                          "o": Out(signature(word["o"])),
                          **({"opens": Out(1), "completes": Out(1)} if flowing else {})})

    @staticmethod
    def words(config: Config) -> dict[str, Word]:
        """Return the words of the ports."""
        longer = max(config.rows, config.cols)
        if Element(config).packed:
            return packed_words(config)
        return {
            "w": Word((
                Field("weights", config.weight_bits, signed=True, count=longer,
                      text="a row or a column of a tile"),
                Field("by_column", 1, text="the tile comes column by column"),
            )),
            "a": Word((
                Field("mantissa", config.mantissa_bits, signed=True, count=config.rows,
                      text="operands before their shift"),
                Field("shift", config.shift_bits, count=config.rows, text="left shifts"),
                Field("last", 1, text="the next word starts with the next tile of weights"),
            )),
            "o": Word((
                Field("sums", config.sum_bits, signed=True, count=config.cols,
                      text="partial sums of the tile"),
                Field("last", 1, text="as in the activation word"),
            )),
        }

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, cols = self.config.rows, self.config.cols
        # The operand of an activation word that is accepted at t is multiplied at PE (r, c) in
        # cycle t + lag + 1 + r + c. The wide style needs the cycle more that the shift style
        # spends behind the multiplier.
        lag = 1 if self.config.pe_style == "wide" and self.element.single else 0

        m.submodules.skid = skid = Skid(self.words(self.config)["o"],
                                          flowing=self.flowing)
        m.submodules.loader = loader = WeightLoader(self.config, self.words(self.config)["w"], lag,
                                                    self.late)
        wiring.connect(m, wiring.flipped(self.w), loader.w)
        wiring.connect(m, skid.o, wiring.flipped(self.o))
        advance = Signal()
        first = Signal(init=1)
        accept = Signal()
        m.d.comb += [
            advance.eq(skid.i.ready),
            self.a.ready.eq(advance & (~first | loader.complete)),
            accept.eq(self.a.valid & self.a.ready),
            loader.advance.eq(advance),
            loader.swap.eq(accept & first),
        ]
        coming = Signal()
        m.d.comb += coming.eq(Mux(accept, self.a.payload.last, first))
        m.d.sync += first.eq(coming)
        if self.flowing:
            m.d.comb += [self.opens.eq(coming), self.completes.eq(loader.completes)]

        # The swap goes with the word, one cycle ahead: every PE of a diagonal swaps at once.
        swap: Value = loader.swap
        swaps = []
        for index in range(lag + rows + cols - 1):
            if index >= lag:
                swaps.append(Signal(name=f"swap_diagonal_{index - lag}"))
                m.d.comb += swaps[-1].eq(swap & advance)
            swap = delay(m, swap, advance=advance, init=0, name=f"swap_{index}")

        if self.element.packed:
            self._packed(m, loader, swaps, lag, skid, advance)
        else:
            self._plain(m, loader, swaps, skid, advance)
        m.d.comb += [
            skid.i.valid.eq(delay(m, accept, advance=advance, cycles=self.latency - 1, init=0,
                                  name="valid")),
            skid.i.payload.last.eq(delay(m, self.a.payload.last, advance=advance,
                                         cycles=self.latency - 1, name="last")),
        ]
        return m

    def _plain(self, m: Module, loader: WeightLoader, swaps: list[Signal], skid: Skid,
               advance: Value) -> None:
        """Multiply and add, one product an element."""
        rows, cols = self.config.rows, self.config.cols
        sums: list[Value] = []
        for r in range(rows):
            operands = self._operands(m, r, advance)
            for c in range(cols):
                i, j = (r, c) if cols >= rows else (c, r)
                weight = self._weight(m, f"{r}_{c}", capture=loader.captures[j * loader.short + i],
                                      bus=loader.buses[j], swap=swaps[r + c])
                product = self._product(m, f"{r}_{c}", operands, c, weight, advance)
                total = Signal(signed(self.config.partial_sum_bits(r + 1)), name=f"sum_{r}_{c}",
                               reset_less=True)
                with m.If(advance):
                    m.d.sync += total.eq(sums[c] + product if r else product)
                if r:
                    sums[c] = total
                else:
                    sums.append(total)

        # Column c is c cycles late: bring all to the last one's time.
        for c in range(cols):
            m.d.comb += skid.i.payload.sums[c].eq(
                delay(m, sums[c], advance=advance, cycles=cols - 1 - c, name=f"column_{c}"))

    def _packed(self, m: Module, loader: WeightLoader, swaps: list[Signal], lag: int, skid: Skid,
                advance: Value) -> None:
        """Multiply and add, as many products an element as the mode has."""
        word = self.a.payload
        m.submodules.grid = grid = PackedGrid(self.config, lag)
        m.d.comb += [
            grid.advance.eq(advance), grid.codes.eq(word.mantissa.as_value()),
            grid.buses.eq(loader.buses.as_value()), grid.captures.eq(loader.captures.as_value()),
            grid.swaps.eq(Cat(swaps)),
        ]
        if self.element.single:
            m.d.comb += [grid.shifts.eq(word.shift.as_value()), grid.packed.eq(loader.packed)]
        if len(self.element.modes) > 1:
            m.d.comb += [grid.mode.eq(word.mode), skid.i.payload.mode.eq(grid.ends)]
        for place in range(self.element.segments):
            name = f"segment_{place}"
            m.d.comb += skid.i.payload[name].as_value().eq(grid.segments[name].as_value())

    def _operands(self, m: Module, r: int, advance: Value) -> list[tuple[Value, Value | None]]:
        """Return operand (and shift, in the shift style) of row `r` at each column, and after."""
        mantissa = delay(m, self.a.payload.mantissa[r], advance=advance, cycles=r,
                         name=f"skewed_mantissa_{r}")
        shift: Value = Const(0, 3)
        if self.config.shifts_operands:
            shift = delay(m, self.a.payload.shift[r], advance=advance, cycles=r,
                          name=f"skewed_shift_{r}")
        value: Value = mantissa
        amount: Value | None = shift
        if self.config.pe_style == "wide":
            # Half of the shift on each side of a register. The full width is that of all amounts;
            # an operand fits operand_bits.
            fine = Signal(signed(self.config.mantissa_bits + 3), name=f"fine_{r}")
            coarse = Signal(signed(self.config.operand_bits), name=f"coarse_{r}")
            m.d.comb += fine.eq(mantissa << shift[:2])
            half = delay(m, fine, advance=advance, name=f"half_{r}")
            m.d.comb += coarse.eq(half << (delay(m, shift >> 2, advance=advance,
                                                 name=f"rest_{r}") << 2))
            value, amount = coarse, None
        operands: list[tuple[Value, Value | None]] = []
        for c in range(self.config.cols + (amount is not None)):
            value = delay(m, value, advance=advance, name=f"operand_{r}_{c}")
            if amount is not None:
                amount = delay(m, amount, advance=advance, name=f"shift_{r}_{c}")
            operands.append((value, amount))
        return operands

    def _weight(self, m: Module, name: str, *, capture: Value, bus: Value, swap: Value) -> Signal:
        """Return the weight that a PE uses, and hide the next one behind it."""
        shadow = Signal(signed(self.config.weight_bits), name=f"shadow_{name}", reset_less=True)
        weight = Signal(signed(self.config.weight_bits), name=f"weight_{name}", reset_less=True)
        with m.If(capture):
            m.d.sync += shadow.eq(bus)
        with m.If(swap):
            m.d.sync += weight.eq(shadow)
        return weight

    def _product(self, m: Module, name: str, operands: list[tuple[Value, Value | None]], c: int,
                 weight: Signal, advance: Value) -> Value:
        """Return a PE's product; its register is between the multiplier and the adder."""
        value, _ = operands[c]
        stages = 1
        product: Value
        if self.config.multiplier == "none":
            product = table_product(m, name, weight, value, advance=advance)
            stages = table_stages(self.config)
        else:
            product = delay(m, value * weight, advance=advance, name=f"{PRODUCT}{name}")
        if self.config.pe_style == "wide":
            return product
        # The shift has gone on to the next column by now. Bits above those of one product are
        # copies of the sign.
        _, amount = operands[c + 1]
        if stages > 1:
            amount = delay(m, amount, advance=advance, cycles=stages - 1, name=f"amount_{name}")
        shifted = Signal(signed(self.config.partial_sum_bits(1)), name=f"shifted_{name}")
        m.d.comb += shifted.eq(product << amount)
        return delay(m, shifted, advance=advance, name=f"shifted_{name}")
