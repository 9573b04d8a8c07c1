"""CloudEvents 1.0 over HTTP, both ways."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.errors import Invalid, UnsupportedMediaType
from esb_workers.strictjson import parse_json
from esb_workers.transport import cloudevents as ce

EVENT = ce.OutgoingEvent(
    "m-1", "api gateway", "user.created", "2026-01-31T08:00:00.000Z", "abc-123", '{"b": 1.0, "a": 2}'
)
BINARY = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "order.placed")]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=50)
#: What an attribute may hold: no controls, nothing that is no character.
VALUE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=50)


def test_binary_mode_puts_attributes_in_headers_and_sends_the_payload_byte_for_byte() -> None:
    headers, body = ce.encode(EVENT, "binary")
    assert body == b'{"b": 1.0, "a": 2}'
    assert dict(headers) == {
        "Content-Type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": "m-1",
        "ce-source": "api%20gateway",
        "ce-type": "user.created",
        "ce-time": "2026-01-31T08:00:00.000Z",
        "ce-correlationid": "abc-123",
    }


def test_structured_mode_puts_everything_in_the_body_and_leaves_the_payloads_text_alone() -> None:
    headers, body = ce.encode(EVENT, "structured")
    assert headers == [("Content-Type", "application/cloudevents+json; charset=utf-8")]
    assert body.endswith(b'"data": {"b": 1.0, "a": 2}}')
    event = json.loads(body)
    assert event["source"] == "api%20gateway"
    assert (event["id"], event["specversion"], event["correlationid"]) == ("m-1", "1.0", "abc-123")


def test_extensions_go_out_as_attributes_and_come_in_the_same() -> None:
    sent = ce.OutgoingEvent(
        "1",
        "/s",
        "t",
        "2026-01-31T08:00:00.000Z",
        "c",
        "{}",
        {"partitionkey": "käse 1", "expirytime": "2030-01-01T00:00:00Z"},
    )
    for form in ("binary", "structured"):
        headers, body = ce.encode(sent, form)
        event = ce.decode(headers, body, json.loads)
        assert (event.headers["partitionkey"], event.headers["expirytime"]) == ("käse 1", "2030-01-01T00:00:00Z")


def test_payload_mode_sends_the_payload_and_nothing_of_the_event() -> None:
    assert ce.encode(EVENT, "payload") == ([("Content-Type", "application/json")], b'{"b": 1.0, "a": 2}')


def test_the_specifications_example_of_percent_encoding_comes_out() -> None:
    assert ce.encode_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert ce.decode_value("Euro%20%e2%82%ac%20%F0%9F%98%80") == "Euro € 😀"


@given(TEXT)
def test_a_header_value_decodes_to_what_was_encoded_and_is_visible_ascii(text: str) -> None:
    encoded = ce.encode_value(text)
    assert all("!" <= c <= "~" and c != '"' for c in encoded)
    assert ce.decode_value(encoded) == text


@given(TEXT)
def test_a_source_is_a_uri_reference_on_the_wire_and_one_decoding_gives_it_back(text: str) -> None:
    headers, _ = ce.encode(ce.OutgoingEvent("1", text, "t", "", "c", "{}"), "binary")
    assert ce.decode_value(dict(headers)["ce-source"]) == text
    assert not set(ce.uri_reference(text)) & set(' "<>\\^`{|}')


@pytest.mark.parametrize("value", ["%C0%A0", "%FF", "a%80"])
def test_encodings_that_are_no_utf8_are_refused(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        ce.decode([*BINARY, ("ce-note", value)], b"", json.loads)
    assert caught.value.errors[0].path == "ce-note"


def test_quotes_around_a_header_value_are_undone_before_decoding() -> None:
    assert ce.decode_value('"a \\"b\\" %41"') == 'a "b" A'


@pytest.mark.parametrize(
    "name",
    ["Host", "Content-Length", "content-type", "Authorization", "ce-id", "CE-foo", "webhook-id", "Idempotency-Key"]
    + ["Connection", "Transfer-Encoding", "Upgrade", "bad name", "bad\r\nname"],
)
def test_headers_with_a_meaning_of_their_own_are_not_passed_on(name: str) -> None:
    assert ce.passed_on({name: "x"}, taken=()) == []


def test_message_headers_are_passed_on_as_sent_and_encoded_and_give_way_to_the_services_own() -> None:
    headers = {"eventType": "user.created", "X-Näme": "x", "X-Note": "ü b\r\n", "X-Tenant": "message"}
    assert ce.passed_on(headers, taken={"x-tenant"}) == [("eventType", "user.created"), ("X-Note", "%C3%BC%20b%0D%0A")]


# --- in


def decode(headers: list[tuple[str, str]], body: Any = b"") -> ce.IncomingEvent:
    return ce.decode(headers, body if isinstance(body, bytes) else json.dumps(body).encode(), parse_json)


def structured(**changes: Any) -> ce.IncomingEvent:
    event = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed"} | changes
    return decode([("Content-Type", "application/cloudevents+json; charset=utf-8")], event)


def test_a_binary_event_becomes_a_message() -> None:
    event = decode(
        [*BINARY, ("Ce-Subject", "caf%C3%A9"), ("ce-correlationid", "c-1"), ("content-type", "application/json")],
        {"a": 1},
    )
    assert event == ce.IncomingEvent(
        "1", "/shop", "order.placed", {"a": 1}, {"subject": "café", "correlationid": "c-1"}, "c-1"
    )


def test_data_that_is_not_json_is_kept_as_base64_with_its_type() -> None:
    event = decode([*BINARY, ("content-type", "text/plain; charset=utf-8")], b"hi")
    assert event.payload == {"contentType": "text/plain; charset=utf-8", "base64": base64.b64encode(b"hi").decode()}


def test_structured_data_stays_and_extensions_become_headers_as_strings() -> None:
    event = structured(data={"b": 1, "a": 2}, partitionkey="k", flag=True, count=5, gone=None)
    assert list(event.payload) == ["b", "a"]
    assert event.headers == {"partitionkey": "k", "flag": "true", "count": "5"}


def test_structured_base64_and_text_are_kept_with_their_type() -> None:
    assert structured(data_base64="aGk=").payload == {"contentType": "application/octet-stream", "base64": "aGk="}
    text = structured(data="hi", datacontenttype="text/plain")
    assert text.payload == {"contentType": "text/plain", "base64": "aGk="}


@pytest.mark.parametrize("missing", ["ce-specversion", "ce-id", "ce-source", "ce-type"])
def test_an_event_without_a_required_attribute_is_refused(missing: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode([pair for pair in BINARY if pair[0] != missing])
    assert [error.path for error in caught.value.errors] == [missing]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"source": None}, "source"),
        ({"data": 1, "data_base64": "aGk="}, "data_base64"),
        ({"data_base64": "???"}, "data_base64"),
        ({"data_base64": 5}, "data_base64"),
        ({"Bad-Name": "x"}, "Bad-Name"),
        ({"nested": {}}, "nested"),
        ({"half": 1.5}, "half"),
        ({"count": 2**31}, "count"),
        ({"subject": ""}, "subject"),
        ({"subject": 5}, "subject"),
        ({"subject": "a\nb"}, "subject"),
        ({"subject": "a\ufffe"}, "subject"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-01-31T08:00:00"}, "time"),
        ({"dataschema": ""}, "dataschema"),
        ({"dataschema": "/relative"}, "dataschema"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"dataref": ""}, "dataref"),
        ({"specversion": "1"}, "specversion"),
        ({"bad_name": "x"}, "bad_name"),
        ({"": "x"}, ""),
        ({"data_base64": "e30", "datacontenttype": "application/json"}, "data_base64"),
        ({"data_base64": "ew==", "datacontenttype": "application/json"}, "data_base64"),
    ],
)
def test_a_structured_event_that_breaks_a_rule_is_refused_by_name(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        structured(**changes)
    assert [error.path for error in caught.value.errors] == [path]


@pytest.mark.parametrize(
    "fine",
    [
        {"time": "2026-01-31T08:00:00.123456789Z"},
        {"time": "2016-12-31T23:59:60Z"},
        {"time": "2026-01-31T08:00:00-08:00"},
        {"dataschema": "https://example.com/schema#v1"},
        {"dataschema": "urn:example:1"},
        {"subject": "käse 😀"},
        {"note": ""},
        {"count": -(2**31)},
        {"averylongnameofanextension": "x"},
    ],
)
def test_an_event_that_keeps_the_rules_is_taken(fine: dict[str, Any]) -> None:
    ((name, value),) = fine.items()
    assert structured(**fine).headers[name] == str(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("ce-data", "x"), ("ce-my_name", "x"), ("ce-", "x"), ("ce-subject", ""), ("ce-note", "a%0Ab"), ("ce-time", "now")],
)
def test_a_header_that_breaks_a_rule_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode([*BINARY, (name, value)])
    assert [error.path for error in caught.value.errors] == [name]


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("%2541", "%41"),  # one round, not two
        ("%61b", "ab"),  # encoded without need
        ("100%", "100%"),  # not an encoded byte: older senders leave the sign as it is
        ("%zz", "%zz"),
        ("a b", "a b"),
        ('"a"b', '"a"b'),  # not quoted as a whole
        ("caf\u00c3\u00a9", "café"),  # UTF-8 as it is, as a server hands it on
    ],
)
def test_a_header_value_is_decoded_once(value: str, means: str) -> None:
    assert ce.decode_value(value) == means


def test_json_in_base64_is_read_as_json() -> None:
    data = base64.b64encode(b'{"a": [1]}').decode()
    assert structured(data_base64=data, datacontenttype="application/json").payload == {"a": [1]}


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("sent", "taken"), [(TRACE, TRACE), ("00-" + "0" * 32 + TRACE[35:], None), ("rubbish", None)])
def test_a_trace_context_that_names_no_trace_is_not_one(sent: str, taken: str | None) -> None:
    assert structured(traceparent=sent).traceparent == taken


def test_where_the_data_lies_goes_out_as_an_attribute() -> None:
    sent = ce.OutgoingEvent("1", "/s", "t", "2026-01-31T08:00:00.000Z", "c", "{}", dataref="https://x.example/a b")
    assert dict(ce.encode(sent, "binary")[0])["ce-dataref"] == "https://x.example/a%20b"
    assert json.loads(ce.encode(sent, "structured")[1])["dataref"] == "https://x.example/a%20b"


def test_datacontenttype_must_not_be_a_header() -> None:
    with pytest.raises(Invalid, match="ce-datacontenttype"):
        decode([*BINARY, ("ce-datacontenttype", "application/json")])


def test_in_a_batch_a_bad_event_does_not_sink_the_others() -> None:
    good = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "t"}
    found = ce.decode_batch(json.dumps([good, {"id": "2"}, 5]).encode(), json.loads)
    assert isinstance(found[0], ce.IncomingEvent)
    assert isinstance(found[1], Invalid)
    assert isinstance(found[2], Invalid)


def test_a_batch_that_is_no_list_is_refused() -> None:
    with pytest.raises(Invalid):
        ce.decode_batch(b"{}", json.loads)


@pytest.mark.parametrize(
    ("content_type", "mode"),
    [(None, "binary"), ("application/json", "binary"), ("Application/CloudEvents+JSON; charset=utf-8", "structured")]
    + [("application/cloudevents-batch+json", "batched")],
)
def test_the_media_type_tells_the_mode(content_type: str | None, mode: str) -> None:
    assert ce.mode_of(content_type) == mode


@pytest.mark.parametrize("content_type", ["application/cloudevents+xml", "application/cloudevents-batch+avro"])
def test_event_formats_other_than_json_are_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        ce.mode_of(content_type)


@given(VALUE, VALUE, VALUE)
def test_what_goes_out_binary_comes_in_the_same(name: str, source: str, kind: str) -> None:
    headers, body = ce.encode(ce.OutgoingEvent(name, source, kind, "2026-01-31T08:00:00.000Z", "c", "[1]"), "binary")
    event = ce.decode(headers, body, json.loads)
    assert (event.id, event.source, event.type, event.payload) == (name, source, kind, [1])
