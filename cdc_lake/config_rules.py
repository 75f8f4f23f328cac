"""The section `rules` of the configuration: where rules are, and where their alerts go."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A section of the configuration: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Output(Section):
    """Where alerts are sent: a webhook, a Slack-compatible one, or mail."""

    kind: Literal["webhook", "slack", "email"] = Field(description="what it speaks")
    url: str | None = Field(default=None, description="of a webhook; a secret, so better `${ENV}`", repr=False)
    headers: dict[str, str] = Field(
        default_factory=dict, description="more headers of a webhook's requests", repr=False
    )
    host: str | None = Field(default=None, description="of the mail server")
    port: int = Field(default=587, ge=1, le=65535, description="of the mail server")
    starttls: bool = Field(default=True, description="speak TLS with the mail server, and check its certificate")
    user: str | None = Field(default=None, description="of the mail server, where it asks for one")
    password: str | None = Field(default=None, description="of the mail server's user, as `${ENV}`", repr=False)
    sender: str | None = Field(default=None, alias="from", description="the address that mails come from")
    to: list[str] = Field(default_factory=list, description="the addresses that mails go to")
    changes: tuple[Literal["opened", "resolved", "acknowledged"], ...] = Field(
        default=("opened", "resolved"), description="what becomes of an alert that is worth sending"
    )
    rate: int = Field(default=30, ge=1, description="sent in a minute at most; what is more waits")

    @model_validator(mode="after")
    def _whole(self) -> Output:
        wanted = ["host", "from", "to"] if self.kind == "email" else ["url"]
        there = {"host": self.host, "from": self.sender, "to": self.to, "url": self.url}
        missing = [name for name in wanted if not there[name]]
        if missing:
            raise ValueError(f"an output of the kind {self.kind} needs {', '.join(missing)}")
        return self


class RulesSection(Section):
    """Rules over changes, and where their alerts go."""

    folder: str = Field(default="rules", description="of the rules' files")
    outputs: dict[str, Output] = Field(default_factory=dict, description="by name: where alerts are sent")


class HttpOutput(Section):
    """Where rows of streaming models are POSTed to, each as a CloudEvent."""

    url: str = Field(description="of the receiver; where it holds a secret, as `${ENV}`", repr=False)
    headers: dict[str, str] = Field(default_factory=dict, description="more headers of the requests", repr=False)


class StreamsSection(Section):
    """Streaming models: SQL over changes, kept up while they land."""

    folder: str = Field(default="streams", description="of the models' files")
    outputs: dict[str, HttpOutput] = Field(
        default_factory=dict, description="by name: where models with `-- output: NAME` send their rows"
    )
