# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth: names that they name exist, and their examples give what they say."""

import ast
import doctest
import importlib
import re
from pathlib import Path

import pytest

import hw.units
from examples.demo import blocks
from golden.ptq import METHODS

ROOT = Path(__file__).parents[1]
UNITS = sorted((ROOT / "docs" / "units").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOPS = "vitforge|hw|golden|gen|sim|explore|benchmarks|examples|tests"
#: A name that stands for any: of a unit, a room's file.
ANY = re.compile(r"(^|[/._])x([/._]|$)|[<*{]|\.\.\.")


def _quoted(page):
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))


def _exists(name):
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_in_a_page_exist(page):
    for text in _quoted(page):
        if ANY.search(text):
            continue
        if re.fullmatch(rf"({TOPS}|docs)(/[\w.-]+)+/?", text):
            assert (ROOT / text).exists(), text
        elif re.fullmatch(rf"({TOPS})(\.\w+)+(\(.*\))?", text):
            assert _exists(text.partition("(")[0]), text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_in_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-")
                              for head in heads}, target


@pytest.mark.parametrize("page", UNITS, ids=lambda page: page.stem)
def test_examples_of_a_unit_give_what_the_page_says(page):
    done = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert done.attempted >= 3 and not done.failed


@pytest.mark.parametrize("unit", hw.units.UNITS)
def test_every_unit_has_its_rooms_and_its_page(unit):
    for path in (f"golden/units/{unit}.py", f"sim/cases/{unit}.py", f"tests/test_{unit}.py",
                 f"docs/units/{unit}.md"):
        assert (ROOT / path).is_file(), path


def test_every_method_has_a_row():
    """The names that the command line takes, each with its module."""
    rows = re.findall(r"^\| `([\w-]+)` \| `(golden\.ptq\.\w+)` \|",
                      (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted((name, kind.__module__) for name, kind in METHODS.items())


def test_tests_that_the_recipes_name_exist():
    found = _quoted(ROOT / "CONTRIBUTING.md")
    named = re.findall(r"`(test_\w+)` in `(tests/\w+\.py)`",
                       (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(named) >= 7 and len(named) == sum(name.startswith("test_") for name in found)
    for name, file in named:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


#: Components of the datapath that move words, and compute none.
MOVE = {"TokenTable", "Bank", "Feeder", "Keeper", "WeightLoader", "RowBuffer", "Ring",
        "NormParameters"}


def _components():
    for folder in ("array", "softmax", "requant", "layernorm", "operand"):
        for path in sorted((ROOT / "hw" / folder).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and "Component" in map(_last, node.bases):
                    yield pytest.param(ast.get_docstring(node), id=f"{folder}.{node.name}")


def _last(base):
    return ast.unparse(base).rpartition(".")[2]


@pytest.mark.parametrize("text", [item for item in _components()
                                  if item.id.rpartition(".")[2] not in MOVE])
def test_a_component_of_the_datapath_gives_its_formula_and_says_where_it_rounds(text):
    head, line, _ = text.partition("\nRounding: ")
    assert line and re.search(r"``[^`]+``", head), text


def test_what_moves_words_is_there():
    assert {item.id.rpartition(".")[2] for item in _components()} > MOVE


def test_the_picture_of_the_blocks_is_the_drawing():
    """`python -m examples.demo.blocks` draws it again."""
    assert blocks.PICTURE.read_text(encoding="utf-8") == blocks.draw()
