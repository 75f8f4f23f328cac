"""The demo without a stack: what counts as held, what is shown, what can be copied, and its own connector file."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from cdc_lake.cli import demo_show, output
from cdc_lake.cli.demo_steps import Step, Steps
from cdc_lake.cli.demo_story import QUESTIONS, Answer, Deleted, Result, Story, question
from cdc_lake.local.retail.freshness import Freshness
from cdc_lake.local.retail.workload import Stats

ROOT = Path(__file__).parents[2]


VERIFIED = {"table": "public.stores", "rows_source": 3, "rows_lake": 3, "missing": 0, "extra": 0, "different": 0}
SALES = Result(("store", "revenue"), (("Ashford", Decimal("12.50")), ("Millbury", Decimal("3.00"))))
EVENTS = Result(("op", "at"), (("c", datetime(2026, 3, 1, tzinfo=UTC)), ("d", datetime(2026, 3, 2, tzinfo=UTC))))
TRADED = Stats(9.5, {"sale": 7}, {"orders": {"insert": 7}}, (1, 2), 1, 0, 0, 0, 0)
STORY = Story(
    loaded={"stores": 3},
    traded=TRADED,
    freshness=Freshness(9, 0, 0.5, 0.9, 1.1),
    answers=(Answer("sales", "Sales", "SELECT 1", SALES, SALES),),
    prices=EVENTS,
    deleted=Deleted(4, 0, EVENTS),
    verified=(VERIFIED,),
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
    ],
    ids=["an answer differs", "a sale was never seen", "the deleted row is there", "no delete event", "a row differs"],
)
def test_one_claim_that_does_not_hold_is_enough(broken: Story) -> None:
    assert not broken.ok


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


def test_findings_are_data_on_stdout_and_nothing_of_them_mixes_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        output.configure(config=None, as_json=as_json, verbosity=0)
        show = demo_show.Show()
        show.freshness(STORY.freshness)
        show.answers(STORY.answers)
        show.prices(STORY.prices)
        show.deleted(STORY.deleted)
        show.verified(STORY.verified)
        out = capsys.readouterr().out
        assert ("Equal: yes" in out and "12.50" in out and "0.90 s" in out) is not as_json
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
