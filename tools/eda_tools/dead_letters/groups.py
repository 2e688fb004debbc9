"""Counts messages by routing key, by reason of death, by the error of a service, or by age. It knows no queue."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from eda_core.testing.deaths import died_at, error_of, place_of_death
from eda_tools.cli.output import safe
from eda_tools.messages.delivery import Delivery
from eda_tools.messages.show import local

_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_AGES: Final = ((60.0, "under 1 min"), (_HOUR, "under 1 h"), (_DAY, "under 1 day"), (7 * _DAY, "under 7 days"))
_OLDER: Final = "7 days and more"
_UNKNOWN: Final = "unknown"


def since(delivery: Delivery) -> datetime.datetime | None:
    """When the message died last; otherwise the time that its publisher gave it; ``None`` if it has neither."""
    died = died_at(delivery.headers)
    sent = delivery.properties.timestamp
    if died is not None or not isinstance(sent, datetime.datetime):
        return died
    return sent if sent.tzinfo is not None else sent.replace(tzinfo=datetime.UTC)


def last_moment(delivery: Delivery) -> str:
    """Says when the message died last, or when it was published, in the user's time zone; "" if that is unknown."""
    moment = since(delivery)
    if moment is None:
        return ""
    return f"{'published' if died_at(delivery.headers) is None else 'died'} {_local(moment)}"


def _key(delivery: Delivery) -> str:
    exchange, key = delivery.origin()
    return f"{exchange}/{key}"


def _reason(delivery: Delivery) -> str:
    death = place_of_death(delivery.headers)
    return "has not died" if death is None else f"{death.reason or _UNKNOWN} in {death.queue or _UNKNOWN}"


def _error(delivery: Delivery) -> str:
    error = error_of(delivery.headers)
    if error is None:
        return "not told by a service"
    return f"{error.type or error.message} in {error.service}"


def _age(delivery: Delivery) -> str:
    moment = since(delivery)
    if moment is None:
        return _UNKNOWN
    age = (delivery.received - moment).total_seconds()
    return next((name for limit, name in _AGES if age < limit), _OLDER)


GROUPS: Final[dict[str, Callable[[Delivery], str]]] = {
    "key": _key,
    "reason": _reason,
    "error": _error,
    "age": _age,
}


@dataclass(slots=True)
class _Group:
    messages: int = 0
    bytes: int = 0
    oldest: datetime.datetime | None = None
    newest: datetime.datetime | None = None


class Groups:
    """Counts messages by one of :data:`GROUPS`."""

    def __init__(self, by: str) -> None:
        self.by = by
        self._name = GROUPS[by]
        self._groups: dict[str, _Group] = {}

    def add(self, delivery: Delivery) -> None:
        """Count a message."""
        group = self._groups.setdefault(self._name(delivery), _Group())
        group.messages += 1
        group.bytes += len(delivery.body)
        moment = since(delivery)
        if moment is not None:
            group.oldest = moment if group.oldest is None else min(group.oldest, moment)
            group.newest = moment if group.newest is None else max(group.newest, moment)

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row per group, as ``--json`` writes it: the largest group first; ages begin with the youngest."""
        ages = [*(name for _, name in _AGES), _OLDER, _UNKNOWN]
        groups = list(self._groups.items())
        if self.by == "age":
            groups.sort(key=lambda item: ages.index(item[0]))
        else:
            groups.sort(key=lambda item: (-item[1].messages, item[0]))
        for name, group in groups:
            yield {
                self.by: name,
                "messages": group.messages,
                "bytes": group.bytes,
                "oldest": group.oldest,
                "newest": group.newest,
            }

    def table(self) -> Table:
        """The rows as a table for people."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(self.by, overflow="fold")
        for name in ("messages", "bytes"):
            table.add_column(name, justify="right")
        for name in ("oldest", "newest"):
            table.add_column(name)
        for row in self.rows():
            times = [_local(row[name]) for name in ("oldest", "newest")]
            table.add_row(Text(safe(row[self.by])), str(row["messages"]), str(row["bytes"]), *times)
        return table


def _local(moment: datetime.datetime | None) -> str:
    return "" if moment is None else local(moment).strftime("%Y-%m-%d %H:%M:%S")
