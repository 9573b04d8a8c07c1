"""The log files of the children: appended to by them, kept small by the supervisor."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO, Final

#: Bytes at which a log is moved to `….1` and begun anew.
LIMIT: Final = 32 << 20


def open_log(path: Path) -> BinaryIO:
    """Open for appending, readable by the owner alone."""
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))


def trim(path: Path, limit: int = LIMIT) -> None:
    """Copy a log that has grown over `limit` aside and empty it.

    It is emptied in place because its writer keeps it open; being opened for appending, it goes on at the start.
    A line written between the two steps is lost, which a log can bear.
    """
    try:
        if path.stat().st_size > limit:
            shutil.copyfile(path, path.with_name(path.name + ".1"))
            os.truncate(path, 0)
    except OSError:
        pass  # a full disk must not end the supervision
