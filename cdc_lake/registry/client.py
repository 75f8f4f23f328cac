"""A schema registry over its REST interface, as Confluent's defines it and Apicurio and Karapace speak it.

It only reads. Every call has a timeout. No answer carries a schema twice: what was told of a number holds for ever.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from cdc_lake.config import Config
from cdc_lake.config_registry import RegistrySection
from cdc_lake.errors import ConfigError, UnavailableError
from cdc_lake.registry.schemas import RegisteredSchema

_TIMEOUT_SECONDS = 10.0
_MOST_REFERENCES = 200


class UnknownSchemaError(Exception):
    """The registry answers, and has no such schema."""


class RegistryClient:
    """Raises UnavailableError where the registry does not answer as one: away, overloaded, or refusing credentials."""

    def __init__(
        self,
        section: RegistrySection,
        folder: Path = Path(),
        *,
        transport: httpx.BaseTransport | None = None,
        timeout: float = _TIMEOUT_SECONDS,
    ) -> None:
        """Paths in `section` are relative to `folder`. Raises ConfigError for a certificate that cannot be read."""
        self.url = section.url
        auth = httpx.BasicAuth(section.user, section.password or "") if section.user is not None else None
        accept = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        self._http = httpx.Client(
            base_url=section.url,
            auth=auth,
            headers={**accept, **section.headers},
            verify=_trust(section, folder),
            timeout=timeout,
            transport=transport,
            follow_redirects=False,  # credentials go nowhere else
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def schema(self, number: int) -> RegisteredSchema:
        """The schema of a number with all that it refers to. Raises UnknownSchemaError."""
        answer = self._ask(f"/schemas/ids/{number}")
        references: dict[tuple[str, str], tuple[str, str]] = {}
        self._follow(answer, references)
        return RegisteredSchema(
            number, str(answer.get("schemaType") or "AVRO"), str(answer["schema"]), tuple(references.values())
        )

    def _follow(self, answer: Mapping[str, Any], found: dict[tuple[str, str], tuple[str, str]]) -> None:
        for one in answer.get("references") or ():
            place = (str(one["subject"]), str(one["version"]))
            if place in found or len(found) >= _MOST_REFERENCES:
                continue
            found[place] = ("", "")  # those that refer to each other end here
            other = self._ask(f"/subjects/{quote(place[0], safe='')}/versions/{quote(place[1], safe='')}")
            self._follow(other, found)
            del found[place]
            found[place] = (str(one["name"]), str(other["schema"]))

    def subjects(self) -> list[str]:
        """Names of all subjects."""
        return [str(one) for one in self._ask("/subjects", kind=list)]

    def compatibility(self, subject: str | None = None) -> str | None:
        """What a new version of a subject, or of any, is held against; None where the subject has no word of its own,
        or the registry does not tell."""
        path = "/config" + (f"/{quote(subject, safe='')}" if subject is not None else "")
        try:
            answer = self._ask(path)
        except UnknownSchemaError:
            return None
        level = answer.get("compatibilityLevel") or answer.get("compatibility")
        return str(level) if level else None

    def mode(self) -> str | None:
        """Whether it takes new schemas (`READWRITE`, `READONLY`, …); None where it does not tell."""
        try:
            return str(self._ask("/mode").get("mode") or "") or None
        except UnknownSchemaError:
            return None

    def _ask(self, path: str, kind: type = dict) -> Any:
        try:
            answer = self._http.get(path)
        except httpx.HTTPError as error:
            raise self._away(_words(error)) from None
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise UnknownSchemaError(path)
        if answer.status_code in (401, 403):
            raise UnavailableError(
                f"The schema registry at {self.url} refuses the credentials.",
                why=f"It answers {answer.status_code} to GET {path}.",
                next="set `registry.user` and `registry.password`, or `registry.headers`, in cdc-lake.yaml",
                code="registry_refused",
            )
        try:
            document = answer.json() if answer.is_success else None
        except ValueError:
            document = None
        if not isinstance(document, kind):
            raise self._away(f"it answers {answer.status_code} to GET {path}, and no {kind.__name__} in JSON")
        return document

    def _away(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"The schema registry at {self.url} does not answer.",
            why=why,
            next="start it, or correct `registry.url` in cdc-lake.yaml; then: cdc-lake doctor",
            code="registry_away",
        )


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it gave no answer in time"
    return str(error) or type(error).__name__


def _trust(section: RegistrySection, folder: Path) -> ssl.SSLContext | bool:
    if section.ca is None and section.certificate is None:
        return True
    files = {"ca": section.ca, "certificate": section.certificate, "key": section.key}
    placed = {name: folder / Path(file).expanduser() for name, file in files.items() if file is not None}
    for name, file in placed.items():
        if not file.is_file():
            raise ConfigError(
                f"`registry.{name}` names a file that is not there: {file}",
                why="Paths are relative to the folder of cdc-lake.yaml.",
                next="correct it in cdc-lake.yaml",
            )
    try:
        context = ssl.create_default_context(cafile=placed.get("ca"))
        if "certificate" in placed:
            context.load_cert_chain(placed["certificate"], placed.get("key"))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            "A certificate of `registry` cannot be read.",
            why=str(error),
            next="name files in the PEM format in cdc-lake.yaml",
        ) from None
    return context


def open_client(config: Config) -> RegistryClient | None:
    """The client of the configured registry; None when none is configured."""
    return RegistryClient(config.registry, config.root) if config.registry is not None else None
