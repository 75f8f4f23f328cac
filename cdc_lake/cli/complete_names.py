"""Names for completion from live state: tables, connectors, dead letters.

A shell asks at each press of a key, so nothing heavy is imported where a folder and a file tell.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from cdc_lake.cache import cache_folder

# That of `config`, which takes longer to import than all that is done here.
DEFAULT_FILE = "cdc-lake.yaml"
_SECONDS = 0.5


def names(kind: str, config: str | None) -> Iterator[str]:
    """The names of a kind of thing (a key of KINDS) of the project that `config` (its file's path) describes.

    Raises whatever reading it raises, and KeyError for another kind.
    """
    yield from KINDS[kind](*_configuration(config))


def _configuration(option: str | None) -> tuple[dict[str, Any], Path]:
    """The configuration as its file has it, unchecked, and its folder: checking it costs more than all the rest."""
    import yaml

    file = Path(option or DEFAULT_FILE)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it was built: a tenth of the time
    raw = loader(file.read_text(encoding="utf-8")).get_single_data() if file.is_file() else {}
    return raw if isinstance(raw, dict) else {}, file.absolute().parent


def _tables(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """Tables that have a log: those of `public` without it, too."""
    from cdc_lake.land.naming import decode_name

    for source in _lake(raw, root).iterdir():
        for table in source.glob("log/*/*"):
            schema, name = decode_name(table.parent.name), decode_name(table.name)
            yield f"{schema}.{name}"
            if schema == "public":
                yield name


def _lake(raw: dict[str, Any], root: Path) -> Path:
    uri = str((raw.get("lake") or {}).get("uri", "./lake"))
    if "://" in uri or "${" in uri:
        raise LookupError(uri)  # asking an object store takes longer than a person waits for a key
    return root / Path(uri).expanduser()


def _connectors(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """The connectors of the worker; where it does not answer, those that have a file."""
    from urllib.request import urlopen

    url = (raw.get("connect") or {}).get("url")
    try:
        if url is None:
            url = json.loads((root / ".cdc-lake" / "stack.json").read_text())["connect"]["url"]
        with urlopen(f"{url}/connectors", timeout=_SECONDS) as answer:  # noqa: S310 - the configured address
            yield from json.load(answer)
    except (OSError, ValueError, KeyError, TypeError):
        for file in (root / "connectors").glob("*.json"):
            yield str(json.loads(file.read_text())["name"])


def _letters(raw: dict[str, Any], root: Path) -> Iterator[str]:
    """Dead letters that wait for a decision."""
    lake = _lake(raw, root)
    for source in lake.iterdir():
        letters = source / "dead_letters"
        if letters.is_dir():
            logs = (letters / "_delta_log", source / "dead_letter_decisions" / "_delta_log")
            yield from _remembered(letters, logs, partial(_waiting, lake, source.name))


def _waiting(lake: Path, source: str) -> list[str]:
    from cdc_lake.land.dead_letters import WAITING, DeadLetters

    return [letter.id for letter in DeadLetters(str(lake), source).all() if letter.state == WAITING]


def _remembered(what: Path, logs: Iterable[Path], ask: Callable[[], list[str]]) -> list[str]:
    """What `ask` says; from the user's cache while no commit was added to `logs`, as asking takes most of a second."""
    state = [[f.name, f.stat().st_mtime_ns] for log in logs if log.is_dir() for f in sorted(log.iterdir())]
    kept = cache_folder() / "completion" / f"{zlib.crc32(bytes(what)):08x}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(kept.read_text(encoding="utf-8"))
        if known["of"] == str(what) and known["state"] == state:
            return list(known["names"])
    found = ask()
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        whole = kept.with_suffix(f".{os.getpid()}")
        whole.write_text(json.dumps({"of": str(what), "state": state, "names": found}), encoding="utf-8")
        whole.replace(kept)
    return found


Names = Callable[[dict[str, Any], Path], Iterator[str]]
KINDS: dict[str, Names] = {"tables": _tables, "connectors": _connectors, "letters": _letters}
