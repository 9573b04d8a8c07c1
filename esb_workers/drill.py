"""Crash points: labelled places at which a fault drill has a process kill itself, as `kill -9` would."""

from __future__ import annotations

import os

AFTER_INSERT = "after_insert"
AFTER_COMMIT_BEFORE_RING = "after_commit_before_ring"
AFTER_CLAIM = "after_claim"
AFTER_CALL_BEFORE_RECORD = "after_call_before_record"
MID_BATCH = "mid_batch"

LABELS = (AFTER_INSERT, AFTER_COMMIT_BEFORE_RING, AFTER_CLAIM, AFTER_CALL_BEFORE_RECORD, MID_BATCH)

_armed: str | None = None


def arm(label: str | None) -> None:
    """Set the label at which this process dies; None disarms. Called once at start, from the settings."""
    global _armed
    if label is not None and label not in LABELS:
        raise ValueError(f"no such crash point: {label}; there are {', '.join(LABELS)}")
    _armed = label


def crash_point(label: str) -> None:
    """Die here, without clean-up, if this process is armed with `label`."""
    if _armed == label:
        os._exit(9)
