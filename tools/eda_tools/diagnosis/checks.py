"""Decides what is wrong with a broker, from :class:`~eda_tools.diagnosis.facts.Facts` alone, and what mends it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, TopicPattern, queue_name
from eda_core.testing.deaths import retried
from eda_tools.bus.queues import DEAD_LETTER_QUEUE
from eda_tools.diagnosis.facts import Facts, Policy, Queue, service_of

PROBLEM: Final = "problem"
NOTE: Final = "note"

#: Groups of problems, the gravest first.
LOSS: Final = "Messages are lost"
UNSERVED: Final = "Something does not work"
LEFT_OVER: Final = "Something is left over"
NOTES: Final = "Notes"
GROUPS: Final = (LOSS, UNSERVED, LEFT_OVER, NOTES)
#: The groups of problems by the names of the checks. The others are :data:`UNSERVED`.
_GROUP: Final = {
    "no-dead-letter-policy": LOSS,
    "dead-letter-exchange-missing": LOSS,
    "dead-letter-queue-missing": LOSS,
    "queue-not-durable": LOSS,
    "retry-left-over": LEFT_OVER,
    "binding-unhandled": LEFT_OVER,
}

#: What the operator sets up (docs/architecture.rst, "Dead letters").
POLICY: Final = "DLX"
PATTERN: Final = r".*\.events|.*\.commands"
#: Where the definitions are written that ``rabbitmqctl`` imports.
_FILE: Final = "/tmp/eda-definitions.json"
#: The limit of RabbitMQ 4 if none is set.
DELIVERY_LIMIT: Final = 20
_LIMITED_SINCE: Final = (4, 0)


@dataclass(frozen=True, slots=True)
class Check:
    """A check that did not pass, or that could not be made.

    Attributes:
        severity: :data:`PROBLEM`, or :data:`NOTE` for what is no fault of the broker.
        name: the name of the check.
        subjects: names of exchanges, queues, services or commands.
        text: what is wrong.
        advice: what to do besides running commands, or about them; may be "".
        run: commands that mend it, as lines for a shell.
    """

    severity: str
    name: str
    subjects: tuple[str, ...]
    text: str
    advice: str = ""
    run: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """One of :data:`GROUPS`."""
        return _GROUP.get(self.name, UNSERVED) if self.severity == PROBLEM else NOTES


def failed_checks(facts: Facts) -> list[Check]:
    """Make all checks. Returns those that did not pass, by their groups."""
    found = [each for checks in _CHECKS for each in checks(facts)]
    return sorted(found, key=lambda each: GROUPS.index(each.group))


# Exchanges


def _exchanges(facts: Facts) -> Iterator[Check]:
    for name in EXCHANGES:
        declare = _declare(facts, exchange=name)
        exchange = facts.exchanges.get(name)
        if exchange is None:
            advice = "any service declares it when it starts; or run:"
            yield Check(PROBLEM, "exchange-missing", (name,), "there is no such exchange", advice, (declare,))
        elif exchange.wrong:
            advice = (
                "delete it with its bindings, which services make again when they connect, so restart them afterwards; "
                "the first line needs rabbitmqadmin"
                + (":" if _is_new(facts) else ": v2, or after || that of RabbitMQ 3:")
            )
            delete = _delete_exchange(facts, name)
            yield Check(PROBLEM, "exchange-wrong", (name,), exchange.wrong, advice, (delete, declare))
        elif exchange.wrong is None:
            text = "its type cannot be found out: this user may not declare it; give --management"
            yield Check(NOTE, "exchange-unknown", (name,), text)


# Queues and their consumers


def _services(facts: Facts) -> Iterator[Check]:
    for service in facts.services:
        if not any(queue_name(service, exchange) in facts.queues for exchange in (EVENTS, COMMANDS)):
            text = f"it has no queue: neither {service}.{EVENTS} nor {service}.{COMMANDS} exists"
            advice = f"start a worker of {service}, which declares them"
            yield Check(PROBLEM, "service-missing", (service,), text, advice)


def _consumers(facts: Facts) -> Iterator[Check]:
    for queue in facts.of_the_bus():
        if queue.consumers != 0 or queue.name in _dead_letter_queues(facts):
            continue
        keys = ", ".join(facts.keys_of(queue.name, COMMANDS))
        serves = f"; nobody serves {keys}" if keys else ""
        service = service_of(queue.name)
        if service and service in (facts.connected or ()):
            text = (
                f"{service} is connected but does not consume: it waits for its configuration, or it has just started "
                f"or stopped; {_messages(queue)}"
            )
            yield Check(NOTE, "worker-waits", (queue.name,), text)
            continue
        waits = "" if facts.managed else " (a worker that waits for its configuration does not consume either)"
        text = f"it has no consumers, and {_messages(queue)}{serves}{waits}"
        start = f"start a worker of {service}" if service else "start what consumes it"
        name = "commands-unserved" if keys else "queue-without-consumers"
        advice = f"{start}; or, if it is not needed any more, delete it with its messages:"
        yield Check(PROBLEM, name, (queue.name,), text, advice, (_delete(facts, queue.name),))


def _commands(facts: Facts) -> Iterator[Check]:
    """Commands that somebody sends and nobody serves."""
    for key in facts.commands:
        service = key.partition(".")[0]
        own = queue_name(service, COMMANDS)
        if facts.bindings is None:
            queue = facts.queues.get(own)
            reason = "" if queue is not None else f"there is no queue {own}"
            if queue is not None and queue.consumers == 0:
                reason = f"{own} has no consumers"
        else:
            bound = any(TopicPattern(pattern).matches(key) for pattern in facts.served())
            reason = "" if bound else f"no queue is bound for it on the exchange {COMMANDS}"
        if reason:
            advice = f"start a worker of {service} that handles it, or correct the name where it is sent"
            yield Check(PROBLEM, "command-unserved", (key,), f"nobody serves this command: {reason}", advice)


def _durability(facts: Facts) -> Iterator[Check]:
    for queue in facts.of_the_bus():
        if not queue.durable and service_of(queue.name):
            text = f"it is not durable: it, and {_messages(queue)}, are lost when the broker restarts"
            advice = "stop its workers, delete it with the messages in it, and start them: they declare it as durable"
            yield Check(PROBLEM, "queue-not-durable", (queue.name,), text, advice, (_delete(facts, queue.name),))


def _retries(facts: Facts) -> Iterator[Check]:
    for name, queue in sorted(facts.queues.items()):
        base = retried(name)
        if base and not queue.exclusive and base not in facts.queues:
            text = f"it is left over: {base}, whose retries wait in it, does not exist; {_messages(queue)}"
            yield Check(PROBLEM, "retry-left-over", (name,), text, run=(_delete(facts, name),))


def _unhandled(facts: Facts) -> Iterator[Check]:
    by_queue: dict[tuple[str, str], list[str]] = {}
    for service, queue, key in facts.unhandled:
        by_queue.setdefault((service, queue), []).append(key)
    for (service, queue), keys in by_queue.items():
        text = f"the class has no handler for {', '.join(keys)}: such messages are rejected as often as they come"
        advice = "add the handlers, or, if no version of the service that runs wants these messages, take them away:"
        run = shell("eda", "unbind", service, *keys, "--yes")
        yield Check(PROBLEM, "binding-unhandled", (queue,), text, advice, (run,))


# Dead letters and delivery limits


def _dead_letters(facts: Facts) -> Iterator[Check]:
    """Queues whose rejected messages are lost, by the policy that applies to them; and where those of the others go."""
    targets: dict[str, None] = {}
    lacking: list[Queue] = []
    for queue in facts.of_the_bus() if facts.managed else ():
        target = facts.setting(queue, "dead-letter-exchange")
        if queue.type == "stream" or queue.name in _dead_letter_queues(facts):
            continue
        if target is None:
            lacking.append(queue)
        else:
            targets.setdefault(str(target))
    for policy, names in _by_policy(facts, lacking):
        text = "there is no dead-letter policy: a message that is given up is lost"
        wanted = {"dead-letter-exchange": facts.dead_letter_exchange}
        yield Check(PROBLEM, "no-dead-letter-policy", names, text, run=(_set_policy(facts, names, policy, wanted),))
    if lacking or not facts.managed:
        targets.setdefault(facts.dead_letter_exchange)
    for target in targets:
        yield from _dead_letter_exchange(facts, target)


def _dead_letter_exchange(facts: Facts, name: str) -> Iterator[Check]:
    declared = DEAD_LETTER_QUEUE in facts.queues  # perhaps with arguments of its own
    if name and name not in facts.exchanges:
        hint = "" if facts.managed else " (--dead-letter-exchange names another)"
        text = f"there is no such exchange, where dead letters should go{hint}: they are lost"
        run = _declare(facts, exchange=name, bind=name, queue=not declared)
        yield Check(PROBLEM, "dead-letter-exchange-missing", (name,), text, run=(run,))
    elif name and facts.managed and not any(each.source == name for each in facts.bindings or ()):
        text = "no queue is bound to it, so dead letters are lost"
        run = _declare(facts, bind=name, queue=not declared)
        yield Check(PROBLEM, "dead-letter-queue-missing", (name,), text, run=(run,))


def _delivery_limits(facts: Facts) -> Iterator[Check]:
    unlimited = []
    for queue in facts.of_the_bus():
        limit = facts.setting(queue, "delivery-limit")
        defaulted = limit is None and facts.version is not None and facts.version >= _LIMITED_SINCE
        if queue.type == "quorum" and not defaulted and (limit is None or (isinstance(limit, int) and limit < 0)):
            unlimited.append(queue)
    for policy, names in _by_policy(facts, unlimited):
        text = "this quorum queue has no delivery limit: a message that kills its workers comes back for ever"
        wanted = {"dead-letter-exchange": facts.dead_letter_exchange, **(policy.definition if policy else {})}
        wanted["delivery-limit"] = DELIVERY_LIMIT
        yield Check(
            PROBLEM, "no-delivery-limit", names, text, run=(_set_policy(facts, names, policy, wanted, exactly=True),)
        )


def _waiting(facts: Facts) -> Iterator[Check]:
    for name in sorted(_dead_letter_queues(facts)):
        queue = facts.queues.get(name)
        if queue is not None and queue.messages:
            run = shell("eda", "inspect_queue", name, "--headers-only"), shell("eda", "resurrect", name)
            text = f"{queue.messages:,} dead letter(s) wait in it"
            yield Check(NOTE, "dead-letters", (name,), text, "to look at them, and to send them again:", run)


def _unmanaged(facts: Facts) -> Iterator[Check]:
    if not facts.managed:
        text = "not checked without --management: dead-letter policies, delivery limits, retry queues left over"
        named = "" if facts.services else ", and the queues of services that --service does not name"
        yield Check(NOTE, "not-checked", (), f"{text}{named}")
    elif facts.policies is None:
        text = "this user may not read policies (tag 'policymaker'); what is said of them may be some seconds old"
        yield Check(NOTE, "not-checked", (), text)


_CHECKS: Final = (
    _exchanges,
    _services,
    _consumers,
    _commands,
    _durability,
    _dead_letters,
    _delivery_limits,
    _retries,
    _unhandled,
    _waiting,
    _unmanaged,
)


def _dead_letter_queues(facts: Facts) -> set[str]:
    targets = {str(facts.setting(queue, "dead-letter-exchange") or "") for queue in facts.queues.values()}
    return {
        name
        for target in {*targets, facts.dead_letter_exchange} - {"", *EXCHANGES}
        for name in facts.dead_letter_queues(target)
    }


def _messages(queue: Queue) -> str:
    if queue.messages is None:
        return "an unknown number of messages is in it"
    return f"{queue.messages:,} message{' is' if queue.messages == 1 else 's are'} in it"


# What to run


def shell(*words: str) -> str:
    """A line for a POSIX shell; for bash if a word has control characters."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(each if each.isprintable() else _escape(each) for each in escaped) + "'"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def _declare(facts: Facts, *, exchange: str = "", bind: str = "", queue: bool = False) -> str:
    """Declare a topic exchange, the queue of dead letters, and a binding of that to the exchange ``bind``.

    rabbitmqctl declares nothing, but it imports definitions. It reads them from a file, because that of RabbitMQ 4.0
    never sees the end of standard input, and it may run as another user, who cannot open ours.
    """
    common = {"vhost": facts.vhost, "arguments": {}}
    durable = common | {"durable": True, "auto_delete": False}
    bound = {"source": bind, "destination": DEAD_LETTER_QUEUE, "destination_type": "queue", "routing_key": "#"}
    definitions = {
        "exchanges": [{"name": exchange, "type": "topic", "internal": False} | durable] if exchange else [],
        "queues": [{"name": DEAD_LETTER_QUEUE} | durable] if queue else [],
        "bindings": [bound | common] if bind else [],
    }
    text = _json({name: items for name, items in definitions.items() if items})
    return f"{shell('printf', '%s', text)} >{_FILE} && {shell('rabbitmqctl', 'import_definitions', _FILE)}"


def _delete_exchange(facts: Facts, name: str) -> str:
    """rabbitmqctl cannot do it. Of rabbitmqadmin there are two versions with different options."""
    parts = urlsplit(facts.management or "http://localhost")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else None)
    options = [f"--host={parts.hostname}"] if parts.hostname != "localhost" else []
    options += [f"--port={port}"] if port else []
    options += [f"--vhost={facts.vhost}"]
    old = [*options, *(["--ssl"] if tls else []), *([f"--path-prefix={parts.path}"] if parts.path else [])]
    new = [*options, *(["--use-tls"] if tls else []), *([f"--path-prefix={parts.path}/api"] if parts.path else [])]
    line = shell("rabbitmqadmin", *new, "delete", "exchange", f"--name={name}")
    return line if _is_new(facts) else f"{line} || {shell('rabbitmqadmin', *old, 'delete', 'exchange', f'name={name}')}"


def _is_new(facts: Facts) -> bool:
    """Whether the broker is RabbitMQ 4, for which rabbitmqadmin v2 is the only one that is documented."""
    return facts.version is not None and facts.version >= _LIMITED_SINCE


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=str)


def _delete(facts: Facts, queue: str) -> str:
    return shell("rabbitmqctl", "delete_queue", "-p", facts.vhost, queue, "--if-unused")


def _set_policy(
    facts: Facts, names: Sequence[str], above: Policy | None, wanted: Mapping[str, Any], *, exactly: bool = False
) -> str:
    """Set a policy with the keys ``wanted`` for these queues.

    If no policy applies to them and the usual pattern matches them, it is the usual policy, with a lower priority than
    those of other queues. Otherwise it is a policy for exactly these queues, with the keys of ``above``, which applies
    now, and a higher priority.

    Args:
        exactly: never the usual policy.
    """
    usual = not exactly and above is None and all(re.search(PATTERN, name) for name in names)
    taken = {policy.name for policy in facts.policies or ()}
    base = POLICY if usual else f"{POLICY}-delivery-limit" if "delivery-limit" in wanted else f"{POLICY}-more"
    name = next(name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if name not in taken)
    pattern = PATTERN if usual else f"^({'|'.join(re.escape(each) for each in names)})$"
    definition = _json({**(above.definition if above else {}), **wanted})
    priority = min(0, _lowest(facts) - 1) if usual else (above.priority if above else 0) + 1
    ranked = ("--priority", str(priority)) if priority else ()
    return shell(
        "rabbitmqctl", "set_policy", "-p", facts.vhost, name, pattern, definition, "--apply-to", "queues", *ranked
    )


def _lowest(facts: Facts) -> int:
    """The lowest priority of the policies that apply to queues which the usual pattern matches; 1 if there is none."""
    policies = (facts.policy_of(queue) for name, queue in facts.queues.items() if re.search(PATTERN, name))
    return min((policy.priority for policy in policies if policy is not None), default=1)


def _by_policy(facts: Facts, queues: Sequence[Queue]) -> list[tuple[Policy | None, tuple[str, ...]]]:
    """The names of queues, grouped by the policy that applies to them."""
    groups: list[tuple[Policy | None, tuple[str, ...]]] = []
    for queue in queues:
        policy = facts.policy_of(queue)
        place = next((place for place, (each, _) in enumerate(groups) if each == policy), len(groups))
        names = groups[place][1] if place < len(groups) else ()
        groups[place : place + 1] = [(policy, (*names, queue.name))]
    return groups
