"""The demo without a stack: what counts as held, what is shown, what can be copied, and its own connector file."""

from __future__ import annotations

import json
import shlex
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cdc_lake.cli import demo_show, output
from cdc_lake.cli.demo_ask import Result, question
from cdc_lake.cli.demo_chain import Chain
from cdc_lake.cli.demo_steps import Step, Steps
from cdc_lake.cli.demo_story import QUESTIONS, Answer, Deleted, Followed, Story
from cdc_lake.cli.demo_world import MODEL, RULE, Dashboard, World
from cdc_lake.local.retail.freshness import Freshness
from cdc_lake.local.retail.workload import Stats
from cdc_lake.react.rulefile import load_rules
from cdc_lake.react.stream.modelfile import load_model
from tests.shapes import check_shape

ROOT = Path(__file__).parents[2]


VERIFIED = {"table": "public.stores", "rows_source": 3, "rows_lake": 3, "missing": 0, "extra": 0, "different": 0}
SALES = Result(("store", "revenue"), (("Ashford", Decimal("12.50")), ("Millbury", Decimal("3.00"))))
EVENTS = Result(("op", "at"), (("c", datetime(2026, 3, 1, tzinfo=UTC)), ("d", datetime(2026, 3, 2, tzinfo=UTC))))
SOLD_AT = datetime(2026, 3, 1, 9, tzinfo=UTC)
SALE = {
    **{"order_id": 3712, "transaction": "812", "placed_at": SOLD_AT, "quantity": 5},
    **{"product_name": "Rye [dark]", "product_id": 281, "store_id": 7, "store": "Ashford"},
}
CHANGE = {
    **{"transaction": "812", "lsn": 26_843_120, "place": "pos.public.inventory/0/31", "on_hand": 0},
    **{"at": SOLD_AT + timedelta(seconds=0.1), "landed_at": SOLD_AT + timedelta(seconds=1), "reorder_point": 4},
}
ALERT = {
    **{"id": "a-1", "rule": RULE, "title": "Store 7 has none left", "at": SOLD_AT + timedelta(seconds=2)},
    "evidence": [{"tx_id": "812", "lsn": 26_843_120}],
}
EVENT = {
    **{"row_id": "row-1", "row_at": SOLD_AT + timedelta(seconds=1.5)},
    **{"scan_id": "scan-1", "sold": 5, "scan_correlation": "row-1", "scan_cause": "row-1"},
    **{"scan_at": SOLD_AT + timedelta(seconds=2.5), "order_id": "event-1", "number": "PO-7-281-1", "quantity": 14},
    **{"on_hand": 0, "threshold": 5, "order_correlation": "row-1", "order_cause": "scan-1"},
    "order_at": SOLD_AT + timedelta(seconds=3),
}
CHAIN = Chain(SALE, (CHANGE,), (ALERT,), (EVENT,))
DASHBOARD = Dashboard("127.0.0.1:8765", "a-token-that-is-secret")
TRADED = Stats(9.5, {"sale": 7}, {"orders": {"insert": 7}}, (1, 2), 1, 0, 0, 0, 0)
STORY = Story(
    loaded={"stores": 3},
    traded=TRADED,
    freshness=Freshness(9, 0, 0.5, 0.9, 1.1),
    answers=(Answer("sales", "Sales", "SELECT 1", SALES, SALES),),
    prices=EVENTS,
    deleted=Deleted(4, 0, EVENTS),
    verified=(VERIFIED,),
    followed=Followed(CHAIN, DASHBOARD),
    steps=(Step("Load", 1.234),),
    seconds=42.0,
)


def test_a_story_whose_every_claim_held_is_ok() -> None:
    assert STORY.ok


@pytest.mark.parametrize(
    "broken",
    [
        replace(STORY, answers=(Answer("sales", "Sales", "SELECT 1", SALES, EVENTS),)),
        replace(STORY, freshness=replace(STORY.freshness, missing=1)),
        replace(STORY, deleted=replace(STORY.deleted, in_current=1)),
        replace(STORY, deleted=replace(STORY.deleted, events=Result(("op",), (("c",),)))),
        replace(STORY, verified=(VERIFIED, {**VERIFIED, "different": 1})),
        replace(STORY, followed=Followed(replace(CHAIN, alerts=()), DASHBOARD)),
    ],
    ids=[
        *("an answer differs", "a sale was never seen", "the deleted row is there", "no delete event"),
        *("a row differs", "no alert"),
    ],
)
def test_one_claim_that_does_not_hold_is_enough(broken: Story) -> None:
    assert not broken.ok


@pytest.mark.parametrize(
    "broken",
    [
        replace(CHAIN, changes=()),
        replace(CHAIN, changes=(CHANGE, CHANGE)),
        replace(CHAIN, changes=({**CHANGE, "transaction": "813"},)),
        replace(CHAIN, changes=({**CHANGE, "on_hand": 1},)),
        replace(CHAIN, alerts=(ALERT, ALERT)),
        replace(CHAIN, alerts=({**ALERT, "evidence": [{"tx_id": "812", "lsn": 1}]},)),
        replace(CHAIN, alerts=({**ALERT, "evidence": []},)),
        replace(CHAIN, alerts=({**ALERT, "at": SOLD_AT},)),
        replace(CHAIN, events=()),
        replace(CHAIN, events=(EVENT, EVENT)),
        *(
            replace(CHAIN, events=({**EVENT, name: value},))
            for name, value in {
                "scan_cause": "x",
                "scan_correlation": "x",
                "order_cause": "row-1",
                "order_correlation": "x",
                "sold": 4,
                "threshold": 0,
                "order_at": SOLD_AT,
            }.items()
        ),
    ],
)
def test_a_chain_holds_only_if_each_step_names_the_one_before_and_follows_it(broken: Chain) -> None:
    assert CHAIN.ok
    assert not broken.ok


def test_a_chain_without_services_ends_with_the_alert() -> None:
    chain = replace(CHAIN, events=None)
    assert chain.ok
    assert [link.step for link in chain.links()] == ["sale", "change", "alert"]
    assert chain.order_number is None


def test_a_chain_is_told_in_the_order_of_its_times_with_what_caused_each() -> None:
    links = CHAIN.links()
    assert [link.step for link in links] == ["sale", "change", "row", "alert", "scan", "reorder"]
    assert links == sorted(links, key=lambda link: link.at)
    by = {link.step: link for link in links}
    assert by["sale"].id in by["change"].cause
    assert by["alert"].cause == by["change"].cause
    assert by["row"].cause == by["change"].id
    assert by["scan"].cause == by["scan"].correlation == by["row"].id
    assert (by["reorder"].cause, by["reorder"].correlation) == (by["scan"].id, by["row"].id)
    assert "PO-7-281-1" in by["reorder"].what


def test_what_is_not_installed_is_left_out_and_named(tmp_path: Path) -> None:
    assert World.here() == World(services=True, dashboard=True)
    bare = World.here(there=lambda module: False)
    assert (bare.services, bare.dashboard, bare.topics) == (False, False, ())
    assert [words.split("install ")[1] for words in bare.left_out] == ["'cdc-lake[service]'", "'cdc-lake[serve]'"]
    package = World.here(repository=tmp_path)
    assert (package.services, package.dashboard) == (False, True)
    assert "with the repository" in package.left_out[0]
    assert list(package.files()) == [f"rules/{RULE}.yaml"]


def test_the_files_of_the_world_are_a_rule_and_a_model_that_load(tmp_path: Path) -> None:
    for name, text in World(services=True, dashboard=True).files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [rule.name for rule in load_rules(tmp_path / "rules")] == [RULE]
    assert load_model(tmp_path / "streams" / f"{MODEL}.sql").topic == f"retail.{MODEL}"


def test_a_dashboard_shows_a_sale_when_it_has_both_the_alert_and_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[str, Any] = {"/api/alerts": {"alerts": [{"id": "a-1"}]}, "/api/views/purchase_orders": None}
    monkeypatch.setattr(Dashboard, "ask", lambda self, path: answers[path])
    assert DASHBOARD.shows(alert="a-1", order=None)
    assert not DASHBOARD.shows(alert="a-2", order=None)
    assert not DASHBOARD.shows(alert="a-1", order="PO-7-281-1")
    answers["/api/views/purchase_orders"] = {"rows": [["PO-1-1-1"], ["PO-7-281-1"]]}
    assert DASHBOARD.shows(alert="a-1", order="PO-7-281-1")


def test_a_dashboard_that_is_away_answers_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert Dashboard(f"127.0.0.1:{taken.getsockname()[1]}", "x").ask("/api/session") is None


def test_the_token_is_told_only_when_the_dashboard_stays(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure(config=None, as_json=False, verbosity=0)
    for kept in (True, False):
        demo_show.show_end(STORY, demo_show.next_commands(Path("x"), kept=kept), kept=kept)
        words = "".join(capsys.readouterr())
        assert (DASHBOARD.token in words) is kept
        assert ("demo --keep" in words) is not kept
        told = demo_show.document(STORY, [], kept=kept)
        assert (DASHBOARD.token in json.dumps(told)) is kept


def test_answers_differ_when_only_their_order_or_their_names_do() -> None:
    assert not Answer("a", "A", "", SALES, Result(SALES.columns, SALES.rows[::-1])).equal
    assert not Answer("a", "A", "", SALES, Result(("shop", "revenue"), SALES.rows)).equal


def test_the_document_is_json_without_loss_of_a_cent() -> None:
    told = json.loads(json.dumps(demo_show.document(STORY, [("ask", "cdc-lake query")], kept=False)))
    assert told["ok"] is True
    assert told["questions"][0]["first"][0] == {"store": "Ashford", "revenue": "12.50"}
    assert told["deleted"]["events_in_changes"][1] == {"op": "d", "at": "2026-03-02T00:00:00+00:00"}
    assert told["workload"]["transactions"] == 7
    assert "orders" not in told["workload"]
    assert told["world"]["purchase_order"] == "PO-7-281-1"
    check_shape("demo", told)


def test_findings_are_data_on_stdout_and_nothing_of_them_mixes_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        output.configure(config=None, as_json=as_json, verbosity=0)
        show = demo_show.Show()
        show.freshness(STORY.freshness)
        show.answers(STORY.answers)
        show.prices(STORY.prices)
        show.deleted(STORY.deleted)
        show.verified(STORY.verified)
        show.followed(replace(STORY.followed, left_out=("No services here.",)))
        out = capsys.readouterr().out
        assert ("Equal: yes" in out and "12.50" in out and "0.90 s" in out) is not as_json
        assert ("+3.00 s" in out and "Rye [dark]" in out and "caused by scan-1" in out) is not as_json
        assert ("No services here." in out) is not as_json
        assert out == "" or not as_json


def test_an_answer_that_differs_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure(config=None, as_json=False, verbosity=0)
    demo_show.Show().answers([Answer("sales", "Sales", "", SALES, Result(SALES.columns, ()))])
    assert "Equal: NO, PostgreSQL has 2 rows" in capsys.readouterr().out


def test_a_step_says_when_it_begins_what_happens_and_how_long_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    output.configure(config=None, as_json=False, verbosity=0)
    steps = Steps()
    with steps.step("Load [a] shop") as say:
        say("10 rows")
    with pytest.raises(ValueError, match="broken"), steps.step("Fail"):
        raise ValueError("broken")
    err = capsys.readouterr().err
    assert "… Load [a] shop\n    10 rows\n✓ Load [a] shop  " in err
    assert "✓ Fail" not in err
    assert [step.name for step in steps.done] == ["Load [a] shop"]


def test_commands_to_copy_survive_a_shell_though_the_folder_has_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kept in (True, False):
        for _, command in demo_show.next_commands(tmp_path / "my shop" / "cdc-lake.yaml", kept=kept):
            words = shlex.split(command)
            assert "--config" not in words or words[words.index("--config") + 1] == "my shop/cdc-lake.yaml"


def test_a_kept_demo_says_how_to_stop_it() -> None:
    assert any("demo --stop" in command for _, command in demo_show.next_commands(Path("x"), kept=True))


def test_the_shipped_connector_file_is_the_repositorys() -> None:
    shipped = files("cdc_lake.init").joinpath("templates", "connector.json").read_bytes()
    assert shipped == (ROOT / "connectors" / "pos.json").read_bytes()


@pytest.mark.parametrize("name", [*QUESTIONS, "price_history"])
def test_every_question_says_in_its_first_line_what_it_asks(name: str) -> None:
    assert question(name).startswith("-- ")


def test_every_example_is_listed_in_its_readme() -> None:
    folder = ROOT / "examples" / "retail"
    text = (folder / "README.md").read_text()
    assert all(f"]({file.name})" in text for file in folder.glob("*.sql"))
