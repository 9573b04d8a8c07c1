"""The URL of a queue or an exchange.

    amqp[s]://[USER:PASSWORD@]HOST[:PORT][/VHOST]?queue=NAME
    amqp[s]://[USER:PASSWORD@]HOST[:PORT][/VHOST]?exchange=NAME[&routingKey=KEY]
    redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]?queue=NAME
    sqs://[KEY_ID:SECRET@]HOST/ACCOUNT/NAME

Every part is percent-decoded. The password is stored apart from the rest, encrypted, and never shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from esb_workers.transport.errors import RequestRefused

AMQP: Final = ("amqp", "amqps")
REDIS: Final = ("redis", "rediss")
SQS: Final = ("sqs",)
BROKERS: Final = frozenset((*AMQP, *REDIS, *SQS))
TLS: Final = frozenset(("amqps", "rediss", "sqs"))
_PORTS: Final = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379, "sqs": 443}
_SAFE: Final = "-._~"
_LONGEST_NAME: Final = 255  # AMQP's short strings, bytes
#: A delivery's own path takes the place of the queue or the routing key; it comes under this name.
PATH: Final = "path"


class Origin(NamedTuple):
    """Where a connection leads to, and as whom."""

    scheme: str
    host: str
    port: int
    user: str
    password: str
    space: str


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's URL taken apart. `space` is the virtual host or the number of the database."""

    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    space: str
    queue: str | None
    exchange: str | None
    key: str | None

    @property
    def origin(self) -> Origin:
        """What two addresses have in common that one connection serves."""
        return Origin(self.scheme, self.host, self.port, self.user, self.password, self.space)

    @property
    def place(self) -> str:
        """Host and port, for messages to people."""
        return f"{self.host}:{self.port}"


@lru_cache(maxsize=4096)
def parse(url: str) -> Address:
    """Raises RequestRefused, which never quotes the password."""
    parts, port = _split(url)
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in BROKERS or not host:
        raise RequestRefused("the URL must start with amqp://, amqps://, redis://, rediss:// or sqs:// and name a host")
    if parts.fragment:
        raise RequestRefused("the URL must not have a fragment")
    found = Address(
        scheme=scheme,
        host=host,
        port=port or _PORTS[scheme],
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        space=_space(scheme, parts.path),
        queue=None,
        exchange=None,
        key=None,
    )
    return _sqs_target(found, parts) if scheme == "sqs" else _target(found, _query(parts.query))


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        raise RequestRefused("not a URL, or its port is not a number") from None


def _space(scheme: str, path: str) -> str:
    text = unquote(path[1:])
    if scheme in REDIS:
        if text and not (text.isascii() and text.isdecimal()):
            raise RequestRefused("what follows the host must be the number of a database, as in redis://HOST/0")
        return text or "0"
    return text or "/"


def _query(text: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []
    except ValueError:
        raise RequestRefused("the URL's query cannot be read") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise RequestRefused("a parameter of the URL is given twice")
    for name, value in given.items():
        if name not in ("queue", "exchange", "routingKey", PATH):
            raise RequestRefused(f"the URL has no parameter {name[:50]!r}; there are queue, exchange and routingKey")
        if len(value.encode()) > _LONGEST_NAME or (not value and name != "routingKey"):
            raise RequestRefused(f"{name} must have 1 to {_LONGEST_NAME} bytes")
    return given


def _target(found: Address, given: dict[str, str]) -> Address:
    queue, exchange, key, path = (given.get(name) for name in ("queue", "exchange", "routingKey", PATH))
    if (queue is None) == (exchange is None):
        raise RequestRefused("the URL must name a queue (`?queue=NAME`) or an exchange (`?exchange=NAME`), one of them")
    if queue is not None and key is not None:
        raise RequestRefused("a routingKey belongs to an exchange; a queue has none")
    if exchange is not None and found.scheme in REDIS:
        raise RequestRefused("Redis has no exchanges: name a queue")
    if path is not None:
        queue, key = (path, None) if queue is not None else (None, path)
    return replace(found, queue=queue, exchange=exchange, key=key)


def _sqs_target(found: Address, parts: SplitResult) -> Address:
    account, slash, name = parts.path.lstrip("/").partition("/")
    path = dict(parse_qsl(parts.query)).get(PATH) if parts.query else None
    if (parts.query and path is None) or not (account and slash and name) or "/" in name:
        raise RequestRefused("the URL must be sqs://HOST/ACCOUNT/QUEUE, as the queue's own URL, and no more")
    return replace(found, space=account, queue=path or name)


# --- passwords -------------------------------------------------------------------------------------------


def is_broker(endpoint: str) -> bool:
    """Whether an endpoint is of a kind that may carry a login."""
    return endpoint.partition(":")[0].lower() in BROKERS


def without_password(url: str) -> tuple[str, str | None]:
    """The URL that may be shown, and the password that it carried."""
    parts = urlsplit(url)
    if parts.password is None:
        return url, None
    user, host = (parts.username or ""), parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}@{host}" if user else host).geturl(), unquote(parts.password)


def with_password(url: str, password: str) -> str:
    """The URL that may not be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:{quote(password, safe=_SAFE)}@{host}").geturl()


def same_login(one: str, other: str) -> bool:
    """Whether two URLs lead to the same server as the same user: a password kept for the one holds for the other."""

    def who(url: str) -> tuple[object, ...]:
        parts = urlsplit(url)
        return parts.scheme, parts.username, parts.hostname, parts.port

    return who(one) == who(other)
