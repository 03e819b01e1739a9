"""A realistic recipients file for demos, drills and measurements: the same seed always writes the same file.

``write_sample`` writes n people and, on top of them, about 0.5 % lines that no import can take. Domains are those of the
sandbox (all under ``.example``): providers that behave, and small shares that greylist, throttle, refuse, are full, hang
up or insist on TLS. Some people share an address, have none, have one that cannot be mailed, or have opted out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from pathlib import Path
from random import Random
from string import Template
from typing import TextIO

HEADER = (
    "external_id",
    "email",
    "first_name",
    "last_name",
    "language",
    "opted_out",
    "city",
    "birth_date",
    "loyalty_points",
    "vip",
)

SHARES = {
    "duplicate": 0.01,  # has the address of somebody before
    "no_address": 0.01,
    "unmailable": 0.005,
    "opted_out": 0.02,
    "malformed": 0.005,  # lines on top of the people
}
"""Shares of people (and, for ``malformed``, of extra lines)."""

DOMAINS = (
    ("gmail.example", 0.34), ("orange.example", 0.11), ("outlook.example", 0.10), ("sapo.example", 0.07),
    ("laposte.example", 0.06), ("hotmail.example", 0.06), ("free.example", 0.05), ("yahoo.example", 0.04),
    ("gmx.example", 0.04), ("web.example", 0.03), ("sfr.example", 0.02), ("icloud.example", 0.02), ("proton.example", 0.01),
    ("greylist.example", 0.01), ("throttle.example", 0.01), ("unknown.example", 0.015), ("full.example", 0.005),
    ("drop.example", 0.003), ("slow.example", 0.005), ("tls.example", 0.01), ("block.example", 0.002),
)  # fmt: skip
"""Domain and weight; the second half are the sandbox's difficult providers."""

_PEOPLE = {
    "fr": (
        "Camille Léa Manon Chloé Inès Zoé Élodie Aurélie Hélène Lucas Hugo Théo Jules Louis Rémi François Gaëtan Benoît Noé Anaïs",
        "Martin Bernard Dubois Thomas Robert Petit Durand Leroy Moreau Lefèvre Roux Fournier Girard Bonnet Mercier Gauthier Chevalier D'Angelo",
        ("Paris", "Lyon", "Marseille", "Nantes", "Saint-Étienne", "Besançon", "Paris, 11e", "Lille", "Orléans", "Nîmes"),
    ),
    "en": (
        "Olivia Amelia Isla Ava Grace Emily Charlotte Harriet Jack George Oliver Harry Noah Charlie Thomas Oscar William Siobhán",
        "Smith Jones Taylor Brown Williams Wilson Johnson Davies Patel Wright Walker Thompson Edwards O'Connor Green Hall Wood",
        ("London", "Leeds", "Bristol", "Glasgow", "Cardiff", "Belfast", "Dublin", "York", "Newcastle upon Tyne"),
    ),
    "pt": (
        "Maria Leonor Matilde Beatriz Inês Mariana Conceição João Rodrigo Martim Tomás Gonçalo Afonso Simão Luís Tiago Íris",
        "Silva Santos Ferreira Pereira Oliveira Costa Rodrigues Martins Jesus Sousa Fernandes Gonçalves Gomes Lopes Marques Simões",
        ("Lisboa", "Porto", "Coimbra", "Braga", "Évora", "Setúbal", "Faro", "Vila Nova de Gaia", "Guimarães"),
    ),
    "de": (
        "Emma Mia Hannah Sofia Anna Lena Jürgen Björn Lukas Leon Finn Jonas Paul Felix Maximilian Käthe Zoë",
        "Müller Schmidt Schneider Fischer Weber Meyer Wagner Becker Schulz Hoffmann Schäfer Koch Bauer Richter Klein Wolf Groß",
        ("Berlin", "München", "Köln", "Hamburg", "Leipzig", "Düsseldorf", "Nürnberg", "Frankfurt am Main"),
    ),
}  # fmt: skip
_LANGUAGES = ("fr", "en", "pt", "de")
_LANGUAGE_WEIGHTS = (0.45, 0.2, 0.25, 0.1)
_LETTERS = str.maketrans("àáâãäåçèéêëìíîïñòóôõöùúûüýÿ", "aaaaaaceeeeiiiinooooouuuuyy")
_FIRST_BIRTH = date(1940, 1, 1)
_BIRTH_DAYS = 24_800  # up to 2007


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """What was written: people, bad lines on top of them, and how many of each kind there are among the people."""

    people: int
    malformed: int
    duplicate: int
    no_address: int
    unmailable: int
    opted_out: int


def write_sample(path: Path, people: int, seed: int = 1) -> SampleFacts:
    """Write ``people`` recipients to ``path`` (UTF-8, comma); return what is in it."""
    counts = dict.fromkeys(SHARES, 0)
    with path.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerow(HEADER)
        _write_rows(out, people, Random(seed), counts)  # noqa: S311 - repeatable on purpose
    return SampleFacts(people=people, **counts)


def _write_rows(out: TextIO, people: int, random: Random, counts: dict[str, int]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    last_address = ""
    for number in range(1, people + 1):
        row = _person(number, random)
        kind = _kind(random, can_share=bool(last_address))
        if kind == "duplicate":
            row[1] = last_address
        elif kind == "no_address":
            row[1] = ""
        elif kind == "unmailable":
            row[1] = _unmailable(row[1], random)
        else:
            last_address = row[1]
        if kind:
            counts[kind] += 1
        if random.random() < SHARES["opted_out"]:
            row[5] = "true"
            counts["opted_out"] += 1
        writer.writerow(row)
        if random.random() < SHARES["malformed"]:
            counts["malformed"] += 1
            out.write(_malformed(row, number, random))


def _person(number: int, random: Random) -> list[str]:
    language = random.choices(_LANGUAGES, _LANGUAGE_WEIGHTS)[0]
    first_names, last_names, cities = _NAMES[language]
    first, last = random.choice(first_names), random.choice(last_names)
    domain = random.choices(_DOMAIN_NAMES, cum_weights=_DOMAIN_WEIGHTS)[0]
    local = f"{first}.{last}".lower().replace("'", "").replace("ß", "ss").translate(_LETTERS)
    birth = _FIRST_BIRTH + timedelta(days=random.randrange(_BIRTH_DAYS))
    return [
        f"C{number:08d}",
        f"{local}{number}@{domain}",
        first if random.random() > 0.02 else "",
        last,
        language if random.random() > 0.01 else "",
        "false",
        random.choice(cities) if random.random() > 0.05 else "",
        birth.isoformat() if random.random() > 0.1 else "",
        str(int(random.expovariate(1 / 400))),
        "true" if random.random() < 0.08 else "false",
    ]


def _kind(random: Random, *, can_share: bool) -> str:
    point = random.random()
    for kind in ("duplicate", "no_address", "unmailable"):
        point -= SHARES[kind]
        if point < 0:
            return kind if can_share or kind != "duplicate" else ""
    return ""


def _unmailable(address: str, random: Random) -> str:
    local, _, domain = address.partition("@")
    return random.choice(
        (
            f"{local}..x@{domain}",
            f"{local}@",
            f"{local} {local}@{domain}",
            f"{local * 8}@{domain}",
            f"{local}@localhost",
        )
    )


def _malformed(row: list[str], number: int, random: Random) -> str:
    cells = [f"X{number:08d}", *row[1:]]
    return random.choice(
        (
            ",".join(cells[:4]) + "\n",  # columns missing
            ",".join([*cells[:6], "one", "too", "many", *cells[6:]]) + "\n",
            _line([cells[0], "no-at-sign.example", *cells[2:]]),
            f'{cells[0]},nobody{number}@gmail.example,"never closed,x,fr,false,Paris,,0,false\n',
            _line(["", "", *cells[2:]]),  # nobody can be found by this
            f"{cells[0]},nul{number}\0@gmail.example,x,y,fr,false,,,0,false\n",
        )
    )


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()


def _running(weights: Iterator[float]) -> list[float]:
    total, sums = 0.0, []
    for weight in weights:
        total += weight
        sums.append(total)
    return sums


_NAMES = {language: (first.split(), last.split(), cities) for language, (first, last, cities) in _PEOPLE.items()}
_DOMAIN_NAMES = [name for name, _ in DOMAINS]
_DOMAIN_WEIGHTS = _running(weight for _, weight in DOMAINS)

NEWSLETTER = "newsletter"
"""Base name of the content files beside the sample delivery."""


def write_sample_delivery(folder: Path, *, account: str, list_name: str = "", label: str = "Spring newsletter") -> Path:
    """Write a delivery file and its content into ``folder`` and return the file's path; existing files are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    content = resources.files("midsource.marketing") / "sample_content"
    for ending in ("html", "txt"):
        source = content / f"{NEWSLETTER}.{ending}"
        (folder / f"{NEWSLETTER}.{ending}").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    template = Template((content / "delivery.toml").read_text(encoding="utf-8"))
    target = f"\n[target]\nlist = {json.dumps(list_name)}\n" if list_name else ""
    path = folder / "delivery.toml"
    path.write_text(
        template.substitute(label=json.dumps(label), account=json.dumps(account), target=target), encoding="utf-8"
    )
    return path
