"""Wheel and sdist build, hold what they need, and work in an environment that has never seen this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from benchmarks.peers import SPARK
from cdc_lake import __version__
from tests.layers import locked, other_pythons

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLEAN = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("CDC_LAKE_")}


def build(what: str, folder: Path) -> Path:
    """One distribution, as any builder would ask the build backend for it."""
    code = f"import sys, hatchling.build as b; print(b.build_{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, env=CLEAN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with pip, whose dependencies are those of this one: nothing is fetched."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    # Behind its own packages, so that what is installed there comes first.
    (folder / own / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment of the newest Python on this machine that is not that of the tests."""
    pythons = other_pythons()
    if not pythons:
        pytest.skip("there is no other Python 3.11 or newer")
    folder = tmp_path_factory.mktemp("newest")
    subprocess.run([pythons[0], "-m", "venv", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text(f"{locked(pythons[0], ROOT / 'requirements-image.lock')}\n")
    return folder


def install(environment: Path, distribution: Path) -> None:
    words = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = subprocess.run(
        [environment / "bin" / "python", "-m", "pip", *words, "--force-reinstall", distribution],
        env=CLEAN,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def use(environment: Path, folder: Path) -> None:
    """What somebody does first who has just installed it."""

    def run(*words: str) -> str:
        program = environment / "bin" / words[0]
        done = subprocess.run(
            [program, *words[1:]], cwd=folder, env=CLEAN, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    where = "import cdc_lake.cli.main, pathlib; print(pathlib.Path(cdc_lake.__file__).parents[4])"
    assert Path(run("python", "-c", where).strip()) == environment
    assert run("cdc-lake", "--version") == f"cdc-lake {__version__}\n"
    assert run("cdc-lake", "--help").startswith("Usage: cdc-lake ")
    for template in ("blank", "retail"):
        run("cdc-lake", "init", template, "--template", template)
        assert sorted(p.name for p in (folder / template / "connectors").iterdir()) == ["pos.json"]
        assert list((folder / template / "notebooks").glob("*.py"))
        run("cdc-lake", "--config", f"{template}/cdc-lake.yaml", "--json", "tables")
    assert run("cdc-lake", "query", "SELECT 6 * 7 AS answer", "--format", "csv") == "answer\n42\n"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "cdc_lake"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if ".dist-info/" not in n}
    assert set(listed) - held == set()
    assert {n.split("/")[0] for n in held} == {"cdc_lake"}
    assert "cdc_lake/py.typed" in held
    assert "cdc_lake/init/templates/connector.json" in held


def test_the_sdist_holds_what_building_and_testing_need_and_no_state(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "cdc_lake/py.typed", "connectors/pos.json"} <= names
    assert "tests/unit/test_packaging.py" in names
    assert not any(n.split("/")[0] in {".cdc-lake", ".venv", "lake", ".git"} for n in names)


def test_the_wheel_works_in_a_fresh_environment(environment: Path, wheel: Path, tmp_path: Path) -> None:
    install(environment, wheel)
    use(environment, tmp_path)


def test_the_sdist_works_in_a_fresh_environment(environment: Path, sdist: Path, tmp_path: Path) -> None:
    install(environment, sdist)
    use(environment, tmp_path)


def test_the_wheel_works_in_a_fresh_environment_of_the_newest_other_python(
    newest: Path, wheel: Path, tmp_path: Path
) -> None:
    install(newest, wheel)
    use(newest, tmp_path)


# --- what the metadata promises


def test_every_python_that_is_promised_is_one_that_is_required() -> None:
    python = "Programming Language :: Python :: 3."
    versions = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if c.startswith(python)]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_every_extra_is_in_the_installation_page() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    assert [extra for extra in PROJECT["optional-dependencies"] if f"| `{extra}` |" not in page] == []


def test_the_extra_for_spark_is_what_the_benchmarks_and_the_tests_run() -> None:
    assert PROJECT["optional-dependencies"]["spark"] == list(SPARK)


# --- what `make lint` looks at


def test_every_python_file_of_the_project_is_type_checked_but_the_notebooks() -> None:
    """A marimo notebook's cells take what other cells return, which no annotation says."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    checked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    left_out = [f for f in listed.split() if not f.startswith(tuple(f"{folder}/" for folder in checked))]
    assert {f.split("/")[0] for f in left_out} == {"notebooks"}


# --- the image


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_runs_as_an_ordinary_user_and_holds_no_builder() -> None:
    found = instructions()
    stages = [i for i, (word, _) in enumerate(found) if word == "FROM"]
    last = found[stages[-1] :]
    assert len(stages) == 2
    (user,) = [rest for word, rest in last if word == "USER"]
    assert user == "1001"  # a number: an orchestrator that refuses root can only tell so by it
    assert f"useradd --uid {user} --gid cdc" in " ".join(rest for word, rest in last if word == "RUN")
    assert [rest for word, rest in last if word == "COPY"] == ["--from=build /opt/cdc-lake /opt/cdc-lake"]
    assert ("ENTRYPOINT", '["cdc-lake"]') in last


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    sources = [rest.split()[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    assert sources
    for source in (name for names in sources for name in names):
        assert (ROOT / source).exists(), source


def test_what_the_wheel_takes_from_elsewhere_is_there_when_the_image_is_built() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = {rest.split()[0] for word, rest in instructions() if word == "COPY" and "--from" not in rest}
    assert {path.split("/")[0] for path in wheel["force-include"]} - copied == set()


def test_each_run_of_the_image_installs_only_what_is_locked() -> None:
    for word, rest in instructions():
        if word == "RUN" and "pip install" in rest:
            assert "--require-hashes" in rest or "--no-deps --no-build-isolation" in rest
