"""The scenarios with calls, in which a worker and another service wait for each other, and those with batches."""

from __future__ import annotations

from typing import Any, Final

from eda_core.messages.values import Configuration
from eda_core.testing.explorer.builders import event, said, service
from eda_core.testing.explorer.model import Ask, Plan, Post, Scenario


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


CALLS_AND_BATCHES: Final = tuple(
    make()
    for make in (
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
    )
)
