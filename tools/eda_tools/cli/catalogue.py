"""The names of all tools and what each is for. It loads none of them."""

from __future__ import annotations

from typing import Final

#: The subcommands, which have the names of their modules, and what they are for.
TOOLS: Final = {
    "logger": "show logs as they are written",
    "monitor": "show events, commands, results and configurations as they pass",
    "publish_event": "publish an event",
    "publish_configuration": "publish a configuration",
    "send_command": "send a command and wait for its result",
    "inspect_queue": "show a queue without consuming it",
    "resurrect": "send dead letters again",
    "replay": "send the messages of a recording",
    "trace": "draw one conversation",
    "doctor": "check a broker for what the architecture needs",
    "unbind": "take away bindings that a service does not want any more",
    "topology": "draw who publishes and who consumes what",
}

#: The subcommands that are no tools for a bus.
PROGRAMS: Final = {
    "new": "write a small project with a service and its tests",
    "run": "run services, and start again what dies",
    "asyncapi": "write an AsyncAPI document of what services receive and send",
    "check": "check whether services agree about their messages",
    "broker": "run the embedded broker, for trials, demos and tests",
}
