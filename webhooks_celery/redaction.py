"""Quotes what a receiver wrote, without the secrets that it may have echoed. Pure."""

from __future__ import annotations

import html
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, unquote_plus, urlsplit

#: A shorter piece of a URL or header is no secret; without it no text would be left to read.
SHORTEST = 4
_REDACTED = "[redacted]"
_HEX = "[0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"\\(?:u({_HEX}{{4}})|x({_HEX}{{2}})|U(00(?:0{_HEX}|10){_HEX}{{4}})|(.))", re.DOTALL
)
_AUTHORIZATION = ("authorization", "proxy-authorization")


class Secrets:
    """Strings that must not be shown, in every spelling a receiver is likely to echo them in."""

    def __init__(self, values: Iterable[str]) -> None:
        spelled = {_line(form) for value in values for form in _spellings(value)}
        words = sorted((word for word in spelled if len(word) >= SHORTEST), key=len, reverse=True)
        self._longest = len(words[0]) if words else 0
        self._plain = _any_of(words)
        squeezed = map(_squeezed, words)
        self._squeezed = _any_of([word for word in squeezed if len(word) >= SHORTEST])

    def quote(self, text: str, length: int) -> str:
        """Return the beginning of ``text``: one printable line of at most ``length`` characters.

        Secrets are replaced. Where one is there in a disguise (escaped for JSON, HTML or a URL, or
        broken by blanks) nothing is quoted: the result is empty.
        """
        # Far enough for a secret that begins within the quoted part to be there to its end, with
        # up to twenty characters for one of its own: %25F0%259F%2598%2580.
        line = _line(text[: length + 20 * self._longest])
        if self._found_disguised(line):
            return ""
        quoted = self._redacted(line, length)
        if len(line) <= length and len(quoted) <= length:
            return quoted
        return quoted[: length - 1] + "…"

    def _found_disguised(self, line: str) -> bool:
        """Say whether more secrets come out when escapes are undone than are there plainly."""
        plain = {match[1] for match in self._plain.finditer(line)}
        known = {_squeezed(form).lower() for word in plain for form in _undisguised(word)}
        return any(
            match[1].lower() not in known
            for form in _undisguised(line)
            for match in self._squeezed.finditer(_squeezed(form))
        )

    def _redacted(self, line: str, length: int) -> str:
        """Return the first ``length`` characters of ``line``, redacted."""
        pieces: list[str] = []
        done = 0
        for match in self._plain.finditer(line):
            start, end = match.span(1)
            if start >= length:
                break
            if start > done or not pieces:
                pieces += [line[done:start], _REDACTED]
            done = max(done, end)
        return "".join([*pieces, line[done:length]])


def url_secrets(url: str) -> Iterator[str]:
    """Return what is secret in a hook's URL: all that follows the host, and the parts of it."""
    parts = urlsplit(url)
    yield url
    yield f"{parts.path}?{parts.query}"
    yield parts.query
    yield from re.split("[&;]", parts.query)
    yield from re.split("[&;=]", parts.query)
    yield parts.path
    yield from parts.path.split("/")


def header_secrets(name: str, value: str) -> Iterator[str]:
    """Return what is secret in one header: its value and the parts of it."""
    yield value
    scheme, blank, rest = value.partition(" ")
    if blank and name.lower() in _AUTHORIZATION:
        value = rest  # the scheme's name is none
        if scheme.lower() == "basic":
            try:
                credentials = b64decode(rest, validate=True)
            except ValueError:
                credentials = b""
            for encoding in ("utf-8", "latin-1"):
                pair = credentials.decode(encoding, "replace")
                yield pair
                yield from pair.split(":", 1)
    yield value
    yield from re.split(r'[\s,;="]+', value)


def _spellings(value: str) -> Iterator[str]:
    """Return ``value`` as it is, decoded, and misread: UTF-8 as Latin-1 and the reverse."""
    for form in (value, unquote(value), unquote_plus(value)):
        yield form
        yield form.encode("utf-8", "replace").decode("latin-1")
        yield form.encode("latin-1", "replace").decode("utf-8", "replace")


def _undisguised(text: str) -> Iterator[str]:
    """Return ``text`` with one escaping after the other undone, and undone again."""
    yield text
    for _ in range(2):
        for undo in (_unescape, html.unescape, unquote):
            text = undo(text)
            yield text
        yield unquote_plus(text)


def _unescape(text: str) -> str:
    r"""Undo the escapes of JSON and Python: \", \/, \n, \u00e9, \xe9, \U0001f600."""

    def meant(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code:
            return chr(int(code, 16))
        return " " if match[4] in "nrt" else match[4]

    text = _ESCAPE.sub(meant, text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _squeezed(text: str) -> str:
    return text.replace(" ", "")


def _any_of(words: list[str]) -> re.Pattern[str]:
    """Return a pattern that finds the longest word at each place, also where words overlap."""
    pattern = "|".join(map(re.escape, words)) if words else "(?!)"
    return re.compile(f"(?=({pattern}))", re.IGNORECASE)
