"""Stack traces become words: what went wrong, and the next thing to do; never a secret."""

from __future__ import annotations

import re

import pytest

from cdc_lake.capture.failures import explain, redact, root_cause

PREFIX = "org.apache.kafka.connect.errors.ConnectException: Error while starting\n\tat io.debezium.X.start(X.java:1)\n"

TRACES = {
    "wrong_password": 'Caused by: org.x.PSQLException: FATAL: password authentication failed for user "c"',
    "no_database": 'Caused by: org.postgresql.util.PSQLException: FATAL: database "shop" does not exist',
    "no_role": 'Caused by: org.postgresql.util.PSQLException: FATAL: role "c" does not exist',
    "no_publication": 'Caused by: org.postgresql.util.PSQLException: ERROR: publication "p" does not exist',
    "slot_in_use": 'Caused by: org.postgresql.util.PSQLException: ERROR: replication slot "s" is active for PID 42',
    "wal_level": "Caused by: java.lang.IllegalStateException: Postgres server wal_level property must be 'logical'",
    "permission_denied": "Caused by: org.postgresql.util.PSQLException: ERROR: permission denied for table orders",
    "source_unreachable": "Caused by: org.postgresql.util.PSQLException: Connection to db:5432 refused. Check that",
    "slot_lost": 'Caused by: org.postgresql.util.PSQLException: ERROR: can no longer access replication slot "s"',
    "no_free_slot": "Caused by: org.postgresql.util.PSQLException: ERROR: all replication slots are in use",
    "pg_hba": "Caused by: org.postgresql.util.PSQLException: FATAL: no pg_hba.conf entry for replication connection",
    "column_case": "Caused by: io.debezium.DebeziumException: Table 'public.t' has columns that differ only by case. "
    "Column name: 'a'. Debezium does not support case-sensitive duplicate column names as this causes data corruption.",
    "record_too_large": "Caused by: org.apache.kafka.common.errors.RecordTooLargeException: The message is 9 bytes",
}


@pytest.mark.parametrize(("code", "cause"), TRACES.items())
def test_common_failures_have_words_and_a_next_step(code: str, cause: str) -> None:
    words = explain(f"{PREFIX}{cause}\n\tat org.postgresql.Driver.connect(Driver.java:2)\n", name="pos")
    assert words.code == code
    assert words.message
    assert words.next
    assert "Exception" not in words.why
    assert not re.search(r"\bNAME\b", words.next)
    assert "REpos" not in words.next


def test_the_names_of_the_trace_are_in_the_words() -> None:
    assert '"shop"' in explain(PREFIX + TRACES["no_database"]).message
    assert "table orders" in explain(PREFIX + TRACES["permission_denied"]).message
    assert 'public.t has another column "a"' in explain(PREFIX + TRACES["column_case"]).message
    assert "db:5432" in explain(PREFIX + TRACES["source_unreachable"]).message


def test_the_root_cause_is_the_last_one_without_class_names() -> None:
    trace = f"{PREFIX}Caused by: a.b.Outer: outer\n\tat x\nCaused by: a.b.Inner: c.d.E: the reason\n\t... 3 more\n"
    assert root_cause(trace) == "the reason"


def test_a_trace_without_a_message_names_its_class() -> None:
    assert root_cause("java.lang.NullPointerException\n\tat x.Y") == "NullPointerException"


def test_an_unknown_failure_keeps_its_own_words() -> None:
    words = explain(f"{PREFIX}Caused by: a.b.C: the moon is full", name="pos")
    assert words.message == "the moon is full"
    assert "pos" in words.next


def test_an_empty_trace_is_still_an_answer() -> None:
    assert explain("").message


def test_braces_in_a_trace_do_not_break_the_words() -> None:
    assert "{x}" in explain('FATAL: database "{x}" does not exist').message


def test_secrets_are_hidden_wherever_they_stand() -> None:
    text = "jdbc:postgresql://cap:hunter2@db/x?password=hunter2 and s3cr3t"
    hidden = redact(text, ["s3cr3t"])
    assert "hunter2" not in hidden
    assert "s3cr3t" not in hidden
    assert "hunter2" not in explain(f"Caused by: a.B: no connection to {text}").message
