"""What the HTTP server answers for each path. It knows nothing of sockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from eda_core import EdaError, Health
from eda_core.machine.link import IDLE, STOPPED
from eda_core.services import ServiceApi

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status, the type of its body, and the body."""

    status: HTTPStatus
    content_type: str
    body: bytes


class Answers:
    """The answers about one service.

    Args:
        live_within: how long the service may take to answer, seconds.
    """

    def __init__(self, service: ServiceApi[Any], live_within: float) -> None:
        self._service = service
        self._live_within = live_within
        self._metrics = _metrics_of(service, live_within)
        self._paths: dict[str, Callable[[str], Answer]] = {
            "/live": lambda accept: self._look(_live),
            "/ready": lambda accept: self._look(_ready),
            "/health": lambda accept: self._look(_health),
            "/metrics": self._metrics,
        }

    def answer(self, path: str, accept: str) -> Answer:
        """Answer a question about ``path``, which may have a query behind it.

        Args:
            accept: the header ``Accept`` of the question; "" if it has none.
        """
        found = self._paths.get(path.partition("?")[0])
        if found is None:
            return _text(HTTPStatus.NOT_FOUND, f"not found; there are {', '.join(self._paths)}")
        return found(accept)

    def _look(self, tell: Callable[[Health], Answer]) -> Answer:
        try:
            # Not self._service.health(): a service may have a method of its own with this name.
            return tell(ServiceApi.health(self._service, self._live_within))
        except EdaError as error:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))


def _live(health: Health) -> Answer:
    """The loop of the service answers. Whether the broker is there is no matter: the service connects again."""
    if health.state == IDLE:
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the service does not run yet")
    if health.state == STOPPED:
        return _text(HTTPStatus.SERVICE_UNAVAILABLE, "the service has stopped")
    return _text(HTTPStatus.OK, "live")


def _ready(health: Health) -> Answer:
    if health.ready:
        return _text(HTTPStatus.OK, "ready")
    why = f"the link is {health.state}"
    if health.stopping:
        why = "the service stops"
    elif health.link.open:
        why = "no handler of a configuration has returned True yet"
    return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {why}")


def _health(health: Health) -> Answer:
    return Answer(HTTPStatus.OK, JSON, f"{json.dumps(health.as_dict(), indent=2)}\n".encode())


def _metrics_of(service: ServiceApi[Any], timeout: float) -> Callable[[str], Answer]:
    try:
        from eda_prometheus import exposition
    except ModuleNotFoundError as error:
        return partial(_without_metrics, str(error))
    expose = exposition(service, timeout)

    def metrics(accept: str) -> Answer:
        content_type, body = expose(accept)
        return Answer(HTTPStatus.OK, content_type, body)

    return metrics


def _without_metrics(reason: str, accept: str) -> Answer:
    return _text(HTTPStatus.NOT_FOUND, reason)


def _text(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, TEXT, f"{text}\n".encode())


def fields_of(answer: Answer) -> Mapping[str, str]:
    """Return the header fields of an answer."""
    return {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
    }
