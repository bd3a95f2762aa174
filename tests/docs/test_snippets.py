"""What the pages show works: Python runs, commands parse, make targets, links and names of populations exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pages
import pytest
import torch
import typer
from pages import LINKED, PAGES, ROOT
from tiny_model import byte_tokenizer, save_tiny_model, tiny_model
from transformers import AutoModelForCausalLM

import spikeplug
from spikeplug import cli
from spikeplug.hardware import load_table
from spikeplug.hardware.chips import load_chip
from spikeplug.presets import read_preset


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Names that a snippet may use without defining them. A model of the hub is a tiny random one here."""
    folder = save_tiny_model(tmp_path / "tiny")
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda name, **how: load(name if Path(name).exists() else folder, **how),
    )
    monkeypatch.chdir(tmp_path)
    inputs = {"input_ids": torch.arange(2, 14)[None]}
    return {"model": tiny_model(), "tokenizer": byte_tokenizer(), "name": str(folder), "inputs": inputs}


@pytest.mark.parametrize("page", [page for page in PAGES if pages.blocks(page, "python")])
def test_python_runs(page: str, namespace: dict[str, Any]) -> None:
    """The snippets of a page run one after the other, as a reader would run them."""
    for block in pages.blocks(page, "python"):
        if needed := re.fullmatch(r"<!-- needs: (\w+) -->", block.above):
            pytest.importorskip(needed[1])
        if not block.above.startswith(pages.NOT_RUN):
            # Empty lines before it: a traceback then names the line of the page.
            text = "\n" * (block.line + 1) + block.text
            exec(compile(text, str(ROOT / page), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("page", PAGES)
def test_importing_spikeplug_is_enough(page: str) -> None:
    """Every `spikeplug.name` of a snippet is public, so that no other import is needed for it."""
    text = "\n".join(block.text for block in pages.blocks(page, "python"))
    imported = {match.split(".")[0] for match in re.findall(r"^import spikeplug\.([\w.]+)", text, re.MULTILINE)}
    rest = re.sub(r"^\s*(from|import) .*$", "", text, flags=re.MULTILINE)
    used = set(re.findall(r"(?<![\w.])spikeplug\.(\w+)", rest))
    assert used - imported <= set(dir(spikeplug))


@pytest.mark.parametrize("page", PAGES)
def test_presets_chips_and_tables_of_prices_are_read(page: str, tmp_path: Path) -> None:
    for block in pages.blocks(page, "toml"):
        path = tmp_path / "own.toml"
        path.write_text(block.text, encoding="utf-8")
        if "[prices]" in block.text:
            load_table(path)
        elif "[limits." in block.text:
            load_chip(path)
        else:
            read_preset(str(path))


@pytest.mark.parametrize("page", [page for page in PAGES if pages.commands(page)])
def test_commands_parse(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command and option exists, and takes what it is given."""
    monkeypatch.chdir(ROOT)
    group: Any = typer.main.get_command(cli.app)
    for name, *arguments in pages.commands(page):
        if name.isupper() or name.startswith("-"):  # `spikeplug COMMAND --help`
            continue
        assert name in group.commands, f"no command {name!r}"
        if name == "lm-eval":
            _parse_lm_eval(arguments)
        else:
            try:
                group.commands[name].make_context(name, list(arguments))
            except typer.Exit:
                assert "--help" in arguments


def _parse_lm_eval(arguments: list[str]) -> None:
    pytest.importorskip("lm_eval")
    from spikeplug.harness.arguments import parse

    if arguments and arguments[0] not in ("ls", "validate"):
        try:
            parse(arguments)
        except SystemExit:
            assert "--help" in arguments


@pytest.mark.parametrize("page", LINKED)
def test_make_targets_exist(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    if page not in ("docs/log.md", "CHANGELOG.md"):
        assert set(pages.targets(page)) <= known


def test_marks_of_measured_parts_are_in_their_pages() -> None:
    """Or a command would fail after it has measured."""
    for path in (ROOT / "benchmarks").glob("*.py"):
        for page, part in re.findall(r'pages\.write\("([^"]+)", "([^"]+)"', path.read_text(encoding="utf-8")):
            text = pages.read(page)
            assert text.count(f"<!-- {part}:") == text.count(f"<!-- end of {part} -->") == 1, (page, part)


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_to_files(page: str) -> None:
    missing = [link for link in pages.links(page) if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


def test_populations_are_named_as_the_page_says() -> None:
    events = spikeplug.Events()
    spikeplug.functional.softmax(torch.randn(2, 8, generator=torch.Generator().manual_seed(0)), events=events)
    named = set(re.findall(r"`(softmax/[\w/]+)`", pages.read("docs/simulation.md")))
    scopes = {name.rsplit("/", cut)[0] for name in events.populations for cut in range(3)}
    assert named
    assert named <= scopes


def test_what_is_read_from_pages() -> None:
    """The reader finds what the pages have, so that the tests above test something."""
    assert ["eval", "--preset", "paper"] in pages.commands("docs/use.md")
    assert {command[0] for command in pages.commands("docs/use.md")} >= {"eval", "audit", "ops", "report", "bench"}
    assert "conformance" in set(pages.targets("README.md"))
    assert "docs/use.md" in pages.links("README.md")
    assert [block.language for block in pages.blocks("README.md", "python")] == ["python", "python"]


def test_the_table_of_operators_is_that_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(pages.ROOT / "benchmarks"))
    table = importlib.import_module("operators_table").table()
    assert table in pages.read("docs/use.md"), "run python benchmarks/operators_table.py"
