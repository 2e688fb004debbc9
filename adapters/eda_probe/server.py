"""The HTTP server, in threads beside the service. It decides when it begins and ends, not what it answers."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, ClassVar, Final, Self

from eda_core import LocalError
from eda_core.checks import check_seconds
from eda_core.services import ServiceApi
from eda_probe.answers import Answers, fields_of

LOGGER: Final = logging.getLogger("eda_probe")
#: How many questions are answered at the same time. The connections of others are closed.
_MOST: Final = 16
#: Seconds that a client may take for its question, and for taking the answer.
_CLIENT: Final = 10.0
_LARGEST_PORT: Final = 65535


class HealthServer:
    """Answers over HTTP how a service does, from now on until the service has stopped.

    ==============  ====================================================================================================
    ``/live``       200 if the service runs and answers within ``live_within``, also without a broker; else 503
    ``/ready``      200 if the service receives its messages; 503 if it does not, or stops
    ``/health``     what ``health()`` returns, as JSON
    ``/metrics``    what ``metrics()`` returns, for Prometheus, and what ``prometheus_client.REGISTRY`` has; 404 without
                    the extra ``[prometheus]``
    ==============  ====================================================================================================

    There is no password, and no TLS. So only this host can connect by default.

    It is a context manager, which closes the server at its end.

    Args:
        service: of ``eda_aio`` or ``eda_pika``. It may run already, or later.
        port: the TCP port; 0 for any that is free.
        host: the address to listen on. ``0.0.0.0`` and ``::`` mean all addresses of this host.
        live_within: how long the event loop, or the thread, of the service may take to answer, seconds.

    Attributes:
        port: the port that it listens on.

    Raises:
        LocalError: an argument is wrong, or the port cannot be had, for example because it is taken. The text says why.
    """

    def __init__(
        self, service: ServiceApi[Any], port: int, host: str = "127.0.0.1", *, live_within: float = 5.0
    ) -> None:
        if not isinstance(service, ServiceApi):
            raise LocalError(f"the service is {type(service).__name__}", hint="give a service of eda_aio or eda_pika")
        if type(port) is not int or not 0 <= port <= _LARGEST_PORT:
            raise LocalError(f"the port is {port!r}", hint="give a number from 1 to 65535, or 0 for any that is free")
        check_seconds("live_within", live_within)
        self._service = service
        self._server = _listen(host, port, Answers(service, live_within))
        self.port: int = self._server.server_address[1]
        self._waker, self._wakes = socket.socketpair()
        self._waker.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="eda health", daemon=True)
        self._thread.start()
        shown = f"[{host}]" if ":" in host else host
        LOGGER.info("the health of %s is told at http://%s:%d/health", service.logical_service, shown, self.port)
        service.when_ended(self._end)

    def close(self) -> None:
        """Listen no more. Answers that have begun are finished. A second call does nothing."""
        self._end()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _end(self) -> None:
        """Let the thread end. Any thread may call this; it does not wait."""
        with suppress(OSError):  # it has ended
            self._waker.send(b"\0")

    def _serve(self) -> None:
        with self._server, self._waker, self._wakes, selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._wakes, selectors.EVENT_READ)
            while all(key.fileobj is not self._wakes for key, _ in selector.select()):
                self._server.handle_request()


class _Server(ThreadingMixIn, TCPServer):
    """Each question has a thread of its own, so that one that waits for the service keeps no other one waiting."""

    daemon_threads = True
    block_on_close = False
    # On Windows this would let another program listen on the same port.
    allow_reuse_address = os.name != "nt"
    request_queue_size = _MOST

    def __init__(self, address: tuple[str, int], answers: Answers) -> None:
        self.answers = answers
        self._free = threading.BoundedSemaphore(_MOST)
        super().__init__(address, _Question)
        self.socket.setblocking(False)  # a client may have gone before it is accepted

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be silent about a client that has gone."""
        LOGGER.debug("a question from %s could not be answered", client_address, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Question(BaseHTTPRequestHandler):
    server: _Server
    timeout: ClassVar[float] = _CLIENT
    server_version = "eda-core"
    sys_version = ""

    def do_GET(self) -> None:
        asked = self.headers
        answer = self.server.answers.answer(self.path, asked.get("Accept", ""))
        self.send_response(answer.status)
        for name, value in fields_of(answer).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *arguments: Any) -> None:
        LOGGER.debug("%s asks: %s", self.client_address[0], format % arguments)


def _listen(host: str, port: int, answers: Answers) -> _Server:
    try:
        return (_Server6 if ":" in host else _Server)((host, port), answers)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LocalError(
            f"cannot listen on port {port} of {host!r}: {reason}", hint="give another port, or another address"
        ) from error
