"""What runs a machine: the pump that performs its effects, one timer, links, and callers that wait.

An adapter derives from these classes. They do no I/O and know no client library.
"""

from eda_core.drivers.amqp_link import CONNECTIONS, AmqpLink, Wire
from eda_core.drivers.base import Driver, LinkLike, UserCode
from eda_core.drivers.blocking import BlockingDriver, BlockingLink
from eda_core.drivers.callbacks import CallbackDriver
from eda_core.drivers.coroutines import CoroutineDriver, Future
from eda_core.drivers.handling import Run, handled_by, handling
from eda_core.drivers.jobs import Jobs
from eda_core.drivers.library import library_at_work, quieten, raised_in, require, write_report
from eda_core.drivers.link import MAX_UNSENT, Link, reason
from eda_core.drivers.login import login_refusal
from eda_core.drivers.lookups import LookUps
from eda_core.drivers.processes import ProcessState
from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, PublishCall, PublishLimits, Unroutable
from eda_core.drivers.signals import StopSignals
from eda_core.drivers.tracing import Sending, SendingMany, Span, Tracing
from eda_core.machine.effects import CONSUMING, CREDENTIALS, LOGGING, PUBLISHING, VHOST

__all__ = [
    "CONNECTIONS",
    "CONSUMING",
    "CREDENTIALS",
    "LOGGING",
    "MAX_UNSENT",
    "PUBLISHING",
    "VHOST",
    "AmqpLink",
    "BlockingDriver",
    "BlockingLink",
    "CallbackDriver",
    "CoroutineDriver",
    "Driver",
    "Future",
    "Jobs",
    "Link",
    "LinkLike",
    "LookUps",
    "NotConfirmed",
    "PartlyPublished",
    "ProcessState",
    "PublishCall",
    "PublishLimits",
    "Run",
    "Sending",
    "SendingMany",
    "Span",
    "StopSignals",
    "Tracing",
    "Unroutable",
    "UserCode",
    "Wire",
    "handled_by",
    "handling",
    "library_at_work",
    "login_refusal",
    "quieten",
    "raised_in",
    "reason",
    "require",
    "write_report",
]
