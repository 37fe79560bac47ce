# SPDX-License-Identifier: Apache-2.0
"""The orders in which a slave may take the address and the beats of a write burst."""

__all__ = ["ORDERS", "WriteOrder"]

import random

#: AXI4 lets a slave wait for either channel, and a master for neither (IHI 0022, dependencies
#: between channels): both are taken as they come; beats wait for the address; the address waits
#: for the last beat; each waits until the other is valid.
ORDERS = ("free", "address", "data", "both")


class WriteOrder:
    """Say in every cycle which of AW and W may be ready.

    Parameters
    ----------
    order
        One of `ORDERS`, or ``random``: each burst has its own.
    seed
        Of ``random``.

    Attributes
    ----------
    addresses, bursts
        Addresses that were taken, and bursts whose last beat was.
    begun
        Beats of the burst behind these that were taken.
    """

    def __init__(self, order: str, seed: int = 0):
        if order not in (*ORDERS, "random"):
            raise ValueError(f"order must be one of {', '.join(ORDERS)} or random, not {order}")
        self._orders = list(ORDERS if order == "random" else [order])
        self._rng = random.Random(f"order {seed}")
        self._chosen: list[str] = []
        self.addresses = self.bursts = self.begun = 0

    def of(self, burst: int) -> str:
        """Return the order of a burst, counted from 0."""
        while len(self._chosen) <= burst:
            self._chosen.append(self._rng.choice(self._orders))
        return self._chosen[burst]

    def allow(self, address: bool, beat: bool) -> tuple[bool, bool]:
        """Return whether AW and W may be ready, if these are valid and not yet taken."""
        ahead = self.addresses - self.bursts
        both = ahead == 0 and ((address and beat) or self.begun > 0)
        order = self.of(self.addresses)
        take_address = ahead < 0 or order in ("free", "address") or (order == "both" and both)
        order = self.of(self.bursts)
        take_beat = ahead > 0 or order in ("free", "data") or (order == "both" and both)
        return take_address, take_beat

    def took(self, address: bool, beat: bool, last: bool) -> None:
        """Note what was taken in a cycle."""
        self.addresses += address
        if beat:
            self.begun += 1
            if last:
                self.bursts += 1
                self.begun = 0
