"""The scenarios that are explored by default, and larger ones for a search over night.

Each scenario is there for one part of the architecture. Together they go through every cell of the link's table that a
broker and a network can bring about, and through every way in which a message or a publish can end.
This module does not know how a scenario is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from eda_core.machine.policy import RetryPolicy
from eda_core.messages.values import Configuration, Event
from eda_core.testing.broker.dead_letters import EXCHANGE
from eda_core.testing.explorer.scenario import (
    TOGETHER,
    TWO_URLS,
    Ask,
    Plan,
    Post,
    Scenario,
    answered,
    asked,
    command,
    event,
    said,
    service,
)


def _plain() -> Scenario:
    return Scenario(
        "plain relay",
        (service(),),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        bounds={"drop": 1, "refusal": 1, "failure": 1, "haste": 1, "late": 1},
    )


def _request() -> Scenario:
    return Scenario(
        "command and result",
        (service(),),
        (command("m"),),
        {"m": Plan((answered("m.0", "m"), asked("m.1")))},
        bounds={"drop": 1, "refusal": 2, "failure": 1, "late": 1},
        message_ids=False,
    )


def _slow(name: str, first: Plan, **how: Any) -> Scenario:
    """A handler that still runs when its message comes again."""
    bounds = {"drop": 1, "haste": 1}
    return Scenario(f"slow handler, {name}", (service(commands=()),), (event("m"),), {"m": first}, bounds=bounds, **how)


def _slow_publishes() -> Scenario:
    return _slow("publishes at once", Plan((said("m.0", immediate=True),)))


def _slow_by_hand() -> Scenario:
    return _slow("acknowledged by hand", Plan(deferred=True))


def _slow_calls() -> Scenario:
    return _slow("calls", Plan((Ask("m.0"),)), answers={})


def _slow_unknown() -> Scenario:
    return _slow("no message ids", Plan((said("m.0"),)), message_ids=False)


def _slow_workers() -> Scenario:
    return replace(
        _slow("two workers", Plan((said("m.0"),), poison=True)),
        services=(service(prefetch=1, retry=RetryPolicy(2)),) * 2,
    )


def _two() -> Scenario:
    return Scenario(
        "two messages, prefetch 2",
        (service(),),
        (event("m"), event("n")),
        {"m": Plan((said("m.0"),)), "n": Plan((said("n.0"),))},
        bounds={"drop": 1, "failure": 1},
    )


def _three() -> Scenario:
    return Scenario(
        "three messages, prefetch 3",
        (service(prefetch=3),),
        (event("m"), event("n"), event("o")),
        {label: Plan((said(f"{label}.0"),)) for label in "mno"},
        bounds={},
    )


def _window() -> Scenario:
    return Scenario(
        "narrow window",
        (service(window=1),),
        (event("m"),),
        {"m": Plan((said("m.0"), said("m.1")))},
        outside=(said("x"), said("y")),
        bounds={"outside": 1, "drop": 1, "refusal": 1},
    )


def _poison() -> Scenario:
    return Scenario(
        "poison",
        (service(),),
        (event("p"), event("m")),
        {"p": Plan((said("p.0"),), poison=True), "m": Plan((said("m.0"),))},
        bounds={"drop": 1},
    )


def _three_attempts() -> Scenario:
    return Scenario(
        "poison, three attempts",
        (service(retry=RetryPolicy(3)),),
        (event("p"),),
        {"p": Plan((said("p.0", immediate=True), said("p.1")), poison=True)},
    )


def _backoff() -> Scenario:
    return Scenario(
        "poison, delayed retries",
        (service(retry=RetryPolicy.backoff(3)),),
        (event("p"),),
        {"p": Plan((said("p.0"),), poison=True)},
        bounds={"drop": 1, "refusal": 1},
    )


def _manual() -> Scenario:
    return Scenario(
        "manual acknowledgement",
        (service(),),
        (event("m"), event("n")),
        {"m": Plan(late=(said("m.0"),), deferred=True), "n": Plan((said("n.0"),), deferred=True)},
        bounds={"failure": 1},
    )


def _manual_cut() -> Scenario:
    return Scenario(
        "manual acknowledgement, cut",
        (service(),),
        (event("m"),),
        {"m": Plan(late=(said("m.0"),), deferred=True)},
        bounds={"failure": 1, "drop": 1},
    )


def _manual_twice() -> Scenario:
    return replace(_manual_cut(), name="manual acknowledgement, given back twice", bounds={"failure": 2})


def _configured() -> Scenario:
    return Scenario(
        "configuration phase",
        (service(configurations=("Settings",)),),
        (event("m"),),
        {"m": Plan((said("m.0"),)), "s": Plan(configures=True)},
        request=Post(event("r", "SettingsWanted")),
        configuration=Configuration("Settings", "s", "c"),
        bounds={"drop": 1, "failure": 1},
    )


def _misconfigured() -> Scenario:
    """No configuration is of use at first."""
    return Scenario(
        "failed configurations",
        (service(configurations=("Settings",), commands=(), retry=RetryPolicy(1)),),
        plans={"s": Plan(configures=True)},
        configuration=Configuration("Settings", "s", "c"),
        bounds={"failure": 2, "drop": 1},
        fresh=True,
    )


def _outside() -> Scenario:
    return Scenario(
        "publishes from outside",
        (service(events=(), commands=()),),
        outside=(said("x"), asked("y"), said("z")),
        bounds={"outside": 3, "drop": 1},
    )


def _refused() -> Scenario:
    return Scenario(
        "refused publishes",
        (service(events=(), commands=()),),
        outside=(said("x"), said("y")),
        bounds={"outside": 2, "drop": 1, "refusal": 2},
    )


def _full() -> Scenario:
    return Scenario(
        "full buffer",
        (service(buffer=2),),
        (event("m"),),
        {"m": Plan((said("m.0"), said("m.1")))},
        outside=(said("x"), said("y")),
        bounds={"outside": 1, "drop": 1},
    )


def _small() -> Scenario:
    """A handler publishes more than the buffer takes, beside others and in an alarm. No message fails for that."""
    return Scenario(
        "small buffer",
        (service(buffer=1),),
        (event("m"), event("n")),
        {"m": Plan((said("m.0"), said("m.1")))},
        outside=(said("x"),),
        bounds={"outside": 1, "alarm": 1},
    )


def _small_stop() -> Scenario:
    return Scenario(
        "small buffer, stop",
        (service(buffer=1),),
        (event("m"),),
        {"m": Plan((said("m.0", immediate=True), said("m.1")))},
        outside=(said("x"),),
        bounds={"outside": 1, "stop": 1, "failure": 1},
    )


def _untaken() -> Scenario:
    """The broker closes the channel for one of several publishes of a handler, and for one from outside."""
    return Scenario(
        "publishes that the broker does not take",
        (service(),),
        (event("m"),),
        {"m": Plan((said("m.0"), said("m.1")))},
        outside=(said("x"),),
        bounds={"outside": 1, "drop": 1},
        untaken=frozenset(("m.0", "x")),
    )


def _untaken_mixed() -> Scenario:
    """The same while publishes are refused as well, the machine is slow, and the service stops."""
    return Scenario(
        "publishes that the broker does not take, stop",
        (service(window=2, buffer=2),),
        (event("m"),),
        {"m": Plan((said("m.0"), said("m.1", immediate=True)))},
        outside=(said("x"),),
        bounds={"outside": 1, "refusal": 1, "stop": 1},
        untaken=frozenset(("m.0", "x")),
    )


def _untaken_answer() -> Scenario:
    """The broker takes neither the result of a command nor the command of a call."""
    return Scenario(
        "result and call that the broker does not take",
        (service(),),
        (command("m"),),
        {"m": Plan((answered("m.0", "m"),))},
        outside=(Ask("c"),),
        answers={},
        bounds={"outside": 1},
        untaken=frozenset(("m.0", "c#1")),
    )


def _turns(name: str, first: Plan, *inputs: Event, settings: Mapping[str, Any], **bounds: int) -> Scenario:
    """Messages of one conversation, and others, beside the first one."""
    return Scenario(
        f"one after the other, {name}",
        (service(prefetch=3, commands=(), serialize_by="conversation_id", **settings),),
        (event("m"), *inputs),
        {"m": first},
        bounds=bounds,
    )


def _turns_cut() -> Scenario:
    return _turns("cut", Plan((said("m.0"),)), event("n"), settings={"retry": RetryPolicy(1)}, drop=1, haste=1)


def _turns_failing() -> Scenario:
    others = (event("n"), event("o", conversation="d"))
    return _turns("failing", Plan(poison=True), *others, settings={}, failure=1, stop=1)


def _turns_by_hand() -> Scenario:
    others = (event("n"), event("o", conversation="d"))
    return _turns("acknowledged by hand", Plan(deferred=True), *others, settings={}, drop=1)


def _turns_without_space() -> Scenario:
    others = (event("n"), event("o"))
    return replace(
        _turns("small buffer", Plan((said("m.0"),)), *others, settings={"buffer": 1}, outside=1, stop=1),
        outside=(said("x"),),
    )


def _told() -> Scenario:
    """The service publishes its dead letters itself."""
    return Scenario(
        "poison, dead letters of the service",
        (service(retry=RetryPolicy(2), dead_letter_exchange=EXCHANGE),),
        (event("p"), event("m")),
        {"p": Plan((said("p.0"),), poison=True), "m": Plan((said("m.0"),))},
        bounds={"drop": 1, "refusal": 1},
    )


def _told_by_two() -> Scenario:
    return Scenario(
        "poison, dead letters of two workers",
        (service(prefetch=1, retry=RetryPolicy(1), dead_letter_exchange=EXCHANGE),) * 2,
        (event("p"),),
        {"p": Plan(poison=True)},
        bounds={"drop": 1, "kill": 1},
    )


def _untaken_death() -> Scenario:
    """The broker does not take the dead letter of a service, which rejects the message then."""
    return Scenario(
        "dead letter that the broker does not take",
        (service(retry=RetryPolicy(1), dead_letter_exchange=EXCHANGE),),
        (event("m"), event("n")),
        {"m": Plan(poison=True), "n": Plan((said("n.0"),))},
        bounds={"drop": 1},
        untaken=frozenset(("m",)),
    )


def _untaken_retry() -> Scenario:
    """The broker does not take the copy for a delayed retry."""
    return Scenario(
        "delayed retry that the broker does not take",
        (service(retry=RetryPolicy(2, (10.0,))),),
        (event("m"), event("n")),
        {"m": Plan(poison=True), "n": Plan((said("n.0"),))},
        bounds={"drop": 1},
        untaken=frozenset(("m",)),
    )


def _untaken_batch() -> Scenario:
    """The broker does not take what the callback of a batch publishes for all messages of the batch."""
    return Scenario(
        "batch whose publish the broker does not take",
        (service(prefetch=2),),
        (event("m"), event("n")),
        {"m": Plan(batched=True), "n": Plan(batched=True)},
        batch=(2, 5.0, (said("b"),)),
        bounds={"drop": 1},
        untaken=frozenset(("b",)),
    )


def _stop(*first: Post) -> Scenario:
    return Scenario(
        "stop with work in flight",
        (service(),),
        (event("m"), event("n")),
        {"m": Plan(first), "n": Plan((said("n.0", immediate=True),))},
        bounds={"stop": 1, "drop": 1},
    )


def _stop_late() -> Scenario:
    return Scenario(
        "stop against time",
        (service(stop_timeout=10.0),),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        outside=(said("x"),),
        bounds={"stop": 1, "haste": 1, "outside": 1},
    )


def _urls() -> Scenario:
    return Scenario(
        "two URLs",
        (service(TWO_URLS),),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        outside=(said("x"),),
        bounds={"drop": 1, "no_link": 1, "haste": 1},
    )


def _logins() -> Scenario:
    return Scenario(
        "refused logins",
        (service(TWO_URLS),),
        outside=(said("x"),),
        bounds={"drop": 1, "no_link": 1, "bad_login": 2, "outside": 1, "stop": 1},
    )


def _alarm() -> Scenario:
    return Scenario(
        "alarm",
        (service(),),
        (event("m"),),
        {"m": Plan((said("m.0"), said("m.1")))},
        outside=(said("x"),),
        bounds={"alarm": 1, "outside": 1},
    )


def _cancel() -> Scenario:
    return Scenario(
        "cancelled consumer, restart",
        (service(),),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        outside=(said("x"),),
        bounds={"cancel": 1, "restart": 1, "outside": 1, "late": 1},
    )


def _workers() -> Scenario:
    return Scenario(
        "two workers",
        (service(prefetch=1), service(prefetch=1)),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        bounds={"drop": 1, "failure": 1},
    )


def _poisoned_workers() -> Scenario:
    return Scenario(
        "two workers, poison",
        (service(prefetch=1, retry=RetryPolicy(3)),) * 2,
        (event("p"),),
        {"p": Plan((said("p.0"),), poison=True)},
        bounds={"drop": 1},
    )


def _counted() -> Scenario:
    return Scenario(
        "two workers, counted",
        (service(commands=(), prefetch=1, retry=RetryPolicy(3, counted=True)),) * 2,
        (event("p"),),
        {"p": Plan((said("p.0"),), poison=True)},
        bounds={"drop": 1},
    )


def _counted_once() -> Scenario:
    return Scenario(
        "counted, refused",
        (service(commands=(), retry=RetryPolicy(3, counted=True)),),
        (event("p"), event("m")),
        {"p": Plan(poison=True), "m": Plan((said("m.0"),))},
        bounds={"refusal": 1, "failure": 1},
    )


# -- inboxes ----------------------------------------------------------------------------------------------------------


def _inbox() -> Scenario:
    """A relay with an inbox, whose worker dies at any time."""
    return Scenario(
        "inbox",
        (service(),),
        (event("m"),),
        {"m": Plan((said("m.0"),), inbox=TOGETHER)},
        bounds={"kill": 1, "failure": 1, "drop": 1},
    )


def _inbox_command() -> Scenario:
    return Scenario(
        "inbox, command",
        (service(),),
        (command("m"),),
        {"m": Plan((said("m.0", immediate=True), answered("m.1", "m"), said("m.2")), inbox=TOGETHER)},
        bounds={"kill": 1, "refusal": 1},
    )


def _inbox_workers() -> Scenario:
    """A link is lost while a handler runs: another worker gets the message meanwhile."""
    return Scenario(
        "inbox, two workers",
        (service(commands=(), prefetch=1),) * 2,
        (event("m"),),
        {"m": Plan((said("m.0"),), inbox=TOGETHER)},
        bounds={"drop": 1},
    )


def _inbox_chain() -> Scenario:
    """The first service publishes twice what the second one has to handle once."""
    return Scenario(
        "inbox, two services",
        (service(commands=(), prefetch=1), service(name="next", events=("Mid",), commands=(), prefetch=1)),
        (event("m"),),
        {"m": Plan((Post(event("m.0", "Mid")),), inbox=TOGETHER), "m.0": Plan((said("m.0.0"),), inbox=TOGETHER)},
        bounds={"kill": 1},
    )


def _inbox_relay() -> Scenario:
    """The first service has no inbox, and nothing to do but to publish."""
    chain = _inbox_chain()
    return replace(chain, name="relay and inbox", plans={**chain.plans, "m": Plan((Post(event("m.0", "Mid")),))})


# -- calls ------------------------------------------------------------------------------------------------------------


def _call() -> Scenario:
    return Scenario(
        "call in a handler",
        (service(commands=()),),
        (event("m"),),
        {"m": Plan((Ask("m.0"), said("m.1")))},
        bounds={"drop": 1},
        answers={},
    )


def _call_failed() -> Scenario:
    return Scenario(
        "call in a handler that fails",
        (service(commands=()),),
        (event("m"),),
        {"m": Plan((Ask("m.0"),))},
        bounds={"failure": 1, "refusal": 1, "forget": 1},
        answers={"m.0": "error"},
    )


def _calling(name: str, *outside: Ask | Post, **how: Any) -> Scenario:
    """Calls outside any handler."""
    settings = how.pop("settings", {})
    return Scenario(name, (service(events=(), commands=(), **settings),), outside=outside, **{"answers": {}, **how})


def _calls_early() -> Scenario:
    bounds = {"outside": 2, "no_link": 1}
    outside = (Ask("x"), said("y"), Ask("z"))
    return _calling("calls before the first link", *outside, bounds=bounds, answers={"z": "error"}, fresh=True)


def _calls_lost() -> Scenario:
    return _calling(
        "calls and lost links", Ask("x"), said("y"), bounds={"outside": 2, "drop": 1}, answers={"x": "twice"}
    )


def _calls_mixed() -> Scenario:
    bounds = {"outside": 2, "refusal": 1, "forget": 1}
    return _calling("calls answered in any order", Ask("x"), Ask("y"), bounds=bounds, answers={"y": "twice"})


def _calls_gone() -> Scenario:
    return _calling(
        "calls, the queue of results gone", Ask("x"), bounds={"outside": 1, "cancel": 1, "restart": 1, "alarm": 1}
    )


def _calls_closed() -> Scenario:
    return _calling("calls, channel closed", Ask("x"), bounds={"outside": 1, "channel": 1, "late": 1})


def _calls_late() -> Scenario:
    outside = (Ask("x", timeout=5.0), Ask("y", timeout=5.0))
    bounds = {"outside": 2, "haste": 1, "forget": 1}
    return _calling("calls that time out", *outside, bounds=bounds, answers={"y": "none"})


def _calls_back() -> Scenario:
    outside = (Ask("x", timeout=5.0), Ask("z", "nobody.Do"))
    return _calling("calls that come back", *outside, bounds={"outside": 2, "haste": 1})


def _calls_full() -> Scenario:
    outside = (Ask("x"), Ask("y"), said("z"), Ask("v"))
    return _calling("calls, full buffer", *outside, bounds={"outside": 4}, settings={"buffer": 2, "window": 1})


def _call_stop() -> Scenario:
    return Scenario(
        "stop with calls that wait",
        (service(commands=()),),
        (event("m"),),
        {"m": Plan((Ask("m.0"),))},
        outside=(Ask("x"),),
        bounds={"stop": 1, "outside": 1},
        answers={},
    )


def _call_stop_late() -> Scenario:
    return Scenario(
        "stop against time, with a call",
        (service(commands=(), stop_timeout=10.0),),
        (event("m"),),
        {"m": Plan((Ask("m.0"),))},
        bounds={"stop": 1, "haste": 1},
        answers={},
    )


def _calls_stop_lost() -> Scenario:
    return _calling("stop with a call, cut", Ask("x"), bounds={"outside": 1, "stop": 1, "drop": 1})


def _calling_workers() -> Scenario:
    return Scenario(
        "two workers that call",
        (service(commands=(), prefetch=1),) * 2,
        (event("m"), event("n")),
        {label: Plan((Ask(f"{label}.0"),)) for label in "mn"},
        answers={},
    )


def _calls_unconfigured() -> Scenario:
    return Scenario(
        "call before the configuration",
        (service(configurations=("Settings",), commands=()),),
        plans={"s": Plan(configures=True)},
        outside=(Ask("x"),),
        configuration=Configuration("Settings", "s", "c"),
        bounds={"outside": 1, "drop": 1},
        answers={},
    )


# -- batches ----------------------------------------------------------------------------------------------------------


def _batch() -> Scenario:
    return Scenario(
        "batch",
        (service(commands=(), prefetch=3),),
        (event("m"), event("n"), event("o")),
        {label: Plan(batched=True) for label in "mno"},
        bounds={"failure": 1},
        batch=(2, 5.0, (said("b"),)),
    )


def _batch_cut() -> Scenario:
    return Scenario(
        "batch, cut",
        (service(commands=()),),
        (event("m"), event("n")),
        {label: Plan(batched=True) for label in "mn"},
        bounds={"drop": 1, "haste": 1},
        batch=(2, 5.0, (said("b"),)),
    )


def _batch_mixed() -> Scenario:
    return Scenario(
        "batch, publishes of its own",
        (service(commands=()),),
        (event("m"), event("n")),
        {"m": Plan((said("m.0"),), batched=True), "n": Plan(batched=True)},
        bounds={"refusal": 1},
        batch=(2, 5.0, (said("b"), said("d"))),
    )


def _batch_at_once() -> Scenario:
    return Scenario(
        "batch, publishes at once",
        (service(commands=()),),
        (event("m"), event("n")),
        {label: Plan(batched=True) for label in "mn"},
        bounds={"failure": 1, "refusal": 1},
        batch=(2, 5.0, (said("b", immediate=True),)),
    )


def _batch_stop() -> Scenario:
    return Scenario(
        "batch, stop",
        (service(commands=()),),
        (event("m"), event("n")),
        {label: Plan(batched=True) for label in "mn"},
        bounds={"stop": 1, "failure": 1},
        batch=(3, 5.0, (said("b"),)),
    )


def _silent() -> Scenario:
    """A link falls silent without an end, while a message is handled or nothing happens."""
    return Scenario(
        "silent link",
        (service(commands=(), prefetch=1, probe_interval=4.0, probe_timeout=4.0),),
        (event("m"),),
        {"m": Plan((said("m.0"),))},
        bounds={"silence": 1, "question": 2, "late": 1},
    )


def _silent_outside() -> Scenario:
    return replace(
        _silent(), name="silent link, publishes from outside", outside=(said("x"),), bounds={"silence": 1, "outside": 1}
    )


def _silent_stop() -> Scenario:
    return replace(_silent(), name="silent link, stop", bounds={"silence": 1, "stop": 1, "question": 1})


def _silent_twice() -> Scenario:
    """The broker does not answer on the next link either: the time for its answer is longer then."""
    return replace(_silent(), name="silent links", inputs=(), bounds={"silence": 2})


SCENARIOS: Final = tuple(
    make()
    for make in (
        _plain,
        _request,
        _slow_publishes,
        _slow_by_hand,
        _slow_calls,
        _slow_unknown,
        _slow_workers,
        _two,
        _three,
        _window,
        _poison,
        _three_attempts,
        _backoff,
        _manual,
        _manual_cut,
        _manual_twice,
        _configured,
        _misconfigured,
        _outside,
        _refused,
        _full,
        _small,
        _small_stop,
        _stop,
        _stop_late,
        _urls,
        _logins,
        _alarm,
        _cancel,
        _workers,
        _poisoned_workers,
        _counted,
        _counted_once,
        _inbox,
        _inbox_command,
        _inbox_workers,
        _inbox_chain,
        _inbox_relay,
        _call,
        _call_failed,
        _calls_early,
        _calls_lost,
        _calls_mixed,
        _calls_gone,
        _calls_closed,
        _calls_late,
        _calls_back,
        _calls_full,
        _call_stop,
        _call_stop_late,
        _calls_stop_lost,
        _calling_workers,
        _calls_unconfigured,
        _batch,
        _batch_cut,
        _batch_mixed,
        _batch_at_once,
        _batch_stop,
        _untaken,
        _untaken_mixed,
        _untaken_answer,
        _untaken_retry,
        _turns_cut,
        _turns_failing,
        _turns_by_hand,
        _turns_without_space,
        _told,
        _told_by_two,
        _untaken_death,
        _untaken_batch,
        _silent,
        _silent_outside,
        _silent_stop,
        _silent_twice,
    )
)


def _deeper(what: str | Scenario, how: str = "deeper", **more: int) -> Scenario:
    """A scenario, or the default one of this name, with larger bounds."""
    scenario = what if isinstance(what, Scenario) else next(each for each in SCENARIOS if each.name == what)
    bounds = {**scenario.bounds}
    for kind, count in more.items():
        bounds[kind] = bounds.get(kind, 0) + count
    return replace(scenario, name=f"{scenario.name}, {how}", bounds=bounds)


#: The handlers of both messages publish here.
_STOP_WIDE: Final = _stop(said("m.0"))

#: The default scenarios, with more faults each.
DEEP: Final = (
    # The first five are explored to their end, which takes too long for each run; the others are broken off.
    _deeper("narrow window", "wider", outside=1),
    _deeper("full buffer", "wider", outside=1),
    _deeper(_STOP_WIDE, "wider"),
    _deeper("stop against time", "wider", refusal=1),
    _deeper("calls before the first link", "wider", outside=1),
    _deeper("plain relay", drop=1, refusal=1),
    _deeper("command and result", drop=1, haste=1),
    _deeper("two messages, prefetch 2", drop=1, refusal=1),
    _deeper("three messages, prefetch 3", failure=1, drop=1),
    _deeper("narrow window", outside=1, drop=1, refusal=1),
    _deeper("poison", drop=1, haste=1),
    _deeper("poison, three attempts", drop=2, refusal=1),
    _deeper("poison, delayed retries", drop=1, haste=1),
    _deeper("manual acknowledgement", drop=1),
    _deeper("manual acknowledgement, cut", drop=1),
    _deeper("configuration phase", drop=1, haste=1, late=1, refusal=1),
    _deeper("publishes from outside", drop=1, refusal=1, haste=1),
    _deeper("full buffer", outside=1, refusal=1),
    _deeper(_STOP_WIDE, failure=1, refusal=1),
    _deeper("stop against time", haste=1, drop=1, refusal=1),
    _deeper("two URLs", drop=1, outside=1),
    _deeper("refused logins", drop=1, haste=1),
    _deeper("alarm", drop=1, haste=1),
    _deeper("cancelled consumer, restart", restart=1, drop=1),
    _deeper("two workers", drop=1, haste=1),
    _deeper("two workers, counted", drop=1, haste=1),
    _deeper("slow handler, publishes at once", failure=1, refusal=1),
    _deeper("slow handler, acknowledged by hand", failure=1, drop=1, haste=1),
    _deeper("call in a handler", failure=1, forget=1, late=1),
    _deeper("calls before the first link", outside=1, drop=1),
    _deeper("calls and lost links", drop=1, refusal=1),
    _deeper("calls answered in any order", drop=1),
    _deeper("calls, the queue of results gone", channel=1, drop=1),
    _deeper("calls that time out", drop=1, haste=1),
    _deeper("calls, full buffer", drop=1),
    _deeper("stop with calls that wait", drop=1),
    _deeper("batch", drop=1, haste=1),
    _deeper("batch, publishes of its own", failure=1, drop=1, haste=1),
)
