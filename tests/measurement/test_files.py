"""Output files: whole or not at all, through links, into pipes, with the mode they had, and never twice the same."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.record import write_record


def check(path, option="--json"):
    check_outputs({option: path})


def test_writing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    write_record({"a": 1}, path)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_when_something_is_written(tmp_path):
    path = tmp_path / "new" / "folder" / "result.json"
    check(path)
    assert list(tmp_path.iterdir()) == []
    write_text("x", path, "--json")
    assert path.read_text() == "x"


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(SpikeplugError, match=r"cannot write .*: No space left on device; give another --csv path"):
        write_text("new", path, "--csv")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_checking_changes_nothing(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    check(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "result.json", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(SpikeplugError, match=r"cannot write .*; give another --html path"):
            check(path, "--html")


def test_a_read_only_file_is_refused(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    path.chmod(0o444)
    with pytest.raises(SpikeplugError, match="it is read-only; give another --json path"):
        check(path)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_the_mode_is_kept(tmp_path, mode):
    path = tmp_path / "result.json"
    path.write_text("old")
    path.chmod(mode)
    write_text("new", path, "--json")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser gives files away")
def test_the_owner_is_kept(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, 1234, 5678)
    write_text("new", path, "--json")
    found = path.stat()
    assert path.read_text() == "new"
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 5678, 0o640)


def test_a_file_that_belongs_to_somebody_else_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "result.json"
    path.write_text("old")
    monkeypatch.setattr(os, "chown", refuse)
    write_text("new", path, "--json")
    assert path.read_text() == "new"


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_followed(tmp_path, exists):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "result.json", tmp_path / "link"
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    check(link)
    write_text("new", link, "--json")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(SpikeplugError, match="cannot write"):
        check(tmp_path / "a")


def test_a_pipe_is_written_in_place(tmp_path):
    path, found = tmp_path / "pipe", []
    os.mkfifo(path)
    check(path)  # returns though nobody reads
    reader = threading.Thread(target=lambda: found.append(path.read_text()), daemon=True)
    reader.start()
    write_text("through", path, "--json")
    reader.join(10)
    assert found == ["through"]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_two_options_of_one_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, other = Path("p"), tmp_path / "link"
    with pytest.raises(SpikeplugError, match=r"--html and --json name the same file, .*p: give each a file of its own"):
        check_outputs({"--html": path, "--csv": None, "--json": tmp_path / "p"})
    path.write_text("")
    other.symlink_to(path)
    with pytest.raises(SpikeplugError, match="--html and --json name the same file"):
        check_outputs({"--html": path, "--json": other})
    os.link(path, tmp_path / "hard")
    with pytest.raises(SpikeplugError, match="--html and --json name the same file"):
        check_outputs({"--html": path, "--json": tmp_path / "hard"})
    check_outputs({"--html": path, "--json": tmp_path / "q", "--csv": None})


def test_an_output_does_not_overwrite_an_input(tmp_path):
    text = tmp_path / "text"
    text.write_text("words")
    with pytest.raises(SpikeplugError, match=r"--json would overwrite .*text, which --text reads: give another --json"):
        check_outputs({"--json": text}, [("MODEL", None), ("--tasks", "other"), ("--text", text)])
    check_outputs({"--json": tmp_path / "out"}, [("--text", text)])
