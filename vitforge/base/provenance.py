# SPDX-License-Identifier: Apache-2.0
"""Of what a figure is: the day, and the commit that was measured."""

__all__ = ["provenance"]

import datetime
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True,
                              check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def provenance() -> dict[str, str]:
    """Return the ``date`` (UTC) and the ``commit``, with ``+`` behind it if files were changed.

    Outside a checkout the commit is "unknown".
    """
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return {"date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "commit": f"{commit}{changed}" if commit else "unknown"}
