"""A log file that cannot fill the disk."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from midsource.supervise.logs import BoundedLog


def test_it_never_holds_more_than_two_files_of_its_limit(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "deep" / "web.log", limit_bytes=1000)
    for number in range(500):
        log.write(f"line {number:04}\n".encode())
    log.close()
    files = sorted(tmp_path.rglob("*"))
    assert [file.name for file in files] == ["deep", "web.log", "web.log.1"]
    assert all(file.stat().st_size <= 1000 for file in files[1:])
    assert files[1].read_text(encoding="utf-8").endswith("line 0499\n")
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600


def test_it_appends_to_what_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        log = BoundedLog(tmp_path / "web.log", limit_bytes=25)
        log.write(b"0123456789")
        log.close()
    assert (tmp_path / "web.log").read_bytes() == b"0123456789" * 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_drops_lines_and_nothing_else() -> None:
    log = BoundedLog(Path("/dev/full"))
    log.write(b"lost\n")
    log.close()


def test_a_log_that_somebody_took_away_begins_anew(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "deep" / "web.log", limit_bytes=25)
    log.write(b"taken away\n")
    shutil.move(tmp_path / "deep", tmp_path / "archive")
    log.write(b"no room for this\n")
    log.close()
    assert (tmp_path / "archive" / "web.log").read_bytes() == b"taken away\n"
    assert (tmp_path / "deep" / "web.log").read_bytes() == b"no room for this\n"


def test_a_folder_that_cannot_take_a_new_file_drops_lines_until_it_can(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "deep" / "web.log", limit_bytes=25)
    log.write(b"0123456789012345678901234\n")
    shutil.rmtree(tmp_path / "deep")
    (tmp_path / "deep").write_text("a file where the folder was")
    log.write(b"dropped\n")
    (tmp_path / "deep").unlink()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "deep" / "web.log").read_bytes() == b"kept\n"
