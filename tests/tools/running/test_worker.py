"""How a worker makes its service."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eda_core.services import ServiceApi
from eda_tools.cli.status import FAILED, USAGE, ToolError
from eda_tools.running.worker import make_service

URLS = ["amqp://one/", "amqp://two/"]
MODULE = """
import eda_aio, eda_pika, eda_kombu
from functools import partial

class Aio(eda_aio.Service):
    def __init__(self, urls, more=()):
        super().__init__(urls, [], [], "aio")

class Pika(eda_pika.Service):
    def __init__(self, urls):
        super().__init__(urls, [], [], "pika")

class Wide(eda_aio.Service): ...

class Wrong(Aio):
    PREFETCH_COUNT = 0

class Failing(Aio):
    def __init__(self, urls):
        {}["missing"]

class Plain: ...

def make(urls):
    return Wide(urls, [], [], "made")

def make_without():
    return Wide("amqp://three/", [], [], "without")

async def coroutine(urls): ...

def nothing(urls): ...

part = partial(make)
made = make(["amqp://three/"])
Endpoint = eda_kombu.Endpoint
NUMBER = 7
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made_here.py").write_text(MODULE)
    (tmp_path / "run_at_once.py").write_text(f"{MODULE}\nPika(['amqp://three/']).run()\n")
    for name in ("made_here", "run_at_once"):
        monkeypatch.setitem(sys.modules, name, sys)
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "service", "urls"),
    [
        ("Aio", "aio", URLS),
        ("Pika", "pika", URLS),
        ("make", "made", URLS),
        ("part", "made", URLS),
        ("make_without", "without", ["amqp://three/"]),
        ("made", "made", ["amqp://three/"]),
    ],
)
def test_a_service_is_made_by_a_class_or_a_function_or_there_is_one(name: str, service: str, urls: list[str]) -> None:
    made = make_service(f"made_here:{name}", URLS)
    assert (made.logical_service, made._eda_config.urls) == (service, tuple(urls))


@pytest.mark.parametrize("name", ["made", "make_without"])
def test_no_url_is_needed_by_what_has_its_own(name: str) -> None:
    assert isinstance(make_service(f"made_here:{name}", ()), ServiceApi)


@pytest.mark.parametrize(
    ("name", "status", "told"),
    [
        ("Endpoint", USAGE, "made_here:Endpoint is no service; name a class that derives from the Service of eda_aio"),
        ("Plain", USAGE, "made_here:Plain is no service; name a class"),
        ("NUMBER", USAGE, "made_here:NUMBER is no service; name a class"),
        ("nothing", USAGE, "made_here:nothing returns NoneType, which is no service; name a class"),
        ("coroutine", USAGE, "made_here:coroutine is a coroutine function; make it a plain function"),
        (
            "Wide",
            USAGE,
            "made_here:Wide cannot be made from the URLs alone: missing a required argument: 'event_routing_keys'; "
            "give it a constructor that takes only them, or name a function: def make(urls): return Wide(urls, …)",
        ),
        ("Wrong", USAGE, "made_here:Wrong: "),
        ("Failing", FAILED, "made_here:Failing cannot be made: KeyError: 'missing'"),
        ("Missing", USAGE, "made_here has no Missing; it defines Aio, Pika"),
    ],
)
def test_what_is_no_service_is_told(name: str, status: int, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        make_service(f"made_here:{name}", URLS)
    assert str(caught.value).startswith(told)
    assert caught.value.status == status


def test_who_needs_a_url_says_how_to_give_one() -> None:
    with pytest.raises(ToolError, match=r"^no broker: give --url, or set the environment variable EDA_AMQP_URL, "):
        make_service("made_here:Aio", ())


def test_a_module_that_runs_its_service_is_told_to_leave_that() -> None:
    with pytest.raises(ToolError) as caught:
        make_service("run_at_once:Aio", URLS)
    assert "a service is run while run_at_once is imported" in str(caught.value)
    assert 'put that under if __name__ == "__main__":' in str(caught.value)
    assert caught.value.status == FAILED
