"""The planted bugs: one-line changes of the core, each with the test that must notice it and the rule it breaks.

The tests are those of ``test_explorer.py``: a scenario's name stands for ``test_scenario[name]``. Those marked
``eventail`` are bugs that eventail 2.3.6 has (``FACTS.md``).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one line of ``eda_core/<module>.py``, which holds ``before`` exactly once."""

    name: str
    module: str
    before: str
    after: str
    scenario: str
    rule: str


MUTANTS = (
    # eventail
    Mutant(
        "a refused publish is sent again without its properties, the headers as reply_to",
        "effects",
        "            self.routing_key,\n            self.properties,",
        "            self.routing_key,\n            Basic.Properties(reply_to=str(self.properties.headers)),",
        "command and result",
        "I3",
    ),
    Mutant(
        "the source of a refused publish is never acknowledged",
        "effects",
        "            self.mandatory,\n            self.delivery,",
        "            self.mandatory,\n            None,",
        "command and result",
        "I5",
    ),
    Mutant(
        "retry once goes by redelivered only",
        "policy",
        "return known[0] + 1 if known else 2",
        "return 2",
        "plain relay",
        "I4",
    ),
    Mutant(
        "unconfirmed publishes from outside vanish with the link",
        "outbox",
        "publish.again() for publish in self._ledger.drain()]",
        "publish.again() for publish in self._ledger.drain() if not publish.kept]",
        "publishes from outside",
        "I5",
    ),
    # acknowledgements
    Mutant(
        "acknowledged when the handler ends, not when its publishes are confirmed",
        "receiver",
        "        if delivery.unconfirmed:\n            return",
        "        if delivery.held:\n            return",
        "plain relay",
        "I1",
    ),
    Mutant(
        "a publish after the acknowledgement was deferred is not waited for",
        "machine",
        "within.unconfirmed += 1",
        "within.unconfirmed += 0",
        "manual acknowledgement",
        "I1",
    ),
    Mutant(
        "multiple acknowledgement over a gap",
        "consumer",
        "prefix = [tag for tag in settled if tag < low]",
        "prefix = [tag for tag in settled if tag <= low or True]",
        "three messages, prefetch 3",
        "I1",
    ),
    Mutant(
        "acknowledged twice",
        "consumer",
        "settled.clear()",
        "del settled[1:]",
        "two messages, prefetch 2",
        "I2",
    ),
    Mutant(
        "a confirm of a lost link is believed",
        "machine",
        "if self._is_stale(epoch):\n            return effects\n        for publish",
        "if self._is_stale(epoch) and not epoch:\n            return effects\n        for publish",
        "cancelled consumer, restart",
        "I3",
    ),
    Mutant(
        "a delivery of a lost link is handled",
        "receiver",
        "if epoch != self.epoch or not self._serving()",
        "if epoch > self.epoch or not self._serving()",
        "plain relay",
        "I2",
    ),
    Mutant(
        "a confirm of many counts for one",
        "ledger",
        "        if not multiple:",
        "        if not multiple or tag:",
        "publishes from outside",
        "I3",
    ),
    # failures
    Mutant(
        "what a handler publishes is not held until it succeeds",
        "machine",
        "held = not immediate and (",
        "held = not immediate and not found and (",
        "plain relay",
        "R6",
    ),
    Mutant(
        "a failed handler's publishes are sent",
        "receiver",
        "        self._outbox.kept -= len(delivery.held)\n        delivery.held = []  # forgotten",
        "        self._outbox.backlog.extend(delivery.held)\n        delivery.held = []  # forgotten",
        "poison",
        "I3",
    ),
    Mutant(
        "one attempt too many",
        "policy",
        "return attempt >= self.attempts",
        "return attempt > self.attempts",
        "poison",
        "I4",
    ),
    Mutant(
        "failures are not remembered",
        "receiver",
        "self._memory.remember(delivery.key, delivery.attempt)",
        "self._memory.remember(delivery.key, delivery.attempt - 1)",
        "poison",
        "I4",
    ),
    Mutant(
        "a poison message is acknowledged instead of dead-lettered",
        "receiver",
        "        elif gives_up or not self._retry_later(delivery):",
        "        elif gives_up:\n            self._succeeded(delivery, effects)\n"
        "        elif not self._retry_later(delivery):",
        "poison",
        "I1",
    ),
    Mutant(
        "acknowledged before its delayed retry is confirmed",
        "receiver",
        "delivery.verdict, delivery.stage = ACK, WAITING",
        "delivery.unconfirmed = 0; self._flight.acknowledge(delivery)",
        "poison, delayed retries",
        "I1",
    ),
    Mutant(
        "a rejection by hand does not wait for confirms",
        "receiver",
        "            if verdict is REQUEUE:\n                self._return(delivery, True, effects)\n"
        "            else:\n                self._succeeded",
        "            if verdict is not ACK:\n                self._return(delivery, verdict is REQUEUE, effects)\n"
        "            else:\n                self._succeeded",
        "manual acknowledgement",
        "I1",
    ),
    # publishes
    Mutant(
        "publishes kept over the loss of a link change their order",
        "outbox",
        "key=lambda publish: publish.pid",
        "key=lambda publish: -publish.pid",
        "publishes from outside",
        "I3",
    ),
    Mutant(
        "a refused publish is dropped",
        "outbox",
        "self._refused.extend((due, publish.again()) for publish in refused)",
        "self._refused.extend((due, publish.again()) for publish in refused[1:])",
        "refused publishes",
        "I5",
    ),
    Mutant(
        "the window is ignored",
        "outbox",
        "range(min(len(backlog), self._window - len(ledger)))",
        "range(len(backlog))",
        "narrow window",
        "R9",
    ),
    Mutant(
        "the buffer has no bound",
        "outbox",
        "if self.kept >= self._limit:",
        "if self.kept > self._limit:",
        "full buffer",
        "R9",
    ),
    Mutant(
        "nobody is told of room in the buffer",
        "receiver",
        "effects.append(Room())",
        "pass",
        "full buffer",
        "I5",
    ),
    Mutant(
        "confirm tags go on counting over the loss of a link",
        "outbox",
        "        self._refused.clear()\n        self._ledger = Ledger()",
        "        self._refused.clear()",
        "publishes from outside",
        "I3",
    ),
    Mutant(
        "publishing goes on during an alarm",
        "receiver",
        "if self._outbox.backlog and self._blocked_since is None and self._serving():",
        "if self._outbox.backlog and self._serving():",
        "alarm",
        "life",
    ),
    # the life of a service
    Mutant(
        "a stop closes before the confirms",
        "receiver",
        "return bool(self._flight or self._orphans or self._outbox.kept)",
        "return bool(self._flight or self._orphans)",
        "stop against time",
        "I3",
    ),
    Mutant(
        "a stop does not wait for handlers",
        "receiver",
        "return bool(self._flight or self._orphans or self._outbox.kept)",
        "return bool(self._outbox.kept)",
        "stop with work in flight",
        "life",
    ),
    Mutant(
        "a message that crosses the cancel is handled",
        "receiver",
        "        if self.state is link.DRAINING and not",
        "        if self.state is link.CLOSING and not",
        "stop with work in flight",
        "life",
    ),
    Mutant(
        "an early tick does harm",
        "keeper",
        "if self._due is not None and now >= self._due:",
        "if self._due is not None:",
        "plain relay",
        "R7",
    ),
    Mutant(
        "still configured after reconnecting",
        "receiver",
        "self._configured = not self.config.configurations",
        "self._configured = self._configured or not self.config.configurations",
        "configuration phase",
        "life",
    ),
    Mutant(
        "only the first URL is tried",
        "keeper",
        "self._next_url = (url + 1) % len(self.config.urls)",
        "self._next_url = url % len(self.config.urls)",
        "two URLs",
        "life",
    ),
    Mutant(
        "a refused login at one of two URLs is fatal",
        "keeper",
        "if len(self._refused_urls) == len(self.config.urls):",
        "if self._refused_urls:",
        "refused logins",
        "life",
    ),
    Mutant(
        "a stop that lost its link waits for it for ever",
        "keeper",
        "            if self._stop_due is not None:\n                self._go(link.STOP)",
        "            if self._stop_due == now:\n                self._go(link.STOP)",
        "stop with work in flight",
        "life",
    ),
)
