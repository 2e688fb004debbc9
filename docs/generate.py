"""Writes the pages of the documentation that follow from the code. After changing it: ``python docs/generate.py``."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout need not be installed
sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import eda_core.testing
from eda_core.amqp import states
from eda_core.machine import deliveries, events, link
from eda_core.machine.metrics import METERS, Metrics
from eda_core.testing.broker.versions import VERSIONS, Version
from eda_prometheus.collector import families
from eda_tools.cli.catalogue import PROGRAMS, TOOLS

DOCS = Path(__file__).parent

LINK_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/link.py. Change that, then run it.

==================
The life of a link
==================

A service has one link to its broker: the connections and channels with which it consumes, publishes and logs. One
table says how the states of that link follow each other: ``TABLE`` in ``eda_core/machine/link.py``. For each thing that
happens the machine looks up the next state, goes to it, and does what that state is for. Nothing else changes the
state.

A report about an earlier link is counted and ignored before it gets to the table.
"""


ADDING_HEAD = """\
While the link is open a queue may be added to it: the one for the results of calls, which the first call asks for.
``ADDING``, a second table, says how that goes. The state of the link does not change.

"""

DELIVERIES_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/deliveries.py. Change that, then run it.

======================
The life of a delivery
======================

A message that the broker delivers lives until it is settled (acknowledged, rejected or given back to its queue) or
until its link is lost. One table says how the stages of that life follow each other: ``TABLE`` in
``eda_core/machine/deliveries.py``. For each thing that happens the machine looks up the next stage, goes to it, and
does what that stage is for. Nothing else settles a delivery.
"""

CLIENT_HEAD = """\
.. Written by docs/generate.py from eda_core/amqp/states.py. Change that, then run it.

========================
The life of a connection
========================

``eda_core.amqp.Client`` is the client's side of one AMQP 0-9-1 connection, without I/O. One table says how its states
follow each other: ``TABLE`` in ``eda_core/amqp/states.py``. For each thing that the broker sends, or the user of the
client asks for, the client looks up the next state, goes to it, and does what that state is for. Nothing else changes
the state, but for two things: if the socket is closed, or the broker is silent for too long, each state is followed by
``closed``.

The channels of an open connection are opened and closed without a change of this state.
"""

VERSIONS_HEAD = """\
.. Written by docs/generate.py from eda_core/testing/broker/versions.py. Change that, then run it.

==============================
The releases that are modelled
==============================

``Broker(version="4.3")`` of the `broker model <broker-model.rst>`_ behaves as RabbitMQ 4.3.6, which is the default, and
``Broker(version="3.10")`` as RabbitMQ 3.10.8. In everything that is not in this table the model is the same for both.
``tests/core/testing/broker/test_versions.py`` shows each row, and ``tests/differential`` compares each release with the
RabbitMQ that it models.

"""

EVENTS_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/events.py. Change that, then run it.

===================
What a service logs
===================

A service writes to Python's ``logging``, to the logger ``eda_aio``, ``eda_pika`` or ``eda_kombu``. Each record has the
attribute ``eda_event``: a name that stays the same when the texts change. To see the life of a service, and the names:

.. test: file logged.py

.. code-block:: python

    import logging

    names = logging.Formatter("%(asctime)s %(levelname)s %(eda_event)s %(message)s", defaults={"eda_event": "-"})
    handler = logging.StreamHandler()
    handler.setFormatter(names)
    logging.basicConfig(level=logging.INFO, handlers=[handler])

.. not run: the times and names are made up; tests/core/machine/test_machine_life.py has these lines

.. code-block:: text

    12:00:01 INFO started started: shop@host:7, eda-core 0.1.0 on aiormq 7.2.4; RabbitMQ 4.3.6 at amqp://mq/; …
    12:00:01 INFO ready ready: receives events
    12:10:07 WARNING link-lost no link to amqp://mq/: ConnectionError: …; trying amqp://mq/ in 0.4 s
    12:10:11 INFO reconnected reconnected after 4.1 s: RabbitMQ 4.3.6 at amqp://mq/
    12:30:00 INFO stopped stopped: handled 1200, failed 3, published 2400

The levels below are those of syslog, as on the bus. In ``logging`` EMERGENCY and ALERT are ``CRITICAL``, and NOTICE is
``INFO``. A failure of a handler is one line. The traceback follows it at the first attempt only. On the bus, each
record of a failure (ALERT) has it in ``full_message``; the record "giving up" (EMERGENCY) has its last line there.

"""

Table = dict[str, dict[str, str]]


def meanings(module: ModuleType) -> dict[str, str]:
    """What the comment behind each state and input of a module says."""
    found = re.findall(r'^[A-Z_]+: Final = "([A-Za-z., ]+)"  # (.+)$', inspect.getsource(module), re.MULTILINE)
    meant: dict[str, str] = {}
    before = ""
    for name, text in found:  # a comment that begins with … goes on with the last one that does not
        before = before if text.startswith("…") else text
        meant[name] = f"{before} {text[2:]}" if text.startswith("…") else text
    return meant


def _title(text: str) -> str:
    return f"\n{text}\n{'=' * len(text)}\n\n"


def _list(module: ModuleType, names: tuple[str, ...]) -> str:
    known = meanings(module)
    return "".join(f"``{name}``\n    {known[name]}\n" for name in names)


def _grid(rows: list[list[str]]) -> str:
    """A simple table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def _cells(table: Table, inputs: tuple[str, ...], states: tuple[str, ...]) -> str:
    rows = [["from", *inputs]]  # a simple table needs text in the first column of its head
    rows += [[state, *(_cell(table[state][signal]) for signal in inputs)] for state in states]
    return _grid(rows)


def diagram(
    table: Table,
    starts: tuple[str, ...],
    ends: tuple[str, ...],
    shown: Callable[[str, str, str], bool] = lambda state, signal, after: True,
) -> str:
    """The transitions as a Mermaid state diagram: what is ignored or refused changes nothing and is left out.

    Args:
        shown: whether a transition belongs to this diagram: from a state, by an input, to a state.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in table.items():
        for signal, after in row.items():
            if after in table and shown(state, signal, after):
                arrows.setdefault((state, after), []).append(signal)
    used = {state for arrow in arrows for state in arrow}
    names = {state: re.sub(r"[^a-z]+", "_", state) for state in table if state in used}
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{state}" as {name}' for state, name in names.items() if name != state]
    lines += [f"    [*] --> {names[start]}" for start in starts if start in used]
    lines += [f"    {names[state]} --> {names[after]}: {', '.join(which)}" for (state, after), which in arrows.items()]
    return "\n".join([*lines, *(f"    {names[end]} --> [*]" for end in ends if end in used)]) + "\n"


def _picture(text: str) -> str:
    return ".. mermaid::\n\n" + "".join(f"    {line}\n" for line in text.splitlines())


def link_page() -> str:
    """The text of ``link.rst``."""
    return (
        LINK_HEAD
        + _title("States")
        + _list(link, link.STATES)
        + _title("Inputs")
        + _list(link, link.INPUTS)
        + _title("The table")
        + "A cell is the next state. A dot means that nothing changes. A cross means a wrong call by the driver: it\n"
        + "raises ``StateError``, and nothing changes.\n\n"
        + _cells(link.TABLE, link.INPUTS, link.STATES)
        + _title("The same as a diagram")
        + _picture(diagram(link.TABLE, (link.IDLE,), (link.STOPPED,)))
        + _title("Adding a queue")
        + ADDING_HEAD
        + _list(link, link.ADDING_STATES)
        + "\n"
        + _list(link, link.ADDING_INPUTS)
        + "\n"
        + _cells(link.ADDING, link.ADDING_INPUTS, link.ADDING_STATES)
    )


#: The stages of a delivery whose handler has nothing to do with its acknowledgement.
_PLAIN = {
    *(deliveries.RUNNING, deliveries.PAUSED, deliveries.FAILING, deliveries.ACKING, deliveries.REJECTING),
    *(deliveries.ACKED, deliveries.REJECTED, deliveries.REQUEUED),
}
_AFTER_LOSS = {stage for stage in deliveries.STAGES if stage.startswith(deliveries.ORPHANED)} | {deliveries.ABANDONED}


def _is_loss(stage: str, signal: str, after: str) -> bool:
    return signal == deliveries.LINK_LOST or stage in _AFTER_LOSS


def _is_plain(stage: str, signal: str, after: str) -> bool:
    return {stage, after} <= _PLAIN and not _is_loss(stage, signal, after)


def _is_by_hand(stage: str, signal: str, after: str) -> bool:
    return not _is_plain(stage, signal, after) and not _is_loss(stage, signal, after)


def client_page() -> str:
    """The text of ``amqp-client.rst``."""
    return (
        CLIENT_HEAD
        + _title("States")
        + _list(states, states.STATES)
        + _title("Inputs")
        + _list(states, states.INPUTS)
        + _title("The table")
        + "A cell is the next state. A dot means that nothing happens. A cross means that the broker has broken the\n"
        + "protocol: the client sends ``Connection.Close`` with the code 503, tells its user, and goes to the state\n"
        + "in the last column.\n\n"
        + _cells(states.TABLE, states.INPUTS, states.STATES)
        + _title("The same as a diagram")
        + _picture(diagram(states.TABLE, (states.GREETING,), (states.CLOSED,)))
    )


def deliveries_page() -> str:
    """The text of ``deliveries.rst``."""
    table, stages = deliveries.TABLE, deliveries.STAGES
    ends = tuple(stage for stage in stages if not {*table[stage].values()} & {*stages})
    pictures = (
        (
            "A handler that leaves the acknowledgement to the toolkit",
            (deliveries.RUNNING, deliveries.PAUSED),
            _is_plain,
        ),
        ("A handler that acknowledges by hand, or collects messages in a batch", (deliveries.RUNNING,), _is_by_hand),
        ("When the link is lost", (), _is_loss),
    )
    return (
        DELIVERIES_HEAD
        + _title("Stages")
        + _list(deliveries, stages)
        + _title("Inputs")
        + _list(deliveries, deliveries.INPUTS)
        + _title("The table")
        + "A cell is the next stage. A dot means that nothing changes: the report is about something that is over. A\n"
        + "cross means a wrong call, which raises ``LocalError``, or an input that cannot come.\n\n"
        + _cells(table, deliveries.INPUTS, stages)
        + _title("The same as diagrams")
        + "\n".join(f"{text}:\n\n{_picture(diagram(table, starts, ends, shown))}" for text, starts, shown in pictures)
    )


def _cell(cell: str) -> str:
    signs = {link.IGNORE: "·", states.DISCARD: "·", link.ILLEGAL: "✗", states.FAULT: "✗"}
    return signs.get(cell, cell)


# The reference

#: The packages whose names are public. The reference has a page for each.
PUBLIC = (
    "eda_core",
    "eda_core.messages",
    "eda_core.amqp",
    "eda_core.drivers",
    "eda_core.services",
    "eda_core.journal",
    "eda_core.testing",
    *(f"eda_core.testing.{part.name}" for part in pkgutil.iter_modules(eda_core.testing.__path__)),
    "eda_aio",
    "eda_kombu",
    "eda_logging",
    "eda_otel",
    "eda_pika",
    "eda_probe",
    "eda_prometheus",
)

REFERENCE_HEAD = """\
.. Written by docs/generate.py from the names that the packages export. Change those, then run it.

"""


def exported(package: str) -> list[str]:
    """The public names of a package: its ``__all__``. A single module without it exports its functions and classes."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__") or hasattr(module, "__path__"):
        return list(getattr(module, "__all__", ()))
    return [name for name, value in vars(module).items() if name[0] != "_" and _defined_in(package, value)]


def _defined_in(module: str, value: object) -> bool:
    return (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__ == module


@cache
def _bound(module: str) -> dict[str, tuple[str, str]]:
    """For each name at the top of a module, the module that it is imported from or defined in, and its name there."""
    found: dict[str, tuple[str, str]] = {}
    for node in _statements(ast.parse(_source(module)).body):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = (module, node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: (module, target.id) for target in targets if isinstance(target, ast.Name)}
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that a module runs when it is imported, those in conditions and in try blocks too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _statements([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def _source(module: str) -> str:
    return Path(str(importlib.import_module(module).__file__)).read_text("utf-8")


def home(package: str, name: str) -> tuple[str, str]:
    """The module that defines what ``package`` exports as ``name``, and its name there: "" for a whole module."""
    module, inner = _bound(package)[name]
    if isinstance(getattr(importlib.import_module(package), name), ModuleType):
        return f"{module}.{inner}", ""
    # It may have come through other modules.
    return home(module, inner) if module != package and module.startswith("eda_") else (module, inner)


def documented_in(package: str, name: str) -> str:
    """The one page with the description: that of the innermost package that holds the definition and exports it."""
    origin = home(package, name)
    pages = [each for each in PUBLIC if any(home(each, other) == origin for other in exported(each))]
    holding = [each for each in pages if f"{origin[0]}.".startswith(f"{each}.")]
    return max(holding, key=len) if holding else pages[0]


def described_as(package: str, name: str) -> str:
    """The name under which that page describes it, which may be another one."""
    page, origin = documented_in(package, name), home(package, name)
    return f"{page}.{next(other for other in exported(page) if home(page, other) == origin)}"


def _entry(package: str, name: str) -> str:
    """The directive for one name."""
    value = getattr(importlib.import_module(package), name)
    if isinstance(value, ModuleType):
        return f".. automodule:: {value.__name__}\n   :members:\n   :undoc-members:\n\n"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        # What a class inherits is listed with it, but for what Python's own classes have.
        members = "   :members:\n   :inherited-members: BaseException, Exception, OSError\n"
    else:
        kind, members = "function" if inspect.isroutine(value) else "data", ""
    return f".. auto{kind}:: {package}.{name}\n{members}\n"


def versions_page() -> str:
    """The text of ``broker-versions.rst``."""
    rows = [["What", *(f"RabbitMQ {name}" for name in VERSIONS)]]
    for name, text in _attributes(Version).items():
        values = (getattr(version, name) for version in VERSIONS.values())
        rows.append([f"{text[0].upper()}{text[1:]}", *map(_plain, values)])
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 64 18 18", ""]
    for first, *others in rows:
        lines += [f"   * - {first}", *(f"     - {text}" for text in others)]
    return VERSIONS_HEAD + "\n".join(lines) + "\n"


def _attributes(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each attribute, the name of a version left out."""
    found = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", inspect.getdoc(kind) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found if name != "name"}


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unlimited" if value is None else str(value)


def _sections(package: str) -> Iterator[str]:
    """The names of a package, by the modules that define them."""
    names = exported(package)
    elsewhere = [name for name in names if documented_in(package, name) != package]
    here: dict[str, list[str]] = {}
    for name in _bound(package):
        if name in names and name not in elsewhere:
            here.setdefault(home(package, name)[0], []).append(name)
    for module, group in here.items():
        if module != package:
            yield _title(module.rpartition(".")[2].strip("_").replace("_", " ").capitalize()).lstrip("\n")
            if home(package, group[0])[1]:  # else the module itself is exported, and its entry has its text
                yield f".. automodule:: {module}\n   :no-index:\n\n"
        yield from (_entry(package, name) for name in group)
    if elsewhere:
        yield _title("Described elsewhere").lstrip("\n")
        yield from (f"- :py:obj:`{name} <{described_as(package, name)}>`\n" for name in elsewhere)


def _head(title: str) -> str:
    rule = "=" * len(title)
    return f"{REFERENCE_HEAD}{rule}\n{title}\n{rule}\n\n"


def reference_page(package: str) -> str:
    """The page of one package."""
    text = f"{_head(package)}.. automodule:: {package}\n\n{''.join(_sections(package))}"
    return text.rstrip("\n") + "\n"


def reference_index() -> str:
    """The list of the pages."""
    pages = "".join(f"   {package}\n" for package in PUBLIC)
    text = (
        "Every public name, by the package that exports it. A name that is not here is private, and may change at any\n"
        "time.\n\n.. toctree::\n   :maxdepth: 1\n\n"
    )
    return f"{_head('The Python API')}{text}{pages}"


def events_page() -> str:
    """The text of ``log-events.rst``."""
    lines = [".. list-table::", "   :header-rows: 1", "", "   * - event", "     - level", "     - what it says"]
    source = inspect.getsource(events)
    for name, level, text in re.findall(r'^[A-Z_]+: Final = "([a-z-]+)"  # ([A-Z or]+): (.+)$', source, re.MULTILINE):
        lines += [f"   * - ``{name}``", f"     - {level}", f"     - {text[0].upper()}{text[1:]}."]
    return EVENTS_HEAD + "\n".join(lines) + "\n"


SETTINGS_HEAD = """\
.. Written by docs/generate.py from the attributes of the classes. Change those, then run it.

========
Settings
========

A service is set by attributes of its class. They are checked when it starts.

.. test: file patient.py

.. code-block:: python

   from eda_aio import Service
   from eda_core import RetryPolicy


   class Patient(Service):
       PREFETCH_COUNT = 50
       RETRY_POLICY = RetryPolicy.backoff(attempts=8)

What is different from one installation to the next, such as the URL of the broker, is given to the constructor, and
comes from environment variables.

"""

#: The classes with settings: their titles, modules and names.
_WITH_SETTINGS = (
    ("Services", "eda_core.services.api", "ServiceApi"),
    ("Services of eda_aio", "eda_aio.service", "Service"),
    ("Services of eda_pika", "eda_pika.service", "Service"),
    ("The synchronous endpoint", "eda_kombu.endpoint", "Endpoint"),
)


def settings_page() -> str:
    """The text of ``settings.rst``."""
    text = SETTINGS_HEAD
    for title, module, name in _WITH_SETTINGS:
        (source,) = re.findall(rf"^class {name}\b.*?(?=^class |\Z)", _source(module), re.MULTILINE | re.DOTALL)
        groups = re.findall(r"((?:^    #: .+\n)+)((?:^    [A-Z_]+: \S.*? = .+\n)+)", source, re.MULTILINE)
        text += f"{_title(title).lstrip()}.. list-table::\n   :header-rows: 1\n   :widths: 24 20 56\n\n"
        text += "   * - name\n     - default\n     - meaning\n"
        for comment, attributes in groups:
            meaning = " ".join(line.strip().removeprefix("#: ") for line in comment.splitlines())
            meaning = re.sub(r":meth:`(\w+)`", r"``\1()``", meaning)
            for attribute, default in re.findall(r"^    ([A-Z_]+): \S.*? = (.+)$", attributes, re.MULTILINE):
                text += f"   * - ``{attribute}``\n     - ``{default}``\n     - {meaning}\n"
                meaning = "See above."
        text += "\n"
    return text.rstrip("\n") + "\n"


def options_page() -> str:
    """The text of ``tools-options.rst``."""
    title = "The options of the tools"
    text = f"{OPTIONS_HEAD}{'=' * len(title)}\n{title}\n{'=' * len(title)}\n\n{OPTIONS_TEXT}"
    for name in (*TOOLS, *PROGRAMS):
        text += f"\n.. sphinx_argparse_cli::\n   :module: tool_parsers\n   :func: {name}\n   :prog: eda {name}\n"
        text += f"   :title: eda {name}\n   :group_title_prefix: {name}\n   :epilog: Its help has examples.\n"
    return text


METRICS_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/metrics.py and eda_prometheus. Change those, then run it.

===========
The metrics
===========

What a service counts, and how it is shown to Prometheus. Every metric has the label ``service``: the logical service.
`How to get them <howto/metrics.rst>`_.

"""

#: What has no meter: the metrics of handlers, and the one of the exporter.
_MORE_METRICS = {
    "eda_answers": "1 if the service has answered the scrape. Otherwise 0, and nothing else is shown.",
    "eda_handlers": "Handlers that have ended, by ``kind`` and ``name`` of their message, and by ``outcome``: "
    "``success``, ``failure``, or ``lost`` if their delivery was lost before with its link. The first 100 names of "
    "each kind have numbers of their own, the others are ``other``.",
    "eda_handler_seconds": "How long handlers took, whatever their outcome, by ``kind`` and ``name`` as above.",
}


def metrics_page() -> str:
    """The text of ``metrics.rst``."""
    text = inspect.cleandoc(str(Metrics.__doc__))  # from Python 3.13 on it is clean already
    described = dict(re.findall(r"^    (\w+): (.+(?:\n        .+)*)", text, re.MULTILINE))
    meaning = {meter.name: " ".join(described[meter.attribute].split()) for meter in METERS} | _MORE_METRICS
    text = METRICS_HEAD + ".. list-table::\n   :header-rows: 1\n   :widths: 36 12 52\n\n"
    text += "   * - name\n     - type\n     - meaning\n"
    for family in families("", None):
        shown = family.name + ("_total" if family.type == "counter" else "")
        told = meaning.get(family.name) or meaning[family.name.removeprefix("eda_").removesuffix("_seconds")]
        told = re.sub(r"``Config\.dead_letter_exchange``", "``DEAD_LETTER_EXCHANGE``", told)
        text += f"   * - ``{shown}``\n     - {family.type}\n     - {told[0].upper()}{told[1:]}\n"
    return text


OPTIONS_HEAD = """\
.. Written by docs/generate.py from eda_tools/cli/catalogue.py. Change that, then run it.

"""
OPTIONS_TEXT = """\
As ``--help`` shows them. `The tools <tools.rst>`_ explains them, and has examples.
"""

#: Text by file name.
PAGES = {
    "settings.rst": settings_page,
    "tools-options.rst": options_page,
    "link.rst": link_page,
    "deliveries.rst": deliveries_page,
    "amqp-client.rst": client_page,
    "broker-versions.rst": versions_page,
    "log-events.rst": events_page,
    "metrics.rst": metrics_page,
    "reference/index.rst": reference_index,
    **{f"reference/{package}.rst": partial(reference_page, package) for package in PUBLIC},
}


def main() -> None:
    (DOCS / "reference").mkdir(exist_ok=True)
    for name, text in PAGES.items():
        (DOCS / name).write_text(text(), "utf-8")
        print(DOCS / name)


if __name__ == "__main__":
    main()
