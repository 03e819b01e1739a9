"""Whether one message is the same on both sides, pure: also while it moves.

A row is looked at three times: ours (*before*), then the mid's (*theirs*), then ours again (*after*), the last time when
the feed has been applied up to a number that covers the mid's look (``passed``). Revisions only grow, and ours follow the
mid's. So in a healthy pair *before* is never newer than *theirs*, and *after* never older; whatever moved meanwhile is
between the two. Rows of the same revision hold the same. Anything else is a difference, however busy the pair is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from midsource.model.message import MessageState


class Verdict(StrEnum):
    """What a comparison of one message came to."""

    SAME = "same"
    MOVING = "moving"  # it changed between the looks, as the feed brought it
    UNJUDGED = "unjudged"  # ours is older, and the feed has not come to the mid's look yet
    MISSING = "missing"  # the mid has it, we do not
    BEHIND = "behind"  # ours is older than what the feed has passed: it was skipped
    AHEAD = "ahead"  # ours claims more changes than the mid ever made
    CHANGED = "changed"  # same revision, other content
    UNKNOWN = "unknown"  # we have it, the mid does not

    @property
    def is_mended(self) -> bool:
        """Whether the mid's row is what ours should be."""
        return self in (Verdict.MISSING, Verdict.BEHIND, Verdict.AHEAD, Verdict.CHANGED)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared of a message. A revision below 1 counts as 1: received by the mid, nothing reported yet."""

    state: int
    reason: int
    revision: int

    @property
    def number(self) -> int:
        """The revision as it is compared."""
        return max(1, self.revision)

    @property
    def is_ours_alone(self) -> bool:
        """Whether a mid never has such a message: excluded at preparation, or cancelled before the mid took it."""
        return self.state == MessageState.IGNORED or (self.state == MessageState.CANCELLED and self.revision == 0)


def judge(before: Seen | None, theirs: Seen | None, after: Seen | None, *, passed: bool) -> Verdict:
    """Judge one message by the three looks. ``passed``: *after* was read with the feed applied up to *theirs* at least."""
    if theirs is None:
        return Verdict.SAME if after is None or after.is_ours_alone else Verdict.UNKNOWN
    if after is None:
        return Verdict.MISSING
    if before is not None and before.number > theirs.number:
        return Verdict.AHEAD
    if after.number < theirs.number:
        return Verdict.BEHIND if passed else Verdict.UNJUDGED
    if after.number > theirs.number:
        return Verdict.MOVING
    same = (after.state, after.reason) == (theirs.state, theirs.reason)
    return Verdict.SAME if same else Verdict.CHANGED
