"""The doctor: findings open and closed, checks, what was done; and the supervisors who are told."""

from __future__ import annotations

from dataclasses import asdict
from datetime import time, timedelta
from typing import Annotated

from fastapi import APIRouter, Path

from midsource.doctor import book, channels, heal, look, supervisors, telling
from midsource.doctor.facts import Facts
from midsource.doctor.supervisors import Channel, Draft, Supervisor
from midsource.doctor.treatments import TREATMENTS, Surgery
from midsource.doctor.trial import trial
from midsource.model.errors import Conflict, MidsourceError, NotFound
from midsource.model.finding import Severity, Standing
from midsource.security.roles import Permission, Visitor
from midsource.web.api.doctor_shapes import (
    CheckShape,
    FindingShape,
    HealingShape,
    MuteIn,
    SupervisorIn,
    SupervisorMade,
    SupervisorShape,
    SupervisorTold,
    Undone,
)
from midsource.web.api.operations import MAX_ID, Api, Before, Caller, Limit, Name, needs, refusals

SEE, SUPERVISE, ADMINISTER = needs(Permission.SEE), needs(Permission.SUPERVISE), needs(Permission.ADMINISTER)
FindingNumber = Annotated[int, Path(ge=1, le=MAX_ID, description="The finding's number.")]


def router(api: Api) -> APIRouter:
    """Return the operations of this family."""
    made = APIRouter()
    _add_findings(made, api)
    _add_treatments(made, api)
    _add_supervisors(made, api)
    _add_telling(made, api)
    return made


def _add_findings(made: APIRouter, api: Api) -> None:
    @made.get("/findings", tags=["findings"], dependencies=[SEE])
    def list_findings() -> list[FindingShape]:
        """List the open findings, the worst first."""
        with api.database.connection() as conn:
            return [_finding(row) for row in book.standing(conn)]

    @made.get("/findings/closed", tags=["findings"], dependencies=[SEE])
    def list_closed_findings(before: Before = None, limit: Limit = 50) -> list[FindingShape]:
        """List the findings that closed, the last first."""
        with api.database.connection() as conn:
            return [_finding(row) for row in book.closed(conn, limit, before)]

    @made.get("/findings/{finding}", tags=["findings"], dependencies=[SEE], responses=refusals())
    def show_finding(finding: FindingNumber) -> FindingShape:
        """Show one finding, open or closed."""
        with api.database.connection() as conn:
            return _finding(book.get(conn, finding))

    @made.post(
        "/findings/{finding}/mute", tags=["findings"], dependencies=[SUPERVISE], responses=refusals("It is closed.")
    )
    def mute_finding(finding: FindingNumber, body: MuteIn, visitor: Caller) -> FindingShape:
        """Tell nobody about an open finding for a time."""
        now = api.clock.now()
        until = now + timedelta(seconds=body.seconds) if body.seconds else None
        with api.change(visitor, "doctor.mute", finding, seconds=body.seconds) as conn:
            if book.get(conn, finding).closed_at is not None:
                raise Conflict(f"finding {finding} is closed", "only an open one is told")
            return _finding(book.mute(conn, finding, until, visitor.name, now))

    @made.get("/checks", tags=["findings"], dependencies=[SEE])
    def list_checks() -> list[CheckShape]:
        """List the checks of this instance with their last look."""
        with api.database.connection() as conn:
            looks = book.looks(conn)
        found = []
        for check in look.of_role(api.instance.role):
            last = looks.get(check.name)
            found.append(
                CheckShape(
                    name=check.name, severity=check.worst.value, answers=list(check.answers), looks_at=check.looks_at,
                    remedy=check.remedy, every_seconds=check.every_seconds, looked_at=last.looked_at if last else None,
                    seconds=last.seconds if last else None, found=last.found if last else None,
                    problem=last.problem if last else "",
                )
            )  # fmt: skip
        return found


def _add_treatments(made: APIRouter, api: Api) -> None:
    @made.get("/findings/{finding}/healings", tags=["findings"], dependencies=[SEE], responses=refusals())
    def list_healings(finding: FindingNumber) -> list[HealingShape]:
        """List what was done about a finding, newest first."""
        with api.database.connection() as conn:
            book.get(conn, finding)
            return [_healing(row) for row in heal.latest(conn, finding_id=finding)]

    @made.post(
        "/findings/{finding}/heal", tags=["findings"], dependencies=[SUPERVISE],
        responses=refusals("The doctor cannot mend it, or did so a moment ago."),
    )  # fmt: skip
    def heal_finding(finding: FindingNumber, visitor: Caller) -> HealingShape:
        """Do what the doctor can do about an open finding; whether it helped is seen by the next look."""
        with api.database.connection() as conn:
            row = book.get(conn, finding)
            planned = heal.plans(conn, [row], api.clock.now())
        if not planned:
            raise Conflict(
                f"the doctor can do nothing about {row.finding.check} {row.finding.subject}", row.finding.remedy
            )
        return _healing(heal.treat(_surgery(api, visitor), planned[0]))

    @made.post(
        "/findings/{finding}/undo",
        tags=["findings"],
        dependencies=[SUPERVISE],
        responses=refusals("It cannot be undone."),
    )
    def undo_healing(finding: FindingNumber, visitor: Caller) -> Undone:
        """Give back what was last done about a finding."""
        with api.database.connection() as conn:
            book.get(conn, finding)
        return Undone(said=heal.undo(_surgery(api, visitor), finding))


def _add_supervisors(made: APIRouter, api: Api) -> None:
    @made.get("/supervisors", tags=["supervisors"], dependencies=[SEE])
    def list_supervisors() -> list[SupervisorShape]:
        """List who is told of findings and failed workflows."""
        with api.database.connection() as conn:
            waiting = {name: count for name, count, _ in telling.pending(conn)}
            return [_supervisor(one, waiting.get(one.name, 0)) for one in supervisors.listing(conn)]

    @made.post(
        "/supervisors",
        tags=["supervisors"],
        dependencies=[ADMINISTER],
        status_code=201,
        responses=refusals("The name is taken."),
    )
    def add_supervisor(body: SupervisorIn, visitor: Caller) -> SupervisorMade:
        """Add a supervisor; the secret that signs its webhooks is answered this once."""
        draft = Draft(
            body.name, Channel(body.channel), body.address, Severity(body.severity), body.quiet, body.digest, body.zone, body.language
        )  # fmt: skip
        with api.change(visitor, "supervisor.add", body.name, channel=body.channel, severity=body.severity) as conn:
            secret = supervisors.add(conn, api.config.home, draft, visitor.name, api.clock.now())
            stored = supervisors.get(conn, body.name)
        return SupervisorMade(**_supervisor(stored, 0).model_dump(), secret=secret)

    @made.delete("/supervisors/{name}", tags=["supervisors"], dependencies=[ADMINISTER], responses=refusals())
    def remove_supervisor(name: Name, visitor: Caller) -> SupervisorShape:
        """Remove a supervisor, with what it was still to be told, and answer what it was."""
        with api.change(visitor, "supervisor.remove", name) as conn:
            gone = supervisors.get(conn, name)
            supervisors.remove(conn, name)
        return _supervisor(gone, 0)


def _add_telling(made: APIRouter, api: Api) -> None:
    @made.post("/supervisors/{name}/mute", tags=["supervisors"], dependencies=[SUPERVISE], responses=refusals())
    def mute_supervisor(name: Name, body: MuteIn, visitor: Caller) -> SupervisorShape:
        """Tell a supervisor nothing of what happens for a time."""
        now = api.clock.now()
        until = now + timedelta(seconds=body.seconds) if body.seconds else None
        with api.change(visitor, "supervisor.mute", name, seconds=body.seconds) as conn:
            return _supervisor(supervisors.mute(conn, name, until, visitor.name, now), 0)

    @made.post(
        "/supervisors/{name}/test",
        tags=["supervisors"],
        dependencies=[ADMINISTER],
        responses=refusals("It could not be told."),
    )
    def test_supervisor(name: Name, visitor: Caller) -> SupervisorTold:
        """Tell a supervisor at once that this is a test."""
        carrier = channels.Carrier.of(api.config, api.instance, api.clock)
        try:
            answer = trial(api.database, carrier, name, visitor)
        except NotFound:
            raise
        except MidsourceError as exc:
            raise Conflict(exc.cause, exc.remedy) from exc
        return SupervisorTold(answer=answer)


def _surgery(api: Api, visitor: Visitor) -> Surgery:
    return Surgery(api.database, Facts(api.config, api.instance, api.clock), visitor)


def _finding(row: Standing) -> FindingShape:
    finding, treatment = row.finding, TREATMENTS.get(row.finding.check)
    does = treatment.does.format(subject=finding.subject) if treatment is not None and finding.healable else ""
    return FindingShape(
        id=row.id, check=finding.check, subject=finding.subject, severity=finding.severity.value, evidence=finding.evidence,
        cause=finding.cause, remedy=finding.remedy, answers=list(finding.answers), healable=finding.healable, treatment=does,
        opened_at=row.opened_at, seen_at=row.seen_at, changed_at=row.changed_at, closed_at=row.closed_at,
        times_seen=row.times_seen, muted_until=row.muted_until, muted_by=row.muted_by,
    )  # fmt: skip


def _healing(row: heal.Healing) -> HealingShape:
    kept = asdict(row)
    for name in ("finding_id", "check", "subject"):
        kept.pop(name)
    return HealingShape.model_validate(kept)


def _supervisor(one: Supervisor, waiting: int) -> SupervisorShape:
    hours = {"quiet_from": one.quiet.start, "quiet_to": one.quiet.end, "digest_at": one.quiet.digest}
    values = {name: getattr(one, name) for name in SupervisorShape.model_fields if hasattr(one, name)}
    return SupervisorShape.model_validate(
        values
        | {name: _hour(hour) for name, hour in hours.items()}
        | {
            "channel": one.channel.value, "severity": one.severity.value, "address": one.shown, "zone": one.quiet.zone,
            "waiting": waiting,
        }
    )  # fmt: skip


def _hour(moment: time | None) -> str:
    return f"{moment:%H:%M}" if moment is not None else ""
