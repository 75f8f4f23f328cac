"""What the commands of `rules` do together: the loop wired to signals and to a thread that sends, rules tried."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from cdc_lake.addresses import LOOPBACK
from cdc_lake.cli import output
from cdc_lake.cli.witness import witnessed
from cdc_lake.config import Config
from cdc_lake.errors import EXIT_INTERRUPTED, CdcLakeError, LakeError, UsageError
from cdc_lake.land.layout import list_sources
from cdc_lake.query.merged import Merged, merge
from cdc_lake.query.news import News
from cdc_lake.query.placed import Log, open_logs
from cdc_lake.react.alerts import Alerts, counts
from cdc_lake.react.delivery import Deliverer, Delivery
from cdc_lake.react.records import moment, title_of
from cdc_lake.react.rulefile import Rule, find_rule, load_rule, load_rules, rule_files
from cdc_lake.react.run import Orders, Watch, open_connection, tried
from cdc_lake.react.silences import Silence, Silences
from cdc_lake.react.standing import Standing
from cdc_lake.react.watch import Target, check

# How often to look whether something has landed: one look costs a stat of a folder.
_LOOK_SECONDS = 0.2
# How far a rule is that is nowhere yet.
_NOT_BEGUN: dict[str, Any] = dict.fromkeys(("position", "behind", "waits_for", "waits_since")) | {"positions": []}


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule's file and what is wrong with it."""

    name: str
    kind: str | None
    error: CdcLakeError | None


@dataclass(slots=True)
class Done:
    """What a run did: findings of each rule by kind, messages that wait, rules that stand still."""

    found: dict[str, dict[str, int]] = field(default_factory=dict)
    waiting: int = 0
    errors: list[CdcLakeError] = field(default_factory=list)
    interrupted: bool = False


@contextmanager
def opened(config: Config) -> Iterator[list[Log]]:
    """The logs of the lake."""
    con = open_connection()
    try:
        yield open_logs(con, config)
    finally:
        con.close()


def chosen(config: Config, names: Sequence[str] | None) -> list[Rule]:
    """The named rules, or all. Raises UsageError for an unknown one, and when there are none at all."""
    rules = load_rules(config.rules_folder)
    if not rules:
        raise UsageError(
            f"There are no rules in {config.rules_folder}.",
            why="A rule is a file there, as low_stock.yaml.",
            next="write one as docs/how-to/rules.md shows, then: cdc-lake rules check",
            code="no_rules",
        )
    return [find_rule(rules, n) for n in names] if names else rules


def checked(config: Config, names: Sequence[str] | None) -> list[Checked]:
    """Each rule's file, checked on its own: one that is wrong does not hide what is wrong with others."""
    files = rule_files(config.rules_folder)
    if not files or names:
        chosen(config, names)  # raises for what is not there
        files = [f for f in files if not names or f.stem in names]
    found = []
    with opened(config) as logs:
        for file in files:
            kind = None
            try:
                rule = load_rule(file)
                kind = rule.kind
                check(connection(logs), rule, logs, config)
            except CdcLakeError as error:
                found.append(Checked(file.stem, kind, error))
            else:
                found.append(Checked(rule.name, kind, None))
    return found


def connection(logs: Sequence[Log]) -> Any:
    """The connection of the logs. Raises LakeError when there are none."""
    if not logs:
        raise _empty()
    return logs[0].con


def _empty() -> LakeError:
    return LakeError("The lake is empty.", why="Nothing has landed yet.", next="cdc-lake sink run", code="empty_lake")


def run_rules(config: Config, names: Sequence[str] | None, *, until_caught_up: bool) -> Done:
    """Evaluate rules until they have caught up, or until told to stop.

    Raises the error of a rule that is refused: none runs then.
    """
    rules = chosen(config, names)
    with opened(config) as logs:
        targets = [check(connection(logs), rule, logs, config) for rule in rules]
    _warn_of_plaintext(config)
    stopper = Stopper()
    stopper.install()
    deliveries = [Delivery(config, s) for s in list_sources(config.lake_uri, config.lake.options or None)]
    for one in deliveries:
        one.begin()
    deliverer, watch = Deliverer(deliveries, output.say), Watch(config, rules)
    with witnessed(config) as witness, witness.rules(targets, watch.outcomes):
        watch.told = witness.batches(config, "rules")
        if until_caught_up:
            watch.round(final=True)
            deliverer.once()
            return _done(watch, deliverer, stopper)
        deliverer.start()
        try:
            _loop(config, watch, deliverer, stopper)
        finally:
            deliverer.stop()
            deliverer.join()
        return _done(watch, deliverer, stopper)


def _loop(config: Config, watch: Watch, deliverer: Deliverer, stopper: Stopper) -> None:
    news, told = News(config), set[str]()
    while not stopper.asked.is_set():
        if news.arrived() and watch.round():
            deliverer.news.set()
        for one in watch.failed:
            name = one.target.rule.name
            if name not in told and one.error is not None:
                told.add(name)
                output.say(f"The rule {name} stands still; the others go on. {one.error.message} {one.error.why}")
        stopper.asked.wait(_LOOK_SECONDS)
    watch.round(final=True)


def _done(watch: Watch, deliverer: Deliverer, stopper: Stopper) -> Done:
    kinds = ("opened", "resolved", "late")
    found = {name: {k: w.found.get(k, 0) for k in kinds} for name, w in watch.watched.items()}
    errors = [w.error for w in watch.failed if w.error is not None]
    return Done(found, deliverer.waiting, errors, stopper.interrupted)


class Stopper:
    """The first signal ends the loop, the second one the process, which is safe too."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.interrupted = False

    def install(self) -> None:
        """Take the signals, where that can be done."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handle)
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked.is_set():
            os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else 1)
        self.interrupted = number == signal.SIGINT
        self.asked.set()


def _warn_of_plaintext(config: Config) -> None:
    for name, one in config.rules.outputs.items():
        url = urlsplit(one.url or "")
        far = (one.host if one.kind == "email" else url.hostname) not in (*LOOPBACK, None)
        if far and (url.scheme == "http" or (one.kind == "email" and not one.starttls)):
            output.say(f"The output {name} is sent to in plain text: whoever is on the way can read alerts.")


def listed(config: Config) -> list[dict[str, Any]]:
    """Each rule with its position and the number of its alerts, also of rules whose file is gone."""
    rules = load_rules(config.rules_folder)
    totals = counts(Alerts(config).all())
    rows = []
    with opened(config) as logs:
        orders = Orders(logs[0].con, logs) if logs else None
        for rule in rules:
            rows.append(_listed(config, orders, rule) | _counted(totals.pop(rule.name, {})))
    gone = {"kind": "(file is gone)", "severity": None, **_NOT_BEGUN}
    return rows + [{"rule": name, **gone, **_counted(states)} for name, states in totals.items()]


def _counted(states: dict[str, int]) -> dict[str, int]:
    return {state: states.get(state, 0) for state in ("open", "acknowledged", "resolved")}


def _listed(config: Config, orders: Orders | None, rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {"rule": rule.name, "kind": rule.kind, "severity": rule.severity}
    found |= _NOT_BEGUN
    if orders is None:
        return found
    try:
        target = check(orders.con, rule, orders.logs, config)
        order = orders.of(target.sources)
    except CdcLakeError:
        return found  # `rules check` says what is wrong with it
    standing = Standing.of(config, target)
    place = standing.place(order)
    if place is None:
        return found
    ahead = sum(log.cut for log in orders.logs if log.source in target.sources)
    held = order.held if isinstance(order, Merged) and order.behind else None
    return found | {
        "position": place.position,
        "behind": ahead - sum(order.frontier(place.position).values()),
        "positions": [{"source": s, "position": p} for s, p in standing.positions.items()],
        "waits_for": held.source if held is not None else None,
        "waits_since": held.since.isoformat() if held is not None and held.since is not None else None,
    }


def tried_on_the_past(config: Config, name: str, since: str | None, until: str | None) -> list[dict[str, Any]]:
    """What a rule would have found between two moments."""
    rule = find_rule(load_rules(config.rules_folder), name)
    with opened(config) as logs:
        target: Target = check(connection(logs), rule, logs, config)
        log = merge(connection(logs), logs, target.sources)
        after = log.position(since) if since is not None else 0
        upto = log.position(until) if until is not None else log.cut
        if after > upto:
            raise UsageError(f"{since} is not before {until}.", next="cdc-lake rules test --help")
        found = tried(log, target, after, upto)
    return [
        {
            "at": moment(f.at),
            "change": f.change if f.change != "late" else f.why,
            "id": f.id or None,
            "key": json.loads(f.key),
            "title": title_of(rule, f) if f.change != "late" else None,
            "position": position,
            "evidence": [dict(e) for e in f.evidence],
            "evidence_count": f.total,
        }
        for position, f in found
    ]


def silences_of(config: Config, *, for_writing: bool = False) -> dict[str, Silences]:
    """The silences of each source. Raises LakeError when there is no source to write them for."""
    options = config.lake.options or None
    found = {s: Silences(config.lake_uri, s, options) for s in list_sources(config.lake_uri, options)}
    if for_writing and not found:
        raise _empty()
    return found


def end_silence(config: Config, id: str) -> list[Silence]:
    """End a silence in whatever source it is. Raises UsageError when there is none."""
    now, stores = datetime.now(UTC), silences_of(config, for_writing=True)
    having = [s for s in stores.values() if any(one.id == id for one in s.all())]
    return [s.end(id, now) for s in having or list(stores.values())[:1]]
