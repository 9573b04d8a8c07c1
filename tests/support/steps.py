"""Steps that several tests of runs have."""

from __future__ import annotations

from typing import Any


def log(id_: str, **over: Any) -> dict[str, Any]:
    return {"id": id_, "type": "log", "config": {"message": f"at {id_}"}, **over}
