# SPDX-License-Identifier: Apache-2.0
"""A network is a list of operations; these are their types.

An `Operation` reads tensors and writes tensors, all by name. `golden.network.topology` makes the
list from a shape; every consumer (integers, calibration, deployment, inference, the compiler,
reports) is a loop over the list, with a table from the type of an operation to what is done
with it. So a type that a consumer doesn't know is refused with one line (`chosen`), and never
skipped.

Tensors are written once. Every row is a token; images of a batch are leading dimensions. A tensor
is codes, with a format of its name in `golden.network.integers.Network.formats`, or sums: what a
product leaves in the accumulators until it is requantized.

Attention may be within regions: tokens in rectangles, each of which attends to itself. A region's
tokens follow each other, row by row, and so do the regions. What is of pairs of tokens, scores and
probabilities, then has all pairs of the first region, query by query, then those of the second, and
so on: ``[heads, pairs]`` (`golden.network.regions`).
"""

__all__ = ["BLANK", "OPERATIONS", "PICTURES", "Beside", "Context", "Image", "Logits", "Merge",
           "Multiply", "Norm", "Operation", "PairBias", "Pool", "Position", "Product", "Region",
           "RegionContext", "RegionScores", "RegionSoftmax", "Requantize", "Scores", "Softmax",
           "Tokens", "UnknownOperationError", "channels", "chosen", "for_role", "last_reads",
           "made", "nothing", "products", "summed"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")

#: The tensor that no operation writes: uint8 pictures ``[B, channels, H, W]``.
PICTURES = "pictures"
#: In `Tokens.source`: a row of zeros.
BLANK = -1
#: Rows and columns of a rectangle of tokens.
Region = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step of a network.

    Attributes
    ----------
    name
        Of the float module whose work it is, where there is one: "blocks.0.mlp.fc1". A product
        and its requantization may share it.
    reads, writes
        Names of tensors.
    roles
        What the written tensors are to a quantizer, one of `golden.ptq.sites.ROLES` for each; empty
        for sums and for what no quantizer decides on.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Image(Operation):
    """Cut pictures into patches, row by row: codes ``[patches, values]``.

    A pixel is its own code; a patch has its values channel by channel, row by row.
    """


@dataclass(frozen=True, kw_only=True)
class Position(Operation):
    """A constant of the network, codes ``[tokens, dim]``: class token and position embedding.

    It carries what the bias of the product `layer` would be too.
    """

    layer: str


@dataclass(frozen=True, kw_only=True)
class Tokens(Operation):
    """Rows of a tensor in another order: row n of the result is row ``source[n]``, or `BLANK`.

    A blank row stands for zeros: sums of 0, codes at the zero point, operands of 0.
    """

    source: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PairBias(Operation):
    """A constant of the network that is added to the scores: codes ``[heads, pairs]``.

    It depends on where the key lies from the query alone (Swin's relative position bias); `window`
    is the side of the window whose distances the parameter `table` has.
    """

    table: str
    window: int
    regions: tuple[Region, ...]


@dataclass(frozen=True, kw_only=True)
class Merge(Operation):
    """Each 2x2 tokens of a square of side `size` to one: codes ``[tokens / 4, 4 * channels]``.

    The channels are those of the upper left, lower left, upper right and lower right token.
    """

    size: int


@dataclass(frozen=True, kw_only=True)
class Beside(Operation):
    """The codes of all rows side by side, in one row: codes ``[1, rows * channels]``."""


@dataclass(frozen=True, kw_only=True)
class Pool(Operation):
    """Sum of the operands of all `tokens` tokens, to sums ``[1, channels]``."""

    tokens: int


@dataclass(frozen=True, kw_only=True)
class Multiply(Operation):
    """`count` products of ``[rows, inner]`` by ``[inner, columns]``, to sums."""

    count: int = 1
    rows: int
    inner: int
    columns: int

    @property
    def products(self) -> int:
        """Multiplications of an image."""
        return self.count * self.rows * self.inner * self.columns

    @property
    def elements(self) -> tuple[int, ...]:
        """Elements of both factors."""
        return self.count * self.rows * self.inner, self.count * self.inner * self.columns


@dataclass(frozen=True, kw_only=True)
class Product(Multiply):
    """Codes by the weights of the layer `name`."""


@dataclass(frozen=True, kw_only=True)
class Scores(Multiply):
    """Q K^T for each of `count` heads; reads queries and keys ``[heads, tokens, inner]``."""


@dataclass(frozen=True, kw_only=True)
class Context(Multiply):
    """P V for each of `count` heads, side by side: sums ``[tokens, dim]``; reads both."""


def _pairs(regions: tuple[Region, ...]) -> int:
    return sum((rows * columns) ** 2 for rows, columns in regions)


@dataclass(frozen=True, kw_only=True)
class RegionScores(Scores):
    """Q K^T within regions: sums ``[heads, pairs]``. `columns` is the largest region's tokens."""

    regions: tuple[Region, ...]

    @property
    def products(self) -> int:
        """Multiplications of an image."""
        return self.count * self.inner * _pairs(self.regions)

    @property
    def elements(self) -> tuple[int, ...]:
        """Elements of queries and of keys."""
        return (self.count * self.rows * self.inner,) * 2


@dataclass(frozen=True, kw_only=True)
class RegionContext(Context):
    """P V within regions, of probabilities ``[heads, pairs]``. `inner` is the largest region's."""

    regions: tuple[Region, ...]

    @property
    def products(self) -> int:
        """Multiplications of an image."""
        return self.count * self.columns * _pairs(self.regions)

    @property
    def elements(self) -> tuple[int, ...]:
        """Elements of probabilities and of values."""
        return self.count * _pairs(self.regions), self.count * self.rows * self.columns


@dataclass(frozen=True, kw_only=True)
class Requantize(Operation):
    """Sums to codes: bias, scale, then what the role says, and the code.

    It reads sums, and a residual if there is a second tensor. Roles are "stream" (with residual, or
    without where it begins), "gelu", "scores" (with a residual where there is a `PairBias`),
    "context", "pool" (`Pool`'s mean), or "query", "key" and "value" together: three tensors of as
    many channels, each cut into `heads`: ``[heads, tokens, channels]``.
    """

    heads: int = 0

    @property
    def residual(self) -> str | None:
        """The tensor that is added."""
        return self.reads[1] if len(self.reads) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Norm(Operation):
    """LayerNorm of every row of the residual stream.

    Its role is "norm", the operands of a product; or "stream", where the stream goes on behind it.
    """


@dataclass(frozen=True, kw_only=True)
class Softmax(Operation):
    """Softmax of every row of scores, to codes of probabilities."""


@dataclass(frozen=True, kw_only=True)
class RegionSoftmax(Softmax):
    """Softmax of every query's pairs within its region, ``[heads, pairs]``."""

    regions: tuple[Region, ...]


@dataclass(frozen=True, kw_only=True)
class Logits(Operation):
    """Add the bias of the layer `name` to sums, which leave as they are."""


#: Every type that a consumer must have a word for.
OPERATIONS: tuple[type[Operation], ...] = (
    Image, Position, PairBias, Tokens, Merge, Beside, Pool, Product, Scores, RegionScores, Context,
    RegionContext, Requantize, Norm, Softmax, RegionSoftmax, Logits)


class UnknownOperationError(ValueError):
    """An operation that a consumer has nothing for; the message names all three."""


def chosen(who: str, table: Mapping[type[Operation], _T], operation: Operation) -> _T:
    """Return a table's entry for an operation.

    Parameters
    ----------
    who
        The consumer, for the message.

    Raises
    ------
    UnknownOperationError
        If the table has none.
    """
    if (kind := type(operation)) not in table:
        raise UnknownOperationError(f"{who} doesn't know the operation {kind.__name__}, at "
                                    f"{operation.name}")
    return table[kind]


def for_role(who: str, table: Mapping[str, _T], operation: Operation) -> _T:
    """Return a table's entry for the first role of an operation.

    Raises
    ------
    UnknownOperationError
        If the table has none.
    """
    role = operation.roles[0] if operation.roles else "none"
    if role not in table:
        raise UnknownOperationError(f"{who} doesn't know the role {role!r} of "
                                    f"{type(operation).__name__}, at {operation.name}")
    return table[role]


def nothing(operation: Operation) -> None:
    """Stand in a table for: there is nothing to do."""


def products(operations: Iterable[Operation]) -> int:
    """Count the multiplications of the matrix products of an image."""
    return sum(item.products for item in operations if isinstance(item, Multiply))


def made(operations: Iterable[Operation]) -> dict[str, Operation]:
    """Return the operation that writes each tensor, by the tensor's name."""
    return {name: operation for operation in operations for name in operation.writes}


def summed(operation: Operation, writers: Mapping[str, Operation]) -> Operation:
    """Return the product whose sums an operation reads first, straight or through `Tokens`."""
    found = writers[operation.reads[0]]
    while isinstance(found, Tokens):
        found = writers[found.reads[0]]
    return found


def channels(name: str, writers: Mapping[str, Operation]) -> int:
    """Return the channels of a tensor of the residual stream."""
    operation = writers[name]
    if isinstance(operation, Merge):
        return 4 * channels(operation.reads[0], writers)
    if isinstance(operation, Tokens | Norm):
        return channels(operation.reads[0], writers)
    product = summed(operation, writers)
    if isinstance(product, Pool):
        return channels(product.reads[0], writers)
    assert isinstance(product, Product)
    return product.columns


def last_reads(operations: Iterable[Operation]) -> list[tuple[str, ...]]:
    """Return for each operation the tensors that none behind it reads: their memory is free."""
    seen: set[str] = set()
    found: list[tuple[str, ...]] = []
    for operation in reversed(tuple(operations)):
        found.append(tuple(dict.fromkeys(name for name in operation.reads if name not in seen)))
        seen.update(operation.reads)
    return found[::-1]
