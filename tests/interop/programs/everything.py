"""Written for eventail: does what a service can, to itself, and says what comes of it. Arguments: the broker's URL."""

import os
import socket
import sys
from typing import Any

from eventail.async_service.pika import HEADER, JSON_MODEL, ReconnectingSupervisor, Service
from eventail.batch_processor import Batch, RawEvent
from eventail.log_criticity import CRITICITY_LABELS, ERROR, NOTICE


def say(*what: object) -> None:
    print(*what, flush=True)


class Everything(Service):
    PREFETCH_COUNT = 1  # fewer than a batch has

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batch = Batch(self, 2, 30, self.both)
        self.use_exclusive_queues()

    def on_unconfigured(self) -> None:
        say("unconfigured", self.logical_service, self._message_number)
        self.publish_configuration("Chosen", {"greeting": "hello"})

    def handle_config(self, config: str, payload: JSON_MODEL, *, meta: HEADER) -> bool:
        say(config, payload, sorted(meta.keys() - {"message_id"}))
        return True

    def on_ready(self) -> None:
        say("ready", self.exclusive_queues, os.getpid() == self.ID, socket.gethostname() == self.HOSTNAME)
        say(self.EVENT_EXCHANGE, self.CMD_EXCHANGE, self.CONFIG_EXCHANGE, self.LOG_EXCHANGE, self._message_number)
        self.log(NOTICE, CRITICITY_LABELS[NOTICE], "I'm fine!", additional_fields={"healthcheck": "ok"})
        self.use_json()
        self.publish_event("First", {"text": "en été", "tags": ("a", "b")}, "c-1")
        self.never = self.call_later(0.05, lambda: say("never"))
        self.cancel_timer(self.never)

    def handle_event(self, event: str, message: JSON_MODEL, conversation_id: str, **kwargs: Any) -> Any:
        return super().handle_event(event, message, conversation_id, kwargs["meta"])

    def on_First(self, payload: JSON_MODEL, conversation_id: str, _meta: Any) -> bool:
        say("First", payload, conversation_id)
        self.call_later(0.01, lambda: self.later(_meta["delivery_tag"]))
        return True

    def later(self, delivery_tag: int) -> None:
        self.manual_ack(delivery_tag)
        for number in (1, 2):
            self.publish_event("Collected", {"number": number}, f"c-{number}")

    def on_Collected(self, payload: JSON_MODEL, conversation_id: str, meta: JSON_MODEL) -> None:
        self.batch.push(payload, conversation_id, meta)

    def both(self, events: list[RawEvent]) -> None:
        say("both", [(event.payload["number"], event.conversation_id) for event in events])
        self.send_command(
            "everything.Do", {}, "c-3", self.logical_service + ".DoReturn", correlation_id=str(len(events))
        )

    def on_Do(self, payload: JSON_MODEL, conversation_id: str, reply_to: str, correlation_id: str, _meta: Any) -> None:
        say("Do", payload, conversation_id, reply_to, correlation_id)
        self.return_error(reply_to, {"reason": "tired"}, conversation_id, correlation_id, mandatory=True)

    def handle_result(
        self, key: str, payload: JSON_MODEL, conversation_id: str, status: str, correlation_id: str, meta: HEADER
    ) -> None:
        say(key, payload, conversation_id, status, correlation_id, "delivery_tag" in meta)
        self.publish_event("Unheard", {}, "c-4", mandatory=True)

    def handle_returned_message(self, key: str, payload: JSON_MODEL, envelope: HEADER) -> None:
        self.log(ERROR, f"unroutable {key}", conversation_id=envelope["conversation_id"])
        say("returned", key, payload, envelope["conversation_id"])
        self.stop(reconnect=False)


supervisor = ReconnectingSupervisor(
    service_factory=Everything,
    amqp_urls=[sys.argv[1]],
    event_routing_keys=["First", "Collected"],
    command_routing_keys=["everything.#"],
    logical_service="everything",
    config_routing_keys=["Chosen"],
)
supervisor.run()
say("bye", supervisor.service.logical_service)
