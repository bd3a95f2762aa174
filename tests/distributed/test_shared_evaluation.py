"""`torchrun -m spikeplug eval`: the figures of one process, printed and written once."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_model import save_tiny_model
from two_processes import torchrun

from spikeplug.evaluation import Settings, evaluate, make_record
from spikeplug.measurement.loading import find_source, load
from spikeplug.presets import PRESETS

TIMES = ("exact_seconds", "converted_seconds", "time_ratio")


def figures(record):
    """What of a record's results must not depend on how many processes there were."""
    for result in (*record["perplexity"], *record["choices"]):
        for name in TIMES:
            assert result.pop(name) > 0
    return {name: record[name] for name in ("text", "perplexity", "choices", "conversion", "saturations")}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_two_processes_find_what_one_finds(tmp_path, one_thread):
    folder, file = save_tiny_model(tmp_path / "model"), tmp_path / "result.json"
    options = ["--preset", "paper", "--context", "16,64", "--tokens", "200", "--choices", "5", "--threads", "1"]
    done = torchrun(["-m", "spikeplug", "eval", str(folder), *options, "--json", str(file)])
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stdout.count("perplexity, converted") == 1
    assert "time, exact, sum of 2 processes" in done.stdout
    assert done.stderr.count("warm-up (0 % done)") == 1
    record = json.loads(file.read_text())
    assert record["processes"] == 2
    assert record["environment"]["threads"] == 1

    settings = Settings(numerics=PRESETS["paper"].numerics, contexts=(16, 64), tokens=200, choices=5)
    alone = evaluate(*load(find_source(str(folder)), "float32"), settings)
    assert alone.processes == 1
    assert alone.saturations  # the published form clamps: counts are added up over the processes
    expected = json.loads(json.dumps(make_record(alone, settings.numerics, {}, {})))
    assert figures(record) == figures(expected)


def test_a_refusal_ends_every_process(tmp_path):
    done = torchrun(["-m", "spikeplug", "eval", str(tmp_path / "nowhere")])
    assert done.returncode != 0
    assert "spikeplug: no file or folder" in done.stderr
    assert "SpikeplugError" not in done.stderr  # no traceback but torchrun's own
