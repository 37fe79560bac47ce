# SPDX-License-Identifier: Apache-2.0
"""How many cycles a program takes, exactly, and where they go.

The accelerator's engines wait for each other at few places: the first word of a tile of operands
and of weights, the start of a drain, the start of an instruction. Between those everything moves a
word a cycle. So a model of those places alone, each engine one process of `golden.machine.kernel`,
gives every cycle of the gateware. A cycle here is one from the start command on: in cycle 0 the
core leaves reset.

The operand path is a rigid pipeline: a *step* is a cycle in which it moves, and a word that enters
in step i reaches the array in step ``i + depth``, where it stalls everything behind it if it is the
first of a tile whose weights aren't complete.
"""

__all__ = ["Buffers", "Prediction", "predict"]

from collections.abc import Sequence
from dataclasses import dataclass, field

from golden.machine.kernel import Count, Event, Kernel, Process
from golden.machine.memory import Memory
from golden.machine.memory_write import Writer
from golden.machine.program import Instruction, parse
from vitforge.spec.config import Config
from vitforge.spec.instruction import LINE, OPERANDS, OPERATIONS, STATISTICS
from vitforge.spec.pass_fields import PASSES, operand_words, pass_words, weight_span
from vitforge.spec.sizes import short_tokens, word_groups
from vitforge.spec.timing import LATENCY, Timing

#: Cycles of a run before the reader takes the program's range, and that of `done`.
_AROUND = 3

#: A cycle that never comes.
NEVER = 1 << 60


@dataclass(frozen=True)
class Buffers:
    """Addresses of the three buffers, in bytes."""

    program: int = 0
    input: int = 0
    output: int = 0


@dataclass
class Prediction:
    """What the counters of a run will say (`vitforge.spec.register_map.COUNTERS`), and more.

    Attributes
    ----------
    read_bytes, written_bytes
        On the memory bus.
    spans
        (engine, first cycle, last cycle, number of passes before), if they were asked for. Cycle 0
        is the third of the run.
    """

    cycles: int = 0
    array_busy: int = 0
    weight_wait: int = 0
    memory_wait: int = 0
    norm_wait: int = 0
    softmax_wait: int = 0
    drain_wait: int = 0
    instructions: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    spans: list[tuple[str, int, int, int]] = field(default_factory=list)

    @property
    def fill(self) -> int:
        """Cycles without an operand for the array that nothing waits for: LOADs, first words."""
        return self.cycles - self.array_busy - self.weight_wait - self.norm_wait \
            - self.softmax_wait - self.drain_wait


class _Machine:
    """All engines of one run. Ranks in a cycle: landings, array, feeder, weights, sequencer."""

    def __init__(self, instructions: Sequence[Instruction], words: Memory, writer: Writer,
                 config: Config, timing: Timing, record: bool) -> None:
        self.kernel = kernel = Kernel()
        self.config, self.timing = config, timing
        self.words, self.writer = words, writer
        self.written = 0              # first cycle in which the writer is idle
        self.instructions = instructions
        self.passes = [item.fields for item in instructions if item.kind == "PASS"]
        self.found = Prediction()
        self.record = record

        self.pushed = [NEVER] * len(self.passes)
        self.push = Event(kernel)
        self.landed, self.released = Count(kernel), Count(kernel)
        # The rigid pipeline: cycle of a step = step + offset, unless it is blocked.
        self.offset = 0
        self.blocked = False
        self.moved = Event(kernel)
        # Tiles in order: entry steps as they are issued, then what became of them.
        self.entries: list[tuple[int, int, bool]] = []
        self.issued = Event(kernel)
        self.complete: list[int] = []
        self.completed = Event(kernel)
        self.entered: list[int] = []
        self.entry = Event(kernel)
        self.streamed = -1            # last pass whose weights came from the stream, and when
        self.stream_end = 0
        self.stream = Event(kernel)
        self.in_stream = NEVER        # cycle in which the sequencer is in WEIGHTS
        self.collected: list[int] = []
        self.collect = Event(kernel)

        for rank, process in enumerate((self.drain(), self.array(), self.feeder(),
                                        self.weights(), self.sequencer())):
            kernel.schedule(0, rank, process)

    def run(self) -> Prediction:
        self.kernel.run()
        return self.found

    def span(self, engine: str, first: int, last: int, number: int) -> None:
        if self.record:
            self.found.spans.append((engine, first, last, number))

    # -- operands

    def step(self, step: int) -> Process:
        """Sleep until the cycle of a step."""
        while True:
            if self.blocked:
                yield self.moved
            elif self.kernel.now < step + self.offset:
                yield step + self.offset
            else:
                return

    def feeder(self) -> Process:
        now = self.kernel
        step = 0
        for number, item in enumerate(self.passes):
            while self.pushed[number] == NEVER:
                yield self.push
            # Offered from push + 1, loaded then or with the last word before, active after that.
            if now.now < self.pushed[number] + 2:
                yield self.pushed[number] + 2
            while self.blocked:
                yield self.moved
            step = max(step, now.now - self.offset, self.pushed[number] + 2 - self.offset)
            for tile in range(item["tiles"]):
                yield from self.step(step)
                wanted = now.now - self.offset
                late = number - item["pending"] if tile >= item["late"] else \
                    number - 2 if tile == 0 else 0
                yield from self.landed.reach(late)
                if tile == 0:
                    yield from self.released.reach(number - 1)
                while self.blocked:
                    yield self.moved
                # In steps: while the array waits for weights, operands don't wait as well.
                self._waited(item["operand"], now.now - self.offset - wanted)
                step = max(step, now.now - self.offset)
                yield from self.step(step)
                words = operand_words(item, self.config)
                self.entries.append((step + self.timing.depth, words,
                                     tile == item["tiles"] - 1))
                self.issued.fire(now.now)
                step += words

    def _waited(self, operand: int, steps: int) -> None:
        if operand == OPERANDS["norm"]:
            self.found.norm_wait += steps
        elif operand == OPERANDS["softmax"]:
            self.found.softmax_wait += steps
        else:
            self.found.drain_wait += steps

    def array(self) -> Process:
        kernel, number = self.kernel, 0
        tile = 0
        first = 0
        while True:
            while tile >= len(self.entries):
                yield self.issued
            step, tokens, final = self.entries[tile]
            if kernel.now < step + self.offset:
                yield step + self.offset
            arrival = kernel.now
            if tile >= len(self.complete) or self.complete[tile] > kernel.now:
                self.blocked = True
                while tile >= len(self.complete):
                    yield self.completed
                if self.complete[tile] > kernel.now:
                    yield self.complete[tile]
                self.blocked = False
                self.offset += kernel.now - arrival
                self.found.weight_wait += kernel.now - arrival
                self.moved.fire(kernel.now)
            self.entered.append(kernel.now)
            self.entry.fire(kernel.now)
            first = first or kernel.now
            self.found.array_busy += tokens
            tile += 1
            if final:
                self.span("array", first, kernel.now + tokens - 1, number)
                self.collected.append(kernel.now + tokens - 1 + self.timing.sums
                                      + self.timing.collect)
                self.collect.fire(kernel.now)
                number, first = number + 1, 0

    # -- weights

    def weights(self) -> Process:
        kernel, config, rows = self.kernel, self.config, self.config.rows
        tile = 0
        free = 0          # first cycle in which the next pass may be loaded
        empty = 0         # first cycle in which the bank's pipeline is empty
        offset = 0        # of that pipeline: cycle = step + offset
        step = 0
        for number, item in enumerate(self.passes):
            while self.pushed[number] == NEVER:
                yield self.push
            active = max(self.pushed[number] + 1, free) + 1
            if kernel.now < active:
                yield active
            if item["stationary"]:
                yield from self.landed.reach(number - 2)
                # The first read may have been before the last word of the pass before was taken.
                landed = self.landed.visible[number - 3] if number > 2 else 0
                step = max(step, max(active, landed) - offset)
                last = 0
                # A row waits for the last of its words.
                words = 1 if item["by_column"] else weight_span(item, config)
                reads = config.cols if item["by_column"] else rows * words
                for _ in range(item["tiles"]):
                    while tile > len(self.entered):
                        yield self.entry
                    swap = self.entered[tile - 1] if tile else 0
                    offset += max(0, swap - (step + 2 + words + offset))
                    last = step + 3 + offset + reads - 1
                    if kernel.now < last:
                        yield last
                    self.complete.append(last + 1)
                    self.completed.fire(kernel.now)
                    step += reads
                    tile += 1
                free, empty = step - 1 + offset, last + 1
                self.span("keys", active, last, number)
            else:
                while self.in_stream == NEVER:
                    yield self.stream
                ready = max(active, self.in_stream, empty)
                first = -1
                for _ in range(item["tiles"]):
                    while tile > len(self.entered):
                        yield self.entry
                    if tile:
                        ready = max(ready, self.entered[tile - 1])
                    begun, taken = self.words.run(ready, rows)
                    ready = taken + 1
                    first = begun if first < 0 else first
                    if kernel.now < taken:
                        yield taken
                    self.complete.append(taken + 1)
                    self.completed.fire(kernel.now)
                    tile += 1
                free = taken
                self.span("weights", first, taken, number)
                self.in_stream, self.stream_end = NEVER, taken
                self.stream.fire(kernel.now)

    # -- program

    def block(self, words: int, now: int) -> int:
        """Take a block of words of 8-bit elements as they come; return the cycle after the last."""
        self.words.begin(8, words)
        return self.words.run(now, words)[1] + 1

    def sequencer(self) -> Process:
        kernel, words, rows = self.kernel, self.words, self.config.rows
        number = searched = 0
        now = 0
        for instruction in self.instructions:
            item = instruction.fields
            now = self.block(LINE // rows, now)
            decode = now + 1
            yield decode
            if instruction.kind == "PASS":
                # A slot of parameters must be free, and thresholds must have no user.
                wanted = max(number + 1 - PASSES, searched if item["has_thresholds"] else 0)
                yield from self.landed.reach(wanted)
                now = kernel.now + 1
                if item["has_norm"]:
                    now = self.block(8 * item["tiles"], now)
                if item["has_thresholds"]:
                    now = self.block(LINE // rows, now)
                now = self.block(8 * pass_words(item, self.config), now)
                yield now
                self.pushed[number] = now
                self.push.fire(now)
                number += 1
                searched = number if item["format"] else searched
                now += 1
                if not item["stationary"]:
                    words.begin(item["weight_bits"], item["tiles"] * rows,
                                weight_span(item, self.config))
                    yield now
                    self.in_stream = now
                    self.stream.fire(now)
                    while self.in_stream != NEVER:
                        yield self.stream
                    now = self.stream_end + 1
            else:
                yield from self.landed.reach(number)
                now = kernel.now + 1
                if instruction.kind == "END":
                    self.found.cycles = self.finish(now)
                    return
                begin = now
                if item["inline"]:
                    now = self.block(item["bytes"] // rows, now)
                else:
                    now = self.words.load(now, item) + 1
                self.span("load", begin, now - 1, number)
                yield now

    def finish(self, cycle: int) -> int:
        """End the run whose FINISH begins in `cycle`; return how long it was."""
        done = max(cycle, self.written)
        self.words.finish(done)
        return done + _AROUND

    # -- drain

    def drain(self) -> Process:
        kernel, timing = self.kernel, self.timing
        free = 0
        gather = -NEVER
        for number, item in enumerate(self.passes):
            while number >= len(self.collected):
                yield self.collect
            start = max(self.collected[number] + 1, free)
            if item["statistics"] != STATISTICS["none"]:
                start = gather = max(start, gather + timing.revisit)
            groups = item["tokens"] * pass_words(item, self.config) * word_groups(self.config)
            raw = item["operation"] == OPERATIONS["raw"]
            if raw:
                start = max(start, self.written)
                last, self.written = self.writer.write(start, item["offset"], groups)
            else:
                last = start + timing.first_group + groups - 1
            first = start + timing.first_group
            # The next entry of the queue of passes is there two cycles behind a start.
            free = max(last, start + 2)
            whole = raw or item["tokens"] < short_tokens(self.config)
            release = last if whole else max(first, last - timing.early)
            if kernel.now < release:
                yield release
            self.released.add(release + 1)
            landed = last + timing.landed
            self.span("drain", first, last, number)
            self.landed.add(landed + 1)


def predict(program: bytes, config: Config, *, buffers: Buffers | None = None,
            latency: int = LATENCY, record: bool = False) -> Prediction:
    """Return the counters of a run of a program, to the cycle.

    Parameters
    ----------
    program
        One without faults; nothing is computed.
    buffers
        The default is the compiler's own layout: a program at 0.
    latency
        Of the memory, in cycles from a read address to its first beat, and from a burst's last beat
        to its acknowledgement.
    record
        Whether to keep `Prediction.spans`.
    """
    buffers = buffers or Buffers()
    words = Memory(config, latency, address=buffers.program, size=len(program),
                   input_address=buffers.input)
    writer = Writer(config, latency, output_address=buffers.output)
    instructions = list(parse(program, config))
    found = _Machine(instructions, words, writer, config, Timing.of(config), record).run()
    width = config.axi_bits // 8
    found.instructions = len(instructions)
    found.memory_wait = words.wait
    found.read_bytes, found.written_bytes = words.beats * width, writer.beats * width
    return found
