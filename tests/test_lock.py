# SPDX-License-Identifier: Apache-2.0
"""The locked versions are those of Debian 12's Python, with which the README says they install."""

import importlib.metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

#: Of Debian 12. Python here may be newer.
PYTHON = "3.11.2"
LOCKED = [line.partition("==")[0] for line in
          (Path(__file__).parents[1] / "requirements.lock").read_text().splitlines()
          if line and not line.startswith("#")]


def test_every_locked_version_takes_the_oldest_python():
    assert len(LOCKED) > 100
    needs = {name: importlib.metadata.metadata(name).get("Requires-Python", "") for name in LOCKED}
    assert {name: wanted for name, wanted in needs.items()
            if not SpecifierSet(wanted).contains(PYTHON)} == {}


@pytest.mark.parametrize(("wanted", "taken"), [(">=3.11.5", False), (">=3.9,!=3.11.3", True)])
def test_what_needs_a_newer_one_is_seen(wanted, taken):
    assert SpecifierSet(wanted).contains(PYTHON) == taken
