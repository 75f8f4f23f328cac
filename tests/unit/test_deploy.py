"""What deploy/ ships fits the program: alerts and dashboard name metrics that exist, manifests and unit are valid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cdc_lake.config import load_config
from cdc_lake.connector_file import load_connector
from cdc_lake.serve.catalogue import METRICS, PROCESS, series
from tests.unit.test_cli_help import parse

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana/cdc-lake.json").read_text())
MANIFESTS = {m["kind"]: m for m in yaml.safe_load_all((DEPLOY / "kubernetes/sink.yaml").read_text())}
UNIT = DEPLOY / "systemd/cdc-lake-sink.service"

EXISTING = {name for metric in (*METRICS, *PROCESS) for name in series(metric)} | {"up"}
LABELS = {label for metric in (*METRICS, *PROCESS) for label in metric.labels} | {"le", "job", "instance"}
FUNCTIONS = {
    *("sum", "max", "min", "by", "on", "and", "rate", "increase", "deriv", "time"),
    *("histogram_quantile", "min_over_time", "label_values"),
}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if isinstance(variable["query"], dict):
            yield variable["name"], variable["query"]["query"]


def names(expression: str) -> set[str]:
    """All words of an expression that are neither in quotes nor a range nor a number."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]|\b[0-9.]+(e[0-9]+)?\b', " ", expression)
    return set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_]*", bare))


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_name_in_an_expression_exists(where: str, expression: str) -> None:
    assert names(expression) - FUNCTIONS - LABELS - EXISTING == set(), where
    assert names(expression) & EXISTING, where


def test_a_name_that_does_not_exist_is_seen() -> None:
    assert names('rate(cdc_lake_rows_total{source="up"}[5m]) > 1e3') - FUNCTIONS - EXISTING == {
        "cdc_lake_rows_total",
        "source",
    }


def test_every_alert_says_what_it_is_and_where_the_runbook_has_it() -> None:
    page = (ROOT / "docs/how-to/runbook.md").read_text()
    headings = re.findall(r"^## (\w+)$", page, re.M)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".") or "(p95)" in rule["annotations"]["summary"]


def test_every_alert_of_the_runbook_has_commands() -> None:
    page = (ROOT / "docs/how-to/runbook.md").read_text()
    for part in page.split("\n## ")[1:]:
        assert "$ cdc-lake " in part, part.partition("\n")[0]


def test_panels_have_titles_units_and_places_that_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("words", [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]])
def test_promtool_takes_the_rules_and_they_fire_when_they_must(words: list[str]) -> None:
    done = subprocess.run(["promtool", *words], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- systemd


def test_the_unit_starts_a_command_that_exists() -> None:
    (start,) = re.findall(r"^ExecStart=\S+/cdc-lake (.*)$", UNIT.read_text(), re.M)
    parse(start.split())


@pytest.mark.skipif(not (Path(sys.executable).parent / "hadolint").exists(), reason="hadolint has no program for this")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    words = [str(Path(sys.executable).parent / "hadolint"), "--failure-threshold", "style", str(ROOT / "Dockerfile")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # It looks for the program, which is installed on the machine that runs it.
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.M))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- Kubernetes


def kubernetes_schema(kind: str) -> dict[str, Any]:
    """Kubernetes' own schema of a kind: `definitions` of its OpenAPI document, in which no key is unknown."""
    whole: dict[str, Any] = json.loads((Path(__file__).parent / "data/kubernetes.schema.json").read_text())
    return {"$ref": f"#/definitions/{whole['kinds'][kind]}", "definitions": whole["definitions"]}


@pytest.mark.parametrize("kind", sorted(MANIFESTS))
def test_kubernetes_own_schema_takes_each_manifest(kind: str) -> None:
    jsonschema.Draft7Validator(kubernetes_schema(kind)).validate(MANIFESTS[kind])


def test_a_slip_in_a_manifest_is_seen() -> None:
    validator = jsonschema.Draft7Validator(kubernetes_schema("StatefulSet"))
    wrong = json.loads(json.dumps(MANIFESTS["StatefulSet"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    assert not validator.is_valid(wrong)


def test_the_manifests_fit_each_other_and_the_program(tmp_path: Path) -> None:
    files, pod = MANIFESTS["ConfigMap"]["data"], MANIFESTS["StatefulSet"]["spec"]["template"]["spec"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    config = load_config(tmp_path / "cdc-lake.yaml", environ={"LAKE_KEY_ID": "id", "LAKE_KEY": "key"})
    assert load_connector(config.connector_file(config.all_sources[0])).transaction_topic == "pos.transaction"
    (container,) = pod["containers"]
    parse(container["args"])
    assert config.sink.metrics is not None
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports["metrics"] == int(config.sink.metrics.rpartition(":")[2])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert {m["subPath"] for m in container["volumeMounts"] if "subPath" in m} == set(files)
    labels = MANIFESTS["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert MANIFESTS["Service"]["spec"]["selector"].items() <= labels.items()
    assert f"useradd --uid {pod['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text()
