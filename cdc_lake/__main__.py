"""The program `cdc-lake`: a shell that asks at a press of a key is answered before the commands are imported."""

import os


def main() -> None:
    """Complete a line when a shell asks for it, else run the command line and exit with its code."""
    if "_CDC_LAKE_COMPLETE" in os.environ:
        from cdc_lake.cli.complete import answered

        if answered():
            return
    from cdc_lake.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
