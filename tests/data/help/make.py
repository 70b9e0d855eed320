"""Writes the frozen help texts, after a command changed on purpose:

PYTHONPATH=tests COLUMNS=80 python tests/data/help/make.py
"""

from __future__ import annotations

from pathlib import Path

from cli import COMMANDS, scumble

HERE = Path(__file__).parent

for command in COMMANDS:
    name = "-".join(("scumble", *command))
    (HERE / f"{name}.txt").write_text(scumble(*command, "--help").out)
