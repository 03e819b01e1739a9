from __future__ import annotations

import pytest

from midsource.mid.options import TABLE
from midsource.model.errors import NotFound, UserError
from midsource.model.options import BROAD_LOG_DELAY, LAST_CLEANUP
from midsource.testing.mid import MidDatabase


def test_a_mid_has_options_of_its_own_with_its_own_defaults(mid_db: MidDatabase) -> None:
    now = mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        assert TABLE.seconds(conn, BROAD_LOG_DELAY) == 60 * 86_400
        assert TABLE.set_value(conn, BROAD_LOG_DELAY, "90d", by="alice", now=now) == (
            f"{BROAD_LOG_DELAY} set from '60d' to '90d' by alice"
        )
        assert TABLE.seconds(conn, BROAD_LOG_DELAY) == 90 * 86_400
        views = {view.name: view for view in TABLE.list_options(conn)}
        assert (views[BROAD_LOG_DELAY].value, views[BROAD_LOG_DELAY].modified_by) == ("90d", "alice")
        assert views[LAST_CLEANUP].value == ""
        TABLE.revert(conn, BROAD_LOG_DELAY, by="alice")
        assert TABLE.get_value(conn, BROAD_LOG_DELAY) == "60d"


def test_a_bare_number_is_asked_about(mid_db: MidDatabase) -> None:
    now = mid_db.clock.now()
    with mid_db.database.transaction() as conn:
        with pytest.raises(UserError, match="60 seconds or 60 days"):
            TABLE.set_value(conn, BROAD_LOG_DELAY, "60", by="alice", now=now)
        with pytest.raises(NotFound, match="option list"):
            TABLE.set_value(conn, "NmsMidSourcing_PrepareFlow", "3", by="alice", now=now)
