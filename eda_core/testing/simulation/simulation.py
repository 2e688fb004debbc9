"""One run: the workers, the broker, time, and what a test does with them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

from pamqp.commands import Basic

from eda_core.drivers.blocking import Record
from eda_core.drivers.processes import sessions_by
from eda_core.errors import CommandError, CommandTimeout, LocalError
from eda_core.machine.config import Config
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.options import options
from eda_core.messages.values import ERROR, AnyMessage, Command, Configuration, Event
from eda_core.testing.arrivals import Expectation, Where
from eda_core.testing.broker.dead_letters import QUEUE
from eda_core.testing.simulation.bus import Bus
from eda_core.testing.simulation.deployed import URL, Deployed
from eda_core.testing.simulation.endpoint import SimulatedSession
from eda_core.testing.simulation.expectations import expect
from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.images import difference, image_of
from eda_core.testing.simulation.ledger import Ledger, is_of_service, unanswered, unroutable
from eda_core.testing.simulation.loop import drive, new_loop
from eda_core.testing.simulation.outside import inside
from eda_core.testing.simulation.plan import Deviation, Deviations, Plan
from eda_core.testing.simulation.schedule import Schedule
from eda_core.testing.simulation.sent import TEST, Sent
from eda_core.testing.simulation.story import Story, shown
from eda_core.testing.simulation.workers import Worker
from eda_core.testing.simulation.world import World

T = TypeVar("T")
F = TypeVar("F", bound=Callable[[], object])

#: How many events one :meth:`Simulation.run` may take.
MOST_STEPS: Final = 100_000
#: Seconds within which the workers have to be ready at the start.
_START: Final = 60.0


class Simulation:
    """A run of services against the broker model, in virtual time.

    :func:`eda_core.testing.simulation.simulate` makes one for each run of a test.

    Args:
        services: the classes, see :func:`eda_core.testing.simulation.simulate`.
        workers: how many workers each has.
        plan: the faults.
        virtual_clock: see :func:`eda_core.testing.simulation.simulate`.

    Attributes:
        plan: the faults of this run.
    """

    def __init__(
        self,
        services: Sequence[Deployed | Callable[..., Any]],
        *,
        workers: int = 1,
        plan: Plan = (),
        virtual_clock: bool = False,
    ) -> None:
        self.plan: Plan = plan
        schedule, deviations, story = Schedule(), Deviations(plan), Story()
        bus = Bus(schedule, deviations, story)
        ledger = Ledger(self._name_of, self._fail)
        self._world = World(schedule, deviations, story, bus, ledger)
        bus.watchers.delivered = ledger.delivered
        bus.watchers.acknowledged = ledger.acknowledged
        bus.watchers.handles_returns = self._handles_returns
        self._deployed = [Deployed.of(service) for service in services]
        self._given: dict[int, dict[str, Any]] = {}
        self._workers: list[tuple[Deployed, Worker]] = []
        self._number_of_workers = workers
        self._numbers = count(1)
        self._virtual_clock, self._context = virtual_clock, ExitStack()
        self._invariants: list[Callable[[], object]] = []
        self._at_the_end: list[Callable[[], object]] = []
        self._expected_dead: list[Expectation] = []
        self._reply_keys: set[str] = set()
        #: Whether the test itself has ended the run at some time.
        self._bounded = False

    # What it consists of

    @property
    def now(self) -> float:
        """The virtual time, seconds from the start of the run."""
        return self._world.schedule.now

    @property
    def story(self) -> str:
        """What has happened so far: one line for each step."""
        return str(self._world.story)

    @property
    def sent(self) -> list[Sent]:
        """The messages that the broker has taken so far, in order."""
        return list(self._world.bus.sent)

    def stored(self, service: Callable[..., Any], key: Any = None) -> Any:
        """Return what a service keeps beyond the life of its workers.

        That is the object that :class:`Deployed` has made for its constructor. With a key, what ``get(key)`` of that
        object returns; dictionaries have this method.

        Raises:
            LocalError: the service is given nothing, or more than one thing.
        """
        store = self._store(service)
        return store if key is None else store.get(key)

    def _store(self, service: Callable[..., Any]) -> Any:
        for deployed in self._deployed:
            if deployed.service is service:
                given = self._given[id(deployed)]
                if len(given) == 1:
                    return next(iter(given.values()))
                what = f"is given {', '.join(given)}" if given else "is given nothing that outlives its workers"
                raise LocalError(f"{service.__name__} {what}", hint="use Deployed(Archive, store=dict)")
        raise LocalError(f"{service!r} is not simulated")

    def workers(self, service: Callable[..., Any]) -> list[Any]:
        """Return the service objects of the workers of a service, as they are now."""
        return [worker.service for deployed, worker in self._workers if deployed.service is service]

    # The run itself

    def __enter__(self) -> Simulation:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        """Make what outlives the workers, and start them."""
        self._context.enter_context(sessions_by(self._session))
        for deployed in self._deployed:
            self._given[id(deployed)] = {name: make() for name, make in deployed.given.items()}
            for number in range(1, (deployed.workers or self._number_of_workers) + 1):
                make = partial(deployed.service, [URL], **self._given[id(deployed)])
                worker = Worker(self._world, make, number, self._worker_of_call)
                self._workers.append((deployed, worker))
                worker.start()
        self._start()
        self._context.enter_context(inside(self._world, self._virtual_clock))

    def _session(self, config: Config, records: deque[Record]) -> SimulatedSession:
        return SimulatedSession(config, records, self._world, f"{config.service} endpoint", next(self._numbers))

    def __exit__(self, *error: object) -> None:
        self._context.close()
        for _, worker in self._workers:
            worker.close()
        for given in self._given.values():
            for each in given.values():
                if callable(close := getattr(each, "close", None)):
                    close()

    def _start(self) -> None:
        """Let the workers connect, without faults."""
        self._check()
        while not all(worker.is_ready for _, worker in self._workers):
            if self.now > _START or not self._step():
                waiting = [worker.name for _, worker in self._workers if not worker.is_ready]
                raise SimulationFailed(f"{', '.join(waiting)} is not ready within {_START:g} s")
        policies = [worker.driver.machine.config.retry for _, worker in self._workers if worker.driver is not None]
        self._world.ledger.attempts = max((policy.attempts for policy in policies), default=1)
        self._settle()
        self._world.deviations.active = True

    def _settle(self) -> None:
        until = self.now + 0.05
        while (due := self._world.schedule.next_time()) is not None and due <= until:
            self._step()

    def _step(self) -> bool:
        """Let the next thing happen. Returns false if there is nothing."""
        more = self._world.step()
        self._check()
        for invariant in self._invariants if more else ():
            invariant()
        return more

    def _check(self) -> None:
        if self._world.failure is not None:
            failure, self._world.failure = self._world.failure, None
            raise failure

    def run(self, seconds: float | None = None) -> None:
        """Let everything happen that is to happen, until nothing is left to do.

        Args:
            seconds: stop after this time, seconds, although more would happen. Services with timers that begin again
                and again need that.

        Raises:
            SimulationFailed: something does not hold, or it goes on and on. The text says what still goes on.
        """
        until = None if seconds is None else self.now + seconds
        self._bounded = seconds is not None
        for _ in range(MOST_STEPS):
            if until is not None:
                due = self._world.schedule.next_time()
                if due is None or due > until:
                    self._world.schedule.jump(until)
                    return
            if not self._step():
                return
        raise SimulationFailed(
            f"no end after {MOST_STEPS} steps, at {self.now:.3f} s; still going on: "
            f"{'; '.join(self._open()) or 'timers'}; give run() a number of seconds if that is meant"
        )

    def finish(self) -> None:
        """Let the run end, and check what must hold at the end of every run.

        Raises:
            SimulationFailed: something does not hold. The text says what.
        """
        if not self._bounded:
            self.run()
        else:
            self._finish_work()
        self._judge()
        for check in self._at_the_end:
            check()

    def _finish_work(self) -> None:
        """Let what is unfinished end, although timers may go on for ever: a fault may have made a handler slow."""
        for _ in range(MOST_STEPS):
            if not self._open() or not self._step():
                return

    def _judge(self) -> None:
        bus = self._world.bus
        dead = self._dead_letters()
        found = self._world.ledger.lost(self._kept())
        found += unroutable(bus.sent, self._handles_returns)
        found += unanswered(bus.sent, {each.id for each in dead})
        found += self._open()
        for each in dead:
            if not any(expected.met_by(each.arrival) for expected in self._expected_dead):
                found.append(f"{each.name} is a dead letter; expect_dead_letter({each.name!r}) if that is meant")
        if found:
            raise SimulationFailed("; ".join(dict.fromkeys(found)))

    def _kept(self) -> set[str]:
        """The ids of all messages that are in a queue."""
        broker = self._world.bus.broker
        waiting = (each for queue in broker.queue_names() for each in broker.messages(queue))
        taken = (each for queue in broker.queue_names() for *_, each in broker.unacked(queue))
        return {message.properties.message_id or "" for message in (*waiting, *taken)}

    def _open(self) -> list[str]:
        """Say what is unfinished."""
        broker, found = self._world.bus.broker, []
        for _, worker in self._workers:
            if worker.driver is not None:
                names = ", ".join(message.name for message, _ in worker.driver.handles.values())
                if names:
                    found.append(f"{worker.name} has not ended handling {names}")
                outbox = worker.driver.machine._outbox
                if not worker.over and (left := outbox.kept + outbox.unconfirmed()):
                    found.append(f"{worker.name} has {left} publishes that are not confirmed")
        for queue in broker.queue_names():
            if is_of_service(queue):
                waiting, taken = len(broker.messages(queue)), len(broker.unacked(queue))
                if waiting or taken:
                    found.append(f"{queue} has {waiting} messages that wait and {taken} that are not acknowledged")
        return found

    def check_idempotent(self, name: str, times: int = 1) -> None:
        """Check that it makes no difference if messages with this name are delivered again.

        Everything happens first. Then each of these messages comes again, as when its publisher did not get the confirm
        and has sent it once more. The stores must hold the same afterwards, and services must have published nothing
        with a new name or payload.

        Args:
            name: the routing key of events or commands.
            times: how often each of them comes again.

        Raises:
            SimulationFailed: there is a difference, or there is no such message.
        """
        self.run()
        messages = [each for each in self._world.bus.sent if each.name == name and not each.copy and not each.returned]
        if not messages:
            raise SimulationFailed(f"there is no message {name} that could come again")
        stores, published = self._images(), self._published()
        for _ in range(times):
            for message in messages:
                self._world.tell(TEST, f"lets {name} come again")
                self._world.bus.again(message)
            self.run()
        for place, before in stores.items():
            after = self._images()[place]
            if before != after:
                what = difference(before, after, shown)
                raise SimulationFailed(f"{name} is not idempotent: it came again, and {place} has changed: {what}")
        new = [f"{who} has published {what}" for who, what in self._published() if (who, what) not in published]
        if new:
            raise SimulationFailed(f"{name} is not idempotent: it came again, and {'; '.join(new)}")

    def _images(self) -> dict[str, Any]:
        return {
            f"{name} of {getattr(deployed.service, '__name__', deployed.service)}": image_of(store)
            for deployed in self._deployed
            for name, store in self._given[id(deployed)].items()
        }

    def _published(self) -> list[tuple[str, str]]:
        """What services have published, beside logs, without the time and the number of the worker."""
        return [
            (each.sender.partition(" ")[0], f"{each.kind} {each.name} {shown(each.payload, 200)}")
            for each in self._world.bus.sent
            if each.sender != TEST and each.kind != "log"
        ]

    def invariant(self, check: F) -> F:
        """Call a function after each step. It raises if something does not hold. Use it as a decorator."""
        self._invariants.append(check)
        return check

    def at_the_end(self, check: F) -> F:
        """Call a function when the run has ended and the usual checks have passed. Use it as a decorator."""
        self._at_the_end.append(check)
        return check

    def drive(self, test: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the test, and let everything else happen meanwhile. Return or raise what it does."""
        loop = new_loop(self._world.schedule, self._world.fail)
        return drive(test, loop, self._step)

    # What the test sends

    def publish_event(
        self, event: str, message: Any, conversation_id: str = "", *, headers: Mapping[str, Any] | None = None
    ) -> None:
        """Publish an event, as a service outside of the simulation does. The broker has it when this returns."""
        self._publish(
            Event(event, message, conversation_id or self._fresh("conversation"), options(headers, None, None))
        )

    def publish_configuration(self, event: str, message: Any) -> None:
        """Publish a configuration to the workers that are connected."""
        self._publish(Configuration(event, message, "", {}))

    def send_command(
        self,
        command: str,
        message: Any,
        conversation_id: str = "",
        reply_to: str = "",
        correlation_id: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> str:
        """Send a command. Its result comes to the test, see :meth:`expect_result`.

        Returns:
            The correlation id.
        """
        reply_to = reply_to or f"{TEST}.{command.rpartition('.')[2]}Return"
        correlation_id = correlation_id or self._fresh("command")
        if reply_to.startswith(f"{TEST}.") and reply_to not in self._reply_keys:
            self._reply_keys.add(reply_to)
            self._world.bus.take_results(reply_to)
        conversation = conversation_id or self._fresh("conversation")
        self._publish(Command(command, message, conversation, reply_to, correlation_id, options(headers, None, None)))
        return correlation_id

    def call(self, command: str, message: Any, timeout: float = 30.0, conversation_id: str = "") -> Any:
        """Send a command, let time pass until its result has come, and return the payload.

        Raises:
            CommandError: the result has the status ``error``.
            CommandTimeout: no result came in time.
        """
        correlation_id = self.send_command(command, message, conversation_id)
        until, seen = self.now + timeout, len(self._world.bus.sent)
        while True:
            for each in self._world.bus.sent[seen:]:
                if each.properties.correlation_id == correlation_id and each.kind == "result":
                    if (each.properties.headers or {}).get("status") == ERROR:
                        raise CommandError(command, each.payload)
                    return each.payload
            seen = len(self._world.bus.sent)
            due = self._world.schedule.next_time()
            if due is None or due > until:
                raise CommandTimeout(f"{command}: no result within {timeout:g} s")
            self._step()

    def publish(self, message: AnyMessage) -> None:
        """Publish a message of any kind, such as those that :func:`eda_core.testing.strategies.services` draws.

        The result of a command comes to the test, see :meth:`send_command`, whatever ``reply_to`` the command has.
        """
        if isinstance(message, Command):
            self.send_command(message.name, message.payload, message.conversation_id, headers=message.meta)
        else:
            self._publish(message)

    def publish_raw(self, exchange: str, key: str, properties: Basic.Properties, body: bytes) -> None:
        """Publish something as it is, also what is no message. See :func:`eda_core.testing.strategies.malformed`."""
        properties = copy(properties)
        properties.message_id = properties.message_id or self._fresh("message")
        self._world.tell(TEST, f"publishes {key} as it is: {len(body)} bytes")
        self._world.bus.publish(exchange, key, properties, body)

    def add_fault(self, fault: Deviation) -> None:
        """Let something fail later in this run, beside what its plan says."""
        self._world.deviations.add(fault)

    def _publish(self, message: AnyMessage) -> None:
        exchange, key, properties, body = seal(message, CBOR, DEFAULT_LIMITS)
        properties.message_id = self._fresh("message")
        self._world.tell(TEST, f"publishes {key} {shown(message.payload)}")
        self._world.bus.publish(exchange, key, properties, body)

    def _fresh(self, what: str) -> str:
        return f"{TEST}-{what}-{next(self._numbers)}"

    # What the test expects

    def expect_event(
        self, name: str, where: Where | None = None, *, at_least: int = 1, at_most: int | None = None
    ) -> list[Sent]:
        """Expect that services have published an event, and return all that match.

        Args:
            name: the name, with ``*`` for one word and ``#`` for any number. The last word is enough for a command, a
                result and a log.
            where: a part of the payload, or a function of the message.
            at_least, at_most: how many. What is published again counts again. What the test itself has published does
                not.

        Raises:
            SimulationFailed: there are fewer or more. The text shows what there is.
        """
        return self._expect("event", name, where, at_least, at_most)

    def expect_command(
        self, name: str, where: Where | None = None, *, at_least: int = 1, at_most: int | None = None
    ) -> list[Sent]:
        """Expect a command. See :meth:`expect_event`."""
        return self._expect("command", name, where, at_least, at_most)

    def expect_result(
        self, name: str, where: Where | None = None, *, at_least: int = 1, at_most: int | None = None
    ) -> list[Sent]:
        """Expect a result with this routing key. See :meth:`expect_event`."""
        return self._expect("result", name, where, at_least, at_most)

    def expect_log(
        self, name: str, where: Where | None = None, *, at_least: int = 1, at_most: int | None = None
    ) -> list[Sent]:
        """Expect a log record with this routing key, ``service.LEVEL``. See :meth:`expect_event`."""
        return self._expect("log", name, where, at_least, at_most)

    def _expect(self, kind: str, name: str, where: Where | None, at_least: int, at_most: int | None) -> list[Sent]:
        return expect(Expectation(kind, name, where), at_least, at_most, self._world.bus.sent)

    def expect_dead_letter(
        self, name: str, where: Where | None = None, *, at_least: int = 1, at_most: int | None = None
    ) -> list[Sent]:
        """Expect that a message has become a dead letter. Dead letters that are not expected are failures."""
        self._expected_dead.append(Expectation("dead letter", name, where))
        return expect(self._expected_dead[-1], at_least, at_most, self._dead_letters())

    def _dead_letters(self) -> list[Sent]:
        return [
            Sent(self.now, "", each.exchange, each.routing_keys[0], each.properties, each.body, dead=True)
            for each in self._world.bus.broker.messages(QUEUE)
        ]

    # For the parts

    def _name_of(self, message: str) -> str:
        known = self._world.bus.by_id.get(message)
        return "" if known is None else known.name

    def _fail(self, error: BaseException) -> None:
        self._world.fail(error)

    def _handles_returns(self, owner: str) -> bool:
        return any(worker.name == owner and worker.handles_returns for _, worker in self._workers)

    def _worker_of_call(self, correlation_id: str) -> Worker | None:
        token = correlation_id.partition("-call-")[0]
        return next((worker for _, worker in self._workers if worker.token == token), None)

    def __repr__(self) -> str:
        faults = ", ".join(f"{each.fault}:{each.after}:{each.how}" for each in self.plan)
        return f"<Simulation with {faults or 'no faults'}>"

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Add the story to whatever the block raises."""
        try:
            yield
        except Exception as error:
            self.explain(error)
            raise

    def explain(self, error: BaseException) -> None:
        """Add the story to an error."""
        told = self._world.story.told()
        error.add_note("\n".join([f"The story of this run, in {len(told)} steps:", *told]))
        if self._world.traceback:
            error.add_note(f"The last handler that failed by itself:\n{self._world.traceback}")
