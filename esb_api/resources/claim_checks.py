"""Claim checks: large payloads that receivers fetch."""

from __future__ import annotations

import hmac

import orjson
from flask import Response

from esb_api.answers import answer, secret
from esb_api.call import Call
from esb_api.operations import Resource
from esb_api.principals import Access
from esb_api.schemas.claim_checks import ClaimCheckAnswer, ClaimCheckQuery
from esb_workers.errors import NotFound
from esb_workers.store import claim_checks as store

claim_checks = Resource("claim-checks")


@claim_checks.operation(
    "GET", "/routing/claim-checks/{id}", access=Access.OPEN, query=ClaimCheckQuery, answers={200: ClaimCheckAnswer}
)
def fetch_claim_check(call: Call, delivery_id: str, query: ClaimCheckQuery) -> Response:
    """Fetch the payload that a delivery's `dataref` stands for.

    No key is needed but the token in the URL. It is good for as long as the payload is kept; a wrong one is 404, as an
    unknown delivery is.
    """
    with call.api.database.cursor() as cursor:
        found = store.get(cursor, delivery_id)
    if found is None or found.payload is None or not hmac.compare_digest(found.token.encode(), query.token.encode()):
        raise NotFound
    return secret(answer(orjson.Fragment(found.payload)))
