"""A living shop for the containers: fills the empty tables once, then trades until it is told to stop.

Runs in the project's image, with the address of the database from its configuration. `--check` only asks whether the
database answers and holds a shop: the service's health.
"""

from __future__ import annotations

import os
import sys

from cdc_lake.config import load_config
from cdc_lake.errors import CdcLakeError
from cdc_lake.local.retail import loader, workload
from cdc_lake.local.retail.rows import Size


def main() -> None:
    """Load what is missing and trade; exit code 1 with words when the database is not there."""
    try:
        config = load_config()
        dsn = config.dsn(config.all_sources[0])
        filled = loader.count_rows(dsn)["stores"] > 0
        if "--check" in sys.argv:
            sys.exit(not filled)
        if not filled:
            rows = int(os.environ.get("SHOP_ROWS", "50000"))
            loader.load(dsn, Size.for_rows(rows), progress=lambda table: print(f"Loading {table} …", flush=True))
    except CdcLakeError as error:
        sys.exit(f"Error: {error.message}\n  why:  {error.why}\n  next: {error.next}")
    os.environ["RETAIL_DSN"] = dsn
    print("Trading.", flush=True)
    workload.main()


if __name__ == "__main__":
    main()
