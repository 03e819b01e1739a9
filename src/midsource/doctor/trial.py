"""A test of one supervisor: tell it at once that this is one, and keep what came of it. For the command line, the API and the console.

What is durable when it returns or raises: the supervisor counts as told or as failed once more, and the audit says who tried it.
Nothing is held while its side is waited for; what a message may take is bounded where it is carried (doctor/channels.py).
"""

from __future__ import annotations

from midsource.doctor import letters, supervisors
from midsource.doctor.channels import Carrier
from midsource.model.errors import MidsourceError
from midsource.security import audit
from midsource.security.roles import Visitor
from midsource.store.database import Database

VERB = "supervisor.test"


def trial(database: Database, carrier: Carrier, name: str, visitor: Visitor) -> str:
    """Tell the supervisor ``name``; return what its side answered. Raises NotFound, or why it could not be told."""
    with database.connection() as conn:
        supervisor = supervisors.get(conn, name)
        secret = supervisors.secret_of(conn, carrier.home, name)
    sender = letters.Sender(carrier.instance.name, carrier.instance.role, supervisor.language)
    try:
        answer = carrier.carry(supervisor, secret, letters.trial(sender, carrier.clock.now()))
    except MidsourceError as exc:
        with database.transaction() as conn:
            supervisors.failed(conn, name, str(exc), carrier.clock.now())
            audit.record(conn, visitor, VERB, name, told=False)
        raise
    with database.transaction() as conn:
        supervisors.told(conn, name, carrier.clock.now())
        audit.record(conn, visitor, VERB, name, told=True)
    return answer
