"""Writes the frozen help texts: `python tests/data/help/make.py` after a command changed on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from cli import COMMANDS, scumble  # noqa: E402

for command in COMMANDS:
    name = "-".join(("scumble", *command))
    (HERE / f"{name}.txt").write_text(scumble(*command, "--help").out)
