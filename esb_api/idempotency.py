"""`Idempotency-Key`: a repeat of a request gets the first answer again.

The key is taken in the transaction that does the work, so that either both stand or neither. Kept are 2xx
answers and refusals of the body (422); any other outcome rolls the key back with the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from flask import Response

from esb_api import problems
from esb_api.answers import JSON
from esb_api.call import Call
from esb_workers.errors import Invalid, Malformed
from esb_workers.store import idempotency as store
from esb_workers.store.engine import Cursor, StaleRevision

HEADER: Final = "Idempotency-Key"
_KEY: Final = re.compile(r"[!-~]{1,255}")


def _nothing() -> None:
    """What most work leaves to be done after its commit."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that can be kept. `after` is run once, after the commit of the work it answers for."""

    status: int
    body: bytes
    after: Callable[[], None] = _nothing
    replayed: bool = False

    def response(self) -> Response:
        """The HTTP answer."""
        kind = problems.CONTENT_TYPE if self.status >= 400 else JSON
        return self.marked(Response(self.body, self.status, content_type=kind))

    def marked(self, response: Response) -> Response:
        """`response`, which says if what it answers for was done at an earlier request."""
        if self.replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return response


def key_of(call: Call) -> str | None:
    """The request's key, without the quotes that some clients put around it. Raises Malformed."""
    given = call.environ.get("HTTP_IDEMPOTENCY_KEY")
    if given is None:
        return None
    key = str(given).strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise Malformed("Idempotency-Key must be 1 to 255 visible ASCII characters.", code="malformed_header")
    return key


def once(call: Call, asked: bytes, work: Callable[[Cursor | None], Reply]) -> Reply:
    """What `work` answers, or what it answered when it was first asked under the request's key.

    `work` gets the cursor of the transaction to work in, or None if the request has no key; `asked` is what makes
    two requests the same. Raises Conflict while the first is in progress, Invalid for another request's key.
    """
    key = key_of(call)
    if key is None:
        reply = work(None)
    else:
        scope = f"{call.principal.client_id or 'operator'}:{call.path}"
        with call.api.database.raw_transaction() as cursor:
            reply = _once(call, cursor, (scope, key), hashlib.sha256(asked).digest(), work)
    reply.after()
    return reply


def _once(
    call: Call, cursor: Cursor, place: tuple[str, str], digest: bytes, work: Callable[[Cursor | None], Reply]
) -> Reply:
    kept = store.begin(cursor, *place, digest)
    if kept is not None:
        check_current(call)
        return Reply(kept.status, kept.body.encode(), replayed=True)
    try:
        reply = work(cursor)
    except Invalid as error:
        check_current(call)
        reply = Reply(422, orjson.dumps(problems.problem(error)))
    store.finish(cursor, *place, store.Answer(reply.status, reply.body.decode()))
    return reply


def check_current(call: Call) -> None:
    """An answer without an accept has had no one look whether the remembered client is still what it was.

    Raises StaleRevision if it may not be: the request is then looked at anew.
    """
    if call.principal.known is not None and not call.api.revisions.hold(call.principal.known):
        raise StaleRevision
