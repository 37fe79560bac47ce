# SPDX-License-Identifier: Apache-2.0
"""The site: builds without a warning, holds every page, and asks no other machine for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
PAGES = sorted(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build it as `make docs` does, strictly: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
                          cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_its_place(page):
    assert f": {page}\n" in NAV, f"nav of mkdocs.yml lacks {page}"


@pytest.mark.thorough
def test_pages_of_the_repository_are_not_written_twice(site):
    for page, source in (("index", "README.md"), ("contributing", "CONTRIBUTING.md"),
                         ("changelog", "CHANGELOG.md")):
        assert not (ROOT / "docs" / f"{page}.md").exists()
        head = (ROOT / source).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        assert re.search(rf"<h1[^>]*>{head}<", (site / f"{page}.html").read_text("utf-8"))


@pytest.mark.thorough
def test_nothing_is_fetched(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(PAGES) + 10
    for page in pages:
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text)
        assert tags
        for tag in tags:
            address = re.search(r"(?:src|href)=\"?'?([^\"'\s>]+)", tag)
            assert not address or not re.match(r"(https?:)?//", address[1]), (page.name, tag)
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", style.read_text("utf-8"))


@pytest.mark.thorough
def test_links_lead_to_pages_of_the_site(site):
    """To the reference where a module is on it, else a path in the repository, as text."""
    text = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="reference/configuration.html"' in text and 'href="own-network.html"' in text
    assert "<code>vitforge/driver</code>" in text
    inside = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue
        for target in re.findall(r"<a[^>]* href=\"?([^\"\s>]+)", page.read_text("utf-8")):
            path = target.partition("#")[0]
            if path and not re.match(r"\w+:", path):
                found = os.path.normpath(page.parent.relative_to(site) / path)
                assert found in inside, (page.name, target)


@pytest.mark.thorough
def test_the_reference_is_that_of_the_docstrings(site):
    for page, names in (("configuration", ("vitforge.spec.config.Config",)),
                        ("gateware", ("hw.softmax.unit.LogSoftmax",)),
                        ("golden-units", ("golden.units.softmax.log_softmax",)),
                        ("networks", ("golden.network.inference.run",))):
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            assert f'id="{name}"' in text, name
        assert "``" not in re.sub("<pre.*?</pre>", "", text, flags=re.DOTALL)
