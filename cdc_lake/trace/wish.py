"""Whether traces are wanted, by OpenTelemetry's own variables. Without them nothing of it is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from cdc_lake.extras import is_there

_ENDPOINT, _OF_TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_PROTOCOL, _PROTOCOL_OF_TRACES = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
_HEADERS, _HEADERS_OF_TRACES = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
_DEFAULT = "http://localhost:4318"
_SPOKEN = "http/protobuf"


@dataclass(frozen=True, slots=True)
class Wish:
    """Where traces are to go. With a `problem` none can be sent; `fix` is what mends it."""

    endpoint: str
    problem: str = ""
    fix: str = ""

    @property
    def shown(self) -> str:
        """The endpoint without what may be a secret."""
        url = urlsplit(self.endpoint)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))


def wish(environ: Mapping[str, str]) -> Wish | None:
    """What the variables ask for; None when they ask for no traces."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    if not (exporter or environ.get(_ENDPOINT) or environ.get(_OF_TRACES)):
        return None
    endpoint = environ.get(_OF_TRACES) or f"{(environ.get(_ENDPOINT) or _DEFAULT).rstrip('/')}/v1/traces"
    protocol = environ.get(_PROTOCOL_OF_TRACES) or environ.get(_PROTOCOL) or _SPOKEN
    return Wish(endpoint, *_problem(exporter, protocol, endpoint))


def _problem(exporter: str, protocol: str, endpoint: str) -> tuple[str, str]:
    """Why nothing can be sent, and what mends it; two empty words when it can."""
    if exporter not in ("", "otlp"):
        return f"there is no exporter {exporter}, only otlp", "export OTEL_TRACES_EXPORTER=otlp"
    if protocol != _SPOKEN:
        fix = f"export {_PROTOCOL}={_SPOKEN}   (a collector takes it on port 4318)"
        return f"the protocol {protocol} is not spoken, only {_SPOKEN}", fix
    if urlsplit(endpoint).scheme not in ("http", "https"):
        return "the endpoint is no http:// or https:// address", f"export {_ENDPOINT}={_DEFAULT}"
    if not all(is_there(m) for m in ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")):
        return "the packages for it are not installed", "pip install 'cdc-lake[otel]'"
    return "", ""


def secrets(environ: Mapping[str, str]) -> list[str]:
    """What is sent along and not for everybody: the values of headers (of `Bearer …` also its end), and the password in
    an endpoint."""
    pairs = ",".join(environ.get(name, "") for name in (_HEADERS, _HEADERS_OF_TRACES)).split(",")
    values = [unquote(value.strip()) for _, found, value in (p.partition("=") for p in pairs) if found]
    passwords = [urlsplit(environ.get(name, "")).password for name in (_ENDPOINT, _OF_TRACES)]
    return [*values, *(v.rpartition(" ")[2] for v in values), *(p for p in passwords if p)]
