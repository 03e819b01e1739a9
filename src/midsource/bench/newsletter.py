"""A realistic French newsletter of about 20 kB on the wire: 19 places (one a condition), 18 links, two bodies.

Deterministic: the same number gives the same person. Shared by the benchmark and the tests of ``mail``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from midsource.mail.content import Content
from midsource.mail.skeleton import RecipientEnvelope

FIRST = ("Zoé", "Jérôme", "Anaïs", "Benoît", "Chloé", "Damien", "Élodie", "François", "Gaëlle", "Hugo", "Inès", "Loïc")
LAST = ("Lefèvre", "Martin", "Dupré", "O'Connor", "Müller", "Garçon", "Nuñez", "Besson & Fils", "Léger", "Roux")
CITIES = ("Besançon", "Orléans", "Paris", "Saint-Étienne", "Nîmes", "Évreux", "Lyon", "Angoulême", "Sète", "Pau")
_PROSE = (
    "À l'approche de l'été, nos ateliers préparent une collection où la légèreté des matières répond à l'éclat des couleurs. ",
    "Chaque pièce est façonnée près de chez vous, par des artisans dont le métier a traversé les générations. ",
    "Découvrez également nos conseils d'entretien : un lavage à basse température suffit, et la planète s'en réjouit déjà. ",
)
_LINK = '<a href="https://t.exemple.fr/c/{{{{ recipient.token }}}}/{n}" style="color:#1a5fb4;text-decoration:none">{label}</a>'


def _article(number: int) -> str:
    link = _LINK.format(n=number, label=f"Découvrir la sélection n° {number}")
    prose = "".join(_PROSE[(number + turn) % len(_PROSE)] for turn in range(4))
    return f"""<tr><td class="article" style="padding:16px 24px;font-family:Georgia,serif;font-size:15px;line-height:22px">
<h2 style="margin:0 0 8px;color:#222">L'idée de la semaine, épisode {number}</h2>
<p style="margin:0 0 12px">{prose}</p>
<p style="margin:0">{link}</p>
</td></tr>
"""


def newsletter(*, tracked: bool = False) -> Content:
    """Return the content; ``tracked`` puts a token of the recipient into each of the 18 links (37 places in all)."""
    articles = "".join(_article(number) for number in range(1, 17))
    if not tracked:
        articles = articles.replace("{{ recipient.token }}", "abonnes")
    html = f"""<!DOCTYPE html>
<html lang="fr"><head><meta charset="utf-8"><title>La lettre de {{{{ brand.name }}}}</title>
<style>.article {{ border-bottom:1px solid #ddd }}</style></head>
<body style="margin:0;background:#f4f1ea"><table role="presentation" width="600" align="center" cellpadding="0">
<tr><td>Cet e-mail ne s'affiche pas ? <a href="{{{{ links.mirror }}}}">Version en ligne</a></td></tr>
<tr><td><h1>Bonjour {{{{ recipient.first_name|title }}}} {{{{ recipient.last_name }}}} !</h1>
<p>{{% if recipient.points %}}Vous avez {{{{ recipient.points }}}} points{{% else %}}Votre carte vous attend{{% endif %}} à {{{{ recipient.city }}}}.</p></td></tr>
{articles}
<tr><td><p>Votre magasin : {{{{ recipient.shop }}}}, {{{{ recipient.shop_street }}}}, {{{{ recipient.postcode }}}} {{{{ recipient.city }}}}.
Votre conseillère : {{{{ recipient.adviser }}}}. Client depuis {{{{ recipient.since }}}}, carte n° {{{{ recipient.card }}}}.</p>
<p>{{{{ recipient.first_name }}}}, à très bientôt. Ce message a été envoyé à {{{{ recipient.email }}}}.</p>
<p><a href="{{{{ links.unsubscribe }}}}">Se désabonner</a></p></td></tr></table></body></html>
"""
    text = f"""Bonjour {{{{ recipient.first_name }}}} {{{{ recipient.last_name }}}},

{_PROSE[0]}
{_PROSE[1]}
https://www.exemple.fr/collection

À très bientôt à {{{{ recipient.city }}}} !
{{{{ brand.name }}}}

Se désabonner : {{{{ links.unsubscribe }}}}
"""
    return Content(
        subject="{{ recipient.first_name }}, l'été arrive à {{ recipient.city }}",
        html=html, text=text, from_name="La Maison d'Été", from_address="lettre@news.exemple.fr",
        reply_to="contact@exemple.fr", headers=(("X-Campaign", "ete-2024"),), language="fr",
    )  # fmt: skip


def person(number: int) -> dict[str, Any]:
    """Return the data of person ``number``."""
    return {
        "email": f"client{number}@exemple{number % 7}.fr",
        "first_name": FIRST[number % len(FIRST)],
        "last_name": LAST[number // 12 % len(LAST)],
        "city": CITIES[number // 5 % len(CITIES)],
        "points": number % 3 * 120,
        "shop": f"Boutique {CITIES[number % len(CITIES)]}",
        "shop_street": f"{number % 90 + 1} rue de la République",
        "postcode": f"{number % 95 + 1:02d}000",
        "adviser": FIRST[(number + 5) % len(FIRST)],
        "since": 1990 + number % 34,
        "card": f"{number:09d}",
        "token": f"{number * 2_654_435_761 % 2**64:016x}AbCdEf0123456789",
    }


def envelope(number: int, data: Mapping[str, Any] | None = None) -> RecipientEnvelope:
    """Return what person ``number``'s message has of its own."""
    data = person(number) if data is None else data
    return RecipientEnvelope(
        to_address=data["email"],
        message_id=f"{number:012x}.{data['token']}@mid.exemple.fr",
        date=datetime(2024, 6, 21, 8, 30, number % 60, tzinfo=UTC),
        links={
            "unsubscribe": f"https://t.exemple.fr/u/{data['token']}",
            "mirror": f"https://t.exemple.fr/m/{data['token']}",
        },
    )
