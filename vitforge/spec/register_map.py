# SPDX-License-Identifier: Apache-2.0
"""The accelerator's registers: the one list that gateware, header, driver and manual come from.

Plain data: no Amaranth here, so the generators and a host need nothing else.
"""

__all__ = ["ACCESS", "ADDRESS_BITS", "BUFFERS", "COUNTERS", "FAULTS", "MAGIC", "REGISTERS",
           "VERSION", "BitField", "Choice", "Register", "constants", "find", "reset_value"]

from dataclasses import dataclass

from vitforge.spec.config import Config

#: Bytes of address space: 2**12, the smallest that a bus decoder hands out.
ADDRESS_BITS = 12
#: "ViTF", its first letter in the lowest byte.
MAGIC = int.from_bytes(b"ViTF", "little")
#: Major and minor number of these registers and of the program format. A new minor number adds, a
#: new major number changes.
VERSION = (1, 0)

#: What reads and writes of a register do.
ACCESS = {
    "ro": "read only; a write gets SLVERR and changes nothing",
    "rw": "read and write",
    "w1c": "read; writing 1 to a bit clears it",
    "command": "writing 1 to a bit does something, once; reads 0",
}


@dataclass(frozen=True)
class Choice:
    """One value of an enumerated field."""

    name: str
    value: int
    text: str


@dataclass(frozen=True)
class BitField:
    """Bits `low` and up of a register; bits that no field names read 0 and ignore what is written.

    Raises
    ------
    ValueError
        If the field does not lie in 32 bits, or a choice does not fit it or has another's value.
    """

    name: str
    low: int
    width: int
    text: str
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        if self.low < 0 or self.width < 1 or self.low + self.width > 32:
            raise ValueError(f"{self.name} must lie in bits 0 to 31")
        values = [choice.value for choice in self.choices]
        if len(set(values)) != len(values) or any(value >> self.width for value in values):
            raise ValueError(f"{self.name} must have distinct choices of {self.width} bits, "
                             f"not {values}")

    @property
    def mask(self) -> int:
        """Ones where the field is."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """32 bits at the byte address `offset`.

    Attributes
    ----------
    access
        A key of `ACCESS`.
    fields
        From the low bits up; without any, the register is one number of 32 bits.
    reset
        Value after reset; ``None`` if the configuration says it (see `constants`).
    locked
        Refuses a write (SLVERR) while the accelerator is busy.

    Raises
    ------
    ValueError
        If the offset is no multiple of 4 in the address space, the access is unknown, or two
        fields overlap.
    """

    name: str
    offset: int
    access: str
    text: str
    fields: tuple[BitField, ...] = ()
    reset: int | None = 0
    locked: bool = False

    def __post_init__(self) -> None:
        if self.offset % 4 or not 0 <= self.offset < 1 << ADDRESS_BITS:
            raise ValueError(f"{self.name} must be at a multiple of 4 below {1 << ADDRESS_BITS}, "
                             f"not {self.offset}")
        if self.access not in ACCESS:
            raise ValueError(f"{self.name} must be one of {', '.join(ACCESS)}, not {self.access!r}")
        if sum(item.mask for item in self.fields) != self.mask and self.fields:
            raise ValueError(f"{self.name} has fields that overlap")

    @property
    def mask(self) -> int:
        """Ones in the bits that mean something."""
        mask = 0
        for item in self.fields:
            mask |= item.mask
        return mask if self.fields else (1 << 32) - 1

    def field(self, name: str) -> BitField:
        """Return the field of this name.

        Raises
        ------
        KeyError
            If there is none.
        """
        for item in self.fields:
            if item.name == name:
                return item
        raise KeyError(f"{self.name} has no field {name!r}")


_FAULTS = (
    Choice("none", 0, "no fault"),
    Choice("unknown opcode", 1, "of an instruction; the address is the opcode"),
    Choice("misaligned address", 2, "of a buffer or in an instruction: a multiple of 64 is needed"),
    Choice("bad length", 3, "of a buffer or in an instruction: 0, too long, or no multiple of 64"),
    Choice("address outside the window", 4, "an instruction reaches beyond a buffer, or a buffer "
           "beyond the 32-bit address space"),
    Choice("scratchpad overflow", 5, "an instruction reaches beyond a bank of the scratchpad"),
    Choice("read SLVERR", 6, "the memory answered a read with SLVERR"),
    Choice("read DECERR", 7, "no memory at an address that was read"),
    Choice("write SLVERR", 8, "the memory answered a write with SLVERR"),
    Choice("write DECERR", 9, "no memory at an address that was written"),
    Choice("program without end", 10, "the program's bytes were over before an END"),
    Choice("bad field", 11, "an instruction with a value that is not defined; "
           "values in the blocks behind it, and numbers that widths can't hold, are not looked at"),
    Choice("stopped", 12, "software asked for it"),
)

#: Names of the faults, as the exceptions of the golden model have them, to their numbers.
FAULTS = {choice.name: choice.value for choice in _FAULTS}

#: Buffers in memory: name, and what the accelerator does with it.
BUFFERS = {
    "program": "instructions with their parameters and weights; read",
    "input": "the input image; read",
    "output": "the results; written",
}

#: 64-bit counters of a run, in cycles if not said otherwise.
COUNTERS = {
    "cycles": "of the run: from the start to the last transfer on the bus",
    "array_busy": "in which the systolic array takes a word of operands",
    "weight_wait": "in which the array waits for weights",
    "memory_wait": "in which data of the memory is outstanding and none arrives",
    "norm_wait": "in which operands wait for the statistics of a LayerNorm",
    "softmax_wait": "in which operands wait for the statistics of a softmax",
    "drain_wait": "in which other operands wait for an earlier pass to be drained",
    "instructions": "number of instructions that were begun",
}

_DONE_OR_FAULT = (
    BitField("done", 0, 1, "a run came to its END"),
    BitField("fault", 1, 1, "a run ended before its END: a fault or a stop"),
)


def _buffers() -> tuple[Register, ...]:
    registers = []
    for number, (name, text) in enumerate(BUFFERS.items()):
        offset = 0x40 + 8 * number
        registers += [
            Register(f"{name.upper()}_ADDRESS", offset, "rw", f"First byte of the {name} buffer: "
                     f"{text}. A multiple of 64.", locked=True),
            Register(f"{name.upper()}_BYTES", offset + 4, "rw", f"Length of the {name} buffer in "
                     "bytes. A multiple of 64" + (", not 0." if name == "program" else "."),
                     locked=True),
        ]
    return tuple(registers)


def _counters() -> tuple[Register, ...]:
    registers = []
    for number, (name, text) in enumerate(COUNTERS.items()):
        offset = 0x80 + 8 * number
        what = text[0].upper() + text[1:] if text.startswith("number") else f"Cycles {text}"
        registers += [
            Register(f"{name.upper()}_LOW", offset, "ro", f"{what}: bits 31 to 0. Reading it "
                     "keeps bits 63 to 32 for the HIGH register."),
            Register(f"{name.upper()}_HIGH", offset + 4, "ro", "Bits 63 to 32 of the counter "
                     "whose LOW register was read last."),
        ]
    return tuple(registers)


REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x00, "ro", 'The letters "ViTF", the first in the lowest byte.', reset=MAGIC),
    Register("VERSION", 0x04, "ro", "Version of the registers and of the program format.", (
        BitField("minor", 0, 16, "grows when something is added"),
        BitField("major", 16, 16, "grows when something changes; a driver refuses another one"),
    ), reset=VERSION[0] << 16 | VERSION[1]),
    Register("CONFIG_HASH", 0x08, "ro", "Names the configuration: a program runs on the one that "
             "it was compiled for.", reset=None),
    Register("CAPABILITY", 0x0C, "ro", "Size of the accelerator.", (
        BitField("rows", 0, 8, "rows of the systolic array"),
        BitField("cols", 8, 8, "columns of the systolic array"),
        BitField("lanes", 16, 8, "elements a cycle behind the array"),
        BitField("axi_bytes", 24, 8, "bytes of a beat on the memory bus"),
    ), reset=None),
    Register("CONTROL", 0x10, "command", "Commands. Both at once, or a start while busy, get "
             "SLVERR and do nothing.", (
        BitField("start", 0, 1, "check the buffers, clear STATUS, FAULT and the counters, run"),
        BitField("stop", 1, 1, "end the run early; nothing happens if there is none"),
    )),
    Register("STATUS", 0x14, "ro", "State of the run. `done` or `fault` appears in the cycle in "
             "which `busy` disappears.", (
        BitField("busy", 0, 1, "a run is under way, or its last bus transfers are"),
        BitField("done", 1, 1, "the last run came to its END"),
        BitField("fault", 2, 1, "the last run ended before its END: FAULT says why"),
        BitField("stopped", 3, 1, "because software asked for it"),
    )),
    Register("FAULT", 0x18, "ro", "First fault of the run. Visible at once, even while still "
             "busy.", (
        BitField("kind", 0, 4, "what happened", _FAULTS),
    )),
    Register("FAULT_INSTRUCTION", 0x1C, "ro", "Index of the instruction that was under way, "
             "counted from 0."),
    Register("FAULT_ADDRESS", 0x20, "ro", "Address of the fault: of the bus transfer, the buffer "
             "or the field of the instruction; 0 if it has none."),
    Register("IRQ_ENABLE", 0x24, "rw", "The interrupt line is high while a bit is set here and "
             "in IRQ_STATUS.", _DONE_OR_FAULT),
    Register("IRQ_STATUS", 0x28, "w1c", "Events since they were cleared, enabled or not. A start "
             "does not clear them.", _DONE_OR_FAULT),
    *_buffers(),
    *_counters(),
)


def find(name: str) -> Register:
    """Return the register of this name.

    Raises
    ------
    KeyError
        If there is none.
    """
    for register in REGISTERS:
        if register.name == name:
            return register
    raise KeyError(f"no register {name!r}")


def constants(config: Config) -> dict[str, int]:
    """Return the values of the registers that never change, by name."""
    sizes = {"rows": config.rows, "cols": config.cols, "lanes": config.lanes,
             "axi_bytes": config.axi_bits // 8}
    capability = find("CAPABILITY")
    return {
        "ID": MAGIC,
        "VERSION": VERSION[0] << 16 | VERSION[1],
        "CONFIG_HASH": int(config.hash(), 16),
        "CAPABILITY": sum(value << capability.field(name).low for name, value in sizes.items()),
    }


def reset_value(register: Register, config: Config | None) -> int | None:
    """Return a register's value after reset; ``None`` if it is that of an unknown `config`."""
    return register.reset if config is None else constants(config).get(register.name,
                                                                       register.reset)


def _check() -> None:
    for what in ("name", "offset"):
        values = [getattr(register, what) for register in REGISTERS]
        if len(set(values)) != len(values):
            raise ValueError(f"two registers have the same {what}")


_check()
