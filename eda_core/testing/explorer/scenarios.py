"""The scenarios that are explored by default, and larger ones for a search over night.

Each is there for one part of the architecture; together they go through every cell of the link's table that a broker
and a network can bring about, and through every way in which a message or a publish can come to its end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from eda_core.machine.policy import RetryPolicy
from eda_core.messages.values import Configuration
from eda_core.testing.explorer.builders import TWO_URLS, answered, asked, command, event, said, service
from eda_core.testing.explorer.model import Plan, Post, Scenario
from eda_core.testing.explorer.scenarios_of_calls import CALLS_AND_BATCHES


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


def _patient() -> Scenario:
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
    """A handler publishes more than the buffer takes, beside others and during an alarm: no message fails for that."""
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


SCENARIOS: Final = (
    tuple(
        make()
        for make in (
            _plain,
            _request,
            _two,
            _three,
            _window,
            _poison,
            _patient,
            _backoff,
            _manual,
            _manual_cut,
            _manual_twice,
            _configured,
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
        )
    )
    + CALLS_AND_BATCHES
)


def _deeper(what: str | Scenario, how: str = "deeper", **more: int) -> Scenario:
    """The scenario, or the one that has this name by default, with larger bounds."""
    scenario = what if isinstance(what, Scenario) else next(each for each in SCENARIOS if each.name == what)
    bounds = {**scenario.bounds}
    for kind, count in more.items():
        bounds[kind] = bounds.get(kind, 0) + count
    return replace(scenario, name=f"{scenario.name}, {how}", bounds=bounds)


#: Here the handlers of both messages publish.
_STOP_WIDE: Final = _stop(said("m.0"))

#: With more faults each.
DEEP: Final = (
    # To their end, what is too wide for each run; those below are broken off.
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
