"""What the demo found, as tables for a person or as one JSON document."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdc_lake.cli import output
from cdc_lake.cli.demo_ask import Result
from cdc_lake.cli.demo_chain import Link
from cdc_lake.cli.demo_stage import FLUSH_SECONDS
from cdc_lake.cli.demo_story import RATE, Answer, Deleted, Followed, Story, TableReport

if TYPE_CHECKING:
    from cdc_lake.local.retail.freshness import Freshness

SHOWN = 8


class Show:
    """Prints what the story finds. Silent with `--json`, whose document comes at the end."""

    def freshness(self, seen: Freshness) -> None:
        """How soon commits were seen."""
        row = [seen.samples, seen.missing, *(f"{s:.2f} s" for s in (seen.p50, seen.p95, seen.worst))]
        title = f"From COMMIT in PostgreSQL to a query that sees it ({RATE} tx/s, flush every {FLUSH_SECONDS} s)"
        _table(title, Result(("sales watched", "never seen", "p50", "p95", "slowest"), (tuple(row),)))

    def answers(self, answers: Sequence[Answer]) -> None:
        """What the lake answered, and whether the source said the same."""
        for answer in answers:
            _table(answer.title, answer.lake)
            verdict = "yes" if answer.equal else f"NO, PostgreSQL has {len(answer.source.rows):,} rows"
            _note(f"The same SQL in PostgreSQL and in the lake: {len(answer.lake.rows):,} rows. Equal: {verdict}")

    def prices(self, prices: Result) -> None:
        """The versions of a price."""
        _table("The prices of one product, from changes.public.products", prices)

    def deleted(self, gone: Deleted) -> None:
        """What is left of a deleted row."""
        _table(f"Product {gone.product_id} was deleted. Rows in current: {gone.in_current}. In changes:", gone.events)

    def verified(self, reports: Sequence[TableReport]) -> None:
        """The comparison of every row."""
        columns = ("table", "rows_source", "rows_lake", "missing", "extra", "different")
        rows = tuple(tuple(report[c] for c in columns) for report in reports)
        _table("Every row of the source against the lake", Result(columns, rows), limit=len(rows))

    def followed(self, world: Followed) -> None:
        """What came of a sale, step by step."""
        links = world.chain.links()
        _line("")
        _line("What came of one sale, and how it is known: each step names the one that caused it")
        for link in links:
            after = (link.at - links[0].at).total_seconds()
            when = f"{_cell(link.at)[11:]}  {f'+{after:.2f} s' if after else '':>8}"
            _line("")
            _line(f"  {when}  {link.step:<8} {link.what}")
            _line(f"  {'':{len(when)}}  {'':8} {_names(link)}")
        _line("")
        for words in world.left_out:
            _line(f"  {words}")


def _names(link: Link) -> str:
    """The ids of a step."""
    because = "evidence" if link.step == "alert" else "caused by"
    named = [link.id, link.cause and f"{because} {link.cause}", link.correlation and f"correlation {link.correlation}"]
    return "   ".join(part for part in named if part)


def next_commands(config_file: Path, *, kept: bool) -> list[tuple[str, str]]:
    """What to do next: words and a command that can be copied as it is."""
    program = _program()
    command = f"{program} --config {shlex.quote(_short(config_file))}"
    question = "SELECT category, count(*) FROM products GROUP BY category ORDER BY 2 DESC"
    look = [
        ("ask", f'{command} query "{question}"'),
        ("look around", f"{command} sql"),
        ("the tables", f"{command} tables"),
    ]
    if not kept:
        return [*look, ("all of it running, and the dashboard", f"{program} demo --keep")]
    return [*look, ("prove it again", f"{command} verify"), ("stop everything", f"{program} demo --stop")]


def show_end(story: Story, commands: list[tuple[str, str]], *, kept: bool) -> None:
    """How it went and what can be done next."""
    verdict = "Everything above was checked and held." if story.ok else "NOT everything above held: see the tables."
    state = "It goes on running, with a slow trade." if kept else "All is stopped; the lake can still be asked."
    output.say(f"\n{verdict} {story.seconds:.0f} s. {state}")
    dashboard = story.followed.dashboard
    if dashboard is not None and kept:
        output.say("The dashboard, with its token:")
        output.console().print(f"  {dashboard.entry}", soft_wrap=True)
    elif dashboard is not None:
        output.say("The dashboard showed the alert, and the order where there is one. To open it: demo --keep, below.")
    output.say("Next:")
    for words, command in commands:
        output.say(f"  {words + ':':<38}{command}")


def document(story: Story, commands: list[tuple[str, str]], *, kept: bool) -> dict[str, Any]:
    """The whole story for `--json`."""
    trade = {k: v for k, v in asdict(story.traded).items() if k != "orders"}
    return {
        "ok": story.ok,
        "seconds": round(story.seconds, 1),
        "steps": [{"step": s.name, "seconds": round(s.seconds, 2)} for s in story.steps],
        "loaded": story.loaded,
        "workload": {**trade, "transactions": story.traded.transactions},
        "freshness": asdict(story.freshness),
        "questions": [_answer(answer) for answer in story.answers],
        "price_history": _plain(story.prices),
        "deleted": {
            "table": "public.products",
            "key": story.deleted.product_id,
            "rows_in_current": story.deleted.in_current,
            "events_in_changes": _plain(story.deleted.events),
        },
        "verify": list(story.verified),
        "world": _world(story.followed, kept=kept),
        "kept": kept,
        "next": [command for _, command in commands],
    }


def _world(followed: Followed, *, kept: bool) -> dict[str, Any]:
    dashboard, chain = followed.dashboard, followed.chain
    answers = dashboard and {"url": dashboard.url, "entry": dashboard.entry if kept else None}
    links = [{**asdict(link), "at": link.at.isoformat()} for link in chain.links()]
    return {
        "dashboard": answers,
        "alert": chain.alert_id,
        "purchase_order": chain.order_number,
        "chain": links,
        "left_out": list(followed.left_out),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return {
        "name": answer.name,
        "sql": answer.sql,
        "equal": answer.equal,
        "rows": len(answer.lake.rows),
        "first": _plain(Result(answer.lake.columns, answer.lake.rows[:SHOWN])),
    }


def _plain(result: Result) -> list[dict[str, Any]]:
    return [{k: _value(v) for k, v in record.items()} for record in result.records()]


def _value(value: Any) -> Any:
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _table(title: str, result: Result, *, limit: int = SHOWN) -> None:
    if output.as_json():
        return
    output.table(result.columns, [[_cell(value) for value in row] for row in result.rows[:limit]], title=f"\n{title}")
    if len(result.rows) > limit:
        _note(f"… and {len(result.rows) - limit:,} more")


def _line(text: str) -> None:
    if not output.as_json():
        output.console().print(text, soft_wrap=True, markup=False)


def _note(text: str) -> None:
    if not output.as_json():
        output.console().print(f"  {text}")


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        # Sessions and the source are set to UTC.
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds") + ("Z" if value.tzinfo else "")
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _program() -> str:
    """How this program is called in the shell that called it: by its name when that is on the PATH."""
    if shutil.which("cdc-lake"):
        return "cdc-lake"
    beside = Path(sys.executable).with_name("cdc-lake")
    return (
        shlex.quote(_short(beside)) if beside.exists() else f"{shlex.quote(_short(Path(sys.executable)))} -m cdc_lake"
    )


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
