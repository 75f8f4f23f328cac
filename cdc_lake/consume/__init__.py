"""Reading Kafka: the Broker seam, its implementations, and how to open one."""

from cdc_lake.consume.broker import CONNECTED, Assignment, Broker, PartitionInfo
from cdc_lake.consume.factory import open_broker

__all__ = ["CONNECTED", "Assignment", "Broker", "PartitionInfo", "open_broker"]
