"""Before anything leaves: the first person of each shape of data is rendered, and what fails is a finding.

A fault of a template (an unknown name, a division by nothing) is an error with template and line; an empty value is none.
A value that its place refuses (a line break on its way into a header) concerns that person alone: it is a warning, and
the next person of the same shape is tried. The size is that of the largest example.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime

from midsource.mail.checks import Finding, Severity, check_size
from midsource.mail.content import RenderProblem
from midsource.mail.shapes import MAX_SHAPES, ShapeFinder
from midsource.mail.skeleton import RecipientEnvelope, Skeleton
from midsource.marketing.deliveries import Delivery
from midsource.marketing.parts import Person

MAX_PROBLEMS = 10
"""Different problems shown: an author corrects the first ones first."""
MAX_REFUSED_VALUES = 200
"""Rendered persons of no avail: after so many, their shapes count as tried."""
SIZED_EXAMPLES = 20
"""Examples whose size is taken: the largest of them stands for the delivery."""
_LINK = "https://example.invalid/" + "x" * 120  # as long as ours with their tokens
_ENVELOPE = RecipientEnvelope(
    to_address="sample@example.invalid",
    message_id="sample@example.invalid",
    date=datetime(2000, 1, 1, tzinfo=UTC),
    links={"unsubscribe": _LINK, "mirror": _LINK},
)


class Trial:
    """Takes every person of a delivery in turn; renders those whose shape is new. Raises ContentError if nothing compiles."""

    def __init__(self, delivery: Delivery) -> None:
        names = {"label": delivery.label, "id": delivery.id}
        brand = {"name": delivery.brand}
        self._finder = ShapeFinder(delivery.content, delivery=names, brand=brand)
        self._skeleton = Skeleton.compile(delivery.content, boundary="sample00", delivery=names, brand=brand)
        self._refused_values = 0
        self._seen: set[Hashable] = set()
        self._largest: tuple[Finding, ...] = ()
        self._largest_bytes = 0
        self.problems: list[Finding] = []

    @property
    def shapes(self) -> int:
        """How many shapes were tried."""
        return len(self._seen)

    def take(self, person: Person) -> None:
        """Render the message of ``person`` if nobody of the same shape came before."""
        shape = self._finder.shape_of(person.data)
        if shape in self._seen or len(self._seen) >= MAX_SHAPES:
            return
        self._seen.add(shape)
        try:
            message = self._skeleton.render(person.data, _ENVELOPE)
        except RenderProblem as problem:
            self._note(problem, person, shape)
            return
        size = sum(map(len, message.headers)) + len(message.body)
        if len(self._seen) <= SIZED_EXAMPLES and size > self._largest_bytes:
            self._largest_bytes, self._largest = size, check_size(message)

    def size_findings(self) -> list[Finding]:
        """Return what the size of the largest example comes to."""
        return list(self._largest)

    def _note(self, problem: RenderProblem, person: Person, shape: Hashable) -> None:
        is_of_value = problem.line == 0  # a template's fault has a line
        if is_of_value and self._refused_values < MAX_REFUSED_VALUES:
            self._refused_values += 1
            self._seen.discard(shape)
        severity = Severity.WARNING if is_of_value else Severity.ERROR
        if sum(1 for finding in self.problems if finding.severity is severity) < MAX_PROBLEMS:
            self.problems.append(Finding(severity, "render", f"{problem.cause} (message {person.id})."))
