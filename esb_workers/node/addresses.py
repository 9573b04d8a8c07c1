"""Where a running bus is to be found: written into its data directory by `esb up`, read by the command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from esb_workers.node.folders import write_private

_FILE = "addresses.json"


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs; the two of the servers may hold passwords."""

    api: str
    database: str
    broker: str
    flower: str | None = None

    def write(self, data_dir: Path) -> None:
        write_private(data_dir / _FILE, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def remove(data_dir: Path) -> None:
        (data_dir / _FILE).unlink(missing_ok=True)

    @staticmethod
    def read(data_dir: Path) -> Addresses | None:
        """Those of the bus that runs (or was killed) on this directory."""
        try:
            return Addresses(**json.loads((data_dir / _FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
