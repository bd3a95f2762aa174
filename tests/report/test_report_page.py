"""The page: everything in it, nothing loaded; tables as CSV; the command."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser

import jsonschema
import pytest
from typer.testing import CliRunner

from spikeplug import cli
from spikeplug.measurement import page
from spikeplug.measurement.section import Plot, Table, axes, number, percent
from spikeplug.report import STUDIES, read, render, schema, sections_of, write_tables

LOADING = {"src", "href", "data", "action", "poster", "srcset", "background", "formaction", "cite", "manifest"}


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def html(finished):
    return render(finished.header, finished.rows)


def test_every_study_has_a_section_with_words_and_plots(finished, html):
    sections = sections_of(finished.header, finished.rows)
    assert [section.name for section in sections] == list(STUDIES)
    for section in sections:
        assert f'<section id="{section.name}">' in html
        assert section.lead.endswith(".")
        assert any(isinstance(part, Plot) for part in section.parts)
        assert any(isinstance(part, Table) for part in section.parts)
        for part in section.parts:
            if isinstance(part, Plot):
                assert part.drawings
                assert len(part.reading) > 40
            else:
                assert part.rows
                assert {len(row) for row in part.rows} == {len(part.columns)}


def test_nothing_is_loaded_from_anywhere(html):
    elements = Elements(html).found
    for tag, attributes in elements:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        for name in LOADING & attributes.keys():
            assert attributes[name].startswith("#"), (tag, attributes)
    policy = next(a["content"] for tag, a in elements if tag == "meta" and a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style
    assert "@import" not in style


def test_the_parts_of_the_page_are_whole(finished, html):
    assert html.count("<script") == 3
    assert html.count("</script>") == 3
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1]
    plots = json.loads(data)
    assert len(plots) == html.count('class="plot"')
    ids = [attributes["id"] for _, attributes in Elements(html).found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_names_cannot_break_out_of_the_page(finished):
    header = json.loads(json.dumps(finished.header))
    header["arguments"]["model"]["name"] = "</script><script>alert(1)</script>{style}"
    text = render(header, finished.rows[:3])
    assert "<script>alert" not in text
    assert text.count("<script") == 3


def test_a_page_of_a_run_that_has_just_begun(finished):
    for count in (0, 1, 2, 3, 7, 20):
        assert "Settings, versions, machine" in render(finished.header, finished.rows[:count])


def test_figures_that_are_not_numbers_are_drawn_as_gaps(finished):
    def without(value):
        if isinstance(value, float):
            return None
        if isinstance(value, dict):
            return {name: without(item) for name, item in value.items()}
        return [without(item) for item in value] if isinstance(value, list) else value

    rows = [row | {"values": without(row["values"])} for row in finished.rows if row["study"] != "effort"]
    for row in rows:
        if row["study"] == "sweeps" and row["key"] != "numerics":
            row["values"]["value"] = 4.0
    assert "not a number" in render(finished.header, rows)


def test_the_tables_are_csv_files(finished, tmp_path):
    written = write_tables(finished.header, finished.rows, tmp_path / "tables")
    assert {path.name for path in written} >= {"ablation.csv", "sweeps.csv", "effort.csv", "location-heads.csv"}
    rows = list(csv.reader((tmp_path / "tables" / "ablation.csv").read_text(encoding="utf-8").splitlines()))
    nothing = next(row for row in rows if row[0] == "0 % of the layers")
    assert float(nothing[rows[0].index("mean KL")]) == 0
    assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (1.23456, "1.23"),
        (4.5e-7, "4.50e-07"),
        (123456, "123,456"),
        (1.234e7, "12.3 million"),
        (None, "not a number"),
    ],
)
def test_numbers_for_people(value, words):
    assert number(value) == words


def test_changes_carry_their_sign():
    assert (percent(0.1234), percent(-2), percent(12345)) == ("+0.123 %", "-2 %", "+12,345 %")
    assert axes("x", "y", log="y", whole={"x": (0, 30)})["xaxis"]["dtick"] == 2


def command(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def test_the_command_makes_the_page_again(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    with (out / "rows.jsonl").open("a") as rows:
        rows.write('{"study": "abl')  # as while it is written
    written = ("--html", tmp_path / "a" / "page.html", "--json", tmp_path / "all.json", "--csv", tmp_path / "csv")
    result = command("--from", out, *written)
    assert result.exit_code == 0, result.output
    assert "The least that is enough" in result.stdout
    assert (tmp_path / "a" / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    values = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    jsonschema.validate(values, schema(), jsonschema.Draft202012Validator)
    assert list((tmp_path / "csv").glob("*.csv"))
    assert read(finished.path).rows == read(out).rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--studies", "nothing"), "no study 'nothing'"),
        (("--preset", "nonsense"), "unknown preset 'nonsense'"),
        (("--context", "4"), "context is 4"),
        (("--tokens", "-1"), "tokens is -1"),
        (("--tokens", "0"), "tokens is 0"),
        (("--tokens", "10"), "tokens is 10, fewer than one window of 2048"),
        (("--from", "/nowhere"), "holds no report"),
        (("a/model", "--from", "there"), "--from measures nothing, so MODEL has no effect: leave one of them out"),
        (("--from", "there", "--tokens", "64"), "--from measures nothing, so --tokens has no effect"),
        (("--html", "/proc/x/page.html"), "give another --html"),
        (("--json", "/proc/x/all.json"), "give another --json"),
        (("--csv", "/proc/x"), "give another --csv"),
        (("--dtype", "int8"), "no dtype 'int8'"),
        (("/nowhere/model",), "no file or folder"),
    ],
)
def test_refusals_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("spikeplug: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--html", "p", "--json", "p"), "--html and --json name the same file"),
        (("--json", "{out}/report.html"), "--html and --json name the same file"),
        (("--json", "{out}/rows.jsonl"), "--json is {out}/rows.jsonl, a file of the run itself"),
        (("--html", "{out}/header.json"), "--html is {out}/header.json, a file of the run itself"),
        (("--csv", "{out}/lock"), "--csv is {out}/lock, a file of the run itself"),
        (("--json", "{out}/link"), "--json is {out}/link, a file of the run itself"),
    ],
    ids=str,
)
def test_outputs_that_would_damage_the_run_or_each_other(finished, tmp_path, monkeypatch, arguments, message):
    out = tmp_path / "run"
    shutil.copytree(finished.path, out)
    (out / "link").symlink_to(out / "rows.jsonl")
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = command("--from", out, *(argument.format(out=out) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert message.format(out=out) in result.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["lock", "thesis.txt"])
def test_a_folder_of_other_files_is_refused_before_the_model_is_loaded(tiny_folder, tmp_path, monkeypatch, name):
    monkeypatch.setattr("spikeplug.cli.report.load_exact", lambda *arguments: pytest.fail("the model was loaded"))
    (tmp_path / name).write_text("mine")
    result = command(tiny_folder, "--out", tmp_path)
    assert result.exit_code == 2, result.output
    assert "give another --out" in result.stderr
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_without_plotly_the_run_is_refused_at_once(tmp_path, monkeypatch):
    files = page.resources.files

    def missing(name):
        if name.startswith("plotly"):
            raise ModuleNotFoundError(name)
        return files(name)

    monkeypatch.setattr(page.resources, "files", missing)
    monkeypatch.chdir(tmp_path)
    result = command()
    assert result.exit_code == 2
    assert "pip install 'spikeplug[report]'" in result.stderr
