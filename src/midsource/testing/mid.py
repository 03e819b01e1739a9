"""A mid's database with one account, as tests of the mid and of the link begin."""

from __future__ import annotations

import json
from dataclasses import dataclass

from midsource.mid import counters
from midsource.model.ids import delivery_id
from midsource.store.database import Database
from midsource.testing.clock import ManualClock


@dataclass(frozen=True, slots=True)
class MidDatabase:
    """What most tests of the mid need; ``key`` is what a marketing instance would send."""

    database: Database
    account_id: int
    key: str
    clock: ManualClock

    def delivery(self, serial: int = 1, *, state: int = 55, messages: int = 0, domains: int = 1) -> int:
        """Make a delivery in ``state`` with ``messages`` pending rows with ids 1 to n, counted as reception would."""
        number = delivery_id(self.clock.now(), serial)
        spec = {
            "id": number,
            "label": f"delivery {serial}",
            "subject": "Hello {{ name }}",
            "html": "<p>Hello {{ name }}</p>",
            "text": "Hello {{ name }}",
            "from_name": "Shop",
            "from_address": "news@shop.test",
            "brand": "shop",
        }
        now = self.clock.now()
        started_at = now if state > 45 else None
        with self.database.transaction() as conn:
            conn.execute(
                "insert into delivery (account_id, id, label, state, spec, spec_hash, started_at, valid_until) "
                "values (%s, %s, %s, %s, %s, 'x', %s, %s::timestamptz + interval '5 days')",
                (self.account_id, number, spec["label"], state, json.dumps(spec), started_at, started_at),
            )
            conn.execute(
                "insert into message (account_id, delivery_id, id, email, domain, data, event_at) "
                "select %s, %s, n, 'person' || n || '@d' || n %% %s || '.test', 'd' || n %% %s || '.test', "
                "       json_build_object('name', 'Person ' || n), %s from generate_series(1, %s) n",
                (self.account_id, number, domains, domains, now, messages),
            )
            found = conn.execute(
                "select domain, count(*) from message where account_id = %s and delivery_id = %s group by 1",
                (self.account_id, number),
            ).fetchall()
            tally = [(number, domain, None, 6, n) for domain, n in found]
            counters.write_batch(conn, self.account_id, [number], now, tally)
        return number
