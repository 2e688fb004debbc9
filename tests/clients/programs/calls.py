"""Calls the tasks of Celery, and checks what comes back. When it says "cut", the connections are to be cut."""

from __future__ import annotations

import sys

import celery

from tests.clients.programs.tasks import add, app, divide, late, succeed_later

#: Seconds. They are many, because they only end a program that waits in vain.
LIMIT = 120.0


def call() -> None:
    """A result, an error, a retry, a countdown, a group, a chain, and the remote control."""
    assert add.delay(1, 2).get(LIMIT) == 3
    failed = divide.delay(1, 0)
    try:
        failed.get(LIMIT)
    except ZeroDivisionError:
        assert failed.state == "FAILURE"
    else:
        raise AssertionError("the error of the task is lost")
    assert succeed_later.delay(3).get(LIMIT) == 3
    assert add.apply_async((1, 1), countdown=0.2).get(LIMIT) == 2
    assert celery.group(add.s(n, n) for n in range(20))().get(LIMIT) == [2 * n for n in range(20)]
    assert celery.chain(add.s(1, 2), add.s(3)).apply_async().get(LIMIT) == 6
    assert late.apply_async(("late",), priority=3).get(LIMIT) == "etal"
    (answer,) = app.control.ping(timeout=LIMIT, limit=1)
    assert list(answer.values()) == [{"ok": "pong"}]


def main() -> None:
    """Call the tasks, also after the connections were cut."""
    call()
    print("cut", flush=True)
    sys.stdin.readline()
    call()
    print("done", flush=True)


if __name__ == "__main__":
    main()
