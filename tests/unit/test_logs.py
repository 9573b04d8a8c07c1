"""Log lines: their shape, and the fields that work adds to them."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from esb_workers import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the root logger writes during a test."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.annotate()  # what an earlier test's request bound on this thread is none of this one's
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_is_one_json_object_with_the_bound_fields(stream: io.StringIO) -> None:
    logs.configure("worker delivery", stream=stream)
    with logs.bind(correlation_id="c-1"), logs.bind(delivery_id="d-1"):
        logging.getLogger("esb.delivery").info("delivered %d", 3, extra={"status_code": 200})
    logging.getLogger("esb.delivery").info("idle")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first | {"time": ""} == {
        "time": "", "level": "info", "logger": "esb.delivery", "process": "worker delivery", "message": "delivered 3",
        "correlationId": "c-1", "deliveryId": "d-1", "statusCode": 200,
    }  # fmt: skip
    assert "correlationId" not in second


def test_a_stack_stays_on_its_line(stream: io.StringIO) -> None:
    logs.configure("api", stream=stream)
    try:
        raise ValueError("odd \ud800 text")
    except ValueError:
        logging.getLogger("esb").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError" in json.loads(line)["stack"]


def test_a_person_gets_plain_text(stream: io.StringIO) -> None:
    logs.configure("api", log_format="console", stream=stream)
    logging.getLogger("esb").warning("odd", extra={"client_id": "c"})
    assert stream.getvalue().rstrip().endswith("WARNING esb odd  clientId=c")


def test_an_event_is_a_line_with_its_own_fields_alone(stream: io.StringIO) -> None:
    logs.configure("api", stream=stream)
    with logs.bind(correlation_id="bound"):
        logs.event(logging.getLogger("esb.requests"), "request", status=200, clientId=None)
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "logger": "esb.requests", "process": "api", "message": "request", "status": 200, "clientId": None,
    }  # fmt: skip


def test_lines_of_a_block_are_written_together_at_its_end_also_when_it_fails(stream: io.StringIO) -> None:
    logs.configure("worker delivery", stream=stream)
    log = logging.getLogger("esb.delivery")
    with pytest.raises(ValueError, match="late"), logs.together(), logs.together():
        logs.event(log, "delivered", n=1)
        elsewhere = threading.Thread(target=logs.event, args=(log, "other thread"))
        elsewhere.start()
        elsewhere.join()
        log.warning("odd")
        assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["other thread"]
        raise ValueError("late")
    log.info("after")
    said = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert said == ["other thread", "delivered", "odd", "after"]
