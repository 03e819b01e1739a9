"""What a preparation finds before anybody is targeted, and about the target: every check in one place.

A finding is an info, a warning or an error; an error stops the preparation. Checks on content are in ``mail.checks``, on
figures and times in ``policy.checks``, on rendered examples in ``trial``; here they meet the database: brand, fields,
list, condition, options.
"""

from __future__ import annotations

from datetime import datetime

from midsource.mail.checks import Finding, Severity, check_content
from midsource.mail.content import ContentError
from midsource.marketing import targeting
from midsource.marketing.brands import get_brand
from midsource.marketing.deliveries import Delivery
from midsource.marketing.expression import ExpressionProblem
from midsource.marketing.fields import all_fields
from midsource.marketing.lists import list_id
from midsource.marketing.segments import compile_condition
from midsource.marketing.trial import Trial
from midsource.model.errors import NotFound, UserError
from midsource.policy import checks, waves
from midsource.store.database import Connection

TARGET_GONE = (NotFound, ExpressionProblem)
"""What reading the target raises when its list or a field of its condition went away after the delivery was made."""


def before_targeting(conn: Connection, delivery: Delivery, now: datetime) -> list[Finding]:
    """Return what is wrong with content, sender, times and the named target, errors of the content first."""
    brand = get_brand(conn, delivery.brand)
    found = list(check_content(delivery.content, sender_domains=brand.sender_domains, fields=all_fields(conn)))
    if not found or found[0].severity is not Severity.ERROR:
        found = [*_compile_problems(delivery), *found]
    found += _times(delivery, now)
    try:
        compile_condition(delivery.target_expression, all_fields(conn))
        if delivery.target_list is not None:
            list_id(conn, delivery.target_list)
    except TARGET_GONE as exc:
        found.append(of_target(exc))
    found += [
        Finding(Severity.WARNING, "exclusions", f"The option {switch} is 0: people it would exclude get this delivery.")
        for switch in targeting.switched_off(conn)
    ]
    return found


def of_target(exc: UserError) -> Finding:
    """Return the error for a list, or a field of the condition, that went away after the delivery was made."""
    return Finding(Severity.ERROR, "target", f"The target cannot be read: {exc.cause} ({exc.remedy}).")


def about_volume(delivery: Delivery, chosen: targeting.Targeted) -> list[Finding]:
    """Return what the number of targeted people says: nobody left, or too many for the validity."""
    found = []
    nobody = checks.nobody_left(chosen.targeted, chosen.to_deliver, chosen.excluded)
    if nobody:
        found.append(Finding(Severity.ERROR, "target", nobody))
    long = checks.validity_against_volume(delivery.validity_seconds, chosen.to_deliver)
    if long:
        found.append(Finding(Severity.WARNING, "validity", long))
    late = waves.too_late(delivery.waves, chosen.to_deliver, delivery.validity_seconds) if delivery.waves else None
    if late:
        found.append(Finding(Severity.ERROR, "waves", late))
    return found


def _times(delivery: Delivery, now: datetime) -> list[Finding]:
    passed = checks.contact_date_passed(delivery.contact_at, delivery.validity_seconds, now)
    early = checks.contact_date_in_the_past(delivery.contact_at, delivery.validity_seconds, now)
    short = checks.validity_against_retries(
        delivery.validity_seconds, delivery.retry_count, delivery.retry_period_seconds
    )
    return [
        Finding(severity, check, sentence)
        for severity, check, sentence in (
            (Severity.ERROR, "contact-date", passed),
            (Severity.WARNING, "contact-date", early),
            (Severity.WARNING, "validity", short),
        )
        if sentence
    ]


def _compile_problems(delivery: Delivery) -> list[Finding]:
    """Return what only compiling finds: a header of a name that is ours, parts that cannot be put together."""
    try:
        Trial(delivery)
    except ContentError as exc:
        return [Finding(Severity.ERROR, "template", f"{problem}.") for problem in exc.problems]
    return []
