"""Prints what methods of eventail take: names, and defaults that are plain values. Reads which, of which classes."""

import inspect
import json
import sys
from typing import Any

from eventail.async_service.pika import ReconnectingSupervisor, Service
from eventail.batch_processor import Batch, RawEvent
from eventail.sync_publisher import Endpoint


def default(parameter: inspect.Parameter) -> Any:
    if parameter.default is parameter.empty:
        return "required"
    return parameter.default if isinstance(parameter.default, (str, int, type(None))) else "something"


def parameters(method: Any) -> list[tuple[str, Any]]:
    return [(each.name, default(each)) for each in inspect.signature(method).parameters.values()]


classes = {kind.__name__: kind for kind in (ReconnectingSupervisor, Service, Batch, RawEvent, Endpoint)}
asked = json.load(sys.stdin)
json.dump(
    {name: {each: parameters(getattr(classes[name], each)) for each in asked[name]} for name in asked}, sys.stdout
)
