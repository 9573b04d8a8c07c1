"""HTTP as a transport among others."""

from __future__ import annotations

import re

from esb_workers.transport.adapter import CallAdapter
from esb_workers.transport.address import AddressGuard
from esb_workers.transport.errors import RequestRefused
from esb_workers.transport.http import HttpCaller
from esb_workers.transport.request import parse_url


class WebTransport(CallAdapter):
    """`http://` and `https://`: one call, one answer."""

    def __init__(self, guard: AddressGuard) -> None:
        super().__init__(HttpCaller(guard))

    @classmethod
    def check_endpoint(cls, endpoint: str) -> None:
        """Raises ValueError unless it is a base URL that paths can be joined to."""
        check_url(endpoint)
        if "?" in endpoint or "#" in endpoint:
            raise ValueError("must not have a query or a fragment: paths are joined to it")


def check_url(text: str) -> None:
    """Raises ValueError unless `text` is an http(s) URL with a host and without a login."""
    if len(text) > 2000 or re.search(r"[\x00-\x20\x7f]", text):
        raise ValueError("must be a URL of at most 2000 characters without spaces")
    try:
        parse_url(text)
    except RequestRefused as error:
        raise ValueError(str(error)) from None
