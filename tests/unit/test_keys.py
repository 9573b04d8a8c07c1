"""API keys: their form, their checksum, and that they are not kept."""

from __future__ import annotations

import re

import pytest

from esb_workers.errors import SettingsError
from esb_workers.registry import keys
from esb_workers.registry.secrets import Vault, check_secret, new_secret


def test_a_key_has_the_promised_form_and_its_public_id_is_found() -> None:
    key = keys.new_key("client")
    assert re.fullmatch(r"esb_[0-9A-Za-z]{8}_[0-9A-Za-z]{49}", key.text)
    assert keys.public_id(key.text) == key.id == key.text[4:12]
    assert keys.new_key("service").text.startswith("esbs_")


def test_no_two_keys_are_alike() -> None:
    assert len({keys.new_key("client").text for _ in range(1000)}) == 1000


def test_a_mistyped_key_is_told_by_its_checksum() -> None:
    text = keys.new_key("client").text
    for position in (4, 20, len(text) - 1):
        wrong = text[:position] + ("a" if text[position] != "a" else "b") + text[position + 1 :]
        assert keys.public_id(wrong) is None


@pytest.mark.parametrize(
    "text", ["", "esb", "esb__", "x" * 62, "esb_12345678_\u0661" + "a" * 48, "esb_" + "a" * 8 + "_" + "a" * 49 + "\n"]
)
def test_anything_else_is_no_key(text: str) -> None:
    assert keys.public_id(text) is None


def test_the_digest_does_not_contain_the_key() -> None:
    key = keys.new_key("client")
    assert len(key.digest) == 32
    assert key.digest == keys.digest(key.text)


def test_secrets_are_sealed_and_opened_with_old_keys_too() -> None:
    from cryptography.fernet import Fernet

    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    secret = new_secret()
    check_secret(secret)
    sealed = Vault([old]).seal(secret)
    assert secret not in sealed
    assert Vault([new, old]).open(sealed) == secret
    with pytest.raises(SettingsError):
        Vault([new]).open(sealed)
    with pytest.raises(SettingsError):
        Vault([])
    with pytest.raises(SettingsError):
        Vault(["not a key"])


@pytest.mark.parametrize("text", ["", "abc", "whsec_", "whsec_!!!!", "whsec_YWJj", "whsec_" + "A" * 100])
def test_a_secret_that_cannot_sign_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_secret(text)
