"""`enrich`: what a service knows is added to the payload. The step itself; who calls is `asking`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from esb_workers.errors import TransformationError
from esb_workers.expressions.templates import Template, compile_template
from esb_workers.routing.fields import Fields, one_of, text_template, whole
from esb_workers.routing.paths import NoPlace, Words, parse_path, put
from esb_workers.routing.route import METHODS, service_name
from esb_workers.routing.transform import Form, Question, Step

MAX_CACHE_SECONDS: Final = 86_400
MAX_TIMEOUT: Final = 60_000


@dataclass(frozen=True, slots=True)
class Enrichment:
    """The compiled step. `service` tells that a call is made, so that it is not made where messages are routed."""

    service: str
    path: Template | None
    method: str
    payload: Template | None
    result_path: Words
    cache_seconds: int
    timeout: int | None

    def __call__(self, form: Form) -> Form:
        """Ask, and put the answer into the payload. Raises TransformationError, Unanswered."""
        if form.ask is None:
            raise TransformationError(f"{self.service} is not called in a dry run")
        scope = form.scope
        question = Question(
            service=self.service,
            method=self.method,
            path=self.path.render_string_percent_encoded(scope) if self.path else None,
            payload=None if self.payload is None else self.payload.render(scope),
            has_payload=self.payload is not None,
            cache_seconds=self.cache_seconds,
            timeout=self.timeout,
        )
        return form.with_payload(self._put(form.payload, form.ask(question)))

    def _put(self, payload: Any, answer: Any) -> Any:
        if not self.result_path:
            if isinstance(payload, dict) and isinstance(answer, dict):
                return {**payload, **answer}
            raise TransformationError("only an object can be merged into an object: resultPath says where it goes")
        try:
            return put(payload, self.result_path, answer)
        except NoPlace as error:
            raise TransformationError(f"resultPath: {error}") from None


def enrich(config: Mapping[str, Any], path: str) -> Step:
    """`enrich {service, path, method, payload, resultPath, cacheSeconds, timeout}`. Raises Invalid."""
    fields = Fields.of(config, path)
    payload = fields.optional("payload", None, compile_template)
    made = Enrichment(
        service=fields.required("service", service_name),
        path=fields.optional("path", None, text_template),
        method=fields.optional("method", "GET" if payload is None else "POST", one_of(METHODS)),
        payload=payload,
        result_path=fields.optional("resultPath", (), parse_path),
        cache_seconds=fields.optional("cacheSeconds", 0, whole(0, MAX_CACHE_SECONDS)),
        timeout=fields.optional("timeout", None, whole(1, MAX_TIMEOUT)),
    )
    fields.finish()
    return made
