"""Who asks: from the request's key to a principal, and whether that principal may call.

Ways to authenticate are plug-ins of the group `esb.authenticators`: each is a function `(Api) -> Authenticator`,
called once for an application. They are asked in turn, built-in first; the first that knows the request decides.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from esb_api.principals import NOBODY, OPERATOR, Access, Principal
from esb_workers.errors import Forbidden, Unauthenticated

if TYPE_CHECKING:
    from esb_api.call import Call
    from esb_api.context import Api

#: `(call, cached) -> Principal`: None if the request bears nothing this way knows. Raises Unauthenticated for
#: credentials that are of this way's form and wrong. `cached`: what is remembered will do (`Operation.cached`).
Authenticator = Callable[["Call", bool], Principal | None]

GROUP: Final = "esb.authenticators"
BUILTIN: Final = {"key": "esb_api.auth:key_authenticator"}


def authenticate(call: Call, access: Access, *, cached: bool) -> None:
    """Settle `call.principal`. Raises Unauthenticated, Forbidden."""
    if access is Access.OPEN:
        return
    for authenticator in call.api.authenticators:
        principal = authenticator(call, cached)
        if principal is not None:
            break
    else:
        raise Unauthenticated("A key is needed: `X-API-Key: KEY` or `Authorization: Bearer KEY`.")
    call.principal = principal
    if principal.kind not in access.value:
        raise Forbidden("This key may not make this call.")
    _check_client(principal)


def key_authenticator(api: Api) -> Authenticator:
    """Operator, client and service keys, in `X-API-Key` or as a bearer token."""
    admin = api.settings.admin_key
    operator = _digest(admin.get_secret_value()) if admin else None

    def authenticator(call: Call, cached: bool) -> Principal | None:
        key = key_of(call)
        if key is None:
            return None
        # Both sides as digests: of equal length, so that the comparison's time tells nothing.
        if operator is not None and hmac.compare_digest(_digest(key), operator):
            return OPERATOR
        return _holder(api, call, key, cached)

    return authenticator


def key_of(call: Call) -> str | None:
    """The key the request bears, if any."""
    key = str(call.environ.get("HTTP_X_API_KEY", "")).strip()
    if key:  # an empty header is none: some callers send it beside the one that counts
        return key
    scheme, _, token = call.environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _holder(api: Api, call: Call, key: str, cached: bool) -> Principal:
    holder, known = api.keys.find(key, cached=cached)
    # Known by then to be remembered, not read: a refusal is checked against the present revisions.
    call.principal = Principal("nobody", known=known) if cached else NOBODY
    if holder is None:
        raise Unauthenticated("This key is not known.")
    if holder.expired(time.time()):
        raise Unauthenticated("This key has expired.", code="key_expired")
    if holder.client is not None:
        return Principal("client", client=holder.client, known=known)
    return Principal("service", service_id=holder.service_id, scope=holder.scope, known=known)


def _check_client(principal: Principal) -> None:
    if principal.client is not None and principal.client.status != "active":
        raise Forbidden("This client is suspended.", code="client_suspended")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
