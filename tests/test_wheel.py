# SPDX-License-Identifier: Apache-2.0
"""The wheel: holds every file of its packages, and generates with Amaranth and NumPy alone."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
ROOMS = sorted({name.partition(".")[0] for name in PACKAGES})


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          timeout=300, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build it from a copy, because a build leaves folders in its sources."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room,
                        ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "-w", out, source)
    [path] = out.glob("*.whl")
    return path


def needed(requirements, extras=("",)):
    """Return the distributions that requirements bring, by name."""
    found = {}
    for text in requirements:
        item = Requirement(text)
        if item.marker and not any(item.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        distribution = importlib.metadata.distribution(item.name)
        found[item.name] = distribution
        found |= needed(distribution.requires or (), (*item.extras, ""))
    return found


def test_wheel_has_every_file_of_its_packages(wheel):
    wanted = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted


@pytest.mark.thorough
def test_installed_wheel_generates_elsewhere_with_amaranth_and_numpy_alone(wheel, tmp_path):
    env = tmp_path / "env"
    venv.create(env, with_pip=False, symlinks=True)
    python = env / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--no-compile", wheel)
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                    env=bare).strip())
    # What the wheel asks for, out of the packages that are installed here.
    [metadata] = site.glob("vitforge-*.dist-info")
    asked = importlib.metadata.Distribution.at(metadata).requires
    for distribution in needed(asked).values():
        for name in {path.parts[0] for path in distribution.files} - {".."}:
            (site / name).symlink_to(distribution.locate_file(name))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(python, "-c", "import importlib.util as u, sys; sys.exit("
        "[n for n in ('torch', 'cocotb', 'rich', 'safetensors', 'PIL') if u.find_spec(n)] or 0)",
        env=bare, cwd=elsewhere)
    printed = run(python, "-m", "gen.verilog", "--config", "tiny", "-o", "out", env=bare,
                  cwd=elsewhere)
    assert "accelerator: out/rtl/accelerator.v" in printed
    assert "module accelerator(" in (elsewhere / "out/rtl/accelerator.v").read_text()
    for name in ("memory.v", "accelerator_top.v", "accelerator_host.v"):
        assert (elsewhere / "out/sim" / name).read_bytes() == (ROOT / "sim" / name).read_bytes()
