"""Writes what a server sent as the lines that are compared."""

from __future__ import annotations

from typing import Any

from pamqp import base, commands

from tests.differential.client import Received
from tests.differential.known_differences import any_server_name, any_time_of_death, on_one_line


def count(answer: base.Frame) -> str:
    """The answer to a passive declare of a queue: how much is in the queue, or the code of the error."""
    if isinstance(answer, commands.Queue.DeclareOk):
        return f"{answer.message_count} ready, {answer.consumer_count} consumers"
    assert isinstance(answer, commands.Channel.Close)
    return f"closed {answer.reply_code}"


def error(close: commands.Channel.Close | commands.Connection.Close) -> str:
    """The code, the text and the method of an error."""
    text = any_server_name(on_one_line(close.reply_text or ""))
    return f"{close.reply_code} {text} (method {close.class_id}.{close.method_id})"


def message(received: Received) -> str:
    """A message with all its properties."""
    values = dict(received.method)
    properties = received.properties or commands.Basic.Properties()
    written = [f"{name}={plain(value)}" for name, value in properties if value not in (None, "")]
    line = f"{received.body.decode()} from {values['exchange']!r} by {values['routing_key']!r} {' '.join(written)}"
    return line.strip()


def plain(value: Any, key: str = "") -> str:
    """A value as text, with its type. Tables are sorted by key."""
    value = any_time_of_death(key, value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {plain(value[name], name)}" for name in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(plain, value)) + "]"
    return f"{type(value).__name__} {value!r}"
