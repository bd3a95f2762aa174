"""Runs that are interrupted, gone on with, refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny_model import byte_tokenizer, tiny_model
from tiny_report import FACTS, SETTINGS, run_tiny
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

    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    settings = Settings(**SETTINGS, studies=("ablation",))
    with pytest.raises(KeyboardInterrupt):
        run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS, stop)
    assert len(read(tmp_path / "run").rows) == 3
    assert not hasattr(model, "spikeplug_conversion")
    seen = []
    run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS, lambda *what: seen.append(what))
    # Rows of the first run are no progress of the second.
    assert seen[3] == ("ablation", 0, 10)
    assert seen[-1] == ("ablation", 10, 10)


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
    assert "ablation (0 % done)" in result.stderr
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


VALUES = {
    "exact_perplexity": 1.0,
    "converted_perplexity": 1.0,
    "change_percent": 0.0,
    "standard_error_percent": None,
    "mean_kl": 0.0,
    "standard_error_kl": None,
    "max_kl": 0.0,
    "agreement_percent": 100.0,
    "predictions": 1,
}


def test_a_folder_belongs_to_one_run_at_a_time(finished, tmp_path):
    header = finished.header
    with folder.opened(tmp_path / "run", header) as files:
        files.append("ablation", "operator/x", 0.0, VALUES)
        with (
            pytest.raises(SpikeplugError, match=f"process {os.getpid()} is writing to .*run: wait"),
            folder.opened(tmp_path / "run", header),
        ):
            pass
        assert len(read(tmp_path / "run").rows) == 1  # reading is free
        files.append("ablation", "operator/y", 0.0, VALUES)
    with folder.opened(tmp_path / "run", header) as files:
        assert [row["key"] for row in files.rows] == ["operator/x", "operator/y"]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.txt": "words"}, "holds files that are not a report's: give another --out"),
        ({"lock": "my notes"}, "lock is not the lock of a report"),
        ({"lock": "", "thesis.txt": "words"}, "holds files that are not a report's"),
        ({"header.json": '{"title": "mine"}'}, "header.json is damaged"),
        ({"rows.jsonl": '{"mine": 1}\n'}, "holds files that are not a report's"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_folder_of_other_files_is_refused_and_left_alone(finished, tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = content(tmp_path)
    with pytest.raises(SpikeplugError, match=message), folder.opened(tmp_path, finished.header):
        pass
    with pytest.raises(SpikeplugError, match=message):
        run_tiny(tmp_path)
    assert content(tmp_path) == before


def test_a_file_is_no_run_folder(finished, tmp_path):
    (tmp_path / "file").write_text("words")
    with pytest.raises(SpikeplugError, match="is a file"), folder.opened(tmp_path / "file", finished.header):
        pass
    with pytest.raises(SpikeplugError, match="holds no report"):
        read(tmp_path)


def test_what_a_killed_run_left_before_its_header_is_gone_on_with(finished, tmp_path):
    (tmp_path / "lock").write_text("123\n")
    with folder.opened(tmp_path, finished.header) as files:
        assert files.rows == []


@pytest.mark.parametrize("name", [folder.LOCK, folder.HEADER, folder.ROWS])
@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_written_through_a_symbolic_link(finished, tmp_path, name, exists):
    out, mine = tmp_path / "run", tmp_path / "mine"
    out.mkdir()
    if exists:
        mine.write_text("12345")
    (out / name).symlink_to(mine)
    with pytest.raises(SpikeplugError, match="is not a regular file"), folder.opened(out, finished.header):
        pass
    assert mine.read_text() == "12345" if exists else not mine.exists()


def test_a_link_that_appears_later_is_not_followed_either(finished, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("words")
    with folder.opened(tmp_path / "run", finished.header) as files:
        (tmp_path / "run" / folder.ROWS).symlink_to(mine)
        with pytest.raises(SpikeplugError, match="cannot write"):
            files.append("ablation", "operator/x", 0.0, VALUES)
    assert mine.read_text() == "words"


def damaged(row, **changes):
    return json.dumps({**row, **changes}) + "\n"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (folder.HEADER, lambda text: "{", "header.json is damaged"),
        (folder.HEADER, lambda text: "[]", "header.json is damaged"),
        (folder.HEADER, lambda text: "[" * 100_000, "header.json is damaged"),
        (folder.HEADER, lambda text: json.dumps({**json.loads(text), "schema_version": 99}), "another version"),
        (folder.HEADER, lambda text: json.dumps({**json.loads(text), "arguments": {}}), "arguments.model is missing"),
        (folder.HEADER, lambda text: json.dumps({**json.loads(text), "environment": 3}), "environment is not of type"),
        (folder.ROWS, lambda text: "nonsense\n", "line 1 of .* is damaged"),
        (folder.ROWS, lambda text: "3\n", "line 1 of .* is damaged"),
        (folder.ROWS, lambda text: '{"study": "ablation"}\n', "line 1 of .* is damaged"),
        (folder.ROWS, lambda text: text + damaged(json.loads(text.split("\n")[0]), study="x"), "not a row of a study"),
        (folder.ROWS, lambda text: text + damaged(json.loads(text.split("\n")[0]), values=[]), "values is not of type"),
        (folder.ROWS, lambda text: text + damaged(json.loads(text.split("\n")[0]), values={}), "values.* is missing"),
        (folder.ROWS, lambda text: text + damaged(json.loads(text.split("\n")[0]), seconds="1"), "seconds is not of"),
        (folder.ROWS, lambda text: text + damaged(json.loads(text.split("\n")[0]), key=["x"]), "key is not of type"),
        (
            folder.ROWS,
            lambda text: text + damaged(json.loads(text.split("\n")[0]), study=["x"]),
            "not a row of a study",
        ),
        (folder.ROWS, lambda text: re.sub(r'("mean_kl": )[^,]*', r"\1NaN", text, count=1), "mean_kl is nan"),
        (folder.ROWS, lambda text: re.sub(r'("mean_kl": )[^,]*', r"\g<1>1e400", text, count=1), "mean_kl is inf"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_run_is_refused_in_one_sentence(finished, tmp_path, name, change, message):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    text = (out / name).read_text()
    (out / name).write_text(change(text))
    with pytest.raises(SpikeplugError, match=message):
        read(out)
    result = CliRunner().invoke(cli.app, ["report", "--from", str(out)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r'("parameter": )"\w+"', r'\1"nothing"'),
        (r'("buckets": )\[.*?\]', r"\1[]"),
        (r'("membranes": )\[\[.*?\]\]', r"\1[[]]"),
        (r'("share": )[^,}]*', r"\g<1>1e308"),
    ],
)
def test_rows_that_do_not_fit_together_are_one_sentence(finished, tiny_folder, tmp_path, pattern, other):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    text, count = re.subn(pattern, other, (out / folder.ROWS).read_text())
    assert count
    (out / folder.ROWS).write_text(text)
    for arguments in (["--from", str(out)], [str(tiny_folder), "--out", str(out)]):
        result = CliRunner().invoke(cli.app, ["report", *arguments])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"spikeplug: the rows of {out} do not fit together (")
        assert result.stderr.count("\n") == 1


def test_folders_that_cannot_be_read(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    (out / folder.ROWS).unlink()
    (out / folder.ROWS).mkdir()
    with pytest.raises(SpikeplugError, match=r"cannot read .*rows\.jsonl"):
        read(out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context": 7}, "context is 7"),
        ({"context": 257, "tokens": 257}, "above the model's 256 positions"),
        ({"tokens": 0}, "tokens is 0"),
        ({"tokens": 15}, "tokens is 15, fewer than one window of 16"),
        ({"numerics": "nope"}, "unknown preset 'nope'"),
        ({"token": 16}, "token is 16"),
        ({"nope": 1}, "'nope' is not a field of Settings; the fields are "),
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
