"""Preview of a template or delivery as a chosen person, and proofs.

GET  /preview            ``delivery=ID`` or ``template=NAME``; ``as=`` address of a person; ``images=yes``
GET  /preview/html       the HTML alone, for the frame of that page
GET  /deliveries/{id}/proof   the form and the proofs so far; POST sends one

The HTML of an author, filled with the data of strangers, is shown in a frame without scripts, forms, plugins or an origin
of its own (``sandbox``, in the frame's attribute and in the policy of the answer, for whoever opens it alone). Images of
other hosts are not loaded until asked for: they would tell the host who looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute

from midsource.mail.content import Content
from midsource.marketing import brands, deliveries, fields, previewing, proofs, recipients, seeds, templates
from midsource.marketing.deliveries import Delivery
from midsource.marketing.previewing import Preview
from midsource.marketing.proofs import Proof
from midsource.marketing.recipients import Recipient
from midsource.marketing.seeds import SeedAddress
from midsource.marketing.segments import SAMPLED_FROM
from midsource.model.delivery import DeliveryState
from midsource.model.errors import MidsourceError, NotFound, UserError
from midsource.security import audit
from midsource.security.roles import Permission
from midsource.store.database import Connection, scalar
from midsource.web.console.face import POLICY
from midsource.web.console.frame import Frame, done, whole
from midsource.web.console.pages.beside import MISTAKES
from midsource.web.routing import Action, Form, Page, visitor_of

MAX_EMAIL = 500
FRAMED = f"{POLICY}; frame-src 'self'"
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'; sandbox"
_WITHOUT_IMAGES = f"{_ALONE}; img-src data:"
_WITH_IMAGES = f"{_ALONE}; img-src https: http: data:"
MAX_PEOPLE = 20
"""People a form names at once; `delivery proof --as` takes as many as the proof may have."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is previewed: its content, what templates see of the delivery and brand, and the chosen person, if there is one."""

    label: str
    content: Content
    delivery: Mapping[str, Any]
    brand: str
    person: Recipient | None
    own: Sequence[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ProofForm:
    """What the page of proofs shows."""

    delivery: Delivery
    seeds: Sequence[SeedAddress]
    proofs: Sequence[Proof]
    suggested: str


def routes(frame: Frame) -> list[BaseRoute]:
    """Return the routes of these pages."""
    pages = _Previews(frame)
    return [
        Page("/preview", pages.preview),
        Page("/preview/html", pages.html),
        Page("/deliveries/{number}/proof", pages.proof),
        Action("/deliveries/{number}/proof", pages.send, needs=Permission.DELIVER),
    ]


class _Previews:
    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def preview(self, request: Request) -> Response:
        subject = await self._frame.reader.read(lambda conn: _subject(conn, request))
        made = self._made(subject)
        query = {name: request.query_params[name] for name in ("delivery", "template") if name in request.query_params}
        if subject.person is not None:
            query["id"] = str(subject.person.id)
        images = request.query_params.get("images") == "yes"
        response = self._frame.page(
            request, "preview.html", "templates" if "template" in query else "deliveries",
            status=422 if subject.problem else 200, subject=subject, made=made, query=query, images=images,
            source=f"/preview/html?{urlencode({**query, **({'images': 'yes'} if images else {})})}",
        )  # fmt: skip
        response.headers["content-security-policy"] = FRAMED
        return response

    async def html(self, request: Request) -> Response:
        subject = await self._frame.reader.read(lambda conn: _subject(conn, request))
        made = self._made(subject)
        policy = _WITH_IMAGES if request.query_params.get("images") == "yes" else _WITHOUT_IMAGES
        return HTMLResponse(made.html if made else "", headers={"content-security-policy": policy})

    def _made(self, subject: Subject) -> Preview | None:
        if subject.person is None:
            return None
        return previewing.preview(
            subject.content, subject.person, subject.own, delivery=subject.delivery, brand=subject.brand,
            now=self._frame.clock.now(),
        )  # fmt: skip

    async def proof(self, request: Request) -> Response:
        return await self._proof(request, None, "", 200)

    async def _proof(self, request: Request, given: Form | None, problem: str, status: int) -> Response:
        number = whole(request.path_params["number"], "a delivery's number")

        def read(conn: Connection) -> ProofForm:
            delivery = deliveries.get(conn, number)
            first = _first(conn, delivery)
            return ProofForm(
                delivery, seeds.all_seeds(conn), proofs.proofs_of(conn, number), (first and first.email) or ""
            )

        shown = await self._frame.reader.read(read)
        under_way = any(not DeliveryState(proof.state).is_final for proof in shown.proofs)
        return self._frame.page(
            request, "proof.html", "deliveries", status=status, form=shown, delivery=shown.delivery,
            given={"people": shown.suggested} if given is None else given, asked=given is not None, problem=problem,
            max_messages=proofs.MAX_MESSAGES, live=under_way and given is None,
        )  # fmt: skip

    async def send(self, request: Request, form: Form) -> Response:
        number, visitor = whole(request.path_params["number"], "a delivery's number"), visitor_of(request.scope)
        to = [name.removeprefix("seed:") for name in form if name.startswith("seed:")]

        def change(conn: Connection) -> None:
            if not to:
                raise UserError("no seed address is chosen", "choose at least one")
            people = [
                found.id for email in _emails(form.get("people", "")) for found in recipients.by_email(conn, email)[:1]
            ]
            made = proofs.send_proof(conn, number, people=people, to=to, by=visitor.name, clock=self._frame.clock)
            audit.record(conn, visitor, "delivery.proof", number, proof=made, people=len(people), seeds=len(to))

        try:
            await self._frame.write(change)
        except MISTAKES as exc:
            return await self._proof(request, form, str(exc), exc.http_status)
        return done(f"/deliveries/{number}/proof", "proof_sent")


def _subject(conn: Connection, request: Request) -> Subject:
    """Read what is previewed, and as whom: ``id=``, ``as=`` an address, else the first of the target, or of all."""
    query = request.query_params
    own = list(fields.own_fields(conn))
    if "delivery" in query:
        delivery = deliveries.get(conn, whole(query["delivery"], "a delivery's number"))
        person, problem = _person(conn, request, delivery)
        names = {"label": delivery.label, "id": delivery.id}
        return Subject(delivery.label, delivery.content, names, delivery.brand, person, own, problem)
    if "template" not in query:
        raise UserError("nothing is named to preview", "begin at a template or delivery")
    template = templates.get_template(conn, query["template"].replace("\0", ""))
    known = brands.all_brands(conn)[:1]
    if not known:
        raise NotFound("there is no brand", "run `midsource init`")
    person, problem = _person(conn, request, None)
    content = templates.content_of(template, known[0])
    return Subject(template.name, content, {"label": template.name, "id": 0}, known[0].name, person, own, problem)


def _person(conn: Connection, request: Request, delivery: Delivery | None) -> tuple[Recipient | None, str]:
    query = request.query_params
    try:
        if query.get("as", "").strip():
            return recipients.by_email(conn, query["as"].replace("\0", "")[:MAX_EMAIL])[0], ""
        if query.get("id", ""):
            return recipients.by_id(conn, whole(query["id"], "a recipient's number")), ""
    except MidsourceError as exc:
        return None, str(exc)
    return _first(conn, delivery), ""


def _first(conn: Connection, delivery: Delivery | None) -> Recipient | None:
    """Return the first person of the target, or of all where there is no delivery or nobody in its target."""
    number = None
    if delivery is not None:
        try:
            number = proofs.first_of_target(conn, delivery, among=SAMPLED_FROM)
        except UserError:  # its list or a field went away: the preparation will say so
            number = None
    else:
        number = scalar(
            conn,
            "select id from (select id, email_key from recipient order by id limit %s) r "
            "where email_key is not null order by id limit 1",
            (SAMPLED_FROM,),
        )
    return None if number is None else recipients.by_id(conn, int(number))


def _emails(text: str) -> list[str]:
    found = [line.strip() for line in text.replace(",", "\n").replace(";", "\n").splitlines() if line.strip()]
    if len(found) > MAX_PEOPLE:
        raise UserError(f"{len(found)} people are named", f"name up to {MAX_PEOPLE}")
    return found
