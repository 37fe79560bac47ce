# SPDX-License-Identifier: Apache-2.0
"""The option by which every command takes a configuration."""

__all__ = ["add_config"]

import argparse

from vitforge.spec.config import preset_names


def add_config(parser: argparse.ArgumentParser, default: str | None, *, about: str = "",
               none: str = "") -> None:
    """Give a command ``--config``: a preset's name, or a TOML file.

    Parameters
    ----------
    about
        What it is the configuration of, where the command has another meaning for it.
    none
        What is taken if it isn't given, if that is more than a name.
    """
    parser.add_argument("--config", metavar="C", default=default,
                        help=f"{about}{', '.join(preset_names())} or a .toml file "
                             f"(default: {none or default})")
