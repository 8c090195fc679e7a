"""Failed attempts in words: what happened, and what to look at. Never with a secret."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from http import HTTPStatus

from .connection import Connection, TunnelRefused
from .route import Route
from .sockets import TooMuch

#: Most of a textual body that an error message quotes, in characters.
MAX_EXCERPT = 200


def explain_failure(error: Exception, connection: Connection) -> str:
    """Say what a failed exchange means and what to look at."""
    route, peer, phase = connection.route, connection.peer, connection.phase
    settings = "the proxy variables" if route.proxy else "the hook's url"
    if isinstance(error, TimeoutError) and not error.errno:
        return (
            f"no complete answer within {route.hook.timeout_ms} ms; time ran out while {phase}. "
            "Look why it takes so long, or raise timeoutMs."
        )
    if isinstance(error, (socket.gaierror, UnicodeError)) and phase.startswith("looking up"):
        host = phase.removeprefix("looking up ")
        return f"the host name {host} cannot be resolved ({_reason(error)}); check {settings}."
    if isinstance(error, ConnectionRefusedError):
        return f"{peer} refused the connection; is it running? Check {settings}."
    if isinstance(error, TunnelRefused):
        status = error.args[0]
        return f"{peer} did not open a tunnel (HTTP {status}); check {settings}."
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = _CERTIFICATE_ADVICE.get(error.verify_code, _UNTRUSTED)
        what = error.verify_message.rstrip(".")
        return f"the certificate of {peer} was not accepted: {what}. {advice}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        reason = error.reason or _reason(error)
        return f"TLS with {peer} failed while {phase} ({reason}); does it speak TLS there?"
    if isinstance(error, TooMuch):
        return f"{peer} sent too much before its body; look at its log."
    if isinstance(error, http.client.IncompleteRead):
        return f"{peer} closed the connection or garbled its answer while {phase}; look at its log."
    if isinstance(error, (ConnectionError, ssl.SSLEOFError)):
        return f"{peer} closed the connection while {phase}; look at its log."
    if isinstance(error, http.client.HTTPException) or (
        isinstance(error, ValueError) and phase.startswith(("waiting", "reading", "asking"))
    ):
        kind = type(error).__name__
        return f"{peer} did not answer in valid HTTP ({kind}); check {settings}."
    return f"it failed while {phase} ({_reason(error)}); look at this machine and its network."


def _reason(error: Exception) -> str:
    """Return the operating system's words for an error, or what kind it is of."""
    return getattr(error, "strerror", None) or type(error).__name__


_UNTRUSTED = "For a private CA set REQUESTS_CA_BUNDLE to its certificate."
_OTHER_NAME = "Use a name that it is made out for in the hook's url."
#: By OpenSSL's X509_V_ERR_… codes.
_CERTIFICATE_ADVICE = {
    9: "Check the clock of this machine.",
    10: "Renew it at the receiver.",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}

_ADVICE = {
    401: "check the hook's headers",
    403: "check the hook's headers",
    404: "check the path of the hook's url",
    405: "check the hook's method",
    407: "check the proxy variables",
}


def explain_status(response: http.client.HTTPResponse, content: bytes, route: Route) -> str:
    """Say what a status outside 2xx means, with the beginning of a textual body."""
    status = response.status
    try:
        text = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        text = f"HTTP {status}"
    if 300 <= status < 400:
        text += "; redirects are not followed, put the final address into the hook's url"
    elif status in _ADVICE:
        text += f"; {_ADVICE[status]}"
    excerpt = route.secrets.quote(_text(response, content), MAX_EXCERPT)
    return f'{text}; the answer says "{excerpt}".' if excerpt else f"{text}."


_TEXTUAL = re.compile(
    r"(?:text/[\w.+-]+|application/(?:[\w.+-]+\+)?(?:json|xml))\s*"
    r'(?:;(?:.*;)?\s*charset="?([\w.:-]{1,40}))?(?:[\s;"].*)?',
    re.IGNORECASE,
)
#: Character sets that are decoded; with any other name Python might do strange things.
_CHARSETS = re.compile(
    r"us-ascii|utf-?8|iso-8859-\d+|windows-125\d|shift_jis|euc-(jp|kr)|gb(2312|k|18030)|big5"
    r"|koi8-[ru]",
    re.IGNORECASE,
)


def _text(response: http.client.HTTPResponse, content: bytes) -> str:
    """Return a textual body as text, and nothing for another one."""
    # Cut short: what the receiver sends must not keep a regular expression busy.
    textual = _TEXTUAL.fullmatch(response.headers.get("Content-Type", "")[:200])
    encoding = response.headers.get("Content-Encoding", "identity")
    if textual is None or encoding.lower() != "identity":
        return ""
    charset = textual[1] or "utf-8"
    if not _CHARSETS.fullmatch(charset):
        return ""
    try:
        return content.decode(charset, "replace")
    except LookupError:  # iso-8859-99
        return ""
