"""What scenarios are made of: a service, and messages that are known by their labels."""

from __future__ import annotations

from typing import Any, Final

from eda_core.machine.config import Config
from eda_core.messages.values import Command, Event, Result
from eda_core.testing.explorer.model import Post

ONE_URL: Final = ("amqp://a/",)
TWO_URLS: Final = ("amqp://a/", "amqp://b/")


def service(urls: tuple[str, ...] = ONE_URL, name: str = "svc", **settings: Any) -> Config:
    """A service that gets the event ``In`` and the command ``svc.Do``."""
    known: dict[str, Any] = {"events": ("In",), "commands": (f"{name}.Do",), "prefetch": 2, "stop_timeout": 100.0}
    return Config.make(urls, name, **{**known, **settings})


def event(label: str, name: str = "In") -> Event:
    return Event(name, label, "c")


def command(label: str, name: str = "svc.Do") -> Command:
    return Command(name, label, "c", "caller.DoReturn", f"id-{label}")


def said(label: str, **how: Any) -> Post:
    """An event that is published."""
    return Post(event(label, "Out"), **how)


def answered(label: str, of: str) -> Post:
    """The result of command ``of``."""
    return Post(Result("caller.DoReturn", label, "c", "success", f"id-{of}"))


def asked(label: str) -> Post:
    """A command to a service that does not exist: it comes back."""
    return Post(Command("nobody.Do", label, "c", "svc.DoReturn", "id"))
