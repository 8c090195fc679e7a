"""The way to a hook's receiver: where to connect, through which proxy, with which TLS settings.

Worked out once per hook. What requests knows is taken from it: how a URL is put into wire form,
which proxy and which CA bundle the environment asks for. Its sessions are not used: they follow
redirects, read ``.netrc``, keep cookies and time each read instead of the whole attempt.
"""

from __future__ import annotations

import os
import re
import ssl
from base64 import b64encode
from functools import cached_property
from urllib.parse import unquote, urlsplit

import requests
from urllib3.util import create_urllib3_context

from .model import Hook
from .redaction import Secrets, header_secrets, url_secrets
from .request import Headers
from .sockets import keep_limits


class Unusable(Exception):
    """A hook or the environment does not allow to send; the text says why, without secrets."""


class Environment:
    """What the process environment says about the network; asks requests, looks once."""

    def __init__(self) -> None:
        self._session = requests.Session()

    def proxy(self, url: str) -> str | None:
        """Return the URL of the proxy for ``url`` (``HTTPS_PROXY``, ``NO_PROXY`` …), or None."""
        settings = self._session.merge_environment_settings(url, {}, None, None, None)
        return requests.utils.select_proxy(url, settings["proxies"])

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """The TLS settings, with the CA bundle of ``REQUESTS_CA_BUNDLE`` or certifi."""
        settings = self._session.merge_environment_settings(
            "https://localhost", {}, None, True, None
        )
        bundle = settings["verify"]
        if not isinstance(bundle, str):
            bundle = requests.utils.DEFAULT_CA_BUNDLE_PATH
        context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
        context.check_hostname = True
        try:
            if os.path.isdir(bundle):
                context.load_verify_locations(capath=bundle)
            else:
                context.load_verify_locations(cafile=bundle)
        except OSError as error:
            raise Unusable(
                f"the CA bundle {bundle} cannot be read ({error.strerror}); mend it or change "
                "REQUESTS_CA_BUNDLE."
            ) from None
        return keep_limits(context)


class Route:
    """The way to one hook's receiver, worked out once: where to connect, what never changes.

    Attributes:
        host, port: of the receiver, in wire form.
        receiver: what to call it in messages.
        proxy: where to connect instead, or None.
        tunnel: the request that asks the proxy for a tunnel; empty when none is needed.
        tls: the TLS settings, or None for plain HTTP.
        target: the path and query, or all of the URL, for the request line.
    """

    def __init__(self, hook: Hook, header_prefix: str, environment: Environment) -> None:
        self.hook = hook
        try:
            url = requests.Request(hook.method, hook.url).prepare().url or ""
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # requests' own errors are of this kind too
            raise Unusable("the hook's url is not valid; correct it.") from None
        self.tls = environment.tls_context if parts.scheme == "https" else None
        self.default_port = 443 if self.tls else 80
        self.host, self.port = host, port or self.default_port
        self.receiver = authority(self.host, self.port)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.proxy: tuple[str, int] | None = None
        self.tunnel = b""
        self._proxy_secrets: tuple[str, ...] = ()
        forwarded: dict[str, str] = {}
        if proxy := environment.proxy(url):
            self.proxy, credentials = _proxy_address(proxy)
            authorization = _basic(credentials) if credentials else {}
            self._proxy_secrets = (credentials, *authorization.values())
            if self.tls:
                lines = {"Host": self.receiver} | authorization
                self.tunnel = f"CONNECT {self.receiver} HTTP/1.1\r\n".encode() + b"".join(
                    f"{name}: {value}\r\n".encode() for name, value in lines.items()
                )
            else:
                self.target = url.partition("#")[0]
                if not any(name.lower() == "proxy-authorization" for name in hook.headers):
                    forwarded = authorization
        self.headers = Headers(hook, header_prefix, forwarded)

    @cached_property
    def secrets(self) -> Secrets:
        """What must not be quoted of an answer, should the receiver have echoed it."""
        found = [*url_secrets(self.hook.url), *url_secrets(self.target)]
        for name, value in self.hook.headers.items():
            found += header_secrets(name, value)
        for value in self._proxy_secrets:
            found += header_secrets("Proxy-Authorization", value)
        return Secrets(found)


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _proxy_address(proxy: str) -> tuple[tuple[str, int], str]:
    """Return a proxy's host and port, and the ``user:password`` for it, or nothing."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    if parts is None or parts.scheme != "http" or not re.fullmatch("[!-~]+", host or ""):
        raise Unusable("proxies need an address like http://host:port; change the proxy variables.")
    assert host is not None
    credentials = ""
    if parts.username:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return (host, port or 80), credentials


def _basic(credentials: str) -> dict[str, str]:
    return {"Proxy-Authorization": "Basic " + b64encode(credentials.encode()).decode()}
