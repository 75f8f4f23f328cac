"""Outputs: where alerts are sent. Each sends one message, or says why it could not and when it is worth trying again.

Delivery: at least once. Each message bears a key that is the same at every attempt (`Idempotency-Key`, or the mail's
`Message-ID`), so that a receiver can tell a message that it has from a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Protocol

import httpx

from cdc_lake.config_rules import Output

TIMEOUT_SECONDS = 10.0
_SIGNS = {"critical": "🔴", "warning": "🟠", "info": "🔵"}
# Answers that another attempt may change: the server is busy, or away behind its proxy.
_AGAIN = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class Message:
    """What became of an alert, for one output."""

    source: str
    output: str
    alert: Mapping[str, object]

    @property
    def key(self) -> str:
        """The same at every attempt, and for nothing else."""
        parts = [self.source, str(self.alert["id"]), str(self.alert["change"]), self.output]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]

    @property
    def subject(self) -> str:
        """One line for a person."""
        words = {"opened": "", "resolved": "Resolved: ", "acknowledged": "Acknowledged: "}[str(self.alert["change"])]
        return " ".join(f"{words}{self.alert['title']}".split())

    def document(self) -> dict[str, object]:
        """The message as a webhook gets it."""
        names = ("id", "change", "rule", "severity", "title", "at", "evidence", "evidence_count", "by", "note")
        key = self.alert["key"]
        return {
            "source": self.source,
            **{name: self.alert[name] for name in names},
            "key": json.loads(key) if isinstance(key, str) and key else None,
        }

    def text(self) -> str:
        """The message for a person: what, since when, and the events behind it."""
        lines = [self.subject, "", f"rule {self.alert['rule']}, alert {self.alert['id']}, at {self.alert['at']}"]
        evidence = self.alert["evidence"]
        shown = [dict(e) for e in evidence] if isinstance(evidence, Sequence) and not isinstance(evidence, str) else []
        lines += [f"- {e['at']} {e['table']} {e['key']} {e['values'] or ''} (tx {e['tx_id']})" for e in shown[:10]]
        if len(shown) > 10:
            lines.append(f"- and {len(shown) - 10} more: cdc-lake rules alerts {self.alert['id']}")
        lines += ["", f"cdc-lake rules ack {self.alert['id']}"] if self.alert["change"] == "opened" else []
        return "\n".join(lines)


class NotSent(Exception):
    """A message did not reach its output.

    `later` says that nothing will for now (the server is away or busy), `after` in how many seconds it asked to be
    tried again. `reason` holds no secret: neither the address's path nor headers.
    """

    def __init__(self, reason: str, *, later: bool, after: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.later, self.after = reason, later, after


class Sender(Protocol):
    """Sends one message. Raises NotSent; returns when the receiver has taken it."""

    def send(self, message: Message) -> None:
        """Send it."""


class Receiver:
    """Who is POSTed to; any 2xx answer is a receipt. Redirects are not followed: a message goes where it was told."""

    def __init__(self, url: str, headers: Mapping[str, str], transport: httpx.BaseTransport | None = None) -> None:
        self._url = url
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, headers=dict(headers), transport=transport)

    def post(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Send it. Raises NotSent."""
        try:
            answer = self._http.post(self._url, content=content, headers=dict(headers))
        except httpx.TimeoutException:
            raise NotSent(f"{self._host} did not answer within {TIMEOUT_SECONDS:.0f} s", later=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise NotSent(f"{self._host} cannot be reached: {type(error).__name__}", later=True) from None
        if not answer.is_success:
            code = answer.status_code
            raise NotSent(f"{self._host} answered {code}", later=code in _AGAIN or code >= 500, after=_seconds(answer))

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    @property
    def _host(self) -> str:
        try:
            return httpx.URL(self._url).host or "the webhook"
        except (httpx.InvalidURL, ValueError):
            return "the webhook"


class Webhook:
    """POSTs alerts as JSON."""

    def __init__(self, output: Output, transport: httpx.BaseTransport | None = None) -> None:
        self._slack = output.kind == "slack"
        self._receiver = Receiver(output.url or "", output.headers, transport)

    def send(self, message: Message) -> None:
        """Send it."""
        body = {"text": _slack_text(message)} if self._slack else message.document()
        content = json.dumps(body, ensure_ascii=False, default=str).encode()
        self._receiver.post(content, {"Content-Type": "application/json", "Idempotency-Key": message.key})


def _seconds(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 3600.0) if text.isdigit() else None


def _slack_text(message: Message) -> str:
    # What Slack reads as its own marks.
    text = message.text().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{_SIGNS.get(str(message.alert['severity']), '')} {text}".strip()


class Mail:
    """Sends mail by SMTP, with TLS unless the configuration says otherwise."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def send(self, message: Message) -> None:
        """Send it."""
        one, mail = self._output, EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = one.sender or "", ", ".join(one.to), message.subject[:200]
        mail["Message-ID"] = f"<{message.key}@cdc-lake>"
        mail.set_content(message.text())
        try:
            server = smtplib.SMTP(one.host or "", one.port, timeout=TIMEOUT_SECONDS)
            try:
                if one.starttls:
                    server.starttls(context=ssl.create_default_context())
                if one.user:
                    server.login(one.user, one.password or "")
                server.send_message(mail)
            finally:
                # The mail is taken, or is not: what the server says to a farewell changes nothing.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    server.quit()
        except smtplib.SMTPResponseException as error:
            # 4xx is for now, 5xx for good.
            raise NotSent(f"{one.host} answered {error.smtp_code}", later=error.smtp_code < 500) from None
        except smtplib.SMTPRecipientsRefused:
            raise NotSent(f"{one.host} takes no mail for the addresses", later=False) from None
        except (smtplib.SMTPException, OSError) as error:
            raise NotSent(f"{one.host} cannot be reached: {type(error).__name__}", later=True) from None


def sender_of(output: Output) -> Sender:
    """The sender of an output."""
    return Mail(output) if output.kind == "email" else Webhook(output)
