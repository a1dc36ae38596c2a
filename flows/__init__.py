"""Prefect flows: when and where DVC's stages run. What they compute is DVC's and the library's."""

import os
from pathlib import Path

# Before Prefect is imported: its data base lies in the checkout unless the user says otherwise.
os.environ.setdefault("PREFECT_HOME", str(Path(__file__).resolve().parents[1] / "work" / "prefect"))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# How long a model waits before it asks again for a place on the machine.
os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS", "1")
