# SPDX-License-Identifier: Apache-2.0
"""All engines of the accelerator, between its registers and its memory bus."""

__all__ = ["Core"]

from functools import partial
from typing import Any, TypeVar

from amaranth.hdl import Cat, Elaboratable, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.array.accumulator import Accumulator
from hw.array.bank import Bank
from hw.array.feeder import Feeder
from hw.array.systolic import SystolicArray
from hw.array.weight_source import WeightSource
from hw.bus.axi import flat, join, read_channels, write_channels
from hw.bus.placer import Placer
from hw.bus.reader import MemoryReader
from hw.bus.unpacker import Unpacker
from hw.bus.writer import MemoryWriter
from hw.control.registers import COUNTED, FAULT_LAYOUT
from hw.control.sequencer import Sequencer
from hw.drain.drain import Drain
from hw.lib.layouts import span_bits, start_layout, weight_span_bits
from hw.lib.products import few_times
from hw.lib.queue import Queue
from hw.operand.keeper import Keeper
from hw.operand.path import OperandPath
from vitforge.spec.config import Config
from vitforge.spec.instruction import DESTINATIONS, OPERANDS, OPERATIONS, TABLE
from vitforge.spec.limits import check
from vitforge.spec.pass_fields import PASSES
from vitforge.spec.register_map import FAULTS
from vitforge.spec.sizes import doubled, tables
from vitforge.spec.timing import Timing

Engine = TypeVar("Engine", bound=Elaboratable)

#: Which cycle after the first an engine leaves its reset in: a reset that went to all of the chip
#: in one would be the longest way of all, and what has nothing to do for so long can wait for it.
_RESET_STEPS = {
    "reader": 0, "writer": 0, "unpacker": 0, "placer": 0, "sequencer": 0,
    "scratch": 1, "residual": 1, "stationary": 1, "requests": 1, "weights_of": 1, "tiles": 1,
    "drains": 1, "feeder": 2, "source": 2, "keeper": 2, "operand": 3, "array": 4,
    "accumulator": 5, "drain": 6,
}


class Core(wiring.Component):
    """Fetch, sequence, compute, drain and write; in reset between runs.

    Members
    -------
    program_address, program_bytes, input_address, input_bytes, output_address, output_bytes
        Buffers, held while a run is under way.
    clear : In(1)
        Reset, one cycle or more before `begin`. It spreads over the chip in steps of a cycle: what
        is behind the first engines leaves it later, and has nothing to do until then.
    begin : In(1)
        Pulse, one cycle after the last with `clear`: the run begins.
    stop : In(1)
        End the run: no new transfers from now on. Held until `quiet`.
    quiet : Out(1)
        No transfer is under way on the bus.
    exhausted : Out(1)
        All of the program has been read.
    done : Out(1)
        Pulse.
    fault : Out(FAULT_LAYOUT)
    events : Out(StructLayout)
        One bit for each counter of `hw.control.registers.COUNTED`.
    m_axi : Out
        AXI4 master.
    """

    def __init__(self, config: Config):
        check(config)
        self.config = config
        self.operand = OperandPath(config)
        self.feeder = Feeder(config)
        self.array = SystolicArray(config, flowing=True, late=WeightSource.late)
        # With w = depth + latency + 3, the sums of the next pass's token t are written w + t cycles
        # after its first word was issued, which is one cycle or more after the release. The drain's
        # last read, of token T - 1, is early + 1 cycles after the release, and the tokens before it
        # were read earlier by a cycle or more each. So early <= w + T - 2 is safe, and
        # T >= SHORT = 8. (If two tokens are written at once, token t is w + t / 2 cycles after, and
        # its last read w + 3 - (T - 1 - t) at most: T >= 7.) With early = w + 2 a drain and a pass
        # of equal length take turns without a pause (a drain begins w + 3 cycles behind the end of
        # its pass).
        promised = Timing.of(config)
        self.depth = 1 + self.operand.latency
        self.drain = Drain(config, early=promised.early)
        found = Timing(depth=self.depth, sums=self.array.latency, early=self.drain.early,
                       landed=self.drain.latency, revisit=self.drain.revisit)
        if found != promised:
            raise AssertionError(f"engines of {found}, {promised} is promised")
        super().__init__({
            **{f"{name}_{part}": In(32) for name in ("program", "input", "output")
               for part in ("address", "bytes")},
            "clear": In(1), "begin": In(1), "stop": In(1), "quiet": Out(1), "exhausted": Out(1),
            "done": Out(1),
            "fault": Out(FAULT_LAYOUT),
            "events": Out(data.StructLayout(dict.fromkeys(COUNTED, 1))),
            **flat("m_axi", read_channels(config.axi_bits)),
            **flat("m_axi", write_channels(config.axi_bits)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        steps = 1 + max(_RESET_STEPS.values())
        self._resets = [Signal(init=1, name=f"reset_{step}") for step in range(steps)]
        m.d.sync += Cat(self._resets).eq(Cat(self.clear, self._resets))
        self._fetch(m)
        self._scratchpad(m)
        self._compute(m)
        self._finish(m)
        return m

    def _engine(self, m: Module, name: str, engine: Engine) -> Engine:
        """Add an engine, with its reset."""
        m.submodules[name] = ResetInserter(self._resets[_RESET_STEPS[name]])(engine)
        return engine

    def _fetch(self, m: Module) -> None:
        """Memory to words, loads and passes."""
        config = self.config
        engine = partial(self._engine, m)
        reader = engine("reader", MemoryReader(config))
        writer = engine("writer", MemoryWriter(config))
        unpacker = engine("unpacker", Unpacker(config))
        placer = engine("placer", Placer(config))
        sequencer = engine("sequencer", Sequencer(config))
        self.reader, self.writer, self.placer, self.sequencer = reader, writer, placer, sequencer
        m.d.comb += [
            *join(self, "m_axi", reader.axi), *join(self, "m_axi", writer.axi),
            reader.stop.eq(self.stop), writer.stop.eq(self.stop),
            self.quiet.eq(reader.idle & writer.idle),
            reader.start.valid.eq(self.begin),
            reader.start.payload.address.eq(self.program_address),
            reader.start.payload.bytes.eq(self.program_bytes),
            unpacker.bits.eq(sequencer.bits), unpacker.align.eq(sequencer.align),
            *([unpacker.span.eq(sequencer.span)] if weight_span_bits(config) else []),
            sequencer.exhausted.eq(reader.exhausted), self.exhausted.eq(reader.exhausted),
            sequencer.idle.eq(writer.idle),
            *(getattr(sequencer, name).eq(getattr(self, name)) for name in (
                "input_address", "input_bytes", "output_bytes")),
        ]
        wiring.connect(m, reader.words, unpacker.i)
        wiring.connect(m, unpacker.o, sequencer.words)
        wiring.connect(m, sequencer.load, reader.load)
        wiring.connect(m, reader.data, placer.data)
        wiring.connect(m, sequencer.placement, placer.command)
        m.d.comb += sequencer.loaded.eq(placer.done)

    def _scratchpad(self, m: Module) -> None:
        """Build the banks, with the drain and the placer as writers."""
        config, drain, placer = self.config, self.drain, self.placer
        depths = {"scratch": config.scratch_words, "residual": config.residual_words,
                  "stationary": config.stationary_words}
        # Of a LOAD, from memory or with its data in the program. One cycle late, as other words of
        # the program are: nothing that needs them begins so soon.
        loaded: Any = Signal(placer.write.shape(), reset_less=True)
        inline = self.sequencer.write
        with m.If(inline.en):
            m.d.sync += [loaded.mask.eq(-1), *(loaded[name].eq(inline[name])
                                               for name in inline.shape().members)]
        with m.Else():
            m.d.sync += loaded.eq(placer.write)
        if tables(config):
            write = self.feeder.table_write
            m.d.comb += [write.en.eq(loaded.en & (loaded.destination == TABLE)),
                         write.address.eq(loaded.address), write.data.eq(loaded.data)]
        self.banks = {name: Bank(config, depth) for name, depth in depths.items()}
        for name, bank in self.banks.items():
            self._engine(m, name, bank)
            # A LOAD and a drain are never under way at the same time: the sequencer sees to it.
            writers: list[Any] = [drain.write]
            if name != "stationary":
                writers.append(loaded)
            for write in writers:
                with m.If(write.en & (write.destination == DESTINATIONS[name])):
                    m.d.comb += [
                        bank.write.eq(1), bank.write_mask.eq(write.mask),
                        bank.write_address.eq(write.address), bank.write_data.eq(write.data),
                    ]
                    if doubled(config):
                        whole = "halves" not in write.shape().members   # those of a LOAD
                        m.d.comb += bank.write_halves.eq(3 if whole else write.halves)

    def _keep(self, m: Module, feeder: Feeder) -> None:
        """Write kept operands into scratch: their pass waits until nobody else does."""
        keeper = self._engine(m, "keeper", Keeper(self.config))
        scratch = self.banks["scratch"]
        m.d.comb += [keeper.begin.eq(feeder.keeps), keeper.kept.eq(self.operand.kept)]
        with m.If(keeper.write.en):
            m.d.comb += [
                scratch.write.eq(1), scratch.write_mask.eq(-1),
                scratch.write_address.eq(keeper.write.address),
                scratch.write_data.eq(keeper.write.data),
                scratch.write_halves.eq(keeper.write.halves),
            ]

    def _compute(self, m: Module) -> None:
        """Operands and weights to the array, sums to the accumulators, codes to the banks."""
        config, sequencer = self.config, self.sequencer
        engine = partial(self._engine, m)
        operand, array, drain = self.operand, self.array, self.drain
        feeder = self.feeder
        engine("feeder", feeder)
        source = engine("source", WeightSource(config))
        engine("operand", operand)
        engine("array", array)
        accumulator = engine("accumulator", Accumulator(config))
        engine("drain", drain)
        requests = engine("requests", Queue(feeder.passes.payload.shape(), PASSES))
        weights_of = engine("weights_of", Queue(source.passes.payload.shape(), PASSES))
        tiles = engine("tiles", Queue(12, PASSES))
        drains = engine("drains", Queue(start_layout(config), PASSES))
        for left, right in ((sequencer.requests, requests.i), (requests.o, feeder.passes),
                            (sequencer.weights_of, weights_of.i), (weights_of.o, source.passes),
                            (sequencer.tiles, tiles.i), (tiles.o, accumulator.passes),
                            (sequencer.drains, drains.i), (sequencer.weights, source.words),
                            (source.w, array.w), (array.o, accumulator.sums)):
            wiring.connect(m, left, right)

        if doubled(config):
            self._keep(m, feeder)
        advance = self._operands(m, feeder, source)
        # Keys and values.
        stationary = self.banks["stationary"]
        m.d.comb += [
            source.landed.eq(drain.complete), source.bits.eq(sequencer.bits),
            stationary.read_enable.eq(source.read_enable), stationary.read.eq(source.read),
            stationary.read_address.eq(source.read_address), source.data.eq(stationary.data),
        ]

        self._drains(m, drains, accumulator)

        events: Any = self.events
        waits = {"norm": OPERANDS["norm"], "softmax": OPERANDS["softmax"],
                 "drain": OPERANDS["plain"]}
        m.d.comb += [
            events.array_busy.eq(array.a.valid & array.a.ready),
            events.weight_wait.eq(~advance),
            events.memory_wait.eq(self.reader.waiting),
            *(events[f"{name}_wait"].eq(feeder.waiting & advance & (feeder.operand == operand))
              for name, operand in waits.items()),
            events.instructions.eq(sequencer.counted),
        ]

    def _operands(self, m: Module, feeder: Feeder, source: WeightSource) -> Signal:
        """Lead operands to the array, from where the feeder asks; return when they take a step."""
        sequencer, operand, array, drain = self.sequencer, self.operand, self.array, self.drain
        # All of their way waits for `advance`, so it is a register. The feeder decides by a copy,
        # of another reset, so that the two are not merged.
        advance = Signal(init=1)
        feeds = Signal()
        m.d.sync += Cat(advance, feeds).eq(
            (~operand.offers | ~array.opens | array.completes).replicate(2))
        m.d.comb += source.w_takes.eq(~array.completes | (operand.offers & array.opens))
        scratch, residual = self.banks["scratch"], self.banks["residual"]
        request: Any = feeder.request
        wanted = request.valid & advance
        adding = Signal()
        m.d.sync += [adding.eq(drain.residual.en),
                     operand.norm_write.eq(sequencer.norm_write),
                     drain.parameter_write.eq(sequencer.parameter_write)]
        from_residual = Signal(Bank.latency)
        with m.If(advance):
            m.d.sync += from_residual.eq(from_residual << 1 | request.from_residual)
        m.d.comb += [
            feeder.advance.eq(feeds), operand.advance.eq(advance),
            feeder.released.eq(drain.release), feeder.landed.eq(drain.complete),
            *(operand.i[name].eq(request[name]) for name in operand.i.shape().members),
            array.a.valid.eq(operand.o.valid), array.a.payload.eq(operand.o.payload),
            operand.codes.eq(Mux(from_residual[-1], residual.data, scratch.data)),
            operand.factor_write.eq(drain.factor_write),
            operand.probability_write.eq(drain.probability_write),

            scratch.read_enable.eq(advance), scratch.read_address.eq(request.address),
            scratch.read.eq(wanted & ~request.from_residual),
            # A residual is added in passes whose operands come from elsewhere.
            residual.read_enable.eq(advance | drain.residual.en | adding),
            residual.read_address.eq(Mux(drain.residual.en, drain.residual.address,
                                         request.address)),
            residual.read.eq(drain.residual.en | wanted & request.from_residual),
        ]
        return advance

    def _drains(self, m: Module, drains: Queue, accumulator: Accumulator) -> None:
        """Begin a pass when its sums are there, and a raw one when the writer takes it too."""
        config, sequencer, drain = self.config, self.sequencer, self.drain
        residual = self.banks["residual"]
        collected = Signal(range(PASSES + 1))
        start = Signal()
        # Many bits wait for the next entry, so it comes from a register, two cycles behind a start:
        # a pass of one group takes two cycles.
        started = Signal()
        raw = drains.o.payload.operation == OPERATIONS["raw"]
        ready = drains.o.valid & (collected != 0) & ~started
        result = drains.o.payload.tokens << (config.rows * 4).bit_length() - 1
        if span_bits(config):
            result = few_times(drains.o.payload.tokens, drains.o.payload.words + 1) \
                << (config.rows * 4).bit_length() - 1
        m.d.comb += [
            start.eq(drain.start.valid & drain.start.ready),
            drain.start.valid.eq(ready & (~raw | self.writer.command.ready)),
            drains.o.ready.eq(started),
            *(drain.start.payload[name].eq(drains.o.payload[name])
              for name in drain.start.payload.shape().members),
            self.writer.command.valid.eq(start & raw),
            self.writer.command.payload.address.eq(self.output_address + drains.o.payload.offset),
            self.writer.command.payload.bytes.eq(result),
            accumulator.read_enable.eq(drain.accumulator.en),
            accumulator.read_bank.eq(drain.accumulator.bank),
            accumulator.read_token.eq(drain.accumulator.token),
            drain.accumulator_data.eq(accumulator.data),
            drain.residual_data.eq(residual.data),
            drain.thresholds.eq(sequencer.thresholds),
            sequencer.landed.eq(drain.complete),
        ]
        m.d.sync += [collected.eq(collected + accumulator.complete - start), started.eq(start)]
        with m.If(self._resets[1]):
            m.d.sync += collected.eq(0)
        wiring.connect(m, drain.raw, self.writer.data)

    def _finish(self, m: Module) -> None:
        """Report the first of all faults."""
        fault: Any = self.fault
        sequencer, reader, writer = self.sequencer, self.reader, self.writer
        # What the core itself finds is reported a cycle late: END is more cycles behind it. And
        # behind what the sequencer finds there is nothing at all.
        own: Any = Signal(FAULT_LAYOUT)
        early: Any = Signal(FAULT_LAYOUT)
        program: Any = Signal(sequencer.fault.shape())
        m.d.comb += [self.done.eq(sequencer.done), own.instruction.eq(sequencer.instruction),
                     fault.eq(early)]
        m.d.sync += [early.eq(own), program.eq(sequencer.fault)]

        def found(fault: Any, valid: Value, kind: Value | int, address: Value | int = 0) -> None:
            with m.If(valid):
                m.d.comb += [fault.valid.eq(1), fault.kind.eq(kind), fault.address.eq(address)]

        # The last that is found here goes first.
        overflow = Value.cast(0)
        for bank in self.banks.values():
            overflow = overflow | bank.overflow
        if tables(self.config):
            overflow = overflow | self.feeder.overflow
        found(own, overflow, FAULTS["scratchpad overflow"])
        found(own, self.placer.overrun, FAULTS["bad length"])
        found(own, program.valid, program.kind, program.address)
        errors: list[tuple[str, Any]] = [("write", writer.error), ("read", reader.error)]
        for name, error in errors:
            found(fault, error.valid, Mux(error.decode, FAULTS[f"{name} DECERR"],
                                          FAULTS[f"{name} SLVERR"]), error.address)
            with m.If(error.valid):
                m.d.comb += fault.instruction.eq(sequencer.instruction)
