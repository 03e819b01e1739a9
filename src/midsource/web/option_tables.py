"""Which options an instance has: the table of its role, for the command line, the API and the console."""

from __future__ import annotations

from midsource.marketing import options as of_marketing
from midsource.mid import options as of_mid
from midsource.store.options import OptionTable


def table_of(role: str) -> OptionTable:
    """Return the options of an instance of ``role``."""
    return of_marketing.TABLE if role == "marketing" else of_mid.TABLE
