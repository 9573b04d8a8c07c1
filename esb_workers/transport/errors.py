"""How a call to the outside world can fail.

Each class is an error of the bus and, at the same time, the exception that users of `requests` would
expect, so that the adapter of `transport.http` raises what any other `requests` adapter would.
"""

from __future__ import annotations

from typing import ClassVar

from requests import exceptions

from esb_workers.errors import EsbError


class CallFailed(EsbError, exceptions.RequestException):
    """The call brought no answer."""

    code = "call_failed"
    #: The name under which attempts, dead letters and workflows know this failure.
    error_class: ClassVar[str] = "ServiceUnavailable"
    #: Whether another try may end differently.
    transient: ClassVar[bool] = True
    #: Whether the request had gone out once before, on a kept connection that closed upon it.
    resent: bool = False


class ConnectFailed(CallFailed, exceptions.ConnectionError):
    """No connection could be made; nothing was sent."""

    code = "connect_failed"


class TlsFailed(CallFailed, exceptions.SSLError):
    """The TLS handshake or the check of the certificate failed; nothing was sent."""

    code = "tls_failed"


class ConnectionLost(CallFailed, exceptions.ConnectionError):
    """The connection broke before the whole answer had come."""

    code = "connection_lost"


class ProtocolError(CallFailed, exceptions.ContentDecodingError):
    """What came back is not HTTP that can be read."""

    code = "protocol_error"


class Timeout(CallFailed, exceptions.Timeout):
    """The whole answer did not come in time."""

    code = "timeout"
    error_class = "Timeout"


class BrokerRefused(CallFailed, exceptions.ConnectionError):
    """The broker refused the login, the virtual host, or what was to be done there."""

    code = "broker_refused"


class Nacked(CallFailed):
    """The broker did not take the message."""

    code = "nacked"
    error_class = "Nacked"


class Unroutable(CallFailed):
    """The broker sent the message back: no queue is bound where it was sent."""

    code = "unroutable"
    error_class = "Unroutable"


class AddressRefused(CallFailed, exceptions.ConnectionError):
    """The settings forbid calls to this address."""

    code = "address_refused"
    error_class = "AddressRefused"
    transient = False


class RequestRefused(CallFailed, exceptions.InvalidURL):
    """The URL or a header is not one that can be sent."""

    code = "request_refused"
    error_class = "ValidationError"
    transient = False
