"""Prefect flows that schedule and run the DVC stages."""

import os
from pathlib import Path

from zerotag.errors import require

require("prefect")

# Set before Prefect is imported: its database is in the checkout by default.
os.environ.setdefault("PREFECT_HOME", str(Path(__file__).resolve().parents[1] / "work" / "prefect"))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Polling interval for a free concurrency slot, in seconds.
os.environ.setdefault("PREFECT_SERVER_CONCURRENCY_MAXIMUM_CONCURRENCY_SLOT_WAIT_SECONDS", "1")
