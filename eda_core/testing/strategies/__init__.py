"""Hypothesis strategies for what travels on the bus, to test services, adapters and the core itself.

Every function returns a strategy. :func:`services` draws messages for your services, with payloads that fit the
annotations of their handlers, and :func:`malformed` what is no message. :class:`ServiceMachine` tests services with
sequences of these and of faults. A service can publish what :func:`messages`, :func:`events`, :func:`commands`,
:func:`results` and :func:`configurations` draw, and reads it from the wire as it was. What :func:`properties` and
:func:`field_tables` draw is whatever a peer may send, valid or not. The module needs the extra ``testing``.
"""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

require("eda_core.testing.strategies", "testing", {"hypothesis": ""})

from eda_core.testing.strategies.machine import ServiceMachine
from eda_core.testing.strategies.malformed import Raw, malformed
from eda_core.testing.strategies.subscribed import services
from eda_core.testing.strategies.typed import typed
from eda_core.testing.strategies.values import (
    cbor_payloads,
    command_names,
    commands,
    configurations,
    conversation_ids,
    event_names,
    events,
    field_tables,
    json_payloads,
    messages,
    metas,
    names,
    payloads,
    properties,
    results,
    routing_keys,
    service_names,
    texts,
    topic_patterns,
    words,
)

__all__ = [
    "Raw",
    "ServiceMachine",
    "cbor_payloads",
    "command_names",
    "commands",
    "configurations",
    "conversation_ids",
    "event_names",
    "events",
    "field_tables",
    "json_payloads",
    "malformed",
    "messages",
    "metas",
    "names",
    "payloads",
    "properties",
    "results",
    "routing_keys",
    "service_names",
    "services",
    "texts",
    "topic_patterns",
    "typed",
    "words",
]
