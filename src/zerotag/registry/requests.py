"""The request log of the service: JSON Lines, one file per day, written by `service.record`."""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any


def logged(log: Path, event: str, since: date) -> Iterator[dict[str, Any]]:
    """Read the lines of an event.

    Args:
        log: the folder, with subfolders of several services; one that is missing has no lines.
        event: such as tag or shadow.
        since: the first day to include.
    """
    for file in sorted(log.rglob("*.jsonl")):
        if file.stem >= since.isoformat():
            for line in file.read_text(encoding="utf-8").splitlines():
                if f'"event": "{event}"' in line:
                    yield json.loads(line)
