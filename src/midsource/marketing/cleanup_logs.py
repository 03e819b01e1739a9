"""The step of `cleanup` that drops delivery logs, a month of deliveries at a time (store/months.py).

Each delivery of it is marked (`log_dropped_at`): its totals stay, and every page says where the log is. Drafts have no log
and hold nothing up; one of an old month that is prepared later gets a new partition (marketing/targeting.py).
"""

from __future__ import annotations

from midsource.model.options import BROAD_LOG_DELAY
from midsource.store.cleanup import Step
from midsource.store.months import Months

_MONTHS = Months(
    "broad_log",
    held="""
        select id, over_at from (
            select id, case when state in (85, 87, 95) then coalesce(finished_at, modified_at) end as over_at from delivery
             where id >= %(low)s and id < %(high)s and targeted is not null and log_dropped_at is null) logged
         where over_at is null or over_at >= %(before)s
         order by over_at desc nulls first limit 1
        """,
    any="select exists (select from delivery where id >= %(low)s and id < %(high)s and targeted is not null)",
    mark="""
        update delivery set log_dropped_at = %(now)s, recounted_at = coalesce(recounted_at, %(now)s)
         where id >= %(low)s and id < %(high)s and log_dropped_at is null and targeted is not null
        """,
)
STEP = Step(
    "delivery_logs",
    "delivery logs, by months whose deliveries are all over",
    _MONTHS.count,
    _MONTHS.page,
    BROAD_LOG_DELAY,
)
