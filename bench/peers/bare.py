"""A bare fan-out: Flask takes a message, Celery carries it, requests delivers it. No database, nothing durable.

BENCH_BROKER=redis://… BENCH_SINK=http://… gunicorn -k gthread -w 2 --threads 16 bench.peers.bare:web
BENCH_BROKER=redis://… BENCH_SINK=http://… celery -A bench.peers.bare:tasks worker -P threads -c 32
"""

from __future__ import annotations

import os
import threading
from typing import Any

import requests
from celery import Celery
from flask import Flask, request

web = Flask(__name__)
tasks = Celery("bare", broker=os.environ.get("BENCH_BROKER"))
tasks.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4)
_local = threading.local()


@tasks.task(name="deliver")
def deliver(url: str, payload: dict[str, Any]) -> None:
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    _local.session.post(url, json=payload, timeout=10).raise_for_status()


@web.post("/send")
def send() -> tuple[dict[str, str], int]:
    deliver.delay(os.environ["BENCH_SINK"], request.get_json()["payload"])
    return {"status": "accepted"}, 202
