"""What is used of the CNCF SDK, in one place, so that it is loaded only where events are written."""

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka, to_binary, to_structured
from cloudevents.core.exceptions import CloudEventValidationError
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

__all__ = [
    "CloudEvent",
    "CloudEventValidationError",
    "JSONFormat",
    "KafkaMessage",
    "from_kafka",
    "to_binary",
    "to_structured",
]
