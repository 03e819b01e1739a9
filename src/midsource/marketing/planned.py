"""What is planned for a delivery: its next wave, or the next ticks of one that recurs and what it made. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from midsource.marketing import recurring
from midsource.marketing.deliveries import Delivery
from midsource.marketing.recurring import Occurrence
from midsource.model.delivery import DeliveryState
from midsource.policy.waves import Wave, next_wave
from midsource.store.database import Connection

SHOWN_MADE = 5


@dataclass(frozen=True, slots=True)
class Planned:
    """``waves``: how it is cut, ''; ``next_wave`` None: none comes. ``next_ticks``: of one that recurs; ``begun``: send was said."""

    waves: str
    wave_count: int
    next_wave: Wave | None
    recurrence: str
    begun: bool
    next_ticks: tuple[datetime, ...]
    made: tuple[Occurrence, ...]
    made_of: int | None
    made_for: datetime | None

    def lines(self) -> list[str]:
        """Say it in sentences."""
        told = []
        if self.waves:
            told.append(f"It is sent in {self.wave_count} waves, {self.waves}.")
        if self.next_wave is not None:
            wave = self.next_wave
            told.append(f"Wave {wave.number} of {wave.of} begins at {wave.at:%Y-%m-%d %H:%M:%S} UTC.")
        if self.recurrence:
            begun = "" if self.begun else " once it is sent"
            told.append(f"It recurs {self.recurrence}{begun}: each tick makes a delivery of its own.")
            ticks = ", ".join(f"{at:%Y-%m-%d %H:%M}" for at in self.next_ticks)
            told.append(f"Next ticks (UTC): {ticks}." if ticks else "No tick comes any more.")
            told += [
                f"It made {one.id} {one.label!r}, {DeliveryState(one.state).label}." for one in self.made[:SHOWN_MADE]
            ]
        if self.made_of is not None and self.made_for is not None:
            told.append(f"Delivery {self.made_of} made it for {self.made_for:%Y-%m-%d %H:%M} UTC.")
        return told

    def as_dict(self) -> dict[str, Any]:
        """Return it for programs."""
        wave = self.next_wave
        return {
            "waves": self.waves,
            "wave_count": self.wave_count,
            "next_wave": None if wave is None else {"number": wave.number, "of": wave.of, "at": wave.at.isoformat()},
            "recurrence": self.recurrence,
            "recurrence_begun": self.begun,
            "next_ticks": [at.isoformat() for at in self.next_ticks],
            "made": [{"id": one.id, "label": one.label, "for": one.made_for.isoformat()} for one in self.made],
            "made_of": self.made_of,
        }


def read(conn: Connection, delivery: Delivery, now: datetime) -> Planned:
    """Return what is planned for a delivery."""
    waves, total = delivery.waves, delivery.to_deliver or 0
    coming = None
    if waves is not None and delivery.started_at is not None and not DeliveryState(delivery.state).is_final:
        coming = next_wave(waves, total, delivery.started_at, now)
    return Planned(
        waves="" if waves is None else str(waves),
        wave_count=0 if waves is None or not total else waves.count(total),
        next_wave=coming,
        recurrence=f"{delivery.recurrence} ({delivery.recurrence_zone})" if delivery.recurrence else "",
        begun=delivery.recurrence_next_at is not None,
        next_ticks=tuple(recurring.next_ticks(delivery, now)),
        made=tuple(recurring.made_by(conn, delivery.id)) if delivery.recurrence else (),
        made_of=delivery.made_of,
        made_for=delivery.made_for,
    )
