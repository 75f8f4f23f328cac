"""What an object store's refusal means to a person: the words of delta-rs hold the store's answer, many lines down.

Only known answers are named; the store's own text is not passed on, for it may hold a signature or a key's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pyarrow as pa
from deltalake.exceptions import DeltaError

from cdc_lake.errors import LakeError, UnavailableError, first_line

_OPTIONS = "`lake.options` in cdc-lake.yaml"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One kind of refusal: signs in the text of the error, and what to say."""

    code: str
    signs: tuple[str, ...]
    message: Callable[[str, str], str]
    next: str


# The first that fits counts. Codes in XML are those of Amazon S3's REST interface, "Error responses".
_ANSWERS = (
    _Answer(
        "store_no_bucket",
        ("NoSuchBucket", "NoSuchContainer"),
        lambda _, bucket: f"The object store has no bucket {bucket}.",
        f"make the bucket, or correct `lake.uri` or the endpoint in {_OPTIONS}; then: cdc-lake doctor",
    ),
    _Answer(
        "store_plain_http",
        ("URL scheme is not allowed",),
        lambda _, __: "The endpoint is plain http, which would send the lake unencrypted.",
        f"name an https endpoint, or allow it with `aws_allow_http: 'true'` in {_OPTIONS}",
    ),
    _Answer(
        "store_no_credentials",
        ("169.254.169.254", "CredentialsNotLoaded", "Unable to load credentials"),
        lambda _, __: "There are no credentials for the object store.",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name them by reference in "
        f"{_OPTIONS}: `aws_secret_access_key: ${{file:PATH}}`",
    ),
    _Answer(
        "store_refused",
        (
            "SignatureDoesNotMatch",
            "InvalidAccessKeyId",
            "AccessDenied",
            "403 Forbidden",
            "401 Unauthorized",
            "lacked the necessary privileges",
        ),
        lambda _, bucket: f"The object store refuses the credentials for {bucket}.",
        f"check the key and the secret that {_OPTIONS} or the environment names, and that they may list, read, write "
        "and delete below `lake.uri`; then: cdc-lake doctor",
    ),
    _Answer(
        "store_away",
        # The last two are Arrow's, of its own client.
        (
            *("error sending request", "Connection refused", "dns error", "operation timed out", "503 Service"),
            *("429 Too", "NETWORK_CONNECTION", "curlCode"),
        ),
        lambda _, bucket: f"The object store of {bucket} does not answer.",
        f"see that it runs and can be reached, and check the endpoint in {_OPTIONS}; then run the command again",
    ),
)


def store_error(path: str, error: Exception) -> LakeError | UnavailableError:
    """The error to raise when `path` could not be listed, read or written; `path` is a folder or a URI."""
    answer = _answer(str(error)) if "://" in path else None
    if answer is None:
        return LakeError(
            f"The lake at {path} cannot be read.",
            why=first_line(error),
            next=f"check `lake.uri` and {_OPTIONS}",
            code="lake_unreadable",
        )
    kind = UnavailableError if answer.code == "store_away" else LakeError
    message = answer.message(path, urlsplit(path).netloc)
    return kind(message, why=_endpoint(str(error)), next=answer.next, code=answer.code)


@contextmanager
def store_named(path: str) -> Iterator[None]:
    """Raise what `store_error` says of an answer that reaches delta-rs or Arrow while they work: they read commits and
    files when they are asked for what is in them."""
    try:
        yield
    except (DeltaError, pa.ArrowException, OSError) as error:
        if not is_named(path, error):
            raise
        raise store_error(path, error) from error


def store_answer(path: str, error: Exception) -> str:
    """The same in one line, for a finding."""
    return store_error(path, error).message if is_named(path, error) else first_line(error)


def is_named(path: str, error: Exception) -> bool:
    """Whether `store_error` knows what the error means."""
    return "://" in path and _answer(str(error)) is not None


def is_away(path: str, error: Exception) -> bool:
    """Whether the store of `path` did not answer."""
    answer = _answer(str(error)) if "://" in path else None
    return answer is not None and answer.code == "store_away"


def is_refusal(text: str) -> bool:
    """Whether trying again cannot help: the store answered, and said no."""
    answer = _answer(text)
    return answer is not None and answer.code != "store_away"


def _answer(text: str) -> _Answer | None:
    return next((a for a in _ANSWERS if any(sign in text for sign in a.signs)), None)


def _endpoint(text: str) -> str:
    """What was asked, without its query: which place, and how it went."""
    asked = re.search(r"performing (\w+) (https?://[^\s/?]+)", text)
    status = re.search(r"\b([45]\d\d [A-Z][A-Za-z ]+)", text)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if asked is None:
        return first_line(Exception(text))
    answer = code[1] if code else status[1].strip() if status else "no answer"
    return f"{asked[1]} {asked[2].rpartition('@')[2]}: {answer}"
