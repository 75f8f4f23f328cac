"""Rules as files: `rules/<name>.yaml`, one rule each, checked as a whole before anything runs.

::

    title: Product {product_id} was sold in store {store_id} and not restocked
    streams:
      sold: {table: stock_movements, where: "reason = 'sale'"}
      restocked: {table: stock_movements, where: "reason = 'delivery'"}
    key: [store_id, product_id]
    absence: {after: sold, of: restocked, within: 3 days}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cdc_lake.errors import CdcLakeError, UsageError, suggest
from cdc_lake.react.durations import microseconds

SUFFIXES = (".yaml", ".yml")
_NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
KINDS = ("threshold", "count", "sequence", "absence", "correlation", "anomaly")


class RuleError(CdcLakeError):
    """A rule's file is wrong: nothing is evaluated."""

    default_code = "rule"


def _span(value: Any) -> Any:
    return microseconds(value) if isinstance(value, str) else value


def _positive(value: int) -> int:
    if value <= 0:
        raise ValueError("it must be longer than nothing")
    return value


def _named(value: Any) -> Any:
    # A list names each expression by itself.
    return {str(one): str(one) for one in value} if isinstance(value, list) else value


Span = Annotated[int, BeforeValidator(_span)]
Long = Annotated[int, BeforeValidator(_span), AfterValidator(_positive)]
Named = Annotated[dict[str, str], BeforeValidator(_named)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stream(_Part):
    """Changes of one table: those that `where` holds for. Expressions are SQL over the columns of `changes`."""

    table: str
    where: str | None = None
    time: str | None = None
    key: Named | None = None
    values: Named = Field(default_factory=dict)
    ops: frozenset[Literal["insert", "update", "delete"]] | None = None


class Threshold(_Part):
    """Open while `when` holds for the last change of a key."""

    of: str
    when: str


class Count(_Part):
    """Open while a window of event time has `at_least` so many events, or meets `having` when it closes."""

    of: str
    window: Long
    every: Long | None = None
    at_least: int | None = Field(default=None, ge=1)
    having: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.at_least is None) == (self.having is None):
            raise ValueError("it needs one of `at_least` and `having`")
        if self.window % self.step or self.window // self.step > 1000:
            raise ValueError("`window` must be a whole multiple of `every`, at most 1000 times")
        return self

    @property
    def step(self) -> int:
        """From the start of a window to the start of the next."""
        return self.every or self.window


class Sequence_(_Part):
    """The steps follow each other, the last at most `within` behind the first."""

    steps: list[str] = Field(min_length=2, max_length=20)
    within: Long


class Absence(_Part):
    """`after` happened, and `of` did not for `within`. Resolved when `of` happens at last."""

    after: str
    of: str
    within: Long


class Correlation(_Part):
    """All of the streams have an event of one key `within` a span, in any order."""

    of: list[str] = Field(min_length=2, max_length=20)
    within: Long


class Anomaly(_Part):
    """`value`, an aggregate over each bucket of `every`, is far from what it was at that time of earlier seasons."""

    of: str
    value: str = "count(*)"
    every: Long
    season: Long = 7 * 86_400_000_000
    history: int = Field(default=8, ge=3, le=100)
    sensitivity: float = Field(default=4, ge=1, le=100)
    direction: Literal["both", "above", "below"] = "both"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.season % self.every or self.season // self.every > 10_000:
            raise ValueError("`season` must be a whole multiple of `every`, at most 10000 times")
        return self


class Rule(_Part):
    """One rule. `name` is its file's."""

    name: str
    file: Path = Field(exclude=True)
    title: str
    severity: Literal["info", "warning", "critical"] = "warning"
    streams: dict[Annotated[str, Field(pattern=_NAME)], Stream] = Field(min_length=1)
    key: Named = Field(default_factory=dict)
    lateness: Span = 0
    ahead: Span = 86_400_000_000
    start: str = "now"
    notify: list[str] | None = None
    threshold: Threshold | None = None
    count: Count | None = None
    sequence: Sequence_ | None = None
    absence: Absence | None = None
    correlation: Correlation | None = None
    anomaly: Anomaly | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        found = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(found) != 1:
            raise ValueError(f"it needs exactly one of {', '.join(KINDS)}; it has {', '.join(found) or 'none'}")
        used = self.used
        for name in used:
            if name not in self.streams:
                raise ValueError(f"`{self.kind}` names the stream {name}. {suggest(name, self.streams)}".strip())
        for name in self.streams:
            if name not in used:
                raise ValueError(f"nothing reads the stream {name}")
        if (self.correlation is not None and len(set(used)) < len(used)) or (
            self.absence is not None and len(used) < 2
        ):
            raise ValueError(f"`{self.kind}` needs different streams")
        if len({tuple(self.key_of(name)) for name in used}) > 1:
            raise ValueError("the streams have keys of different names: give both the same, as {customer: id}")
        return self

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def used(self) -> Sequence[str]:
        """The streams that its pattern names, in the order of the pattern."""
        one = getattr(self, self.kind)
        if self.sequence is not None:
            return list(dict.fromkeys(self.sequence.steps))
        if self.absence is not None:
            return list(dict.fromkeys([self.absence.after, self.absence.of]))
        return list(one.of) if self.correlation is not None else [one.of]

    def key_of(self, stream: str) -> dict[str, str]:
        """The key of a stream's events: names and expressions."""
        own = self.streams[stream].key
        return self.key if own is None else own

    def ops_of(self, stream: str) -> frozenset[str]:
        """The operations that make events. A threshold also hears of deletes: its condition ends with the row."""
        default = {"insert", "update", "delete"} if self.threshold is not None else {"insert", "update"}
        return frozenset(self.streams[stream].ops or default)

    @property
    def fingerprint(self) -> str:
        """Changes when what the rule finds may change; not with its words or outputs."""
        core = self.model_dump(mode="json", exclude={"title", "severity", "notify", "start"})
        for stream in core["streams"].values():
            stream["ops"] = sorted(stream["ops"] or [])
        return hashlib.sha256(json.dumps(core, sort_keys=True).encode()).hexdigest()[:12]


def load_rules(folder: Path) -> list[Rule]:
    """All rules of a folder, by name. Raises RuleError for the first that is wrong; none when there is no folder."""
    rules: dict[str, Rule] = {}
    for file in rule_files(folder):
        rule = load_rule(file)
        if rule.name in rules:
            raise RuleError(f"There are two rules {rule.name} in {folder}.", next=f"rename {file}")
        rules[rule.name] = rule
    return list(rules.values())


def rule_files(folder: Path) -> list[Path]:
    """The files of rules, by name."""
    try:
        return sorted(f for f in folder.iterdir() if f.suffix in SUFFIXES and f.is_file())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RuleError(f"The folder {folder} cannot be read.", why=str(error), next=f"check {folder}") from None


def load_rule(file: Path) -> Rule:
    """The rule in a file. Raises RuleError with the line that is wrong."""
    if not _FILE_NAME.fullmatch(file.stem):
        raise RuleError(
            f"{file.name} is no name for a rule.",
            why="Letters, digits, - and _ make a name, and it begins with a letter or digit.",
            next=f"rename {file}",
        )
    try:
        text = file.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RuleError(f"{file} is not valid YAML.", why=str(error), next=f"edit {file}") from None
    except OSError as error:
        raise RuleError(f"{file} cannot be read.", why=str(error), next=f"check {file}") from None
    if not isinstance(raw, dict) or raw.keys() & {"name", "file"}:
        why = (
            "A rule's name is that of its file." if isinstance(raw, dict) else "A rule is a mapping of keys and values."
        )
        raise RuleError(f"{file} is no rule.", why=why, next=f"edit {file}")
    try:
        return Rule.model_validate({**raw, "name": file.stem, "file": file})
    except ValidationError as error:
        raise _explain(error, file, tree) from None


def find_rule(rules: Sequence[Rule], name: str) -> Rule:
    """The rule of that name. Raises UsageError."""
    for rule in rules:
        if rule.name == name:
            return rule
    known = [r.name for r in rules]
    why = suggest(name, known) or (f"There are: {', '.join(known)}" if known else "There are no rules.")
    raise UsageError(f"There is no rule {name}.", why=why, next="cdc-lake rules list", code="no_rule")


def place_in(file: Path, path: Sequence[int | str]) -> str:
    """`file:line` of the innermost part of `path` that is there; the file itself when it cannot be read any more."""
    try:
        return _place(file, yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), path)
    except (OSError, ValueError, yaml.YAMLError):
        return str(file)


def _place(file: Path, tree: yaml.Node | None, path: Sequence[int | str]) -> str:
    line = 1
    for node in _along(tree, path):
        line = node.start_mark.line + 1
    return f"{file}:{line}"


def _along(node: yaml.Node | None, path: Sequence[int | str]) -> Iterator[yaml.Node]:
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                return
            yield found[0]
            node = found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            yield node
        else:
            return


def _explain(error: ValidationError, file: Path, tree: yaml.Node | None) -> RuleError:
    first = error.errors(include_url=False)[0]
    path = first["loc"]
    where, name = _place(file, tree, path), ".".join(str(p) for p in path)
    if first["type"] == "extra_forbidden":
        hint = suggest(str(path[-1]), _keys_at(path[:-1])) or f"There are: {', '.join(_keys_at(path[:-1]))}"
        return RuleError(f"{where}: unknown key `{name}`.", why=hint, next=f"edit {file}")
    if first["type"] == "missing":
        return RuleError(f"{where}: `{name}` is missing.", why="It has no default.", next=f"edit {file}")
    message = first["msg"].removeprefix("Value error, ")
    what = f"`{name}` is not valid" if name else "the rule is not whole"
    return RuleError(f"{where}: {what}: {message}.", next=f"edit {file}")


def _keys_at(path: Sequence[int | str]) -> list[str]:
    named: dict[str, type[BaseModel]] = {"streams": Stream, "threshold": Threshold, "count": Count}
    named |= {"sequence": Sequence_, "absence": Absence}
    named |= {"correlation": Correlation, "anomaly": Anomaly}
    model = named.get(str(path[0]), Rule) if path else Rule
    return [name for name in model.model_fields if not (model is Rule and name in ("name", "file"))]
