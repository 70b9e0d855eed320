"""Everything that the routes work with, as one value that the application carries."""

from __future__ import annotations

from dataclasses import dataclass

from scumble.studio.database import Database
from scumble.studio.files import Files
from scumble.studio.jobs import Jobs
from scumble.studio.sessions import Sessions
from scumble.studio.settings import Settings

__all__ = ["Studio"]


@dataclass(frozen=True, slots=True)
class Studio:
    """What one running studio is made of."""

    settings: Settings
    database: Database
    files: Files
    sessions: Sessions
    jobs: Jobs
