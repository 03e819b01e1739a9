"""The Message-ID of a message, as both halves compute it, so that no outcome has to carry it.

The marketing instance draws a key for each delivery and hands it over with the content (``DeliverySpec.message_key``).
A message's ID is SHA-256 over that key and the message's number, cut to 128 bits, at the domain of the sender: nobody
without the key can guess one, a second try has the same, and two deliveries never share any. Key and number have fixed
lengths and the result is cut, so nothing can be appended (RFC 6234 is no MAC by itself).

``marketing/delivery_log.py`` computes the same in SQL for the rows it reads; a test compares both.
"""

from __future__ import annotations

import hashlib

DERIVED = "*"
"""What ledger, feed and delivery log hold in place of an ID that can be computed; any other text is the ID itself."""
KEY_BYTES = 32
ID_BYTES = 16


def message_id(key: bytes, number: int, from_address: str) -> str:
    """Return the Message-ID, angle brackets included, of message ``number`` (its log id) of the delivery with this key."""
    digest = hashlib.sha256(key + number.to_bytes(8, "big")).digest()[:ID_BYTES]
    return f"<{digest.hex()}@{from_address.rpartition('@')[2]}>"
