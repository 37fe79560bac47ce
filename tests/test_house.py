# SPDX-License-Identifier: Apache-2.0
"""The picture of the house is that of the code."""

import re

import pytest

from benchmarks import house


@pytest.fixture
def more(tmp_path, monkeypatch):
    """Return a function that adds a module to the house."""
    def add(name, text):
        path = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        monkeypatch.setitem(house.MODULES, name, path)
    yield add
    house.imports.cache_clear()


def test_the_picture_is_up_to_date():
    assert house.PICTURE.read_text(encoding="utf-8") == house.draw(), \
        "python -m benchmarks.house draws it again"


def test_the_page_shows_it():
    page = house.ROOT / "docs" / "design.md"
    assert f"](images/{house.PICTURE.name})" in page.read_text(encoding="utf-8")


def test_a_new_folder_changes_it(more):
    before = house.draw()
    more("hw.cache.unit", "")
    after = house.draw()
    assert before != after and ">cache</text>" in after and ">cache</text>" not in before


@pytest.mark.thorough
def test_a_new_arrow_changes_it(more):
    before = house.draw()
    more("vitforge.base.wrong", "from vitforge.spec import words\n")
    arrows = [re.findall("<path d=.* marker-end=", text) for text in (before, house.draw())]
    assert len(arrows[1]) == len(arrows[0]) + 1


@pytest.mark.thorough
def test_folders_in_a_circle_are_no_picture(more):
    more("golden.units.wrong", "from golden.formats import ptf\n")
    with pytest.raises(ValueError, match=r"cycle.*(formats|units)"):
        house.draw()


def test_the_command_writes_it(tmp_path, capsys):
    out = tmp_path / "house.svg"
    assert house.main(["-o", str(out)]) == 0
    assert out.read_text(encoding="utf-8") == house.draw()
    assert capsys.readouterr().out == f"the house: {out}\n"
