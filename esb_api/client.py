"""A typed client of the bus's REST API. A leaf: it needs `requests` and nothing else of the bus.

bus = Client("http://127.0.0.1:8080", key="…")
bus.send({"source": "shop", "messageType": "order.placed", "payload": {"total": 3}})
for service in bus.services.every(status="active"):
    print(service["name"])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import requests

Json = dict[str, Any]

_TIMEOUT: Final = 35.0  # seconds; longer than the longest `Prefer: wait`


class ApiError(Exception):
    """The API refused a call, or could not be reached (`status` 0). `problem` is its RFC 9457 body."""

    def __init__(self, status: int, problem: Json) -> None:
        self.status = status
        self.problem = problem
        self.code: str = problem.get("code", "error")
        super().__init__(_sentence(status, problem))


class Client:
    """One API and one key. Keeps its connection alive until it is closed (`with Client(…) as bus`); for one thread."""

    def __init__(self, url: str, key: str | None = None, *, timeout: float = _TIMEOUT) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # a bus on this machine is not reached through a proxy
        if key:
            self._session.headers["X-API-Key"] = key
        self.services = Collection(self, "/services")
        self.clients = Collection(self, "/clients")
        self.routes = Collection(self, "/routing/routes")
        self.workflows = Collection(self, "/orchestration/workflows")
        self.executions = Collection(self, "/orchestration/executions")
        self.schedules = Collection(self, "/orchestration/schedules")
        self.bulk = Collection(self, "/orchestration/executions/bulk")  # made, read and cancelled, not listed
        self.message_types = Collection(self, "/routing/message-types")
        self.ingress = Collection(self, "/routing/ingress")
        self.lookup_tables = Collection(self, "/routing/lookup-tables")
        self.listeners = Collection(self, "/routing/listeners")
        self.messages = Collection(self, "/routing/messages", listing="/routing/logs")
        self.dead_letters = Collection(self, "/routing/dead-letters")
        self.blocked_keys = Collection(self, "/routing/blocked-keys")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back: an API that is stopping waits a while for those that stay open."""
        self._session.close()

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; answers the decoded JSON, None for an empty body. Raises ApiError."""
        sent = {"Content-Type": "application/json"} if method == "PATCH" else {}
        parameters = {k: str(v) for k, v in (query or {}).items() if v is not None}
        try:
            answer = self._session.request(
                method,
                self.url + path,
                json=body,
                params=parameters,
                headers={**sent, **(headers or {})},
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise ApiError(
                0, {"code": "unreachable", "detail": f"{self.url} does not answer: {_cause(error)}"}
            ) from error
        decoded = _decoded(answer)
        if not answer.ok:
            raise ApiError(answer.status_code, decoded if isinstance(decoded, dict) else {"title": answer.reason})
        return decoded

    def send(self, message: Json, *, wait: int | None = None, idempotency_key: str | None = None) -> Json:
        """Send one message; with `wait` (seconds), its final state if it is reached in time."""
        return self._post("/routing/send", message, wait, idempotency_key)

    def execute(self, start: Json, *, wait: int | None = None, idempotency_key: str | None = None) -> Json:
        """Start a workflow: `{"workflowId" | "workflowName": …, "initialContext": {…}}`."""
        return self._post("/orchestration/execute", start, wait, idempotency_key)

    def health(self) -> Json:
        """`/health/ready`, also when it says that the bus is not."""
        try:
            return dict(self.call("GET", "/health/ready"))
        except ApiError as error:
            if error.status == 503:
                return error.problem
            raise

    def queues(self) -> list[Json]:
        """Depth and age of each pool's work."""
        return list(self.call("GET", "/system/queues")["items"])

    def _post(self, path: str, body: Json, wait: int | None, idempotency_key: str | None) -> Json:
        headers = {"Prefer": f"wait={wait}"} if wait is not None else {}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return dict(self.call("POST", path, body, headers=headers))


class Collection:
    """The calls that every kind of resource has."""

    def __init__(self, client: Client, path: str, listing: str | None = None) -> None:
        self._client = client
        self.path = path
        self._listing = listing or path

    def list(self, **query: object) -> Json:
        """One page: `{"items": […], "nextCursor": …}`."""
        return dict(self._client.call("GET", self._listing, query=query))

    def every(self, **query: object) -> Iterator[Json]:
        """All of them, page by page."""
        cursor: str | None = None
        while True:
            page = self.list(**{"limit": 200, **query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("nextCursor")
            if cursor is None:
                return

    def get(self, resource_id: str) -> Json:
        return dict(self._client.call("GET", self.one(resource_id)))

    def create(self, body: Json) -> Json:
        return dict(self._client.call("POST", self.path, body))

    def replace(self, resource_id: str, body: Json) -> Json:
        return dict(self._client.call("PUT", self.one(resource_id), body))

    def change(self, resource_id: str, patch: Json) -> Json:
        """A merge patch: null resets a field."""
        return dict(self._client.call("PATCH", self.one(resource_id), patch))

    def delete(self, resource_id: str) -> None:
        self._client.call("DELETE", self.one(resource_id))

    def act(self, resource_id: str, action: str, body: object = None, *, method: str = "POST") -> Any:
        """`POST …/{id}/{action}`."""
        return self._client.call(method, f"{self.one(resource_id)}/{action}", body)

    def one(self, resource_id: str) -> str:
        """The path of one resource."""
        return f"{self.path}/{quote(resource_id, safe='')}"


def _decoded(answer: requests.Response) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError:
        return {"detail": answer.text[:500]}


def _cause(error: requests.RequestException) -> str:
    """The innermost reason (`Connection refused`) instead of a stack of wrappers."""
    cause: BaseException = error
    while True:
        inner = cause.__cause__ or cause.__context__ or getattr(cause, "reason", None)
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return getattr(cause, "strerror", None) or str(cause)


def _sentence(status: int, problem: Json) -> str:
    faults = "; ".join(f"{fault.get('path')}: {fault.get('message')}" for fault in problem.get("errors") or [])
    text = faults or problem.get("detail") or problem.get("title") or "the call failed"
    return f"{text} ({status} {problem.get('code', '')})".replace(" )", ")") if status else str(text)
