"""ETag and If-Match: a change applies only to the version that its caller has seen."""

from __future__ import annotations

from typing import Protocol

from werkzeug.http import parse_etags

from esb_api.call import Call
from esb_workers.errors import PreconditionFailed


class Versioned(Protocol):
    """A row that has a version of what a caller can write."""

    @property
    def etag(self) -> int:
        """The version."""


def etag_of(version: int) -> str:
    """The ETag of a resource whose writable part is at `version`."""
    return f'"{version}"'


def check_if_match(header: str | None, version: int) -> None:
    """Raises PreconditionFailed unless `header` is absent, `*`, or names `version`.

    Call it on the locked row, inside the transaction of the change. A weak tag never matches: If-Match is
    a strong comparison (RFC 9110 §13.1.1).
    """
    if header is not None and not parse_etags(header).contains(str(version)):
        raise PreconditionFailed("The resource has changed since the version named in If-Match.")


def check_unchanged(call: Call, row: Versioned) -> None:
    """`check_if_match` of a request's header, for the row that it is about to change."""
    check_if_match(call.headers.get("If-Match"), row.etag)
