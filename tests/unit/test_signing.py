"""Signatures by Standard Webhooks."""

from __future__ import annotations

import base64
import json
import time

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from esb_workers.transport import signing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_reference_vector_comes_out() -> None:
    assert signing.sign([signing.parse_secret(SECRET)], ID, TIMESTAMP, BODY) == SIGNATURE


@given(st.dictionaries(st.text(max_size=20), st.integers(), max_size=5))
def test_the_reference_library_accepts_our_signatures(payload: dict[str, int]) -> None:
    secret, now, body = signing.new_secret(), int(time.time()), json.dumps(payload).encode()
    headers = dict(signing.headers([signing.parse_secret(secret)], "id-1", now, body))
    assert standardwebhooks.Webhook(secret).verify(body, headers) == payload


def test_during_a_rotation_both_secrets_sign_and_either_verifies() -> None:
    old, new = signing.parse_secret(signing.new_secret()), signing.parse_secret(SECRET)
    headers = dict(signing.headers([new, old], ID, TIMESTAMP, BODY))
    assert headers["webhook-signature"].startswith(SIGNATURE + " v1,")
    signing.verify([old], headers, BODY, now=TIMESTAMP)
    signing.verify([new], headers, BODY, now=TIMESTAMP)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "other"},
        {"webhook-timestamp": str(TIMESTAMP + 1)},
        {"webhook-timestamp": "soon"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1a," + SIGNATURE[3:]},
    ],
)
def test_a_changed_webhook_is_refused(change: dict[str, str]) -> None:
    key = signing.parse_secret(SECRET)
    headers = dict(signing.headers([key], ID, TIMESTAMP, BODY)) | change
    with pytest.raises(signing.SignatureInvalid):
        signing.verify([key], headers, BODY, now=TIMESTAMP)


@pytest.mark.parametrize("offset", [-301, 301])
def test_a_webhook_too_far_from_now_is_refused(offset: int) -> None:
    key = signing.parse_secret(SECRET)
    with pytest.raises(signing.SignatureInvalid, match="too far"):
        signing.verify([key], dict(signing.headers([key], ID, TIMESTAMP, BODY)), BODY, now=TIMESTAMP + offset)


def test_a_new_secret_is_whsec_and_32_random_bytes() -> None:
    assert len(signing.parse_secret(signing.new_secret())) == 32
    assert signing.new_secret() != signing.new_secret()


@pytest.mark.parametrize(
    "text",
    ["", "secret", "whsec_", "whsec_???", "whsec_" + base64.b64encode(b"x" * 23).decode()]
    + ["whsec_" + base64.b64encode(b"x" * 65).decode()],
)
def test_what_is_no_secret_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        signing.parse_secret(text)
    assert len(text) < 7 or text not in str(caught.value)
