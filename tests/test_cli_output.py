"""What a command prints: after its files are written, on any kind of standard output."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from spikeplug import cli
from spikeplug.cli import output
from spikeplug.errors import SpikeplugError

SOURCE = str(Path(cli.__file__).parents[2])


class Full(io.StringIO):
    """A standard output on a full disk, or one whose reader is gone."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


def test_files_are_written_before_anything_is_printed(capsys):
    seen = []
    output.deliver([lambda: seen.append(capsys.readouterr().out)], ["a title", Table("a", title="b")])
    assert seen == [""]
    assert "a title" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_costs_nothing_else(capsys):
    written = []

    def fail():
        raise SpikeplugError("cannot write x")

    with pytest.raises(SpikeplugError, match="cannot write x"):
        output.deliver([fail, lambda: written.append(True)], ["the result"])
    assert written == [True]
    assert "the result" in capsys.readouterr().out


def test_a_full_disk_is_told_in_one_sentence_after_the_files_are_written(monkeypatch):
    written = []
    monkeypatch.setattr(sys, "stdout", Full(errno.ENOSPC))
    with pytest.raises(SpikeplugError, match="cannot write to the standard output: No space left on device"):
        output.deliver([lambda: written.append(True)], ["the result"])
    assert written == [True]


def test_a_reader_that_is_gone_is_no_error(monkeypatch):
    written = []
    monkeypatch.setattr(sys, "stdout", Full(errno.EPIPE))
    output.deliver([lambda: written.append(True)], ["the result"])
    assert written == [True]


def test_markup_in_names_is_printed_as_it_is(capsys):
    output.deliver([], ["a model [red]named[/red] so"])
    assert "[red]named[/red]" in capsys.readouterr().out


@pytest.mark.parametrize(("columns", "widest"), [(None, 120), ("60", 60)])
def test_tables_are_folded_to_the_width(capsys, monkeypatch, columns, widest):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    table = Table("name", title="wide")
    for number in range(20):
        table.add_column(f"column {number}", justify="right")
    table.add_row("row", *("12345.6789" for _ in range(20)))
    output.deliver([], [table])
    text = capsys.readouterr().out
    assert widest - 20 < max(map(len, text.splitlines())) <= widest
    assert text.count("12345.6789") == 20
    assert "wide (1 of" in text


PROGRAM = """
import sys
from pathlib import Path
from spikeplug.cli.output import deliver, prepare_streams
prepare_streams()
deliver([lambda: Path(sys.argv[1]).write_text("whole")], ["0.1 ± 0.2 × 3 → 4 …"] + ["line"] * 100_000)
print("said", file=sys.stderr)
sys.exit(3)
"""


def program(tmp_path, **options):
    environment = {**os.environ, "PYTHONPATH": SOURCE, **options.pop("environment", {})}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "file")]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_reader_that_takes_one_line(tmp_path):
    with program(tmp_path, stdout=subprocess.PIPE) as running:
        assert running.stdout.readline().startswith("0.1")
        running.stdout.close()
        error = running.stderr.read()
        assert running.wait(60) == 3  # the command's own code
    assert error == "said\n"
    assert (tmp_path / "file").read_text() == "whole"


@pytest.mark.slow
def test_an_output_that_shows_ascii_only(tmp_path):
    running = program(tmp_path, stdout=subprocess.PIPE, environment={"PYTHONIOENCODING": "ascii"})
    out, error = running.communicate(timeout=60)
    assert running.returncode == 3
    assert out.splitlines()[0] == "0.1 +/- 0.2 x 3 ? 4 ..."
    assert error == "said\n"


TALK = """
import sys
from spikeplug import cli
cli.app.command("talk")(lambda: (print("progress", file=sys.stderr), print("a library prints")))
cli.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["--version"], ["talk"]], ids=" ".join)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("full", [True, False], ids=["full", "gone"])
def test_whoever_prints_may_meet_a_stream_that_cannot_be_written(tmp_path, stream, arguments, full):
    """Results that are lost are one sentence; a reader that is gone, and messages that are lost, cost nothing."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # as on a full disk, files take nothing

    end, pipe = os.pipe()
    os.close(end)  # nobody reads the pipe
    with open(tmp_path / "file", "wb") as file:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: file if full else pipe}
        environment = {**os.environ, "PYTHONPATH": SOURCE, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", TALK, *arguments]
        found = subprocess.run(command, env=environment, text=True, timeout=60, preexec_fn=limit, **streams)
    os.close(pipe)
    if stream == "stderr":
        assert (found.returncode, bool(found.stdout)) == (0, True)
        return
    said = ["progress"] if arguments == ["talk"] else []
    if full:
        said.append("spikeplug: cannot write to the standard output: File too large; free some space, or redirect it.")
    assert found.stderr.splitlines() == said
    assert found.returncode == (2 if full else 0)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams(tmp_path, closed):
    def close():
        for descriptor in closed:
            os.close(descriptor)

    running = program(tmp_path, stdout=subprocess.PIPE, preexec_fn=close)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 3
    assert error == ("" if 2 in closed else "said\n")
    assert ("line" in out) == (1 not in closed)
    assert (tmp_path / "file").read_text() == "whole"
