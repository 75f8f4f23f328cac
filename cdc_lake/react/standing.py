"""How far rules are, as the lake has it: one position per source, all in one commit.

The alerts of a rule, and its positions, are in one source's table of alerts, its home: the first by name that has a
position of it, else that of its first stream. There the position in the home is held under the rule's name, and each
other one under `<rule>@<source>`. A rule over one source is held as it always was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cdc_lake.config import Config
from cdc_lake.query.merged import Merged, Ordered
from cdc_lake.react.ledger import Ledger
from cdc_lake.react.places import Place
from cdc_lake.react.watch import Target


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rule's alerts are (`home`), and the places that are held of it there, by source."""

    name: str
    home: str
    held: Mapping[str, Place]

    @classmethod
    def of(cls, config: Config, target: Target) -> Standing:
        """As the lake has it now."""
        name, found = target.rule.name, dict[str, Place]()
        for source in target.sources:
            place = ledger_of(config, source).place(name)
            if place is not None:
                found[source] = place
        home = next(iter(found), target.owners[target.rule.used[0]])
        held = {home: found[home]} if home in found else {}
        for source in target.sources if held else ():
            place = ledger_of(config, home).place(_held_as(name, home, source)) if source != home else None
            held |= {source: place} if place is not None else {}
        return cls(name, home, held)

    @property
    def positions(self) -> dict[str, int]:
        """How far it is in each source; empty before it has begun."""
        return {source: place.position for source, place in self.held.items()}

    def place(self, order: Ordered) -> Place | None:
        """Where it is in an order of its sources; None before it has begun.

        Of a source that it did not read before, no more counts than what stands before the rest.
        """
        if not self.held:
            return None
        if not isinstance(order, Merged):
            return self.held[self.home]
        positions, since = self.positions, {s: p.since for s, p in self.held.items()}
        return Place(order.aligned(positions), order.aligned(since))

    def to(self, order: Ordered, place: Place) -> Standing:
        """Where it is then."""
        position, since = order.frontier(place.position), order.frontier(place.since)
        return Standing(self.name, self.home, {s: Place(position[s], since[s]) for s in order.sources})

    def moved(self, to: Standing) -> dict[str, tuple[Place | None, Place]]:
        """What a commit has of it that moves it `to` there."""
        return {_held_as(self.name, self.home, s): (self.held.get(s), place) for s, place in to.held.items()}


def _held_as(name: str, home: str, source: str) -> str:
    return name if source == home else f"{name}@{source}"


def ledger_of(config: Config, source: str) -> Ledger:
    """The alerts of a source."""
    return Ledger(config.lake_uri, source, config.lake.options or None)


def by_home(standings: Sequence[Standing]) -> dict[str, list[str]]:
    """The names of rules by their home."""
    found: dict[str, list[str]] = {}
    for one in standings:
        found.setdefault(one.home, []).append(one.name)
    return found
