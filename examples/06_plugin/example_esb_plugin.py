"""A package that adds to the bus: the transformation `mask` and the step type `checksum`.

pip install examples/06_plugin    into the environment of the API and of the workers, and restart them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from esb_workers.errors import FieldError, Invalid, TransformationError
from esb_workers.orchestration.steps.base import At, Call, Completed, Config, Outcome, StepType
from esb_workers.routing.transform import Form, Step


def mask(config: Mapping[str, Any], path: str) -> Step:
    """`{"type": "mask", "fields": ["card"]}`: all but the last four characters of these fields become stars.

    Compiled once, when a route is saved: what is wrong with the config is said then, with its path.
    """
    fields = config.get("fields")
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields) or set(config) != {"fields"}:
        raise Invalid([FieldError(f"{path}.fields", "must be a list of names, and nothing else is taken")])

    def step(form: Form) -> Form:
        if not isinstance(form.payload, dict):
            raise TransformationError("the payload is not an object")  # this delivery becomes a dead letter
        hidden = {
            name: "*" * (len(text) - 4) + text[-4:]
            for name in fields
            if isinstance(text := form.payload.get(name), str)
        }
        return form.with_payload(form.payload | hidden)

    return step


class ChecksumConfig(Config):
    """`config` of a checksum step."""

    value: Any


class Checksum(StepType):
    """`{"type": "checksum", "config": {"value": "${order}"}}`: puts `checksum` into the context.

    It computes and acts on nothing (`effect` stays False), so it need not be journaled before it runs.
    """

    Config = ChecksumConfig

    def compile(self, config: ChecksumConfig, at: At) -> Any:
        return at.template(config.value, "value")

    def run(self, call: Call) -> Outcome:
        text = json.dumps(call.config(call.names), sort_keys=True)
        return Completed({"checksum": hashlib.sha256(text.encode()).hexdigest()}, merge=True)
