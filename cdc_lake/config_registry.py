"""The section `registry` of the configuration: where schemas are that stand beside no event."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cdc_lake.addresses import LOOPBACK
from cdc_lake.config_rules import Section


class RegistrySection(Section):
    """A schema registry with Confluent's interface: Confluent's own, Karapace, or Apicurio's `/apis/ccompat/v7`."""

    url: str = Field(description="such as `http://localhost:8081`; Apicurio's is `http://HOST:8080/apis/ccompat/v7`")
    user: str | None = Field(default=None, description="of basic auth, where the registry asks for one")
    password: str | None = Field(default=None, description="of that user, as `${ENV}`", repr=False)
    headers: dict[str, str] = Field(
        default_factory=dict,
        description="more headers of its requests, such as `Authorization: Bearer ${TOKEN}`",
        repr=False,
    )
    ca: str | None = Field(
        default=None, description="the file of the authorities that sign its certificate; else those of the system"
    )
    certificate: str | None = Field(default=None, description="the file of this client's certificate")
    key: str | None = Field(default=None, description="the file of that certificate's key; its own when none is named")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address of a registry begins with http:// or https:// and names a host")
        if parts.username or parts.password:
            raise ValueError("user and password have settings of their own: `user`, `password`")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _whole(self) -> RegistrySection:
        if self.password is not None and self.user is None:
            raise ValueError("`password` needs `user`")
        if self.key is not None and self.certificate is None:
            raise ValueError("`key` needs `certificate`")
        return self

    @property
    def readable_by_others(self) -> bool:
        """Whether credentials cross a network unencrypted."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in LOOPBACK and bool(self.user or self.headers)
