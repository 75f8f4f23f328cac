"""The two questions of benchmarks/streams.py with Quix Streams, as its documentation writes them.

`quix_job.py BOOTSTRAP TOPIC QUESTION`, in an environment of its own. Prints what it took as JSON: from the start
to the last row of the last event.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

BOOTSTRAP, TOPIC, QUESTION = sys.argv[1:]
SEEN: dict[str, float] = {"events": 0, "rows": 0, "seconds": 0}
DIMENSION = {store: f"region {store % 7}" for store in range(400)}
BEGUN = time.monotonic()


def _note(kind: str) -> Any:
    def note(_row: Any) -> None:
        SEEN[kind] += 1
        SEEN["seconds"] = time.monotonic() - BEGUN

    return note


def main() -> None:
    app = Application(
        broker_address=BOOTSTRAP,
        consumer_group=f"{TOPIC}-{QUESTION}",
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(),
        loglevel="ERROR",
    )
    topic = app.topic(TOPIC, value_deserializer="json", timestamp_extractor=lambda value, *_: value["source"]["ts_ms"])
    rows = app.dataframe(topic)
    rows = rows[rows["op"] == "u"].apply(lambda event: event["after"]).update(_note("events"))
    if QUESTION == "windows":
        rows = rows.group_by("store")
        rows = rows.tumbling_window(1000).agg(orders=Count(), pieces=Sum("quantity")).final()
    else:
        rows = rows[rows["quantity"] >= 40].apply(lambda row: {**row, "region": DIMENSION[row["store"]]})
    rows.update(_note("rows"))
    app.run(timeout=10)
    print(json.dumps(SEEN))


if __name__ == "__main__":
    main()
