"""What ``doctor`` says about a :class:`~eda_tools.diagnosis.facts.Survey`: pure, so that every case can be tested."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, TopicPattern, queue_name
from eda_tools.diagnosis.facts import Policy, Queue, Survey, retried, service_of

PROBLEM: Final = "problem"
NOTE: Final = "note"

#: What the operator sets up (docs/architecture.rst, "Dead letters").
POLICY: Final = "DLX"
PATTERN: Final = r".*\.events|.*\.commands"
DEAD_LETTER_QUEUE: Final = "dead-letters"
#: What RabbitMQ 4 takes where nothing is set.
DELIVERY_LIMIT: Final = 20
_LIMITED_SINCE: Final = (4, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, or that could not be found out.

    Attributes:
        severity: :data:`PROBLEM`, or :data:`NOTE` for what is no fault of the broker.
        check: which of the checks, one word.
        subjects: names of exchanges, queues, services or commands.
        text: what is wrong.
        advice: what to do that is no command; "" if the commands are all.
        run: commands that mend it, as lines for a shell.
    """

    severity: str
    check: str
    subjects: tuple[str, ...]
    text: str
    advice: str = ""
    run: tuple[str, ...] = ()


def findings(survey: Survey) -> list[Finding]:
    """Everything that is wrong, then the notes."""
    found = [finding for check in _CHECKS for finding in check(survey)]
    return sorted(found, key=lambda finding: finding.severity != PROBLEM)


# Exchanges


def _exchanges(survey: Survey) -> Iterator[Finding]:
    for name in EXCHANGES:
        declare = admin(survey, "declare", "exchange", f"name={name}", "type=topic", "durable=true")
        exchange = survey.exchanges.get(name)
        if exchange is None:
            advice = "any service declares it when it starts; or"
            yield Finding(PROBLEM, "exchange-missing", (name,), "there is no such exchange", advice, (declare,))
        elif exchange.wrong:
            delete = admin(survey, "delete", "exchange", f"name={name}")
            advice = "this takes its bindings away, which services make again when they connect: restart them after it"
            yield Finding(PROBLEM, "exchange-wrong", (name,), exchange.wrong, advice, (delete, declare))
        elif exchange.wrong is None:
            text = "its type cannot be found out: this user may not declare it; give --management"
            yield Finding(NOTE, "exchange-unknown", (name,), text)


# Queues and their consumers


def _services(survey: Survey) -> Iterator[Finding]:
    for service in survey.services:
        if not any(queue_name(service, exchange) in survey.queues for exchange in (EVENTS, COMMANDS)):
            text = f"it has no queue: neither {service}.{EVENTS} nor {service}.{COMMANDS} exists"
            advice = f"start a worker of {service}, which declares them"
            yield Finding(PROBLEM, "service-missing", (service,), text, advice)


def _consumers(survey: Survey) -> Iterator[Finding]:
    for queue in survey.of_the_bus():
        if queue.consumers != 0 or queue.name in _dead_letter_queues(survey):
            continue
        keys = ", ".join(survey.keys_of(queue.name, COMMANDS))
        serves = f"; nobody serves {keys}" if keys else ""
        text = f"it has no consumers, and {_messages(queue)}{serves}"
        service = service_of(queue.name)
        start = f"start a worker of {service}" if service else "start what consumes it"
        check = "commands-unserved" if keys else "queue-without-consumers"
        advice = f"{start}; or, if it is not needed any more, and with the messages in it:"
        yield Finding(PROBLEM, check, (queue.name,), text, advice, (_delete(survey, queue.name),))


def _commands(survey: Survey) -> Iterator[Finding]:
    """Commands that are known to be sent, and for which no queue is bound."""
    for key in survey.commands:
        service = key.partition(".")[0]
        own = queue_name(service, COMMANDS)
        if survey.bindings is None:
            queue = survey.queues.get(own)
            reason = "" if queue is not None else f"there is no queue {own}"
            if queue is not None and queue.consumers == 0:
                reason = f"{own} has no consumers"
        else:
            bound = any(TopicPattern(pattern).matches(key) for pattern in survey.served())
            reason = "" if bound else f"no queue is bound for it on the exchange {COMMANDS}"
        if reason:
            advice = f"start a worker of {service} that handles it, or correct the name where it is sent"
            yield Finding(PROBLEM, "command-unserved", (key,), f"nobody serves this command: {reason}", advice)


def _durability(survey: Survey) -> Iterator[Finding]:
    for queue in survey.of_the_bus():
        if not queue.durable and service_of(queue.name):
            text = f"it is not durable: it, and {_messages(queue)}, are lost when the broker restarts"
            advice = (
                "stop its workers, delete it with the messages in it, and start them; they declare it as it should be"
            )
            yield Finding(PROBLEM, "queue-not-durable", (queue.name,), text, advice, (_delete(survey, queue.name),))


def _retries(survey: Survey) -> Iterator[Finding]:
    for name, queue in sorted(survey.queues.items()):
        base = retried(name)
        if base and not queue.exclusive and base not in survey.queues:
            text = f"it is left over: {base}, whose retries wait in it, does not exist; {_messages(queue)}"
            yield Finding(PROBLEM, "retry-left-over", (name,), text, run=(_delete(survey, name),))


# Dead letters and delivery limits


def _dead_letters(survey: Survey) -> Iterator[Finding]:
    """Queues from which refused messages are dropped, by the policy they have; and where the others' go."""
    targets: dict[str, None] = {}
    lacking: list[Queue] = []
    for queue in survey.of_the_bus() if survey.managed else ():
        target = survey.setting(queue, "dead-letter-exchange")
        if queue.type == "stream" or queue.name in _dead_letter_queues(survey):
            continue
        if target is None:
            lacking.append(queue)
        else:
            targets.setdefault(str(target))
    for policy, names in _by_policy(survey, lacking):
        text = "there is no dead-letter policy: a message that is given up is lost"
        wanted = {"dead-letter-exchange": survey.dead_letter_exchange}
        yield Finding(PROBLEM, "no-dead-letter-policy", names, text, run=(_set_policy(survey, names, policy, wanted),))
    if lacking or not survey.managed:
        targets.setdefault(survey.dead_letter_exchange)
    for target in targets:
        yield from _dead_letter_exchange(survey, target)


def _dead_letter_exchange(survey: Survey, name: str) -> Iterator[Finding]:
    declare = admin(survey, "declare", "exchange", f"name={name}", "type=topic", "durable=true")
    queue = admin(survey, "declare", "queue", f"name={DEAD_LETTER_QUEUE}", "durable=true")
    to_declare = () if DEAD_LETTER_QUEUE in survey.queues else (queue,)  # it may be of another kind
    bind = admin(survey, "declare", "binding", f"source={name}", f"destination={DEAD_LETTER_QUEUE}", "routing_key=#")
    if name and name not in survey.exchanges:
        hint = "" if survey.managed else " (--dead-letter-exchange names another)"
        text = f"there is no such exchange, where dead letters should go{hint}: they are lost"
        yield Finding(PROBLEM, "dead-letter-exchange-missing", (name,), text, run=(declare, *to_declare, bind))
    elif name and survey.managed and not any(each.source == name for each in survey.bindings or ()):
        text = "no queue is bound to it, so dead letters are lost"
        yield Finding(PROBLEM, "dead-letter-queue-missing", (name,), text, run=(*to_declare, bind))


def _delivery_limits(survey: Survey) -> Iterator[Finding]:
    unlimited = []
    for queue in survey.of_the_bus():
        limit = survey.setting(queue, "delivery-limit")
        defaulted = limit is None and survey.version is not None and survey.version >= _LIMITED_SINCE
        if queue.type == "quorum" and not defaulted and (limit is None or (isinstance(limit, int) and limit < 0)):
            unlimited.append(queue)
    for policy, names in _by_policy(survey, unlimited):
        text = "this quorum queue has no delivery limit: a message that kills its workers comes back for ever"
        wanted = {"dead-letter-exchange": survey.dead_letter_exchange, **(policy.definition if policy else {})}
        wanted["delivery-limit"] = DELIVERY_LIMIT
        yield Finding(
            PROBLEM, "no-delivery-limit", names, text, run=(_set_policy(survey, names, policy, wanted, exactly=True),)
        )


def _waiting(survey: Survey) -> Iterator[Finding]:
    for name in sorted(_dead_letter_queues(survey)):
        queue = survey.queues.get(name)
        if queue is not None and queue.messages:
            run = shell("eda", "inspect_queue", "-", name, "--headers-only"), shell("eda", "resurrect", "-", name)
            text = f"{queue.messages:,} dead letter(s) wait in it"
            yield Finding(NOTE, "dead-letters", (name,), text, "to look at them, and to send them again:", run)


def _unmanaged(survey: Survey) -> Iterator[Finding]:
    if not survey.managed:
        text = "not checked without --management: dead-letter policies, delivery limits, retry queues left over"
        named = "" if survey.services else ", and the queues of services that --service does not name"
        yield Finding(NOTE, "not-checked", (), f"{text}{named}")
    elif survey.policies is None:
        text = "this user may not read policies (tag 'policymaker'); what is said of them may be some seconds old"
        yield Finding(NOTE, "not-checked", (), text)


_CHECKS: Final = (
    _exchanges,
    _services,
    _consumers,
    _commands,
    _durability,
    _dead_letters,
    _delivery_limits,
    _retries,
    _waiting,
    _unmanaged,
)


def _dead_letter_queues(survey: Survey) -> set[str]:
    targets = {str(survey.setting(queue, "dead-letter-exchange") or "") for queue in survey.queues.values()}
    return {
        name
        for target in {*targets, survey.dead_letter_exchange} - {"", *EXCHANGES}
        for name in survey.dead_letter_queues(target)
    }


def _messages(queue: Queue) -> str:
    if queue.messages is None:
        return "an unknown number of messages is in it"
    return f"{queue.messages:,} message{' is' if queue.messages == 1 else 's are'} in it"


# What to run


def shell(*words: str) -> str:
    """A line for a POSIX shell (bash, where a word has control characters)."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(each if each.isprintable() else _escape(each) for each in escaped) + "'"


def _escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def admin(survey: Survey, *words: str) -> str:
    """A line that runs ``rabbitmqadmin``."""
    return shell("rabbitmqadmin", *survey.admin, f"--vhost={survey.vhost}", *words)


def _delete(survey: Survey, queue: str) -> str:
    return shell("rabbitmqctl", "delete_queue", "-p", survey.vhost, queue, "--if-unused")


def _set_policy(
    survey: Survey, names: Sequence[str], above: Policy | None, wanted: Mapping[str, Any], *, exactly: bool = False
) -> str:
    """A policy with ``wanted``: the usual one where none applies yet and its pattern fits, below those of other queues;
    else one for exactly these queues, that has the keys of the one that applies now, and is above it."""
    usual = not exactly and above is None and all(re.search(PATTERN, name) for name in names)
    taken = {policy.name for policy in survey.policies or ()}
    base = POLICY if usual else f"{POLICY}-delivery-limit" if "delivery-limit" in wanted else f"{POLICY}-more"
    name = next(name for name in (base, *(f"{base}-{number}" for number in range(2, 1000))) if name not in taken)
    pattern = PATTERN if usual else f"^({'|'.join(re.escape(each) for each in names)})$"
    definition = json.dumps({**(above.definition if above else {}), **wanted}, separators=(",", ":"), default=str)
    priority = min(0, _lowest(survey) - 1) if usual else (above.priority if above else 0) + 1
    ranked = ("--priority", str(priority)) if priority else ()
    return shell(
        "rabbitmqctl", "set_policy", "-p", survey.vhost, name, pattern, definition, "--apply-to", "queues", *ranked
    )


def _lowest(survey: Survey) -> int:
    """The lowest priority of the policies that apply to queues for which the usual one is meant, too; else 1."""
    policies = (survey.policy_of(queue) for name, queue in survey.queues.items() if re.search(PATTERN, name))
    return min((policy.priority for policy in policies if policy is not None), default=1)


def _by_policy(survey: Survey, queues: Sequence[Queue]) -> list[tuple[Policy | None, tuple[str, ...]]]:
    """Names of queues, grouped by the policy that applies to them."""
    groups: list[tuple[Policy | None, tuple[str, ...]]] = []
    for queue in queues:
        policy = survey.policy_of(queue)
        place = next((place for place, (each, _) in enumerate(groups) if each == policy), len(groups))
        names = groups[place][1] if place < len(groups) else ()
        groups[place : place + 1] = [(policy, (*names, queue.name))]
    return groups
