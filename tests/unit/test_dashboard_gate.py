"""Who gets into the dashboard, and what every answer carries."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cdc_lake.checks import Status
from cdc_lake.config import Config
from cdc_lake.errors import ConfigError
from cdc_lake.serve.dashboard.app import STATIC, Parts
from cdc_lake.serve.dashboard.check import check_serve
from cdc_lake.serve.dashboard.server import hosts_of
from cdc_lake.serve.dashboard.token import read_token, token_file
from tests.dashboards import HOST, TOKEN, client, entered
from tests.shops import Shop

PATHS = ["/", "/static/main.js", "/api/state", "/api/session", "/api/events", "/api/views/shop_now", "/nothing"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Parts]]:
    folder = tmp_path_factory.mktemp("shop")
    Shop.open(folder)
    with client(folder) as found:
        yield found


@pytest.fixture
def web(made: tuple[TestClient, Parts]) -> Iterator[TestClient]:
    fresh = made[0]
    kept = dict(fresh.headers)
    fresh.cookies.clear()
    yield fresh
    fresh.cookies.clear()
    fresh.headers.clear()
    fresh.headers.update(kept)


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_answered_without_the_token(path: str, web: TestClient) -> None:
    for more in ({}, {"authorization": "Bearer wrong"}, {"cookie": "cdc_lake_8765=wrong"}):
        answer = web.get(path, headers=more)
        assert answer.status_code == 401
        assert "cdc-lake serve" in answer.text


def test_the_token_is_for_the_first_page_alone(web: TestClient) -> None:
    assert web.get(f"/api/state?token={TOKEN}").status_code == 401
    assert web.get("/?token=wrong").status_code == 401


def test_a_token_becomes_a_cookie_that_no_script_reads_and_no_other_site_sends(web: TestClient) -> None:
    first = web.get(f"/?token={TOKEN}")
    cookie = first.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert TOKEN not in cookie
    assert first.headers["refresh"] == "0; url=/"
    assert web.get("/").status_code == 200
    assert web.get("/api/state").status_code == 200


def test_a_program_sends_the_token_as_a_header(web: TestClient) -> None:
    assert web.get("/api/state", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", ""])
def test_another_host_is_refused_even_with_the_token(host: str, web: TestClient) -> None:
    assert web.get("/api/state", headers={"host": host, "authorization": f"Bearer {TOKEN}"}).status_code == 421


def test_a_name_of_this_machine_is_served_and_names_that_are_configured() -> None:
    assert set(hosts_of("127.0.0.1", 1, ())) == {"127.0.0.1:1", "localhost:1", "[::1]:1", "::1:1"}
    assert {"localhost:1", "shop.example:1"} <= set(hosts_of("0.0.0.0", 1, ["shop.example"]))  # noqa: S104
    assert set(hosts_of("10.0.0.5", 1, ["shop.example"])) == {"10.0.0.5:1", "shop.example", "shop.example:1"}


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9999", "null"])
def test_another_origin_is_refused_even_with_the_cookie(origin: str, web: TestClient) -> None:
    entered(web)
    assert web.get("/api/state", headers={"origin": origin}).status_code == 403
    assert web.post("/api/sql", json={"sql": "SELECT 1"}, headers={"origin": origin}).status_code == 403


def test_what_another_site_makes_a_browser_fetch_is_refused(web: TestClient) -> None:
    entered(web)
    assert web.get("/api/state", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_an_action_needs_more_than_the_cookie(web: TestClient) -> None:
    entered(web)
    sent = {"rule": "x"}
    assert web.post("/api/silences", json=sent).status_code == 200
    assert web.post("/api/silences", headers={"x-cdc-lake-action": "wrong"}, json=sent).status_code == 403
    del web.headers["origin"]
    assert web.post("/api/silences", json=sent).status_code == 403


def test_no_action_is_a_get(made: tuple[TestClient, Parts], web: TestClient) -> None:
    entered(web)
    for path in ("/api/sql", "/api/alerts/1/acknowledge", "/api/alerts/1/resolve", "/api/silences/1/end"):
        assert web.get(path).status_code in (404, 405)


@pytest.mark.parametrize("path", [*(p for p in PATHS if p != "/api/events"), f"/?token={TOKEN}"])
def test_every_answer_lets_a_page_run_its_own_scripts_alone(path: str, web: TestClient) -> None:
    entered(web)
    for answer in (web.get(path), web.get(path, headers={"host": "evil"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] in ("no-store", "no-cache")
        assert TOKEN not in answer.text


def test_no_page_holds_inline_script_or_style_or_something_from_elsewhere() -> None:
    for file in STATIC.iterdir():
        if file.suffix in (".html", ".js", ".css") and not file.name.startswith("uplot"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(
                r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=\"|innerHTML|insertAdjacentHTML", text
            ), file
            assert not re.search(r"(?:src|href)=\"https?:|import .* from \"https?:|url\(\"?https?:", text), file


def test_no_file_outside_the_static_ones_is_served(web: TestClient) -> None:
    entered(web)
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert web.get(path).status_code == 404


def test_what_a_vendored_script_may_be_used_under_is_beside_it() -> None:
    assert "MIT" in (STATIC / "uplot.LICENSE").read_text()


def test_a_token_is_kept_for_the_next_start_where_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = read_token(tmp_path / "state", None)
    assert len(first) > 30
    assert read_token(tmp_path / "state", None) == first
    assert (tmp_path / "state" / "serve-token").stat().st_mode & 0o077 == 0
    assert read_token(tmp_path / "state", None, anew=True) != first


def test_a_configured_token_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    assert read_token(tmp_path, TOKEN) == TOKEN
    with pytest.raises(ConfigError, match="too short"):
        read_token(tmp_path, "1234")


def test_the_address_is_this_machine_alone_unless_another_one_is_named() -> None:
    from cdc_lake.config import Config

    assert Config().serve.address == "127.0.0.1:8765"
    assert HOST.startswith("127.0.0.1:")


def config(folder: Path, **serve: str) -> Config:
    return Config.model_validate({"lake": {"uri": str(folder / "lake")}, "root": folder, "serve": serve})


def findings(config: Config) -> dict[str, Status]:
    return {check.name: check.status for check in check_serve(config)}


def test_doctor_says_who_reaches_the_dashboard(tmp_path: Path) -> None:
    assert findings(config(tmp_path)) == {}
    read_token(config(tmp_path).state_folder, None)
    assert findings(config(tmp_path)) == {"serve.address": Status.OK, "serve.token": Status.OK}
    token_file(config(tmp_path).state_folder).chmod(0o644)
    open_to_all = config(tmp_path, address="0.0.0.0:8765")
    assert findings(open_to_all) == {"serve.address": Status.WARN, "serve.token": Status.WARN}
    named = config(tmp_path, address="[::1]:8765", token=TOKEN)
    assert findings(named) == {"serve.address": Status.OK}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not there")
def test_doctor_says_when_the_certificate_is_none(tmp_path: Path) -> None:
    own = config(tmp_path, address="0.0.0.0:8765", cert="own.pem", key="own.key")
    for content in (None, "no certificate"):
        if content is not None:
            (tmp_path / "own.pem").write_text(content)
        (found,) = check_serve(own)
        assert (found.name, found.status, bool(found.fix)) == ("serve.address", Status.FAIL, True)
    more = "-x509 -nodes -newkey rsa:2048 -days 1 -subj /CN=localhost"
    command = ["openssl", "req", *more.split(), "-keyout", str(tmp_path / "own.key"), "-out", str(tmp_path / "own.pem")]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = check_serve(own)
    assert (found.name, found.status) == ("serve.address", Status.OK)
