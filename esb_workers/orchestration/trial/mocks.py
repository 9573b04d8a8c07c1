"""What the outside world is to answer in a trial, by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from esb_workers.errors import FieldError, Invalid
from esb_workers.orchestration.failures import SERVICE_UNAVAILABLE, TIMEOUT, Failure
from esb_workers.orchestration.model import Program
from esb_workers.orchestration.state import step_of
from esb_workers.orchestration.steps.fields import Milliseconds
from esb_workers.registry.retries import Answered

_HTTP: Final = "HttpStatus."
_COMPENSATE: Final = ":compensate"


class Mock(BaseModel):
    """The result of one attempt: an output, or an error of a class; after `duration` milliseconds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel, populate_by_name=True)

    output: Any = Field(None, description="What the service answered, the child run put out, or the step put out.")
    error: str | None = Field(None, min_length=1, max_length=100, description="Class of the error, if it fails.")
    message: str = Field("mocked", max_length=10_000)
    body: Any = Field(None, description="Of an answer that is an error.")
    retryable: bool | None = Field(None, description="Default: as a call that failed so would be.")
    retry_after: Milliseconds | None = None
    duration: Milliseconds = 0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.error is not None and "output" in self.model_fields_set:
            raise ValueError("has either output or error")
        if self.error is not None and self.error.startswith(_HTTP) and self._status is None:
            raise ValueError("error: HttpStatus is followed by a status from 100 to 599, such as HttpStatus.503")
        return self

    @property
    def _status(self) -> int | None:
        text = (self.error or "").removeprefix(_HTTP)
        return int(text) if len(text) == 3 and text.isdecimal() and 100 <= int(text) <= 599 else None

    def failure(self) -> Failure:
        """The failure this stands for."""
        error_class, status = self.error or "", self._status
        told: dict[str, Any] = {} if status is None else {"statusCode": status, "body": self.body}
        again = error_class in (TIMEOUT, SERVICE_UNAVAILABLE) or (status is not None and Answered(status).transient)
        retryable = again if self.retryable is None else self.retryable
        return Failure(error_class, self.message, retryable, self.retry_after, told)


class Mocks:
    """Results by step id, or by path for one item, branch or round. The last of a list is repeated."""

    def __init__(self, given: Mapping[str, Mock | Sequence[Mock]]) -> None:
        self._given = {key: [value] if isinstance(value, Mock) else list(value) for key, value in given.items()}
        self._drawn: Counter[str] = Counter()
        #: Steps that acted on the world without anything being said about them.
        self.missed: dict[str, None] = {}

    def has(self, path: str) -> bool:
        """Whether anything is said about this step."""
        return path in self._given or step_of(path) in self._given

    def draw(self, path: str) -> Mock:
        """The result of the next attempt at this step; null where nothing is said."""
        key = path if path in self._given else step_of(path)
        queue = self._given.get(key)
        if not queue:
            self.missed[step_of(path)] = None
            return Mock()
        number = self._drawn[key]
        self._drawn[key] += 1
        return queue[min(number, len(queue) - 1)]

    def check(self, program: Program, path: str = "mocks") -> None:
        """Raises Invalid, naming each mock of a step that there is not, or that is made of steps."""
        faults = [
            FieldError(f"{path}.{key}", fault) for key in self._given if (fault := _fault(program, key)) is not None
        ]
        if faults:
            raise Invalid(faults)


def _fault(program: Program, key: str) -> str | None:
    name = step_of(key)
    step = program.steps.get(name.removesuffix(_COMPENSATE))
    if step is None or (name.endswith(_COMPENSATE) and step.compensate is None):
        return "there is no such step in the definition"
    if step.lists and not name.endswith(_COMPENSATE):
        return f"a {step.type} step is made of steps: mock those"
    if step.type == "wait_for_signal":
        return "a wait_for_signal step is given its signal in `signals`"
    return None
