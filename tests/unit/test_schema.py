from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhooks_celery.errors import ConfigError
from webhooks_celery.model import Hook
from webhooks_celery.schema import HookSchema, parse

PATH = "/etc/webhooks.json"
MAX_MS = 2_147_483_647
ENVIRON = {"TOKEN": "s3cret", "EMPTY": "", "LINES": "s3cret\n", "HOST": "s3cret.example"}


def document(*hooks: Any) -> bytes:
    return json.dumps({"webhooks": hooks}).encode()


def hook(**fields: Any) -> dict[str, Any]:
    return {"events": ["A"], "url": "http://h/", **fields}


def one(**fields: Any) -> Hook:
    """The hook that these fields make."""
    (made,) = parse(document(hook(**fields)), PATH, ENVIRON)
    return made


def faults(content: bytes) -> list[str]:
    """What is wrong with a file, one line a fault."""
    with pytest.raises(ConfigError) as caught:
        parse(content, PATH, ENVIRON)
    assert caught.value.path == PATH
    assert "s3cret" not in str(caught.value)
    return [str(fault) for fault in caught.value.faults]


def faults_of(**fields: Any) -> list[str]:
    """What is wrong with one hook, without its place."""
    return [fault.removeprefix("webhooks[0].") for fault in faults(document(hook(**fields)))]


SHARE = "Must be greater than or equal to 0 and less than or equal to 1."


class TestFields:
    def test_defaults(self):
        assert one() == Hook(
            id="webhook-1",
            position=1,
            events=("A",),
            url="http://h/",
            method="POST",
            headers={},
            timeout_ms=10_000,
            attempts=3,
            backoff_ms=2_000,
            backoff_max_ms=None,
            jitter=0.0,
            server_events=False,
            enabled=True,
            named=False,
        )

    @pytest.mark.parametrize(
        ("field", "written", "attribute", "value"),
        [
            ("id", "person-hooks", "id", "person-hooks"),
            ("id", "Büro 2", "id", "Büro 2"),
            ("events", ["PersonCreate", "Asset*", "*"], "events", ("PersonCreate", "Asset*", "*")),
            ("events", [" PersonCreate\t", " Asset* "], "events", ("PersonCreate", "Asset*")),
            ("events", ["A", "A"], "events", ("A", "A")),
            ("method", "PUT", "method", "PUT"),
            ("method", "pAtCh", "method", "PATCH"),
            ("headers", {"X-Key": "k", "x~2": ""}, "headers", {"X-Key": "k", "x~2": ""}),
            ("headers", {"X": "ÿ\ta"}, "headers", {"X": "ÿ\ta"}),
            ("timeoutMs", 1, "timeout_ms", 1),
            ("timeoutMs", MAX_MS, "timeout_ms", MAX_MS),
            ("timeoutMs", 5e3, "timeout_ms", 5_000),
            ("retries", 1, "attempts", 1),
            ("retries", 10**6, "attempts", 10**6),
            ("backoffMs", 0, "backoff_ms", 0),
            ("backoffMs", MAX_MS, "backoff_ms", MAX_MS),
            ("backoffMaxMs", 0, "backoff_max_ms", 0),
            ("jitter", 0, "jitter", 0.0),
            ("jitter", 0.25, "jitter", 0.25),
            ("jitter", 1, "jitter", 1.0),
            ("includeServerEvents", True, "server_events", True),
            ("enabled", False, "enabled", False),
        ],
    )
    def test_valid(self, field, written, attribute, value):
        made = getattr(one(**{field: written}), attribute)
        assert made == value
        assert type(made) is type(value)

    @pytest.mark.parametrize("field", ["events", "url"])
    def test_required(self, field):
        fields = hook()
        del fields[field]
        assert faults(document(fields)) == [
            f"webhooks[0].{field}: Missing data for required field."
        ]

    @pytest.mark.parametrize(
        ("field", "written", "fault"),
        [
            ("id", "", "id: Must not be empty; leave it out for a generated id."),
            ("id", " ", "id: Must not be empty; leave it out for a generated id."),
            ("id", "a\nb", "id: Must not contain control characters."),
            ("id", "\ud800", "id: Must not contain control characters."),
            ("id", 1, "id: Not a valid string."),
            ("id", None, "id: Field may not be null."),
            ("events", [], "events: Must name at least one event."),
            ("events", "A", "events: Not a valid list."),
            ("events", {"A": 1}, "events: Not a valid list."),
            ("events", ["A", 1], "events[1]: Not a valid string."),
            ("events", ["A", None], "events[1]: Field may not be null."),
            ("events", [""], "events[0]: An event name must not be empty."),
            ("events", ["A", " "], "events[1]: An event name must not be empty."),
            ("events", ["a\0b"], "events[0]: An event name must not contain control characters."),
            (
                "events",
                ["€"],
                "events[0]: An event name must be Latin-1: it is sent as an HTTP header.",
            ),
            ("method", "GET", "method: Must be POST, PUT or PATCH."),
            ("method", "", "method: Must be POST, PUT or PATCH."),
            ("method", " POST", "method: Must be POST, PUT or PATCH."),
            ("method", None, "method: Field may not be null."),
            ("headers", [], "headers: Must be an object of header names and values."),
            ("headers", None, "headers: Field may not be null."),
            ("timeoutMs", 0, "timeoutMs: Must be greater than or equal to 1."),
            ("timeoutMs", -1, "timeoutMs: Must be greater than or equal to 1."),
            ("timeoutMs", MAX_MS + 1, f"timeoutMs: Must be less than or equal to {MAX_MS}."),
            ("timeoutMs", 10**300, f"timeoutMs: Must be less than or equal to {MAX_MS}."),
            ("timeoutMs", 1e300, f"timeoutMs: Must be less than or equal to {MAX_MS}."),
            ("retries", 0, "retries: Must be greater than or equal to 1."),
            ("backoffMs", -1, "backoffMs: Must be greater than or equal to 0."),
            ("backoffMs", MAX_MS + 1, f"backoffMs: Must be less than or equal to {MAX_MS}."),
            ("backoffMaxMs", -1, "backoffMaxMs: Must be greater than or equal to 0."),
            ("backoffMaxMs", MAX_MS + 1, f"backoffMaxMs: Must be less than or equal to {MAX_MS}."),
            ("jitter", -0.1, f"jitter: {SHARE}"),
            ("jitter", 1.1, f"jitter: {SHARE}"),
            ("jitter", 10**400, "jitter: Number too large."),
            ("jitter", "0.5", "jitter: Not a valid number."),
            ("jitter", True, "jitter: Not a valid number."),
        ],
    )
    def test_faulty(self, field, written, fault):
        assert faults_of(**{field: written}) == [fault]

    @pytest.mark.parametrize("field", ["timeoutMs", "retries", "backoffMs", "backoffMaxMs"])
    @pytest.mark.parametrize("written", [True, False, "3", 2.5, [3], {}, ""], ids=repr)
    def test_only_an_integer_is_an_integer(self, field, written):
        assert faults_of(**{field: written}) == [f"{field}: Not a valid integer."]

    @pytest.mark.parametrize("field", ["includeServerEvents", "enabled"])
    @pytest.mark.parametrize("written", [1, 0, "true", "", [], 1.0], ids=repr)
    def test_only_a_boolean_is_a_boolean(self, field, written):
        assert faults_of(**{field: written}) == [f"{field}: Not a valid boolean."]

    @pytest.mark.parametrize(
        "field", ["timeoutMs", "retries", "backoffMs", "backoffMaxMs", "jitter", "enabled", "url"]
    )
    def test_null_is_no_value(self, field):
        assert faults_of(**{field: None}) == [f"{field}: Field may not be null."]

    @pytest.mark.parametrize("event", ["*A", "A*B", "**", "A**", " *A"])
    def test_a_wildcard_stands_only_at_the_end(self, event):
        fault = "events[0]: A * may stand only at the end: Person* matches by prefix."
        assert faults_of(events=[event]) == [fault]


class TestHeaders:
    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("", "''"),
            ("X Key", "X Key"),
            ("X:Key", "X:Key"),
            ("X-Schlüssel", "X-Schlüssel"),
            ("X\r\nY", r"'X\r\nY'"),
            ("X\0", r"'X\x00'"),
            ("(X)", "(X)"),
            ("\ud800", r"'\ud800'"),
            ("X" * 79 + " ", "X" * 79 + " "),
            ("X" * 80 + " ", "'" + "X" * 79),
        ],
        ids=lambda text: ascii(text)[:12],
    )
    def test_forbidden_name(self, name, place):
        fault = "Not a header name: use letters, digits and hyphens (RFC 9110)."
        assert faults_of(headers={name: ""}) == [f"headers.{place}: {fault}"]

    @pytest.mark.parametrize("name", ["Content-Length", "content-length", "TRANSFER-ENCODING"])
    def test_a_header_that_is_worked_out_from_the_body(self, name):
        fault = f"headers.{name}: Is worked out from the body; remove it."
        assert faults_of(headers={name: "1"}) == [fault]

    @pytest.mark.parametrize("value", ["a\r", "a\nb", "a\0", "\r\nX-Evil: 1"], ids=ascii)
    def test_line_breaks_in_a_value(self, value):
        assert faults_of(headers={"X-Key": value}) == [
            "headers.X-Key: Must not contain a line break or NUL; is there one at the end of a "
            "variable?"
        ]

    @pytest.mark.parametrize("value", ["\x01", "a\x1f", "\x7f"], ids=ascii)
    def test_control_characters_in_a_value(self, value):
        fault = "headers.X-Key: Must not contain control characters."
        assert faults_of(headers={"X-Key": value}) == [fault]

    @pytest.mark.parametrize("value", ["Ā", "€", "😀", "\ud800"], ids=ascii)
    def test_what_latin_1_does_not_have(self, value):
        fault = "headers.X-Key: Must be Latin-1 text: HTTP headers can carry nothing else."
        assert faults_of(headers={"X-Key": value}) == [fault]

    @pytest.mark.parametrize(
        ("value", "kind"),
        [
            (1, "a number"),
            (1.5, "a number"),
            (True, "a boolean"),
            (None, "null"),
            ([], "an array"),
            ({}, "an object"),
        ],
    )
    def test_a_value_that_is_no_string(self, value, kind):
        fault = f"headers.X-Key: Must be a string, not {kind}."
        assert faults_of(headers={"X-Key": value}) == [fault]

    def test_names_differ_by_more_than_case(self):
        assert faults_of(headers={"X-Key": "1", "Y": "", "x-key": "1", "X-KEY": "2"}) == [
            "headers.X-KEY: The same name as X-Key: case does not matter. Remove one.",
            "headers.x-key: The same name as X-Key: case does not matter. Remove one.",
        ]

    def test_all_that_is_wrong_with_a_header(self):
        assert faults_of(headers={"X Key": 1}) == [
            "headers.X Key: Not a header name: use letters, digits and hyphens (RFC 9110).",
            "headers.X Key: Must be a string, not a number.",
        ]

    @pytest.mark.parametrize("name", ["_schema", "events", "Unknown"])
    def test_a_fault_names_its_header_whatever_it_is_called(self, name):
        fault = f"headers.{name}: Must be a string, not a number."
        assert faults_of(headers={name: 1}) == [fault]


class TestURL:
    @pytest.mark.parametrize(
        "url",
        [
            "http://homeassistant:8123/api/webhook/x",
            "https://h.example",
            "HTTPS://H.EXAMPLE/",
            "http://h?a=b&c=@",
            "http://h/a@b#f",
            "http://h:",
            "http://h:65535/",
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://[::1]:8080/x",
            "http://[::ffff:1.2.3.4]/",
            "http://my_service-1.local./",
            "http://bücher.example/ä?ö=ü",
            "http://h/!a|b{c}%zz\\d[e]",
            "http://" + ".".join(["a" * 63] * 3),
        ],
    )
    def test_valid(self, url):
        assert one(url=url).url == url

    @pytest.mark.parametrize(
        ("url", "fault"),
        [
            ("", "Must begin with http:// or https://."),
            ("h.example/", "Must begin with http:// or https://."),
            ("//h.example/", "Must begin with http:// or https://."),
            ("ftp://h/", "Must begin with http:// or https://."),
            ("javascript:alert(1)", "Must begin with http:// or https://."),
            ("http://", "Must name a host: http://host/path."),
            ("http:///path", "Must name a host: http://host/path."),
            ("http:h", "Must name a host: http://host/path."),
            ("http://:80/", "Must name a host: http://host/path."),
            ("http://u:p@h/", "Must not contain user:password; use an Authorization header."),
            ("http://u@h/", "Must not contain user:password; use an Authorization header."),
            ("http://@h/", "Must not contain user:password; use an Authorization header."),
            ("http://u:p@[::1]/", "Must not contain user:password; use an Authorization header."),
            ("http://h /", "Must not contain blanks or control characters."),
            (" http://h/", "Must not contain blanks or control characters."),
            ("http://h/a b", "Must not contain blanks or control characters."),
            ("http://h/\n", "Must not contain blanks or control characters."),
            ("http://h/\0", "Must not contain blanks or control characters."),
            ("http://h/\x7f", "Must not contain blanks or control characters."),
            ("http://h/\u2003", "Must not contain blanks or control characters."),
            ("http://h:65536/", "Not a valid URL; look at the host and the port."),
            ("http://h:-1/", "Not a valid URL; look at the host and the port."),
            ("http://h:x/", "Not a valid URL; look at the host and the port."),
            ("http://h:８０/", "Not a valid URL; look at the host and the port."),
            ("http://[::1/", "Not a valid URL; look at the host and the port."),
            ("http://[h]/", "Not a valid URL; look at the host and the port."),
            ("http://[v1.a]/", "Not a valid URL; look at the host and the port."),
            ("http://[::1]x/", "Not a valid URL; look at the host and the port."),
            ("http://x[::1]/", "Not a valid URL; look at the host and the port."),
            ("http://[1.2.3.4]/", "Not a valid URL; look at the host and the port."),
            ("http://h\u2100/", "Not a valid URL; look at the host and the port."),
            ("http://h/\ud800", "Not a valid URL; look at the host and the port."),
            ("http://h%41/", "Not a valid host name."),
            ("http://h\\evil/", "Not a valid host name."),
            ("http://<h>/", "Not a valid host name."),
            ("http://*.example/", "Not a valid host name."),
            ("http://./", "Not a valid host name."),
            ("http://.example/", "Not a valid host name."),
            ("http://a..example/", "Not a valid host name."),
            ("http://example../", "Not a valid host name."),
            ("http://" + "a" * 64, "Not a valid host name."),
            ("http://" + "ü" * 64, "Not a valid host name."),
            ("http://\u200b/", "Not a valid host name."),
        ],
        ids=lambda text: ascii(text)[1:-1][:30],
    )
    def test_faulty(self, url, fault):
        assert faults_of(url=url) == [f"url: {fault}"]


class TestVariables:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("${TOKEN}", "s3cret"),
            ("Bearer ${TOKEN}", "Bearer s3cret"),
            ("${TOKEN}-${TOKEN}${EMPTY}", "s3cret-s3cret"),
            ("$TOKEN", "$TOKEN"),
            ("$$", "$$"),
            ("{TOKEN}", "{TOKEN}"),
            ("$${TOKEN}", "${TOKEN}"),
            ("$${${TOKEN}}", "${s3cret}"),
            ("$$${TOKEN}", "$${TOKEN}"),
        ],
    )
    def test_in_a_header(self, written, value):
        assert one(headers={"X": written}).headers == {"X": value}

    def test_in_a_url(self):
        assert (
            one(url="https://${HOST}/in?key=${TOKEN}").url == "https://s3cret.example/in?key=s3cret"
        )

    def test_a_value_is_not_expanded_again(self):
        environ = {"A": "${B}", "B": "s3cret"}
        (made,) = parse(document(hook(headers={"X": "${A}"})), PATH, environ)
        assert made.headers == {"X": "${B}"}

    @pytest.mark.parametrize("field", ["id", "events", "method"])
    def test_nowhere_else(self, field):
        written = {"id": "${TOKEN}", "events": ["${TOKEN}"], "method": "${TOKEN}"}[field]
        if field == "method":
            assert faults_of(method=written) == ["method: Must be POST, PUT or PATCH."]
        else:
            assert "${TOKEN}" in getattr(one(**{field: written}), field)

    def test_unset(self):
        fields = hook(url="https://h/${NO_URL}", headers={"X": "${NO_A} ${NO_B}", "${NO}": ""})
        assert faults(document(fields)) == [
            "webhooks[0].headers.${NO}: Not a header name: use letters, digits and hyphens "
            "(RFC 9110).",
            "webhooks[0].headers.X: The environment variable NO_A is not set.",
            "webhooks[0].headers.X: The environment variable NO_B is not set.",
            "webhooks[0].url: The environment variable NO_URL is not set.",
        ]

    @pytest.mark.parametrize(
        "written", ["${}", "${TOKEN", "${1A}", "${A B}", "${TOKEN:-x}", "${É}"]
    )
    def test_not_a_name(self, written):
        assert faults_of(headers={"X": f"a {written}"}) == [
            "headers.X: Not a variable after ${: write ${NAME}, or $${ for a plain ${."
        ]

    @pytest.mark.parametrize(
        "fields",
        [
            {"url": "${TOKEN}"},
            {"url": "http://h/${LINES}"},
            {"url": "http://u:${TOKEN}@h/"},
            {"url": "http://h:${TOKEN}/"},
            {"url": "http://[${TOKEN}]/"},
            {"url": "http://h%${TOKEN}/"},
            {"headers": {"X": "${LINES}"}},
            {"headers": {"X": "€${TOKEN}"}},
            {"headers": {"X": "${TOKEN}", "x": "${TOKEN}"}},
            {"headers": {"Content-Length": "${TOKEN}"}},
            {"url": "http://h/${TOKEN}", "headers": {"X": "${TOKEN}"}, "retries": 0},
        ],
        ids=str,
    )
    def test_no_fault_tells_a_value(self, fields):
        assert faults_of(**fields)  # faults() looks for the secret

    def test_bytes_of_the_environment_that_are_not_utf_8(self):
        environ = {"BAD": b"\xff".decode("utf-8", "surrogateescape")}
        with pytest.raises(ConfigError) as caught:
            parse(document(hook(url="http://h/${BAD}", headers={"X": "${BAD}"})), PATH, environ)
        assert [fault.place for fault in caught.value.faults] == [
            "webhooks[0].headers.X",
            "webhooks[0].url",
        ]


class TestUnknownFields:
    HOOK = (
        "Unknown field; known are id, events, url, method, headers, timeoutMs, retries, backoffMs, "
        "backoffMaxMs, jitter, includeServerEvents, enabled."
    )
    FILE = "Unknown field; known are webhooks, $schema."

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("event", "events"),
            ("URL", "url"),
            ("timeout", "timeoutMs"),
            ("timeout_ms", "timeoutMs"),
            ("retry", "retries"),
            ("backoff", "backoffMs"),
            ("backoffmaxms", "backoffMaxMs"),
            ("includeserverevents", "includeServerEvents"),
            ("disabled", "enabled"),
        ],
    )
    def test_did_you_mean(self, name, meant):
        assert faults_of(**{name: 1}) == [f"{name}: Unknown field; did you mean {meant}?"]

    @pytest.mark.parametrize(
        ("name", "place"),
        [
            ("xyz", "xyz"),
            ("_schema", "_schema"),
            ("", "''"),
            ("a.url", "a.url"),
            ("a\nb", r"'a\nb'"),
            ("\ud800", r"'\ud800'"),
        ],
        ids=ascii,
    )
    def test_in_a_hook(self, name, place):
        (fault,) = faults_of(**{name: 1})
        assert fault.startswith(f"{place}: Unknown field; ")
        assert "webhooks" not in fault

    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("webhook", "webhook: Unknown field; did you mean webhooks?"),
            ("_schema", "_schema: Unknown field; did you mean $schema?"),
            ("url", f"url: {FILE}"),
            ("x.url", f"x.url: {FILE}"),
            ("", f"'': {FILE}"),
        ],
    )
    def test_in_the_file(self, name, fault):
        assert faults(json.dumps({"webhooks": [], name: 1}).encode()) == [fault]

    def test_without_a_likely_meaning(self):
        assert faults_of(xyz=1) == [f"xyz: {self.HOOK}"]

    @pytest.mark.parametrize("value", ["./webhooks.schema.json", None, {"any": "thing"}])
    def test_schema_is_ignored(self, value):
        assert not parse(json.dumps({"$schema": value, "webhooks": []}).encode(), PATH, {})


class TestIds:
    def test_generated_ones_count_from_1_and_over_named_ones(self):
        hooks = parse(document(hook(), hook(id="b"), hook(enabled=False), hook()), PATH, {})
        assert [hook.id for hook in hooks] == ["webhook-1", "b", "webhook-3", "webhook-4"]
        assert [hook.position for hook in hooks] == [1, 2, 3, 4]
        assert [hook.named for hook in hooks] == [False, True, False, False]

    @pytest.mark.parametrize(
        ("ids", "twins"),
        [
            (["a", "a"], {1: 0}),
            (["a", "b", "a", "a"], {2: 0, 3: 0}),
            (["webhook-2", None], {1: 0}),
            ([None, None, "webhook-1"], {2: 0}),
        ],
    )
    def test_are_unique(self, ids, twins):
        content = document(*(hook() if name is None else hook(id=name) for name in ids))
        assert faults(content) == [
            f"webhooks[{twin}].id: {ids[twin] or f'webhook-{twin + 1}'!r} is the id of "
            f"webhooks[{owner}] already; ids must differ, generated ones (webhook-<n>) included."
            for twin, owner in twins.items()
        ]

    @pytest.mark.parametrize("ids", [["a", "A", "a "], ["webhook-1"], ["webhook-2", "webhook-1"]])
    def test_are_compared_as_written(self, ids):
        hooks = parse(document(*(hook(id=name) for name in ids)), PATH, {})
        assert [hook.id for hook in hooks] == ids


class TestFile:
    @pytest.mark.parametrize(
        ("content", "fault"),
        [
            (b"", 'The file is empty; write {"webhooks": []} at least.'),
            (b" \n\t", 'The file is empty; write {"webhooks": []} at least.'),
            (b"\xef\xbb\xbf", 'The file is empty; write {"webhooks": []} at least.'),
            (b'{"webhooks"', "Not JSON: Expecting ':' delimiter (line 1, column 12)."),
            (b"{}\n{}", "Not JSON: Extra data (line 2, column 1)."),
            (b'{"webhooks": [\n]', "Not JSON: Expecting ',' delimiter (line 2, column 2)."),
            (b"// no comments", "Not JSON: Expecting value (line 1, column 1)."),
            (b"\0", "Not JSON: Expecting value (line 1, column 1)."),
            (b'{"webhooks": ["\xe4"]}', "Not UTF-8 (line 1, byte 15); save it as UTF-8."),
            (b'{"webhooks":\n\n["\xe4"]}', "Not UTF-8 (line 3, byte 16); save it as UTF-8."),
            (b"\n\xe4", "Not UTF-8 (line 2, byte 1); save it as UTF-8."),
            (b'\xef\xbb\xbf{"\xe4": 1}', "Not UTF-8 (line 1, byte 5); save it as UTF-8."),
            ('{"webhooks": []}'.encode("utf-16"), "Not UTF-8 (line 1, byte 0); save it as UTF-8."),
            (b"null", 'Must be an object {"webhooks": […]}, not null.'),
            (b"[]", 'Must be an object {"webhooks": […]}, not an array.'),
            (b'"webhooks"', 'Must be an object {"webhooks": […]}, not a string.'),
            (b"true", 'Must be an object {"webhooks": […]}, not a boolean.'),
            (b"1.5", 'Must be an object {"webhooks": […]}, not a number.'),
            (b"NaN", 'Must be an object {"webhooks": […]}, not NaN.'),
            (b"9" * 5_000, "Not usable: a number has thousands of digits."),
            (b"{}", "webhooks: Missing data for required field."),
            (b'{"webhooks": null}', "webhooks: Field may not be null."),
            (b'{"webhooks": {}}', "webhooks: Not a valid list."),
            (b'{"webhooks": [7]}', "webhooks[0]: Must be an object."),
            (b'{"webhooks": [null]}', "webhooks[0]: Field may not be null."),
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_not_a_webhooks_file(self, content, fault):
        assert faults(content) == [fault]

    def test_utf_16_without_a_mark(self):
        (fault,) = faults('{"webhooks": []}'.encode("utf-16-le"))
        assert fault.startswith("Not JSON: ")

    @pytest.mark.parametrize("levels", [2_000, 5_000, 100_000])
    @pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")], ids=["arrays", "objects"])
    def test_deep(self, levels, brackets):
        opening, closing = brackets
        value = opening * levels + "1" + closing * levels
        content = f'{{"$schema": {value}, "webhooks": []}}'.encode()
        assert faults(content) == ["Nested too deeply to be a webhooks file."]

    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
    def test_no_hooks(self, mark):
        assert len(parse(mark + b'{"webhooks": []}\n', PATH, {})) == 0

    def test_ten_thousand_hooks(self):
        hooks = parse(document(*[hook()] * 10_000), PATH, {})
        assert len(hooks) == len({hook.id for hook in hooks}) == 10_000

    @pytest.mark.parametrize(
        ("content", "place"),
        [
            ('{"webhooks": [], "webhooks": []}', "webhooks"),
            ('{"$schema": 1, "webhooks": [], "$schema": 1}', "$schema"),
            ('{"webhooks": [], "$schema": {"a": [{"b": 1, "b": 1}]}}', "$schema.a[0].b"),
            ('{"webhooks": [{%s, "url": "http://h/"}]}', "webhooks[0].url"),
            ('{"webhooks": [{%s, "id": "a", "id": "b", "id": "a"}]}', "webhooks[0].id"),
            ('{"webhooks": [{%s, "headers": {"X": "", "X": ""}}]}', "webhooks[0].headers.X"),
        ],
    )
    def test_a_key_given_twice(self, content, place):
        content = content.replace("%s", '"events": ["A"], "url": "http://h/"')
        assert faults(content.encode()) == [f"{place}: Given more than once; keep one."]

    @pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
    @pytest.mark.parametrize(
        ("fields", "place"),
        [
            ('"jitter": %s', "jitter"),
            ('"timeoutMs": %s', "timeoutMs"),
            ('"id": %s', "id"),
            ('"headers": {"X": %s}', "headers.X"),
            ('"headers": %s', "headers"),
            ('"x": %s', "x"),
        ],
    )
    def test_numbers_that_are_not_json(self, name, fields, place):
        fields = fields.replace("%s", name)
        content = f'{{"webhooks": [{{"events": ["A"], "url": "http://h/", {fields}}}]}}'
        assert faults(content.encode()) == [f"webhooks[0].{place}: {name} is not JSON."]

    @pytest.mark.parametrize(
        ("field", "fault"),
        [
            ("timeoutMs", "Not a valid integer."),
            ("jitter", "Special numeric values (nan or infinity) are not permitted."),
        ],
    )
    def test_a_number_that_becomes_infinite(self, field, fault):
        content = document(hook(**{field: 12345})).replace(b"12345", b"1e999")
        assert faults(content) == [f"webhooks[0].{field}: {fault}"]

    def test_every_fault_at_once(self):
        content = (
            '{"webhoks": 1, "webhooks": ['
            '{"id": "a", "events": [], "url": "h", "retries": 0, "retries": true},'
            "7,"
            '{"id": "a", "events": ["*x", "A", 1], "url": "http://h/${NO}", "Timeout": 1,'
            ' "headers": {"X": 1, "Y": "${NO}"}, "backoffMs": NaN},' + "{}," * 7 + '{"url": 1}]}'
        )
        missing = "Missing data for required field."
        places = [f"webhooks[{n}].{name}" for n in range(3, 10) for name in ("events", "url")]
        assert faults(content.encode()) == [
            "webhoks: Unknown field; did you mean webhooks?",
            "webhooks[0].events: Must name at least one event.",
            "webhooks[0].retries: Given more than once; keep one.",
            "webhooks[0].url: Must begin with http:// or https://.",
            "webhooks[1]: Must be an object.",
            "webhooks[2].Timeout: Unknown field; did you mean timeoutMs?",
            "webhooks[2].backoffMs: NaN is not JSON.",
            "webhooks[2].events[0]: A * may stand only at the end: Person* matches by prefix.",
            "webhooks[2].events[2]: Not a valid string.",
            "webhooks[2].headers.X: Must be a string, not a number.",
            "webhooks[2].headers.Y: The environment variable NO is not set.",
            "webhooks[2].id: 'a' is the id of webhooks[0] already; ids must differ, generated ones "
            "(webhook-<n>) included.",
            "webhooks[2].url: The environment variable NO is not set.",
            *(f"{place}: {missing}" for place in places),
            f"webhooks[10].events: {missing}",
            "webhooks[10].url: Not a valid string.",
        ]


# Whatever comes, it is hooks or a ConfigError whose faults say where, and no secret gets out.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
STRINGS = [
    "http://h/${TOKEN}", "http://${TOKEN}@h", "http://[::1]", "${TOKEN}", "${LINES}", "${", "$${",
    "${NO}", "POST", "put", "webhook-1", "webhook-2", "A*", "*A", " ", "\0", "\r\n", "€", "\ud800",
]  # fmt: skip
LIKELY = (
    st.sampled_from([*STRINGS, 0, 1, -1, 3.0, 2**31, 1e300, 10**400, True, None, []])
    | st.lists(st.sampled_from(STRINGS), max_size=3)
    | st.dictionaries(st.sampled_from([*STRINGS, "X", "x"]), st.sampled_from(STRINGS), max_size=3)
)
NAMES = st.sampled_from([*HookSchema().fields, "timeout", "_schema", "$schema", "webhooks"])
HOOK = st.dictionaries(NAMES | st.text(max_size=4), LIKELY | JSON, max_size=6)
HOOKS = st.lists(st.builds(lambda fields: hook(**fields), HOOK) | HOOK | JSON, max_size=4)
FILES = st.fixed_dictionaries({"webhooks": HOOKS | JSON}, optional={"$schema": JSON, "x": JSON})
PLACE = re.compile(r"(webhooks|\$schema|x)([.\[].*)?", re.DOTALL)


def assert_understood(content: bytes, place: re.Pattern[str]) -> None:
    hooks, error = [], None
    try:
        hooks = list(parse(content, PATH, ENVIRON))
    except ConfigError as raised:
        error = raised
    if error:
        assert error.faults
        assert all(fault.problem for fault in error.faults)
        assert all(not fault.place or place.fullmatch(fault.place) for fault in error.faults)
        assert "s3cret" not in str(error)
        assert str(error).replace("\n", "").isprintable()
    assert len({hook.id for hook in hooks}) == len(hooks)
    assert all(hook.events and hook.attempts >= 1 and hook.timeout_ms >= 1 for hook in hooks)


@settings(deadline=None, max_examples=100)
@given(st.binary())
def test_any_bytes(content):
    assert_understood(content, re.compile(".*"))


@settings(deadline=None, max_examples=100)
@given(JSON)
def test_any_json(document):
    assert_understood(json.dumps(document).encode(), re.compile(".*"))


@settings(deadline=None, max_examples=200)
@given(FILES)
def test_any_file_that_looks_like_one(document):
    assert_understood(json.dumps(document).encode(), PLACE)


@settings(deadline=None, max_examples=100)
@given(FILES, st.integers(0, 400), st.integers(0, 20), st.binary(max_size=3))
def test_any_file_with_a_slip_of_the_pen(document, at, length, slip):
    content = json.dumps(document).encode()
    assert_understood(content[:at] + slip + content[at + length :], re.compile(".*"))
