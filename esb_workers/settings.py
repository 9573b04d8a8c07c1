"""Every setting of the bus: what it does, its unit, its default.

Settings are environment variables named `ESB_…` (or lines of a `.env` file in the working directory; the
environment wins). They are read once by `Settings.load`, validated, and passed on. A name under `ESB_` that
is not listed here, or a value that does not fit, is named and stops the start.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from esb_workers import redis_urls
from esb_workers.errors import SettingsError

PREFIX = "ESB_"
LOOPBACK_AND_PRIVATE = "127.0.0.0/8,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,::1/128,fc00::/7"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in value.split(",") if part.strip())


def _comma_list(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Networks = Annotated[tuple[Network, ...], BeforeValidator(_networks)]
Words = Annotated[tuple[str, ...], BeforeValidator(_comma_list)]


class Settings(BaseModel):
    """The settings of one process. Immutable; pass it on instead of reading the environment again."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL, `postgresql://user:pw@host:port/db`. Unset: `esb up` runs an embedded server."
    )
    broker_url: SecretStr | None = Field(
        None, description="Celery broker, `redis://…` or `amqp://…`. Unset: `esb up` runs an embedded server."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis for quotas. Default: the broker's URL when that is Redis; without any, quotas are kept in PostgreSQL.",
    )
    admin_key: SecretStr | None = Field(
        None,
        description="The operator's API key, 20–200 visible characters. Unset: made on the first start and kept in the data directory.",
    )
    secret_keys: Words = Field(
        (),
        repr=False,
        description="Fernet keys (comma list, newest first) that encrypt signing secrets at rest. Unset: made on the first start and kept in the data directory.",
    )
    data_dir: Path = Field(Path(".esb"), description="Where one machine keeps its databases, sockets, logs and keys.")

    api_host: str = Field("127.0.0.1", description="Address the API binds to.")
    api_port: int = Field(8080, ge=0, le=65535, description="Port the API binds to.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$",
        description="URL under which receivers reach the API: claim checks and callbacks lead there. Default: address and port of the API.",
    )
    api_processes: int = Field(2, ge=1, le=64, description="API server processes.")
    api_threads: int = Field(16, ge=1, le=256, description="Threads in each API server process.")
    max_body_bytes: int = Field(1 << 20, ge=1024, description="Largest request body, bytes (batches: 16 times this).")

    max_backlog: int = Field(
        2_000_000,
        ge=0,
        description="Messages and deliveries that may be due at once: beyond it, new work is answered 503. 0: no limit.",
    )
    max_accept_ms: int = Field(
        5000,
        ge=100,
        le=60_000,
        description="While an accept is under way for longer, its API process answers new work 503, milliseconds.",
    )

    lease_seconds: float = Field(
        15,
        ge=2,
        le=3600,
        description="How long a silent worker keeps its work, seconds; it beats three times in this span.",
    )
    sweep_seconds: float = Field(
        2,
        ge=0.2,
        le=300,
        description="How often each worker looks for due and lost work itself, without the broker, seconds.",
    )
    worker_concurrency: int = Field(32, ge=1, le=512, description="Calls under way at once in one worker process.")
    worker_grace_seconds: float = Field(
        30, ge=0, le=600, description="How long a stopping worker lets calls under way finish, seconds."
    )

    allow_cidrs: Networks = Field(
        _networks(LOOPBACK_AND_PRIVATE),
        description="Non-public networks that services may live in, comma list. Public addresses are always allowed.",
    )
    deny_cidrs: Networks = Field(
        (),
        description="Networks no call may go to, comma list; wins over `ESB_ALLOW_CIDRS`. Link-local and metadata addresses are always refused.",
    )

    retention_days: int = Field(
        30,
        ge=1,
        le=3650,
        description="How long what is finished is kept, days; dropped by the week. Messages, deliveries, dead letters, and what has no setting of its own.",
    )
    retention_details_days: int | None = Field(
        None,
        ge=1,
        le=3650,
        description="The same for attempts before the last and for transformed forms. Default, and most: `ESB_RETENTION_DAYS`.",
    )
    retention_executions_days: int | None = Field(
        None, ge=1, le=3650, description="The same for executions and their history. Default: `ESB_RETENTION_DAYS`."
    )
    retention_checks_days: int | None = Field(
        None, ge=1, le=3650, description="The same for health checks. Default: `ESB_RETENTION_DAYS`."
    )
    retention_audit_days: int = Field(365, ge=1, le=3650, description="The same for the audit trail.")
    log_format: Literal["json", "console"] = Field("json", description="Shape of log lines.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")

    flower_host: str = Field("127.0.0.1", description="Address the Flower dashboard binds to.")
    flower_port: int = Field(5555, ge=0, le=65535, description="Port of the Flower dashboard.")
    flower_auth: SecretStr | None = Field(
        None, description="`user:password` for Flower. Unset: `admin` and the operator key."
    )

    url: str | None = Field(None, description="Where the command line finds the API. Default: the host and port above.")
    api_key: SecretStr | None = Field(None, description="The key the command line sends.")

    crash_at: str | None = Field(None, description="Fault drills only: the label at which this process kills itself.")

    @field_validator("admin_key")
    @classmethod
    def _admin_key_shape(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not 20 <= len(text) <= 200 or not all("!" <= c <= "~" for c in text):
                raise ValueError("must be 20 to 200 visible ASCII characters")
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres_only(cls, value: SecretStr | None) -> SecretStr | None:
        if value and urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("must start with postgresql://")
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis", "rediss", "redis+socket", "amqp", "amqps", "pyamqp")
        if value and urlsplit(value.get_secret_value()).scheme not in schemes:
            raise ValueError("must start with one of " + ", ".join(f"{s}://" for s in schemes))
        return value

    @classmethod
    def load(
        cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env"), **overrides: Any
    ) -> Settings:
        """Read the environment (over `.env`), then `overrides`. Raises SettingsError naming each fault."""
        env = dict(os.environ if environ is None else environ)
        if dotenv is not None and dotenv.is_file():
            env = {k: v for k, v in dotenv_values(dotenv).items() if v is not None} | env
        values, faults = _gather(env)
        try:
            settings = cls(**{**values, **{k: v for k, v in overrides.items() if v is not None}})
        except ValidationError as error:
            faults += [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        if faults:
            raise SettingsError("; ".join(faults))
        return settings

    def environ(self) -> dict[str, str]:
        """These settings as environment variables, for a child process."""
        out = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if value is None or value == ():
                continue
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            out[PREFIX + name.upper()] = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        return out

    @property
    def base_url(self) -> str:
        """The API's URL as receivers reach it, without a slash at the end."""
        host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return (self.public_url or f"http://{host}:{self.api_port}").rstrip("/")

    def redis_for_quotas(self) -> str | None:
        """The Redis URL that holds quotas, or None: then PostgreSQL does."""
        if self.redis_url:
            return self.redis_url.get_secret_value()
        broker = self.broker_url.get_secret_value() if self.broker_url else ""
        return broker if broker.startswith(redis_urls.SCHEMES) else None


def _gather(env: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    faults: list[str] = []
    for key, text in env.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).lower()
            if name not in Settings.model_fields:
                faults.append(f"{key}: there is no such setting")
            elif text != "":
                values[name] = text
    if "database_url" not in values and env.get("DB_HOST") and env.get("DB_NAME"):
        values["database_url"] = _url_from_parts(env)
    return values, faults


def _url_from_parts(env: Mapping[str, str]) -> str:
    """The specification's DB_* variables; they count only when DB_HOST and DB_NAME are both set."""
    user, password = quote(env.get("DB_USERNAME", "postgres"), safe=""), quote(env.get("DB_PASSWORD", ""), safe="")
    login = f"{user}:{password}" if password else user
    return f"postgresql://{login}@{env['DB_HOST']}:{env.get('DB_PORT') or 5432}/{quote(env['DB_NAME'], safe='')}"
