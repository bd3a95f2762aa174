"""Runs that are interrupted, gone on with, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import FACTS, SETTINGS, run_tiny
from tiny_model import byte_tokenizer, tiny_model
from typer.testing import CliRunner

from spikeplug import Numerics, cli
from spikeplug.errors import SpikeplugError
from spikeplug.report import Settings, folder, read, run


def bare(files):
    return [{name: row[name] for name in ("study", "key", "values")} for row in files.rows]


@pytest.mark.parametrize("kept", [0, 0.3, 0.9])
def test_going_on_gives_what_one_run_gives(finished, tmp_path, kept):
    """However much there is, and with half a line at the end, as a killed process leaves it."""
    studies = ("ablation", "effort")
    whole = [row for row in bare(finished) if row["study"] in studies]
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    lines = (out / folder.ROWS).read_bytes().splitlines(keepends=True)
    lines = [line for line in lines if json.loads(line)["study"] in studies]
    count = int(kept * len(lines))
    (out / folder.ROWS).write_bytes(b"".join(lines[:count]) + lines[count][:40])
    files = run_tiny(out, studies=studies)
    assert bare(files) == whole
    assert bare(read(out)) == whole
    assert read(out).rows[:count] == [json.loads(line) for line in lines[:count]]  # seconds too: not measured again


def test_a_study_may_be_added(tmp_path, finished):
    out = tmp_path / "run"
    run_tiny(out, studies=("location",))
    files = run_tiny(out, studies=("rasters", "location"))
    assert [row["study"] for row in files.rows] == ["location", "location", "rasters"]


def test_an_interrupt_loses_no_row_and_leaves_the_model_exact(tmp_path):
    model = tiny_model()

    def stop(study, done, total, remembered):
        if done == 3:
            raise KeyboardInterrupt

    settings = Settings(**SETTINGS, studies=("ablation",))
    with pytest.raises(KeyboardInterrupt):
        run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS, stop)
    assert len(read(tmp_path / "run").rows) == 3
    assert not hasattr(model, "spikeplug_conversion")
    seen = []
    run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS, lambda *what: seen.append(what))
    assert seen[3] == ("ablation", 3, 13, 3)
    assert seen[-1] == ("ablation", 13, 13, 3)


def test_a_killed_process_goes_on(tiny_folder, tmp_path):
    out = tmp_path / "run"
    short = ("--quick", "--context", "16", "--tokens", "32", "--studies", "ablation", "--out", str(out))
    arguments = ["report", str(tiny_folder), *short]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "spikeplug", *arguments]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rows = out / "rows.jsonl"
    end = time.monotonic() + 60
    while (not rows.exists() or rows.read_bytes().count(b"\n") < 2) and running.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = read(out).rows
    assert len(before) >= 2
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert "ablation (0 of 13 rows done" in result.stderr
    assert "What does the damage" in result.stdout
    after = read(out).rows
    assert after[: len(before)] == before
    assert len(after) == 13
    assert (out / "report.html").is_file()


def test_other_arguments_are_refused_by_name(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    content = (out / folder.ROWS).read_bytes()
    for settings, message in (
        ({"context": 32}, r"another context \(16, not 32\)"),
        ({"quick": False}, "another quick"),
        ({"text": "a" * 99}, "another text"),
        ({"numerics": Numerics(bits=9)}, r"another numerics \(bits 16, not 9\)"),
    ):
        with pytest.raises(SpikeplugError, match=message):
            run_tiny(out, **settings)
    assert (out / folder.ROWS).read_bytes() == content


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path):
    header = {"schema_version": 1, "arguments": {}}
    with folder.opened(tmp_path / "run", header) as files:
        files.append("ablation", "x", 0.0, {})
        with (
            pytest.raises(SpikeplugError, match=f"process {os.getpid()} is writing to .*run: wait"),
            folder.opened(tmp_path / "run", header),
        ):
            pass
        assert len(read(tmp_path / "run").rows) == 1  # reading is free
        files.append("ablation", "y", 0.0, {})
    with folder.opened(tmp_path / "run", header) as files:
        assert [row["key"] for row in files.rows] == ["x", "y"]


def test_what_is_no_run_folder_is_refused_and_left_alone(tmp_path):
    header = {"schema_version": 1, "arguments": {}}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    (tmp_path / "file").write_text("words")
    for name, message in (("mine", "holds something else"), ("file", "is a file")):
        with pytest.raises(SpikeplugError, match=message), folder.opened(tmp_path / name, header):
            pass
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(SpikeplugError, match="holds no report"):
        read(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (folder.HEADER, "{", "is damaged"),
        (folder.HEADER, "[]", "is damaged"),
        (folder.HEADER, '{"schema_version": 99, "arguments": {}}', "another version"),
        (folder.ROWS, '{"study": "ablation"}\n', "line 1 of .* is damaged"),
        (folder.ROWS, "nonsense\n", "line 1 of .* is damaged"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    (tmp_path / folder.HEADER).write_text('{"schema_version": 1, "arguments": {}}')
    (tmp_path / name).write_text(content)
    with pytest.raises(SpikeplugError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 7}, "context is 7"),
        ({"context": 257}, "above the model's 256 positions"),
        ({"tokens": 0}, "tokens is 0"),
        ({"token": 16}, "token is 16"),
        ({"token": -17}, "token is -17"),
        ({"studies": ()}, "no study"),
        ({"studies": ("ablations",)}, "no study 'ablations'"),
        ({"text": "short"}, "the text has 5 tokens"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(SpikeplugError, match=message):
        run_tiny(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
