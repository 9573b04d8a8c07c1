"""Compiled workflows by id. Definitions are immutable, so what was compiled once is good for ever."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from esb_workers.errors import NotFound
from esb_workers.orchestration.catalogue import known_types
from esb_workers.orchestration.definition import compile_definition
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.steps.base import StepType
from esb_workers.store import workflows
from esb_workers.store.engine import Database
from esb_workers.store.workflows import WorkflowRow

KEPT: Final = 512


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow and its program."""

    id: str
    name: str
    version: str
    lane_id: int
    program: Program


class Programs:
    """A bounded cache over the store. Safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, Workflow] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, workflow_id: str) -> Workflow:
        """The workflow, also a deleted one: its runs go on. Raises NotFound."""
        with self._lock:
            if (known := self._known.get(workflow_id)) is not None:
                self._known.move_to_end(workflow_id)
                return known
        with self._database.cursor() as cursor:
            row = workflows.get(cursor, workflow_id, deleted=True)
        if row is None:
            raise NotFound("there is no such workflow")
        return self._keep(compiled(row, known_types(self._database)))

    def _keep(self, workflow: Workflow) -> Workflow:
        with self._lock:
            self._known[workflow.id] = workflow
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return workflow


def compiled(row: WorkflowRow, types: Mapping[str, StepType]) -> Workflow:
    """The program of a stored definition."""
    program = compile_definition(orjson.loads(row.definition), types)
    return Workflow(row.id, row.name, row.version, row.lane_id, program)
