# SPDX-License-Identifier: Apache-2.0
"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest

from hw.units import create
from vitforge.spec.config import load

ROOT = Path(__file__).parents[1]


def _toml_examples() -> list[str]:
    """Return the indented blocks of the README in which every line is an assignment."""
    blocks = re.findall(r"(?:^    .+\n)+", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    return [re.sub("^    ", "", block, flags=re.M) for block in blocks
            if re.fullmatch(r"(?:    \w+ = .+\n)+", block)]


def test_the_readme_has_a_configuration() -> None:
    assert len(_toml_examples()) == 1


@pytest.mark.parametrize("text", _toml_examples())
def test_a_configuration_of_the_readme_makes_an_accelerator(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text, encoding="utf-8")
    assert create("accelerator", load(file))
