"""Every test runs on one thread, offline, so that figures do not depend on the machine's load or network; and
with a folder for data of its own, so that no test writes into anybody's history.
"""

from __future__ import annotations

import os
import tempfile

DATA = tempfile.TemporaryDirectory(prefix="scumble-data-")
os.environ["SCUMBLE_DATA"] = DATA.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_configure() -> None:
    import torch  # only now: what is set above is read when it loads
    from hypothesis import settings

    torch.set_num_threads(1)
    settings.register_profile("scumble", deadline=None)  # a time would depend on the machine's load
    settings.load_profile("scumble")
