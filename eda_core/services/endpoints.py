"""The methods of endpoints: eventail's, and a few more. Their callers block until the broker has confirmed the message.

This module decides what each argument means. It does not know how a message is sent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from eda_core.drivers.publish_call import PartlyPublished, PublishCall, PublishLimits, Unroutable
from eda_core.drivers.tracing import Tracing
from eda_core.messages.codec import DEFAULT_LIMITS
from eda_core.messages.options import options
from eda_core.messages.values import AnyMessage, Command, Configuration, Event
from eda_core.services.claims import ClaimCheck, stored
from eda_core.services.eventail import EventailNames, event_of, text_of


class EndpointApi(EventailNames):
    """The base class of an adapter's ``Endpoint``. It publishes, and receives nothing.

    An adapter sets the limits of a call, and adds how messages are published.
    """

    #: Whether messages may be published with a ``delay``. The endpoint declares the queues in which they wait then.
    DELAYED_MESSAGES: ClassVar[bool] = False

    #: Which payloads are too large for the broker, and the store in which they wait. By default all are sent.
    CLAIM_CHECK: ClassVar[ClaimCheck | None] = None

    _eda_limits: PublishLimits
    _eda_tracing: Tracing | None = None

    def trace_by(self, tracing: Tracing) -> None:
        """Tell ``tracing`` of each publish from now on. The package ``eda_otel`` does so."""
        self._eda_tracing = tracing

    @abstractmethod
    def _eda_publish(self, messages: Iterable[AnyMessage], mandatory: bool, limits: PublishLimits) -> PublishCall:
        """Publish, and return when each message is confirmed or has failed."""

    def _eda_options(
        self, headers: Mapping[str, Any] | None, expiration: float | None, priority: int | None, delay: float | None
    ) -> dict[str, Any]:
        return options(headers, expiration, priority, delay, delays=self.DELAYED_MESSAGES)

    def _eda_event(self, meta: dict[str, Any], given: tuple[str, Any, str]) -> AnyMessage:
        return self._eda_stored(event_of(meta, given))

    def _eda_stored(self, message: AnyMessage) -> AnyMessage:
        return message if self.CLAIM_CHECK is None else stored(self.CLAIM_CHECK, message, DEFAULT_LIMITS)

    def _eda_publish_one(self, message: AnyMessage, mandatory: bool, limits: PublishLimits) -> None:
        message = self._eda_stored(message)
        if self._eda_tracing is None:
            _check_published(self._eda_publish((message,), mandatory, limits))
            return
        with self._eda_tracing.sending(message, held=False) as sending:
            call = self._eda_publish((sending.message,), mandatory, limits)
            if call.message_id:
                sending.accepted(call.message_id)
            _check_published(call)

    def publish_event(
        self,
        event: str,
        message: Any,
        conversation_id: str,
        max_retries: int | None = None,
        *,
        mandatory: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> None:
        """Publish an event; return when the broker has confirmed it.

        Args:
            event: the name of the event.
            message: the payload.
            conversation_id: the conversation that the event belongs to.
            max_retries: how often to try again after the first failure (no connection, a lost connection, a refusal by
                the broker). ``None``: as often as ``confirm_timeout`` allows.
            mandatory: fail if nobody subscribes.
            headers: more headers, by name. Names that begin with ``x-`` and those of the toolkit are refused.
            expiration: how long the message is of use, seconds. Then its queue drops or dead-letters it.
            priority: from 0 to 255, for queues that have priorities.
            delay: how long the message waits on the broker before it is published, seconds, rounded up to whole ones.
                The class needs ``DELAYED_MESSAGES = True``. Such a message is always mandatory: there has to be a queue
                in which it waits. Nobody is told if no service receives it in the end.
            timeout: takes the place of ``confirm_timeout`` for this call, seconds.

        Raises:
            LocalError: the message cannot be sent. The text says why.
            StateError: the endpoint is closed.
            NotConfirmed: the broker did not confirm the message within the time and the attempts allowed. The error
                says whether the message may arrive.
            Unroutable: the message was mandatory, and no queue is bound for it.
        """
        sent = Event(event, message, text_of(conversation_id), self._eda_options(headers, expiration, priority, delay))
        self._eda_publish_one(sent, mandatory or bool(delay), self._eda_limits.of_call(max_retries, timeout))

    def publish_configuration(
        self,
        event: str,
        message: Any,
        max_retries: int | None = None,
        *,
        mandatory: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Publish a configuration to all workers that subscribe to it now. See :meth:`publish_event`."""
        sent = Configuration(event, message, "", options(headers, expiration, priority))
        self._eda_publish_one(sent, mandatory, self._eda_limits.of_call(max_retries, timeout))

    def send_command(
        self,
        command: str,
        message: Any,
        conversation_id: str,
        reply_to: str,
        correlation_id: str | None,
        mandatory: bool = True,
        *,
        max_retries: int | None = None,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a command; return when the broker has confirmed it. See :meth:`publish_event`.

        The result does not come back to the endpoint, which receives nothing. The service that subscribes to
        ``reply_to`` gets it: a program may send commands for a service whose workers handle the results.

        Args:
            command: ``service.Command``, which is the routing key.
            reply_to: the routing key for the result, such as ``shop.ChargeCardReturn``.
            correlation_id: comes back with the result, so that its handler knows to which command it belongs.
            mandatory: fail if there is no queue for the command.

        Raises:
            Unroutable: there is no queue for the command: its service was never started, or the name is wrong.
        """
        meta = self._eda_options(headers, expiration, priority, delay)
        sent = Command(command, message, text_of(conversation_id), reply_to, correlation_id or "", meta)
        try:
            self._eda_publish_one(sent, mandatory or bool(delay), self._eda_limits.of_call(max_retries, timeout))
        except Unroutable:
            hint = "start the service, which makes the queue, or correct the name"
            raise Unroutable(f"no queue is bound for the command {command}", hint=hint) from None

    def publish_many(
        self,
        events: Iterable[tuple[str, Any, str]],
        max_retries: int | None = None,
        *,
        mandatory: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> int:
        """Publish many events, without waiting for the confirm of one before sending the next.

        At most ``WINDOW`` messages are unconfirmed at the same time, so the iterable may be a generator of any length.
        ``confirm_timeout`` is the time without any confirm, not the time for all messages, and the time that the
        iterable takes does not count. While the iterable runs, nothing is sent or read. If it takes longer than
        ``HEARTBEAT`` seconds, the broker closes the connection, and the endpoint connects again.

        Args:
            events: the name, the message and the conversation id of each event.
            max_retries, mandatory, headers, expiration, priority, delay, timeout: see :meth:`publish_event`. They are
                the same for all events.

        Returns:
            How many events there were. All are confirmed.

        Raises:
            StateError: the endpoint is closed.
            PartlyPublished: at least one event failed. The error says which events are confirmed, which are not, and
                why. After the first failure no more are taken from the iterable.
        """
        meta = self._eda_options(headers, expiration, priority, delay)
        limits, mandatory = self._eda_limits.of_call(max_retries, timeout), mandatory or bool(delay)
        if self._eda_tracing is None:
            return _all_of(self._eda_publish(map(partial(self._eda_event, meta), events), mandatory, limits))
        with self._eda_tracing.sending_many(meta) as sending:
            call = self._eda_publish(map(partial(self._eda_event, sending.meta), events), mandatory, limits)
            sending.counted(call.taken)
            return _all_of(call)


def _check_published(call: PublishCall) -> None:
    """Raise the error of the only message of a call, if it has one."""
    for error in call.failed.values():
        raise error


def _all_of(call: PublishCall) -> int:
    """Return how many messages a call has published; raise ``PartlyPublished`` if it was not all that it has taken."""
    if call.failed:
        raise PartlyPublished(call.taken, call.failed)
    return call.taken
