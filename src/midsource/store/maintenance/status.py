"""The whole state of an instance's upkeep as one value: what is wrong, what is due, what was done. For commands, console, doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from midsource.model.maintenance import Level, Measures, Remark, Step
from midsource.policy.bloat import table_waste
from midsource.policy.forecast import Forecast
from midsource.policy.maintenance import Settings, dead_share, plan, seconds, waste
from midsource.policy.maintenance_remarks import Unmended, remarks
from midsource.store.database import Connection
from midsource.store.maintenance import actions, measuring, samples, settings
from midsource.store.maintenance.statements import statement

ACTIONS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Status:
    """What `maintenance status` shows; ``remarks`` and ``steps`` in their order, ``actions`` newest first."""

    settings: Settings
    measures: Measures
    steps: tuple[Step, ...]
    remarks: tuple[Remark, ...]
    forecasts: tuple[Forecast, ...]
    actions: tuple[actions.ActionRow, ...]
    broken: tuple[str, ...]
    """Settings that cannot be meant, as sentences."""

    @property
    def is_urgent(self) -> bool:
        """Whether something does not wait for the weekly run."""
        return any(remark.level is Level.NOW for remark in self.remarks)

    @property
    def opens_at(self) -> datetime:
        """When the hours of low activity begin next; the time of the measures where they last."""
        return self.settings.window.opens_at(self.measures.at)


def read(conn: Connection, now: datetime) -> Status:
    """Measure, decide and look up. On an autocommit connection; changes nothing."""
    chosen, broken = settings.read(conn)
    measures = measuring.measure(conn, now)
    drawn = samples.forecasts(conn, now)
    steps = plan(measures, chosen)
    unmended = [
        Unmended(row.act, row.relation, row.error, row.began_at or row.asked_at) for row in actions.unmended(conn)
    ]
    return Status(
        settings=chosen,
        measures=measures,
        steps=steps,
        remarks=remarks(measures, steps, chosen, drawn, unmended),
        forecasts=drawn,
        actions=tuple(actions.latest(conn, ACTIONS_SHOWN)),
        broken=tuple(broken),
    )


def as_dict(status: Status) -> dict[str, Any]:
    """Return everything as plain values: what `--json` prints and the API answers."""
    chosen, measures = status.settings, status.measures
    return {
        "at": measures.at,
        "urgent": status.is_urgent,
        "mode": "advise" if chosen.advises else "execute",
        "window": {"hours": str(chosen.window), "zone": chosen.window.zone, "opens_at": status.opens_at},
        "remarks": [asdict(remark) for remark in status.remarks],
        "plan": [step_as_dict(step) for step in status.steps],
        "tables": _tables(measures),
        "indexes": _indexes(measures),
        "server": asdict(measures.server),
        "forecasts": [asdict(forecast) for forecast in status.forecasts],
        "actions": [action_as_dict(action) for action in status.actions],
        "unseen": [*measures.unseen, *status.broken],
        "pgstattuple": measures.has_pgstattuple,
    }


def step_as_dict(step: Step) -> dict[str, Any]:
    """Return a step with its SQL."""
    return {
        "act": step.act, "relation": step.relation, "reason": step.reason, "read_bytes": step.read_bytes,
        "write_bytes": step.write_bytes, "gain_bytes": step.gain_bytes, "seconds": round(seconds(step), 1),
        "urgent": step.is_urgent, "why_not": step.why_not, "sql": statement(step) + ";",
    }  # fmt: skip


def action_as_dict(action: actions.ActionRow) -> dict[str, Any]:
    """Return an action with its duration."""
    return asdict(action) | {"seconds": action.seconds}


def _tables(measures: Measures) -> list[dict[str, Any]]:
    names = (
        "name", "parent", "bytes", "toast_bytes", "index_bytes", "live", "dead", "modified", "vacuumed_at", "analyzed_at",
        "vacuum_threshold", "sequential_scans", "index_scans", "transaction_age",
    )  # fmt: skip
    return [
        {name: getattr(table, name) for name in names}
        | {
            "dead_share": round(dead_share(table), 4),
            "waste_bytes": table_waste(table),
            "waste_is": "measured" if table.free is not None else "estimated",
        }
        for table in measures.tables
        if not table.is_partitioned
    ]


def _indexes(measures: Measures) -> list[dict[str, Any]]:
    tables = {table.name: table for table in measures.tables}
    return [
        {
            "name": index.name, "table": index.table, "bytes": index.bytes, "method": index.method, "valid": index.is_valid,
            "scans": index.scans, "scanned_at": index.scanned_at, "waste_bytes": waste(index, tables[index.table]),
            "share_of_table": round(index.bytes / max(1, tables[index.table].bytes), 2),
        }
        for index in measures.indexes
    ]  # fmt: skip
