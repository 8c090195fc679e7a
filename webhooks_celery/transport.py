"""One attempt over HTTP, within its deadline."""

from __future__ import annotations

import http.client
import threading
from time import perf_counter

from .connection import Connection, KeptConnections
from .explain import explain_failure, explain_status
from .model import Attempt, Event, Hook
from .request import DEFAULT_HEADER_PREFIX
from .route import Environment, Route, Unusable
from .sockets import Limits, Resolver, TooMuch

#: Most of an answer's body that is read; a longer one is left unread and its connection closed.
MAX_BODY = 64 * 1024
#: Most of an answer that is taken in at all: headers, interim answers, body and what is around it.
MAX_ANSWER = 2 * MAX_BODY


class Transport:
    """Sends attempts and keeps connections for the next ones.

    Make one per process, after forking: threads and greenlets share it, processes must not.
    Proxies and CA bundle are read from the environment once for each hook.
    """

    def __init__(self, header_prefix: str = DEFAULT_HEADER_PREFIX) -> None:
        self._header_prefix = header_prefix
        self._lock = threading.Lock()
        self._routes: dict[str, Route] = {}
        self._kept = KeptConnections()
        self._resolver = Resolver()
        self._environment = Environment()

    def attempt(self, hook: Hook, delivery: str, event: Event) -> Attempt:
        """Send one request and say what came of it; never raises for what a receiver does."""
        started = perf_counter()
        try:
            route = self._route(hook)
        except Unusable as error:
            status, problem = None, f"this worker cannot send: {error}"
        else:
            status, problem = self._exchange(route, delivery, event)
        milliseconds = round((perf_counter() - started) * 1000)
        return Attempt(status=status, milliseconds=milliseconds, problem=problem)

    def close(self) -> None:
        """Close the kept connections; those of attempts under way are not kept any more."""
        self._kept.close()

    def _route(self, hook: Hook) -> Route:
        route = self._routes.get(hook.id)
        if route is None or route.hook is not hook:
            with self._lock:
                route = self._routes.get(hook.id)
                if route is None or route.hook is not hook:
                    route = Route(hook, self._header_prefix, self._environment)
                    self._routes[hook.id] = route
        return route

    def _exchange(self, route: Route, delivery: str, event: Event) -> tuple[int | None, str]:
        """Return status and problem of one attempt."""
        limits = Limits(milliseconds=route.hook.timeout_ms, size=MAX_ANSWER)
        connection = self._kept.take(route) or Connection(route, self._resolver)
        keep = False
        try:
            whole_request = connection.post(delivery, event, limits)
            with connection.getresponse() as response:
                connection.phase = "reading the answer's body"
                content, whole_body = _read_body(response)
            status = response.status
            keep = whole_request and whole_body and status >= 200 and not response.will_close
        except (OSError, http.client.HTTPException, ValueError) as error:
            return None, explain_failure(error, connection)
        finally:
            if keep:
                self._kept.put(connection)
            else:
                connection.close()
        return status, "" if 200 <= status < 300 else explain_status(response, content, route)


def _read_body(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Return the body as far as it is wanted, and whether that is all of it."""
    try:
        content = response.read(MAX_BODY)
    except TooMuch:  # little body in a lot of chunks, say
        return b"", False
    if len(content) < MAX_BODY and response.length:
        raise http.client.IncompleteRead(content, response.length)
    return content, response.isclosed()
