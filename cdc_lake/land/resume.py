"""Where a sink would go on reading, asked without beginning to."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_lake.errors import PartitionError
from cdc_lake.events import TopicPartition
from cdc_lake.land.landing import Landing


def resume_points(
    root: str,
    source: str,
    partitions: Iterable[tuple[TopicPartition, int, int, str]],
    *,
    transaction_topic: str | None,
    options: dict[str, str] | None = None,
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, PartitionError]]:
    """The next offset of each partition, or the error that a sink would stop it with. Writes nothing.

    `partitions` are (partition, first offset kept, end, topic id) as Kafka has them. Raises LakeError when the lake
    cannot be read.
    """
    landing = Landing(root, source, transaction_topic=transaction_topic, options=options)
    positions: dict[TopicPartition, int] = {}
    stopped: dict[TopicPartition, PartitionError] = {}
    try:
        for tp, beginning, end, topic_id in partitions:
            try:
                positions[tp] = landing.take_over(tp, beginning=beginning, end=end, topic_id=topic_id)
            except PartitionError as error:
                stopped[tp] = error
    finally:
        landing.close()
    return positions, stopped
