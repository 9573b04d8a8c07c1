"""Proving where a webhook comes from: by each sender's documented formula, over the bytes as received."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from esb_workers.errors import Unauthenticated
from esb_workers.webhooks.verification import Received, Verification, verification_of

NOW = 1_750_000_000.0
BODY = b'{"id": 7,  "text": "caf\xc3\xa9"}'
SECRET = "a-secret-of-some-length"


def received(headers: dict[str, str], body: bytes = BODY, **query: str) -> Received:
    return Received("POST", headers, query, body)


def passes(how: Verification, request: Received, *secrets: str, now: float = NOW) -> bool:
    try:
        how.verify(request, secrets or (SECRET,), now)
    except Unauthenticated as error:
        assert error.specific_code == "verification_failed"
        assert not any(secret in error.detail for secret in secrets or (SECRET,))
        return False
    return True


def hexed(signed: bytes, secret: str = SECRET, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), signed, algorithm).hexdigest()


# --- Standard Webhooks -----------------------------------------------------------------------------------

WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()


def standard_headers(body: bytes, at: float, secret: str = WHSEC) -> dict[str, str]:
    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": str(int(at)), "webhook-signature": signature}


def test_what_the_reference_library_signs_is_taken() -> None:
    how = verification_of({"type": "standard"})
    assert passes(how, received(standard_headers(BODY, NOW)), WHSEC)
    assert not passes(how, received(standard_headers(BODY, NOW), BODY + b" "), WHSEC)
    assert not passes(how, received({**standard_headers(BODY, NOW), "webhook-id": "msg_2"}), WHSEC)


def test_each_of_several_secrets_counts_and_so_does_each_of_several_signatures() -> None:
    how = verification_of({"type": "standard"})
    other = "whsec_" + base64.b64encode(b"o" * 32).decode()
    assert passes(how, received(standard_headers(BODY, NOW, other)), WHSEC, other)
    both = (
        standard_headers(BODY, NOW, other)["webhook-signature"] + " " + standard_headers(BODY, NOW)["webhook-signature"]
    )
    assert passes(how, received({**standard_headers(BODY, NOW), "webhook-signature": both}), WHSEC)


@pytest.mark.parametrize(("age", "taken"), [(0, True), (299, True), (-299, True), (302, False), (-302, False)])
def test_a_standard_webhook_that_is_too_old_or_too_new_is_a_replay(age: float, taken: bool) -> None:
    assert passes(verification_of({"type": "standard"}), received(standard_headers(BODY, NOW - age)), WHSEC) is taken


def test_the_tolerance_can_be_set() -> None:
    how = verification_of({"type": "standard", "tolerance": 10_000})
    assert passes(how, received(standard_headers(BODY, NOW - 9)), WHSEC)
    assert not passes(how, received(standard_headers(BODY, NOW - 12)), WHSEC)


# --- GitHub and Stripe -----------------------------------------------------------------------------------


def test_the_example_in_githubs_documentation_is_taken() -> None:
    # docs.github.com, "Validating webhook deliveries", "Testing the webhook payload validation"
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    request = received({"x-hub-signature-256": signature}, b"Hello, World!")
    assert passes(verification_of({"type": "github"}), request, "It's a Secret to Everybody")
    assert not passes(verification_of({"type": "github"}), request, "It's a secret to everybody")


@pytest.mark.parametrize("value", ["", "sha1=abc", "sha256=", "sha256=zz", "757107ea"])
def test_a_github_signature_of_another_form_is_refused(value: str) -> None:
    assert not passes(verification_of({"type": "github"}), received({"x-hub-signature-256": value}))


def test_stripes_formula() -> None:
    # docs.stripe.com/webhooks: HMAC-SHA256 over "{timestamp}.{payload}", keyed by the endpoint's whole secret
    how = verification_of({"type": "stripe"})
    moment = str(int(NOW) - 200)
    good = hexed(moment.encode() + b"." + BODY)
    assert passes(how, received({"stripe-signature": f"t={moment},v1={good}"}))
    assert passes(how, received({"stripe-signature": f"t={moment}, v1={'0' * 64},v1={good},v0=abc"}))
    assert not passes(how, received({"stripe-signature": f"t={moment},v0={good}"}))
    assert not passes(how, received({"stripe-signature": f"v1={good}"}))
    assert not passes(how, received({"stripe-signature": f"t={int(NOW)},v1={good}"}))
    assert not passes(how, received({"stripe-signature": f"t={moment},v1={good}"}), now=NOW + 200)


# --- one's own -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_an_hmac_of_ones_own(algorithm: str, encoding: str) -> None:
    raw = hmac.new(SECRET.encode(), BODY, algorithm).digest()
    texts = {
        "hex": raw.hex().upper(),
        "base64": base64.b64encode(raw).decode(),
        "base64url": base64.urlsafe_b64encode(raw).rstrip(b"=").decode(),
    }
    how = verification_of(
        {"type": "hmac", "header": "X-Signature", "algorithm": algorithm, "encoding": encoding, "prefix": "v="}
    )
    assert passes(how, received({"x-signature": "v=" + texts[encoding]}))
    assert not passes(how, received({"x-signature": texts[encoding]}))
    assert not passes(how, received({"x-signature": "v=" + texts[encoding]}, BODY[:-1]))


def test_slacks_scheme_is_one_of_them() -> None:
    # api.slack.com/authentication/verifying-requests-from-slack: v0:{timestamp}:{body}
    how = verification_of({
        "type": "hmac", "header": "X-Slack-Signature", "prefix": "v0=", "signed": "v0:{timestamp}:{body}",
        "timestampHeader": "X-Slack-Request-Timestamp",
    })  # fmt: skip
    body = b"token=abc&text={timestamp}{body}"
    moment = str(int(NOW))
    headers = {"x-slack-request-timestamp": moment, "x-slack-signature": "v0=" + hexed(f"v0:{moment}:".encode() + body)}
    assert passes(how, received(headers, body))
    assert not passes(how, received(headers, body), now=NOW + 301)
    assert not passes(how, received({**headers, "x-slack-request-timestamp": str(int(NOW) + 1)}, body))


@pytest.mark.parametrize(("encoding", "secret"), [("hex", "6b" * 16), ("base64", base64.b64encode(b"k" * 16).decode())])
def test_a_key_may_be_written_in_hex_or_base64(encoding: str, secret: str) -> None:
    how = verification_of({"type": "hmac", "header": "x-sig", "secretEncoding": encoding})
    assert passes(how, received({"x-sig": hmac.new(b"k" * 16, BODY, "sha256").hexdigest()}), secret)
    with pytest.raises(ValueError, match=encoding):
        how.check_secret("nothing of the kind!")


def test_a_token_in_a_header_or_in_the_query() -> None:
    header = verification_of({"type": "token", "header": "Authorization", "prefix": "Bearer "})
    assert passes(header, received({"authorization": f"Bearer {SECRET}"}))
    assert not passes(header, received({"authorization": SECRET}))
    assert not passes(header, received({"authorization": f"Bearer {SECRET}x"}))
    query = verification_of({"type": "token", "query": "key"})
    assert passes(query, received({}, key=SECRET))
    assert not passes(query, received({}, key=""))
    assert not passes(query, received({}))


def test_without_secrets_nothing_passes() -> None:
    for kind in ({"type": "github"}, {"type": "stripe"}, {"type": "standard"}, {"type": "token", "query": "k"}):
        headers = {"x-hub-signature-256": "sha256=" + hashlib.sha256(BODY).hexdigest(), **standard_headers(BODY, NOW)}
        with pytest.raises(Unauthenticated):
            verification_of(kind).verify(received(headers, k=""), (), NOW)


# --- anything at all -------------------------------------------------------------------------------------

_KINDS: list[dict[str, Any]] = [
    {"type": "standard"}, {"type": "github"}, {"type": "stripe"},
    {"type": "hmac", "header": "h", "signed": "{timestamp}{body}", "timestampHeader": "webhook-timestamp"},
    {"type": "hmac", "header": "h", "encoding": "base64"}, {"type": "token", "header": "h"},
]  # fmt: skip
_VALUES = st.text(max_size=40) | st.from_regex(r"(t=[0-9]{1,12},)?v1=[0-9a-f]{0,64}", fullmatch=True)


@given(
    st.sampled_from(_KINDS), _VALUES, _VALUES, st.binary(max_size=50),
    st.sampled_from(["1750000000", "1750000000000", "-1", "١٢", "9" * 400, ""]),
)  # fmt: skip
def test_nothing_that_anyone_sends_is_more_than_refused(
    kind: dict[str, Any], one: str, other: str, body: bytes, moment: str
) -> None:
    names = ("webhook-id", "webhook-signature", "x-hub-signature-256", "stripe-signature", "h")
    headers = dict.fromkeys(names, one) | {"webhook-timestamp": moment, "h": other}
    how = verification_of(kind)
    secret = how.new_secret() or SECRET
    assert not passes(how, received(headers, body), secret)


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind["type"])
def test_a_secret_that_is_made_here_is_one_that_may_be_given(kind: dict[str, Any]) -> None:
    how = verification_of(kind)
    made = how.new_secret()
    assert (made is None) == (kind["type"] == "stripe")
    how.check_secret(made or SECRET)
