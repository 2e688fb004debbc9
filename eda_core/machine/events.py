"""The names of what a service writes to the local log of its process, one for each kind of line.

A name is the attribute ``eda_event`` of the record in Python's ``logging``. The names stay the same when the texts
change. The comment behind each name has its level, and says when the line is written.
"""

from __future__ import annotations

from typing import Final

# The life of a service
STARTED: Final = "started"  # NOTICE: the first link is open: versions, broker, queues, prefetch
CONFIGURED: Final = "configured"  # NOTICE: the handler of a configuration has returned true
UNCONFIGURED: Final = "unconfigured"  # WARNING: no handler has returned true for a configuration for a long time
READY: Final = "ready"  # NOTICE: the service receives its messages; ``on_ready`` is called
RECONNECTED: Final = "reconnected"  # NOTICE: a link is open again, after so many seconds without one
STOPPING: Final = "stopping"  # NOTICE: a stop was asked for; the service takes no new messages
STOPPED: Final = "stopped"  # NOTICE or ERROR: the service has ended: counts, and the error if nobody asked it to stop

# The link and the broker
LINK_LOST: Final = "link-lost"  # WARNING: a link was lost or could not be opened; when the next attempt comes
USED_AS_IS: Final = "used-as-is"  # WARNING: the broker refuses a declaration; what exists is used
BLOCKED: Final = "blocked"  # WARNING: the broker is short of memory or disk space and takes no publishes
UNBLOCKED: Final = "unblocked"  # NOTICE: the broker takes publishes again
CHANNEL_CLOSED: Final = "channel-closed"  # WARNING: the broker has closed the channel for publishing or for logs
LIBRARY_FAILED: Final = "library-failed"  # ERROR: the client library has raised an error of its own
LIBRARY_UNKNOWN: Final = "library-unknown"  # WARNING: the client library is used in a slower way than others

# Publishing
PUBLISH_FAILED: Final = "publish-failed"  # WARNING or EMERGENCY: a publish has failed for good
PUBLISH_REFUSED: Final = "publish-refused"  # WARNING: the broker refused publishes, and they are sent again later
RETURNED: Final = "returned"  # WARNING: no service receives a mandatory message
LATE_RESULT: Final = "late-result"  # WARNING: a result came after its call had ended
UNCONFIRMED: Final = "unconfirmed"  # EMERGENCY: the service ended before the broker had confirmed publishes

# Handlers
HANDLER_FAILED: Final = "handler-failed"  # ALERT or ERROR: a handler has failed, at this attempt
GIVING_UP: Final = "giving-up"  # EMERGENCY: a message is rejected: a further attempt is not allowed or cannot help
INVALID_MESSAGE: Final = "invalid-message"  # EMERGENCY: a delivery is no message of the architecture and is rejected
CALLBACK_FAILED: Final = "callback-failed"  # ALERT or WARNING: a hook or a timer has raised an exception
BLOCKED_LOOP: Final = "blocked-loop"  # WARNING: a handler kept the event loop for more than half the heartbeat
SLOW_HANDLER: Final = "slow-handler"  # WARNING: a link was lost while a handler took longer than the heartbeat
RETURN_VALUE: Final = "return-value"  # WARNING: a handler has returned a value that means nothing
EARLY_ACK: Final = "early-ack"  # WARNING: a handler has put its message into a batch and has not returned True
ANSWERS: Final = "answers"  # WARNING: a command was answered several times, or not at all
NO_REPLY_KEY: Final = "no-reply-key"  # WARNING: the result of a command cannot come back to this service
NOT_AWAITED: Final = "not-awaited"  # ERROR: a method was called outside of handlers and not awaited, so it did nothing
CHECKED: Final = "checked"  # WARNING: at the start: subscriptions and methods of the service that do not fit together
LOGS_DROPPED: Final = "logs-dropped"  # WARNING: the program logs more than could be sent to the bus (``eda_logging``)
LEFT_UNFINISHED: Final = "left-unfinished"  # WARNING: the service ends although handlers still run
