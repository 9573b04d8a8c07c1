"""`switch`: the first case whose CEL condition holds says where to go."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydantic import Field

from esb_workers.orchestration.failures import EXPRESSION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate
from esb_workers.orchestration.steps.base import ONWARD, At, Call, Completed, Config, Outcome, StepType
from esb_workers.orchestration.steps.fields import StepId


class Case(Config):
    """When this CEL expression is true, go there."""

    when: str = Field(min_length=1, max_length=10_000)
    next: StepId


class SwitchConfig(Config):
    """`config` of a switch step."""

    cases: list[Case] = Field(min_length=1, max_length=100)
    default: StepId | None = None


class _Compiled(NamedTuple):
    cases: tuple[tuple[Evaluate, str], ...]
    default: str | None
    texts: tuple[str, ...]


class Switch(StepType):
    """Without a match and without a default it goes on as any other step."""

    Config = SwitchConfig

    def compile(self, config: SwitchConfig, at: At) -> _Compiled:
        cases = tuple((at.expression(c.when, f"cases[{i}].when"), c.next) for i, c in enumerate(config.cases))
        return _Compiled(cases, config.default, tuple(case.when for case in config.cases))

    def jumps(self, config: _Compiled) -> Iterable[tuple[str, str]]:
        yield from ((f"cases[{i}].next", target) for i, (_, target) in enumerate(config.cases))
        if config.default is not None:
            yield "default", config.default

    def label(self, config: _Compiled, path: str) -> str | None:
        if path == "default":
            return "else"
        return config.texts[int(path[len("cases[") : path.index("]")])]

    def falls_through(self, config: _Compiled) -> bool:
        return config.default is None

    def run(self, call: Call) -> Outcome:
        for number, (when, target) in enumerate(call.config.cases):
            if truth(when, call, f"cases[{number}].when"):
                return Completed({"next": target}, next=target)
        default = call.config.default
        return Completed({"next": default}, next=ONWARD if default is None else default)


def truth(expression: Evaluate, call: Call, where: str) -> bool:
    """The value of a condition. Raises StepFailed if it is no boolean: "no" would hide a mistake."""
    value = expression(call.names)
    if not isinstance(value, bool):
        raise StepFailed(Failure(EXPRESSION_ERROR, f"{where} is not true or false but {type(value).__name__}"))
    return value
