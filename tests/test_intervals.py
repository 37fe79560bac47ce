# SPDX-License-Identifier: Apache-2.0
"""Intervals of shares and of paired differences, against published and simulated figures."""

import random

import pytest

from benchmarks.intervals import paired, wilson


def pair(both: int, lost: int, won: int, neither: int):
    """Return two networks with so many images of each kind."""
    first = [True] * (both + lost) + [False] * (won + neither)
    second = [True] * both + [False] * lost + [True] * won + [False] * neither
    return paired(first, second)


@pytest.mark.parametrize(("right", "total", "low", "high"), [
    (81, 263, 0.2553, 0.3662),   # Newcombe 1998, Statist. Med. 17, 857, table I, method 3
    (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    (29, 29, 0.8830, 1.0)])
def test_wilson_is_as_published(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("cells", [(36, 12, 2, 0), (43, 0, 1, 6), (0, 3, 4, 0), (5, 0, 0, 5)])
def test_differences_lie_in_their_intervals(cells):
    both, lost, won, neither = cells
    found = pair(both, lost, won, neither)
    assert found.points == pytest.approx(100 * (won - lost) / sum(cells))
    assert -100 <= found.low <= found.points <= found.high <= 100
    other = pair(both, won, lost, neither)
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


def test_the_interval_covers_the_truth():
    draw = random.Random(0)
    shares = (0.62, 0.14, 0.06, 0.18)
    covered = 0
    for _ in range(1000):
        cells = [0] * 4
        for kind in draw.choices(range(4), shares, k=300):
            cells[kind] += 1
        found = pair(*cells)
        covered += found.low <= -8 <= found.high
    assert 935 <= covered <= 970


def test_equal_networks_do_not_differ():
    found = paired([True, False, True], [True, False, True])
    assert (found.points, found.p) == (0, 1) and found.low <= 0 <= found.high
    assert str(pair(90, 2, 5, 3)).startswith("+3.00 (")
    assert pair(50, 10, 0, 40).p == pytest.approx(2 / 2**10)
    assert paired([True] * 4, [False] * 4).points == -100


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_other_images_are_refused(first, second):
    with pytest.raises(ValueError, match="the same images"):
        paired(first, second)
