from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from midsource.security import keys
from midsource.store.files import keep_names, write_whole


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the inodes that are made durable, in order; they are."""
    inodes: list[int] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return inodes


def test_a_file_is_replaced_whole(tmp_path: Path, synced: list[int]) -> None:
    file = tmp_path / "state"
    (tmp_path / "state.new").write_text("left by a writer that was killed")
    for text in ("the first", "après"):
        write_whole(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [file]
    assert synced == []


def test_what_lasts_is_durable_before_its_name_is(tmp_path: Path, synced: list[int]) -> None:
    file = tmp_path / "password"
    write_whole(file, "x", mode=0o600, is_lasting=True)
    assert synced == [file.stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_what_was_asked_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "one", "x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == mode


def test_a_try_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.mkdir()
    with pytest.raises(OSError, match="one"):
        write_whole(file, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_names_are_kept_of_a_folder_only(tmp_path: Path) -> None:
    keep_names(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        keep_names(tmp_path / "file")


def test_the_key_of_a_home_is_durable_with_its_name(tmp_path: Path, synced: list[int]) -> None:
    """Without its name it is made anew after a power cut, and nothing that the old one closed can be opened."""
    keys.load(tmp_path)
    folder = tmp_path / "keys"
    assert synced == [(folder / "home.key").stat().st_ino, folder.stat().st_ino, tmp_path.stat().st_ino]
