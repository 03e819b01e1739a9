"""Imports into a real database: who is stored, updated, rejected, and why."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from midsource.marketing import fields, finding_people, importing, lists, rejects
from midsource.marketing.importing import ImportResult, import_recipients
from midsource.marketing.sample import write_sample
from midsource.model.errors import Conflict, Failed, UserError
from midsource.store.database import Database
from midsource.testing.clock import ManualClock


@pytest.fixture
def bring(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> Any:
    """Give ``bring(text, **options)``: import a file with this content."""

    def run(content: str | bytes, **options: Any) -> ImportResult:
        path = tmp_path / "people.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_recipients(marketing_db, path, home=tmp_path / "home", clock=clock, **options)

    return run


def people(database: Database, columns: str = "key, email, first_name") -> list[tuple[Any, ...]]:
    with database.connection() as conn:
        return conn.execute(f"select {columns} from recipient order by id").fetchall()


def reasons(result: ImportResult) -> list[tuple[str, str]]:
    assert result.rejects_file is not None
    with result.rejects_file.open(encoding="utf-8", newline="") as file:
        return [(row["line"], row["reason"]) for row in csv.DictReader(file)]


def test_new_people_are_stored_and_known_ones_updated(marketing_db: Database, bring: Any) -> None:
    first = bring("external_id,email,first_name\nA1,alice@example.org,Alice\nB1,bob@example.org,Bob\n")
    second = bring("external_id,email,first_name\nB1,bob@new.example.org,Bobby\nC1,charlie@example.org,Charlie\n")
    assert (first.stored, first.updated, second.stored, second.updated) == (2, 0, 1, 1)
    assert people(marketing_db) == [
        ("id:A1", "alice@example.org", "Alice"),
        ("id:B1", "bob@new.example.org", "Bobby"),
        ("id:C1", "charlie@example.org", "Charlie"),
    ]


def test_without_external_id_the_address_is_the_key_however_it_is_spelt(marketing_db: Database, bring: Any) -> None:
    result = bring("email,first_name\nAlice@Example.ORG,Alice\nalice@example.org,Alicia\n")
    assert (result.stored, result.updated) == (1, 1)
    assert people(marketing_db) == [("mail:alice@example.org", "alice@example.org", "Alicia")]


def test_column_not_in_the_file_keeps_its_value_and_empty_cell_clears_it(marketing_db: Database, bring: Any) -> None:
    bring("external_id,email,first_name,city\nA1,alice@example.org,Alice,Lyon\n", create_fields=True)
    bring("external_id,city\nA1,\n")
    assert people(marketing_db, "email, first_name, fields") == [("alice@example.org", "Alice", {})]


def test_an_old_file_never_signs_anybody_up_again(marketing_db: Database, bring: Any) -> None:
    bring("external_id,email,opted_out\nA1,a@example.org,yes\nA1,a@example.org,no\n")
    bring("external_id,email,opted_out\nA1,a@example.org,false\n")
    assert people(marketing_db, "opted_out") == [(True,)]


def test_addresses_that_cannot_be_mailed_are_stored_with_the_problem(marketing_db: Database, bring: Any) -> None:
    result = bring("external_id,email\nA1,a..b@example.org\nA2,\nA3,x@localhost\n")
    assert (result.stored, result.rejected) == (3, 0)
    assert people(marketing_db, "email, email_key is null, address_problem <> ''") == [
        ("a..b@example.org", True, True),
        (None, True, False),
        ("x@localhost", True, True),
    ]


def test_each_reject_has_its_line_and_reason(bring: Any, marketing_db: Database) -> None:
    with marketing_db.transaction() as conn:
        fields.add_field(conn, "birth_date", "date")
    result = bring(
        "external_id,email,birth_date\nA1,alice.example.org,\nA2,a@example.org,31/01/2000\n,,\nA4,a@example.org\n"
        f"A5,{'x' * 1100}@example.org,\nA6,=cmd@example.org,2000-01-31\n"
    )
    assert (result.stored, result.rejected) == (1, 5)
    assert reasons(result) == [
        ("2", "email: 'alice.example.org' has no @"),
        ("3", "birth_date: expected a date as YYYY-MM-DD, got '31/01/2000'"),
        ("4", "neither an address nor an external id"),
        ("5", "2 columns, the header has 3"),
        ("6", "email: longer than 500 characters"),
    ]
    assert result.rejects_file is not None
    assert result.rejects_file.stat().st_mode & 0o777 == 0o600


def test_value_too_long_for_any_message_is_rejected(marketing_db: Database, bring: Any) -> None:
    with marketing_db.transaction() as conn:
        fields.add_field(conn, "note", "text")
    result = bring(f"email,note\na@example.org,{'x' * 9_000}\nb@example.org,{'x' * 8_192}\n")
    assert (result.stored, reasons(result)) == (1, [("2", "note: longer than 8192 characters")])


def test_no_rejects_no_file(bring: Any, tmp_path: Path) -> None:
    assert bring("email\na@example.org\n").rejects_file is None
    assert not (tmp_path / "home" / "rejects").exists()


def test_rejects_file_neutralises_formulas(bring: Any) -> None:
    result = bring("email,first_name\n=HYPERLINK(1),x\n")
    assert result.rejects_file is not None
    assert '"\'=HYPERLINK(1),x"' in result.rejects_file.read_text(encoding="utf-8")


def test_line_breaks_in_names_become_blanks_and_stay_in_own_fields(marketing_db: Database, bring: Any) -> None:
    with marketing_db.transaction() as conn:
        fields.add_field(conn, "note", "text")
    bring('email,first_name,note\na@example.org,"Eve\r\nBcc: all@example.org","one\r\ntwo\\three\t"\n')
    assert people(marketing_db, "first_name, fields") == [("Eve Bcc: all@example.org", {"note": "one\r\ntwo\\three"})]


def test_unknown_column_is_an_offer_and_changes_nothing(marketing_db: Database, bring: Any) -> None:
    with pytest.raises(
        UserError, match=r"2 columns are not known here: 'Ville', 'Age'.*--create-fields.*--ignore-unknown"
    ):
        bring("email,Ville,Age\na@example.org,Lyon,42\n", list_name="new")
    assert people(marketing_db) == []
    with marketing_db.connection() as conn:
        assert lists.names(conn) == []


def test_create_fields_guesses_types_and_ignore_unknown_leaves_out(marketing_db: Database, bring: Any) -> None:
    header = "email,Âge,Code postal,Note,Since,VIP\n"
    result = bring(
        header + "a@example.org,42,01234,1.5,2020-02-29,true\nb@example.org,,75011,2,,false\n", create_fields=True
    )
    assert result.created_fields == {
        "age": "integer", "code_postal": "text", "note": "number", "since": "date", "vip": "boolean",
    }  # fmt: skip
    assert people(marketing_db, "fields")[0][0] == {
        "age": 42, "code_postal": "01234", "note": 1.5, "since": "2020-02-29", "vip": True,
    }  # fmt: skip
    ignored = bring("email,shoe size\nc@example.org,44\n", ignore_unknown=True)
    assert (ignored.ignored_columns, ignored.stored) == (("shoe size",), 1)


def test_field_types_do_not_change_behind_anybodys_back(marketing_db: Database) -> None:
    with marketing_db.transaction() as conn:
        assert fields.add_field(conn, "age", "integer")
        assert not fields.add_field(conn, "age", "integer")
        with pytest.raises(Conflict, match="is of type integer"):
            fields.add_field(conn, "age", "text")
        with pytest.raises(UserError, match="cannot be a field's name"):
            fields.add_field(conn, "Âge; drop", "text")
        with pytest.raises(UserError, match="column every recipient has"):
            fields.add_field(conn, "email", "text")


def test_two_columns_for_one_field_are_refused(bring: Any) -> None:
    with pytest.raises(UserError, match="columns 'Email' and 'e-mail' both name email"):
        bring("Email,e-mail\na@example.org,b@example.org\n")


def test_file_without_an_address_column_is_refused(bring: Any) -> None:
    with pytest.raises(UserError, match="no column names the address"):
        bring("first_name\nAlice\n")


def test_latin1_and_semicolons_are_read_and_said(marketing_db: Database, bring: Any) -> None:
    result = bring("email;prénom\nzoe@example.org;Zoé\n".encode("latin-1"))
    assert (result.encoding, result.delimiter) == ("cp1252", ";")
    assert people(marketing_db, "first_name") == [("Zoé",)]


def test_list_takes_new_and_known_people_once(marketing_db: Database, bring: Any) -> None:
    bring("email\na@example.org\n")
    bring("email\na@example.org\nb@example.org\nA@example.org\n", list_name="spring")
    bring("email\nb@example.org\n", list_name="spring")
    with marketing_db.connection() as conn:
        assert [(entry.name, finding_people.members(conn, entry.id).n) for entry in lists.page(conn)] == [("spring", 2)]


def test_sample_imports_to_exactly_its_people_and_again_updates_them(
    marketing_db: Database, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks; the bad lines on top are rejected, every one."""
    monkeypatch.setattr(importing, "CHUNK_ROWS", 700)
    facts = write_sample(tmp_path / "s.csv", 3_000, seed=7)
    seen: list[tuple[int, int, int]] = []

    def run() -> ImportResult:
        return import_recipients(
            marketing_db, tmp_path / "s.csv", home=tmp_path, clock=clock, list_name="all", create_fields=True,
            progress=lambda read, total, rows: seen.append((read, total, rows)),
        )  # fmt: skip

    first = run()
    assert (first.stored, first.updated, first.rejected) == (3_000, 0, facts.malformed)
    assert first.created_fields == {"city": "text", "birth_date": "date", "loyalty_points": "integer", "vip": "boolean"}
    assert facts.malformed > 5
    size = (tmp_path / "s.csv").stat().st_size
    assert seen[-1] == (size, size, 3_000)
    assert len(seen) == 6
    second = run()
    assert (second.stored, second.updated, second.rejected) == (0, 3_000, facts.malformed)
    with marketing_db.connection() as conn:
        row = conn.execute(
            "select count(*) filter (where email is null), count(*) filter (where address_problem <> ''), "
            "count(*) filter (where opted_out), count(email_key) - count(distinct email_key) from recipient"
        ).fetchone()
    assert row == (facts.no_address, facts.unmailable, facts.opted_out, facts.duplicate)


def test_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_sample(tmp_path / name, 200, seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_rejects_that_cannot_be_written_are_one_sentence(
    marketing_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("not a folder", encoding="utf-8")
    (tmp_path / "p.csv").write_text("email\nnobody\n", encoding="utf-8")
    with pytest.raises(Failed, match="cannot be written"):
        import_recipients(marketing_db, tmp_path / "p.csv", home=tmp_path / "home", clock=clock)


def test_folder_is_no_file(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        import_recipients(marketing_db, tmp_path, home=tmp_path, clock=clock)


def test_missing_file_is_one_sentence(marketing_db: Database, clock: ManualClock, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        import_recipients(marketing_db, tmp_path / "none.csv", home=tmp_path, clock=clock)


def test_rejects_file_is_bounded_and_says_how_many_more(bring: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejects, "MAX_LINES", 3)
    result = bring("email\n" + "nobody\n" * 10)
    assert (result.rejected, len(reasons(result))) == (10, 4)
    assert reasons(result)[-1] == ("", "and 7 more lines, not written")


def test_a_hostile_address_costs_its_own_line(marketing_db: Database, bring: Any) -> None:
    """Four bytes a letter, none alike: the longest key the import takes must fit the index, or the import ends there."""
    random = Random(1)
    letters = "".join(chr(random.randrange(0x1F300, 0x1F5FF)) for _ in range(1_100))
    result = bring(f"email\n{letters[:480]}@x..y\n{letters[:700]}@x..y\nalice@x.example\n")
    assert (result.stored, result.rejected) == (2, 1)
    with marketing_db.connection() as conn:
        assert conn.execute("select count(*) from recipient where address_problem <> ''").fetchone() == (1,)


def test_a_file_of_carriage_returns_says_so(bring: Any) -> None:
    with pytest.raises(UserError, match="its lines end with CR alone"):
        bring("email,city\ra@x.example,Paris\r")


def test_two_imports_of_the_same_people_at_once_both_end(
    marketing_db: Database, clock: ManualClock, tmp_path: Path
) -> None:
    """In opposite orders they met in the middle of a chunk, and the database ended one of them: a deadlock."""
    people = [f"{n},p{n}@x.example" for n in range(20_000)]
    for name, rows in (("up", people), ("down", people[::-1])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["external_id,email", *rows]), encoding="utf-8")
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(import_recipients, marketing_db, tmp_path / f"{name}.csv", home=tmp_path, clock=clock)
            for name in ("up", "down")
        ]
        results = [future.result() for future in done]
    assert sum(result.stored for result in results) == 20_000
    assert sum(result.updated for result in results) == 20_000
