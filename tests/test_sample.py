# SPDX-License-Identifier: Apache-2.0
"""What `make test` plays of a product of parameters."""

import pytest

from tests.sample import thinned


def test_every_value_stays_and_one_in_so_many() -> None:
    found = thinned([1, 2, 3], "ab", ["x", "y", "z", "w"], of=4)
    kept = [item.values for item in found if not item.marks]
    assert len(found) == 24 and len(kept) == 6 and len({item.id for item in found}) == 24
    assert [set(values) for values in zip(*kept, strict=True)] == [
        {1, 2, 3}, {"a", "b"}, {"x", "y", "z", "w"}]


def test_a_value_that_would_be_left_out_is_an_error() -> None:
    with pytest.raises(AssertionError, match="left out"):
        thinned([1, 2], ["a"], of=2)
