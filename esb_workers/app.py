"""The Celery app: the broker as a doorbell.

A message on a queue says "look into your pool", nothing else. PostgreSQL is the truth, so a bell may be lost,
doubled or late; the settings below make it cheap, quick to fail, and never a reason for a process to die.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue
from kombu.transport import redis as kombu_redis
from redis.exceptions import ConnectionError as RedisConnectionError

from esb_workers.queues import POOLS
from esb_workers.settings import Settings

#: A queue holds at most a few bells: more would find nothing to do.
MAX_BELLS = 4


def make_celery(settings: Settings) -> Celery:
    """The Celery app of this process. Without a broker URL, it can only be inspected."""
    guard_reconnect()
    broker = settings.broker_url.get_secret_value() if settings.broker_url else None
    app = Celery("esb", broker=broker, set_as_current=False)
    app.conf.update(_configuration(broker or ""))
    return app


def _configuration(broker: str) -> dict[str, Any]:
    amqp = broker.startswith(("amqp", "pyamqp"))
    return {
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_queues": [_queue(pool, amqp) for pool in POOLS],
        "task_create_missing_queues": False,  # a typo is an error, not a queue nobody reads
        # Early acknowledgement: Celery 5.7 dies when Redis drops under a late-acked task, and nothing is lost by it.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_send_sent_event": False,
        "worker_send_task_events": True,  # bells are few; Flower shows the pools by them
        "worker_prefetch_multiplier": 1,
        # A bell that waits behind a busy thread must stay in the queue, where another process can take it.
        "worker_disable_prefetch": not amqp,
        "worker_proc_alive_timeout": 30,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_enable_remote_control": True,  # Flower asks workers by it
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # the default gives up after a hundred
        "broker_connection_timeout": 2,
        "broker_pool_limit": 4,
        "task_publish_retry": False,
        "broker_transport_options": _amqp_options() if amqp else _redis_options(),
        "broker_heartbeat": 30 if amqp else 0,
        # A quorum queue refuses the global prefetch limit that Celery sets unless it looks for such queues.
        "worker_detect_quorum_queues": True,
    }


def add_queue(app: Celery, name: str) -> bool:
    """Make a Celery queue known that is no pool's; whether it was not yet."""
    if name in app.amqp.queues:
        return False
    app.amqp.queues.add(_queue(name, str(app.conf.broker_url or "").startswith(("amqp", "pyamqp"))))
    return True


def _queue(pool: str, amqp: bool) -> Queue:
    """A plain queue without a named exchange: through one, a flushed Redis drops messages silently."""
    if not amqp:
        return Queue(pool)
    arguments = {"x-queue-type": "quorum", "x-max-length": MAX_BELLS, "x-overflow": "drop-head"}
    return Queue(pool, durable=True, queue_arguments=arguments)


def _redis_options() -> dict[str, Any]:
    return {
        "visibility_timeout": 600,
        "socket_timeout": 10.0,
        "socket_connect_timeout": 1.0,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_retries": 0,
        # No retry_on_timeout: redis-py would send the same LPUSH again.
    }


def _amqp_options() -> dict[str, Any]:
    return {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10, "max_retries": 0}


def guard_reconnect() -> None:
    """Keep Celery 5.7 alive when Redis drops while a task runs.

    Its consumer tears a channel down twice; the second time kombu dereferences a connection that is None, and the
    AttributeError is not among the errors Celery recovers from. A ConnectionError is. Idempotent.
    """
    original = kombu_redis.Channel._connparams  # noqa: SLF001  (kombu offers no hook)
    if getattr(original, "guarded", False):
        return

    def _connparams(self: Any, asynchronous: bool = False) -> Any:
        if self.connection is None or getattr(self.connection, "client", None) is None:
            raise RedisConnectionError("this channel is already torn down")
        return original(self, asynchronous=asynchronous)

    _connparams.guarded = True  # type: ignore[attr-defined]
    kombu_redis.Channel._connparams = _connparams  # noqa: SLF001
