# SPDX-License-Identifier: Apache-2.0
"""Random passes for the drain: rows of LayerNorm and softmax with others between, and extremes."""

__all__ = ["Pass", "Script", "fill"]

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from golden.machine.engines.drain import DrainPass, norm_results, requantized, softmax_results
from golden.machine.places import result_addresses
from golden.units.encoding import Encoding, thresholds
from vitforge.spec.config import Config
from vitforge.spec.formats import FORMATS
from vitforge.spec.instruction import DESTINATIONS, OPERATIONS, PACKS, STATISTICS
from vitforge.spec.sizes import columns, doubled, most_words, stream_tokens, tables

#: The encoding whose thresholds a run holds, beside uniform ones.
KINDS = {
    "two-scale": (Encoding(kind="two-scale", bits=6, m=3), 6),
    "signed two-scale": (Encoding(kind="two-scale", bits=8, m=4, signed=True), 5),
    "log2": (Encoding(kind="log2", bits=4), 0),
    "table": (Encoding(kind="table", bits=3, thresholds=(-9000, -3000, -70, 0, 50, 2000, 8000)),
              0),
}


@dataclass(frozen=True, kw_only=True)
class Pass(DrainPass):
    """A pass, and when it is offered."""

    #: Cycles between its predecessor's start and its offer, beside the wait for parameters.
    gap: int = 0
    #: Parameters are those of the pass before.
    shared: bool = False


class Script:
    """Random passes."""

    def __init__(self, config: Config, kind: str):
        self.config = config
        self.rng = random.Random(f"{config.name} {kind}")
        self.torch = torch.Generator().manual_seed(self.rng.getrandbits(32))
        self.encoding, self.encode_shift = KINDS[kind]
        self.thresholds = thresholds(self.encoding, self.encode_shift, config)
        self.words = 64 * most_words(config)
        self.residual = self.integers(0, 256, self.words, config.rows)
        self.passes: list[Pass] = []

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=self.torch)

    def parameters(self, operation: str, encoding: Encoding, cols: int) -> dict[str, Tensor]:
        """Parameters of `cols` channels that spread values over the codes; now and then extreme."""
        found = {
            "bias": self.integers(-100_000, 100_000, cols),
            "multiplier": self.integers(1 << 14, 1 << 16, cols),
            "shift": self.integers(17, 24, cols),
            "encode_shift": self.integers(4, 9, cols),
            "residual_shift": self.integers(0, 4, cols),
            "statistics_shift": self.integers(0, 4, cols),
        }
        if operation != "raw" and self.rng.random() < 0.3:
            at = self.rng.randrange(cols)
            for name, value in (("bias", self.rng.choice((-1 << 31, (1 << 31) - 1))),
                                ("multiplier", self.rng.choice((0, 1, 65535))),
                                ("shift", self.rng.choice((0, 1, 47, 63))),
                                ("encode_shift", self.rng.choice((0, 15)))):
                if self.rng.random() < 0.5:
                    found[name][at] = value
        if encoding.kind == "two-scale":
            found["encode_shift"][:] = self.encode_shift
        return found

    def add(self, operation: str, tokens: int, *, encoding: Encoding | None = None,
            statistics: str = "none", results: list[Any] | None = None,
            flat: bool = False, tight: bool = False, words: int = 0, **fields: int) -> Pass:
        """Add a pass; every field that is not given is drawn, as is the number of its words.

        A `flat` one gives codes of 0 only; a `tight` one need not wait for its parameters.
        """
        rng, config = self.rng, self.config
        if encoding is None:
            encoding = rng.choice((self.encoding,
                                   Encoding(zero_point=rng.choice((0, 255, rng.randrange(256))),
                                            bits=rng.choice((8, 8, 5, 2)))))
            if encoding.kind == "uniform":
                lowest = 7 * encoding.zero_point % (257 - (1 << encoding.bits))
                encoding = replace(encoding, lowest=lowest)
        words = words or self.several()
        cols = words * config.rows
        # Spread over all magnitudes, so that no step only saturates.
        acc = self.integers(-1 << 31, 1 << 31, tokens, columns(config)) >> self.integers(
            8, 20, tokens, columns(config))
        if rng.random() < 0.2:
            acc[rng.randrange(tokens), rng.randrange(cols)] = \
                rng.choice((-1 << 31, (1 << 31) - 1))
        shared = (bool(self.passes) and bool(self.passes[-1].parameters["multiplier"].any())
                  and len(self.passes[-1].parameters["multiplier"]) == cols
                  and (tight or rng.random() < 0.5))
        parameters = self.passes[-1].parameters if shared \
            else self.parameters(operation, encoding, cols)
        if operation == "raw" or (encoding.kind == "two-scale"
                                  and bool((parameters["encode_shift"]
                                            != self.encode_shift).any())):
            shared, parameters = False, self.parameters(operation, encoding, cols)
        if flat:
            shared = False
            parameters = self.parameters("raw", encoding, cols)
            parameters["multiplier"][:] = 0
        if operation == "raw":
            # The program's bounds: no sum leaves 32 bits. Both ends are reached.
            acc = acc.clamp(-1 << 30, 1 << 30)
            acc[0, 0] = (1 << 31) - 1 - max(int(parameters["bias"][0]), 0)
            parameters["bias"][-1] = -12345
            acc[-1, cols - 1] = (-1 << 31) + 12345
        found = {
            "tokens": tokens, "valid": rng.randrange(256), "channels": rng.randrange(4096),
            "probability_slot": rng.getrandbits(1), "statistics": STATISTICS[statistics],
            "statistics_first": rng.getrandbits(1), "statistics_last": rng.getrandbits(1),
            "destination": rng.randrange(3), "operation": OPERATIONS[operation],
            "d_base": rng.randrange((1 << 24) - 64),
            "softmax_multiplier": rng.getrandbits(17),
            "format": FORMATS[encoding.kind], "zero_point": encoding.zero_point,
            "bits": encoding.bits, "m": encoding.m, "signed": int(encoding.signed),
            "lowest": encoding.lowest,
            "residual_zero_point": rng.randrange(256),
            "multiplier2": rng.getrandbits(16), "offset": rng.getrandbits(32),
            "bank": len(self.passes) % 2,
        } | fields
        if tables(config):
            found["f_base"] = rng.randrange(stream_tokens(config) - tokens + 1
                                            if statistics != "softmax"
                                            else config.max_tokens - tokens + 1)
        if most_words(config) > 1:
            found |= {"words": words - 1, "d_pitch": rng.getrandbits(24)}
        if doubled(config):
            found["pack"] = 0 if operation == "residual" else \
                fields.get("pack", rng.randrange(len(PACKS)))
        if operation == "residual":
            last = words - 1
            found["d_base"] = rng.randrange(self.words // (last + 1) - tokens + 1)
            if last:
                found["d_pitch"] = rng.randrange(
                    tokens, (self.words - found["d_base"] - tokens) // last + 1)
            found["destination"] = DESTINATIONS["residual"]
        residual = codes = sums = None
        if operation == "residual":
            if tables(config):   # from a place of its own
                found["offset"], found["d_base"] = found["d_base"], rng.randrange((1 << 24) - 64)
            places = result_addresses({"d_pitch": 0} | found | ({"d_base": found["offset"]}
                                                                if tables(config) else {}), config)
            residual = self.residual[torch.from_numpy(places)]
        if operation == "raw":
            # Sums have no codes to gather statistics of.
            found["statistics"] = rng.randrange(3)
            sums = acc[:, :cols] + parameters["bias"]
        else:
            shift = self.encode_shift if encoding.kind == "two-scale" \
                else parameters["encode_shift"]
            codes = requantized(found, parameters, acc[:, :cols], encoding, shift,
                                None if residual is None else residual.flatten(1), config)
        new = Pass(
            fields=found, parameters=parameters, acc=acc, results=results or [], shared=shared,
            residual=residual, codes=codes, sums=sums,
            gap=0 if tight else rng.choice((0, 0, 0, 0, rng.randrange(40))))
        self.passes.append(new)
        return new

    def several(self) -> int:
        """Draw how many words of a token a pass has, where it may have several."""
        most = most_words(self.config)
        return 1 if most == 1 else self.rng.randrange(1, most + 1)

    def norm(self, tokens: int, count: int, *, flat: bool = False, tight: bool = False,
             words: list[int] | None = None) -> None:
        """Add rows of the residual stream, in `count` passes."""
        words = words or [self.several() for _ in range(count)]
        channels = sum(words) * self.config.rows
        zero_point = self.rng.choice((0, 255, 128, self.rng.randrange(256)))
        encoding = Encoding(zero_point=zero_point)
        made = []
        for index in range(count):
            new = self.add(self.rng.choice(("linear", "residual", "residual", "gelu"))
                           if not flat else "linear", tokens,
                           encoding=encoding, statistics="norm", flat=flat, tight=tight,
                           statistics_first=index == 0, statistics_last=index == count - 1,
                           channels=channels, words=words[index])
            assert new.codes is not None
            made.append(new.codes - zero_point << new.parameters["statistics_shift"])
            if not tight:
                self.others()
        x = torch.cat(made, -1)
        assert flat <= bool((x == x[:, :1]).all())
        self._results("norm", norm_results(x, self.config))

    def softmax(self, tokens: int, count: int, *, tight: bool = False,
                words: list[int] | None = None) -> None:
        """Add rows of scores, in `count` passes, the last of which may have fewer keys."""
        config, rng = self.config, self.rng
        words = words or [self.several() for _ in range(count)]
        valid = rng.randrange(1, words[-1] * config.rows + 1)
        slot = rng.getrandbits(1)
        multiplier = rng.choice((1, 700, 3000, 9000, 40000, (1 << 17) - 1))
        encoding = Encoding(zero_point=128)
        codes = []
        for index in range(count):
            last = index == count - 1
            new = self.add("linear", tokens, encoding=encoding, statistics="softmax", tight=tight,
                           statistics_first=index == 0, statistics_last=last,
                           valid=valid if last else words[index] * config.rows,
                           probability_slot=slot, softmax_multiplier=multiplier,
                           words=words[index])
            assert new.codes is not None
            codes.append(new.codes)
            if not tight:
                self.others()
        keys = sum(words[:-1]) * config.rows + valid
        scores = torch.cat(codes, -1)[:, :keys] - 128
        self._results("softmax", [{"slot": slot, "offset": value} for value in
                                  softmax_results(scores, multiplier, config)])

    def _results(self, kind: str, results: list[Any]) -> None:
        """Give the last pass of a row its results."""
        at = max(n for n, item in enumerate(self.passes)
                 if item.fields["statistics"] == STATISTICS[kind] and item.codes is not None)
        assert self.passes[at].fields["statistics_last"]
        self.passes[at] = replace(self.passes[at], results=results)

    def others(self) -> None:
        """Now and then a pass of another kind between those of a row."""
        if self.rng.random() < 0.3:
            self.add(self.rng.choice(("linear", "gelu", "residual", "raw")),
                     self.rng.randrange(1, 5))


def fill(config: Config, kind: str, rows: int) -> Script:
    script = Script(config, kind)
    for operation in ("linear", "gelu", "residual", "raw"):
        script.add(operation, 3, encoding=script.encoding)
    script.norm(2, 2, flat=True)
    for row in range(rows):
        # Also rows that are revisited before their state is there.
        tokens = script.rng.choice((1, 1, 2, 3, min(6, config.max_tokens)))
        count = script.rng.randrange(1, 5)
        (script.norm if row % 2 else script.softmax)(tokens, count)
        script.add(script.rng.choice(tuple(OPERATIONS)), config.max_tokens // 2)
    # Passes that are shorter than a token's state takes, and more sums than there is room for.
    script.add("linear", 1, encoding=Encoding())
    for _ in range(2):
        script.norm(1, 3, tight=True)
        script.softmax(1, 3, tight=True)
        if (most := most_words(config)) > 1:
            # A few words behind many: the state of later tokens is wanted sooner.
            for tokens in (2, 3):
                script.norm(tokens, 3, tight=True, words=[most, 1, most])
                script.softmax(tokens, 3, tight=True, words=[most, 1, most])
    script.add("linear", config.max_tokens)
    if doubled(config):
        # All blocks of keys, all words of values.
        for pack in PACKS.values():
            script.add("linear", config.max_tokens, words=most_words(config), pack=pack)
    script.add("raw", min(config.max_tokens, 20))
    script.add("raw", 7)
    # More passes than there is room for.
    for _ in range(20):
        script.add("linear", 1, encoding=Encoding(), tight=True, words=1)
    return script
