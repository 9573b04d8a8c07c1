"""The languages inside definitions, bound to how steps fail: CEL, templates, JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from esb_workers.errors import ExpressionError
from esb_workers.expressions.cel import compile_expression
from esb_workers.expressions.functions import Host, bound, refuse_uuid
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.orchestration.failures import EXPRESSION_ERROR, Failure, StepFailed
from esb_workers.orchestration.model import Evaluate, Names

#: What is computed may be computed again after a crash, and must then be the same.
_WORKFLOWS: Final = Host(new_uuid=refuse_uuid)


def template(value: Any, path: str) -> Evaluate:
    """A JSON value with `${…}`. Raises Invalid; evaluated, StepFailed."""
    compiled = compile_template(value, path)
    return _guarded(compiled.render)


def url_text(value: str, path: str) -> Evaluate:
    """A string of a URL's path, in which values are percent-encoded. Raises Invalid; evaluated, StepFailed."""
    compiled: Template = compile_template(value, path)
    return _guarded(compiled.render_string_percent_encoded)


def expression(text: str, path: str) -> Evaluate:
    """A CEL expression. Raises Invalid; evaluated, StepFailed."""
    return _guarded(compile_expression(text, path).evaluate)


def _guarded(evaluate: Callable[[Names], Any]) -> Evaluate:
    def run(names: Names) -> Any:
        try:
            with bound(_WORKFLOWS):
                return evaluate(names)
        except ExpressionError as error:
            raise StepFailed(Failure(EXPRESSION_ERROR, error.detail)) from None

    return run
