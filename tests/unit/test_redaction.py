"""Nothing secret is quoted, whatever was made of it on its way through a receiver."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webhooks_celery.redaction import SHORTEST, Secrets, header_secrets, url_secrets


@pytest.mark.parametrize(
    ("secrets", "text", "quoted"),
    [
        ([], "nothing to hide", "nothing to hide"),
        (["key-1234"], "bad key key-1234!", "bad key [redacted]!"),
        (["key-1234"], "key-1234", "[redacted]"),
        (["key-1234"], "KEY-1234 key-1234", "[redacted] [redacted]"),
        (["key-1234"], "key-1234key-1234", "[redacted]"),
        (["abcd", "abcdefgh"], "abcdefgh", "[redacted]"),
        (["xxab", "abcdefgh"], "-xxabcdefgh-", "-[redacted]-"),
        (["abc"], "abc is too short to be one", "abc is too short to be one"),
        (["two  words"], "these two\nwords here", "these [redacted] here"),
        (["(.*)+"], "a (.*)+ b", "a [redacted] b"),
        (["käse"], "käse", "[redacted]"),
        (["p%C3%A4th"], "/päth", "/[redacted]"),
    ],
)
def test_secrets_are_taken_out(secrets: list[str], text: str, quoted: str) -> None:
    assert Secrets(secrets).quote(text, 200) == quoted


@pytest.mark.parametrize(
    "disguise",
    [
        json.dumps,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: json.dumps(text).replace("/", "\\/"),
        ascii,
        html.escape,
        lambda text: text.encode("ascii", "xmlcharrefreplace").decode(),
        quote,
        quote_plus,
        lambda text: quote(quote(text)),
        lambda text: "\n".join(text),
        lambda text: text.encode().decode("latin-1"),
    ],
)
def test_where_one_is_disguised_nothing_is_quoted(disguise) -> None:
    secret = "é<\"key/&'> 😀"
    quoted = Secrets([secret]).quote(f"the key {disguise(secret)} is wrong", 200)
    assert quoted in ("", "the key [redacted] is wrong", 'the key "[redacted]" is wrong')


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a" * 10, "a" * 10),
        ("a" * 11, "a" * 9 + "…"),
        ("a\r\n\tb\x00\x1b\u2028\u202ec", "a b c"),
        ("\ud800\uffff", ""),
        ("", ""),
        ("12345678 secret", "12345678 …"),
        ("secret 12345678", "[redacted…"),
    ],
)
def test_a_quotation_is_one_short_printable_line(text: str, quoted: str) -> None:
    assert Secrets(["secret"]).quote(text, 10) == quoted


def test_a_secret_that_begins_in_the_quoted_part_and_ends_far_behind_it() -> None:
    assert Secrets(["0123456789" * 100]).quote("x" * 9 + "0123456789" * 100, 10) == "x" * 9 + "…"


@given(
    st.text(min_size=SHORTEST),
    st.text(),
    st.text(),
    st.sampled_from([str, json.dumps, html.escape, ascii]),
)
@example("0000", "", "", str)
def test_no_secret_survives(secret: str, before: str, after: str, disguise) -> None:
    quoted = Secrets([secret]).quote(before + disguise(secret) + after, 200)
    assert quoted.isprintable()
    assert len(quoted) <= 200
    plain = " ".join(secret.split())
    if plain.isprintable() and len(plain) >= SHORTEST and plain not in "[redacted]":
        assert plain not in quoted


def test_what_is_secret_in_a_url() -> None:
    found = set(url_secrets("https://host.example:8443/hooks/k-1?token=t%2F1&x"))
    assert {"/hooks/k-1", "hooks", "k-1", "token=t%2F1&x", "token=t%2F1", "t%2F1"} <= found
    assert "host.example" not in found


def test_what_is_secret_in_a_header() -> None:
    assert {"a b", "b"} <= set(header_secrets("X-Key", "a b"))
    assert {'k="v"; w', "k", "v", "w"} <= set(header_secrets("Cookie", 'k="v"; w'))
    assert "Bearer" not in set(header_secrets("authorization", "Bearer t"))
    assert "Bearer" in set(header_secrets("X-Key", "Bearer t"))


def test_what_is_secret_in_basic_authorization() -> None:
    pair = base64.b64encode(b"user:pass:word").decode()
    found = set(header_secrets("Authorization", f"Basic {pair}"))
    assert {pair, f"Basic {pair}", "user:pass:word", "user", "pass:word"} <= found
    assert {"Basic ???", "???"} <= set(header_secrets("Authorization", "Basic ???"))
