"""Measure a whole spiking SmolLM2: `python benchmarks/whole.py PART [--write]`.

accuracy    perplexity and divergence from the exact model, by levels and context, on text that nothing was chosen on
weights     perplexity, divergence and folder with int8 weights and with int4 groups, at context 512
speed       prefill, decoding, memory and folder against the exact model, in turns; torch.compile needs a C++ compiler.
            It has a table of its own where torch's int8 product is inexact, as on processors without VNNI
simulation  one forward pass neuron by neuron, equal to the closed form, and the audit of linear operations
counting    the events of one token and of 2,048, predicted; on a few tokens, equal to those of a simulation
encoders    MiniLM: cosine of each of 1,000 embeddings with the exact one; Whisper: the words it writes
budget      what the rounding at each site costs, by `spikeplug report`; an interrupted run goes on in --folder

The rival in the first two is torchao's dynamic int8. Without torchao they leave it out, and say how to install it.

--write puts the tables into docs/whole-figures.md, as `make whole` does. Exits with 1 if a pass is not equal to the
closed form, or a prediction to the simulation.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.metadata
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import packaged_models
import pages
import torch
from rich.console import Console
from torch import Tensor, nn

import spikeplug
from spikeplug import report
from spikeplug.conversion.whole.calibration import text_tokens
from spikeplug.english import english_text
from spikeplug.kernels.cpu.linear import has_exact_int8_product
from spikeplug.measurement.loading import find_source, load, model_facts
from spikeplug.measurement.record import environment
from spikeplug.measurement.section import Table
from spikeplug.measurement.text import cut_windows, encode
from spikeplug.progress import shown_on
from spikeplug.report.comparison import perplexity_change

PAGE = "docs/whole-figures.md"
#: Levels of inputs, which are those of keys and values unless a name says otherwise, 127 at most; and their blocks.
RECIPES = {
    "256 (default)": spikeplug.Whole(),
    "127": spikeplug.Whole.of_bits(8),
    "64": spikeplug.Whole(inputs=64, cache=64),
    "16, blocks of 16, keys and values 64": spikeplug.Whole(inputs=16, cache=64, block=16, rotated_block=16),
    "16, blocks of 8": spikeplug.Whole(inputs=16, cache=16, block=8, rotated_block=8),
    "16, blocks of 8, keys and values 64": spikeplug.Whole(inputs=16, cache=64, block=8, rotated_block=8),
    "127, weights to nearest": spikeplug.Whole.of_bits(8),
    "127, nothing rotated": spikeplug.Whole(inputs=127, rotate=False),
}
#: By the name of a row: the recipe, and how many tokens calibrate it.
WEIGHTS = {
    "int8": (spikeplug.Whole(), 512),
    "int4": (spikeplug.Whole.of_bits(weight_bits=4), 512),
    "int4, 2,048 calibration tokens": (spikeplug.Whole.of_bits(weight_bits=4), 2048),
    "int4, groups of 32": (spikeplug.Whole(weight_group=32), 512),
}
#: Rows of the table of accuracy.
TORCHAO = "torchao"
ACCURACY = [*RECIPES, TORCHAO]
_CONSOLE = Console()


def accuracy(names: list[str], tokens: int, contexts: tuple[int, ...]) -> Iterator[tuple[list[str], str, str]]:
    """Yield the heading of the table, a row per name of ACCURACY, and the README's sentence; "" but for the default.

    A row has the change of perplexity and the divergence at each context.
    """
    model, tokenizer = load(find_source(None))
    ids = encode(tokenizer, english_text())
    unseen = ids[len(ids) // 2 :]  # the second half: thresholds, widths and recipes were chosen on the first
    titles = [f"{kind}, context {context}" for context in contexts for kind in ("perplexity", "KL")]
    heading = [
        f"SmolLM2-135M, {tokens:,} tokens of the embedded text's second half. {machine()}\n",
        f"| levels of inputs | {' | '.join(titles)} |",
        f"|---|{'---:|' * len(titles)}",
    ]
    for name in names:
        other = _converted(name, model, tokenizer)
        if other is None:
            continue
        cells = [cell for at in contexts for cell in compared(model, other, cut_windows(unseen, at, tokens))]
        del other
        gc.collect()
        sentence = ""
        if RECIPES.get(name) == spikeplug.Whole():
            changes = " and ".join(f"{cells[2 * i]} at {context}" for i, context in enumerate(contexts))
            sentence = (
                "- **Whole models**, SmolLM2-135M, everything between the token ids and the logits spiking, int8 "
                f"weights: perplexity {changes} tokens of context (`make whole`, [all figures](docs/whole-figures.md))."
            )
        yield heading, f"| `{name}` | {' | '.join(cells)} |", sentence


def _converted(name: str, model: nn.Module, tokenizer: Any) -> nn.Module | None:
    """Return the model of a row: a copy of the model by a recipe, or torchao's; None without torchao."""
    if name == TORCHAO:
        return next(iter(torchao_int8(model).values()), None)
    whole = copy.deepcopy(model)
    calibration: Any = False if name.endswith("nearest") else text_tokens(tokenizer)
    spikeplug.convert(whole, recipe=RECIPES[name], calibration=calibration)
    return whole


def weights(names: list[str], tokens: int, context: int = 512) -> Iterator[tuple[list[str], str]]:
    """Yield the heading of the table, and a row for each of these names of WEIGHTS.

    A row has the change of perplexity, the divergence, and the folder in bytes per float weight of 32 bits.
    """
    model, tokenizer = load(find_source(None))
    ids = encode(tokenizer, english_text())
    windows = cut_windows(ids[len(ids) // 2 :], context, tokens)
    exact = 4 * model_facts(model, "")["parameters"]
    heading = [
        f"SmolLM2-135M, {tokens:,} tokens of the embedded text's second half, context {context}; levels of inputs 256. "
        f"{machine()}\n",
        "| weights | perplexity | KL | folder | of float32 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in names:
        recipe, calibration = WEIGHTS[name]
        whole = copy.deepcopy(model)
        spikeplug.convert(whole, recipe=recipe, calibration=text_tokens(tokenizer, calibration))
        size = _folder(whole)
        cells = [f"`{name}`", *compared(model, whole, windows), f"{size / 1e6:,.0f} MB", f"{size / exact:.2f}"]
        yield heading, f"| {' | '.join(cells)} |"
        del whole
        gc.collect()


def torchao_int8(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by its name, a copy of a model whose linear layers are torchao's dynamic int8; {} without torchao.

    Weights have a scale per row, inputs one per token. All else stays float.
    """
    if find_spec("torchao") is None:
        _CONSOLE.print("torchao is not installed and is left out; to install it: python -m pip install '.[benchmarks]'")
        return {}
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    rival = copy.deepcopy(model)
    quantize_(rival, Int8DynamicActivationInt8WeightConfig())
    return {f"torchao {importlib.metadata.version('torchao')}": rival}


def compared(model: nn.Module, other: nn.Module, windows: Tensor) -> list[str]:
    """Return the change of perplexity and the mean divergence in nats, with their standard errors, as text."""
    divergences, differences = [], []
    for window in windows:
        with torch.inference_mode():
            exact, found = (each(window[None]).logits[0, :-1].log_softmax(-1) for each in (model, other))
        divergences.append((exact.exp() * (exact - found)).sum(-1))
        chosen = window[1:, None]
        differences.append((exact.gather(-1, chosen) - found.gather(-1, chosen))[:, 0].double())
    divergence, difference = torch.cat(divergences), torch.cat(differences)
    change, error = perplexity_change(difference)
    return [f"{change:+.2f} ± {error:.2f} %", f"{divergence.mean():.2e}"]


def speed(repeats: int) -> tuple[str, str]:
    """Return a table of seconds and bytes, and the README's sentence.

    The arms are the exact model, whole ones of 9 and 8 bits, torchao's and it compiled.
    """
    model, tokenizer = load(find_source(None))
    model.set_attn_implementation("sdpa")
    ids = cut_windows(encode(tokenizer, english_text()), 512, 512)
    arms = {"exact, float32 sdpa": model}
    for bits in (9, 8):
        whole = arms[f"whole, {bits} bits"] = copy.deepcopy(model)
        spikeplug.convert(whole, recipe=spikeplug.Whole.of_bits(bits), calibration=text_tokens(tokenizer), keep=False)
    for name, rival in torchao_int8(model).items():
        arms[name] = rival
        compiled = arms[f"{name}, compiled"] = copy.deepcopy(rival)
        compiled.forward = torch.compile(compiled.forward)
    runs = {
        "prefill of 512 tokens": (_prefill, repeats),
        "one token after 512": (_decode, 4 * repeats),
    }
    lines = [f"| | {' | '.join(arms)} |", f"|---|{'---:|' * len(arms)}"]
    ratios = []
    for what, (make, times) in runs.items():
        found = _in_turns({name: make(arm, ids) for name, arm in arms.items()}, times)
        lines.append(_row(what, [1e3 * seconds for seconds in found.values()], "ms"))
        exact, nine, eight, *_ = found.values()
        ratios.append(f"{what} {nine / exact:.2f} with 9 bits, the default, and {eight / exact:.2f} with 8")
    lines.append(_row("parameters and buffers", [_bytes(arm) / 1e6 for arm in arms.values()], "MB"))
    lines.append(_row("folder", [_folder(arm) / 1e6 for arm in arms.values()], "MB"))
    sentence = (
        f"- **Speed of whole models**, SmolLM2-135M, whole / float32 sdpa: {'; '.join(ratios)} ({machine()[:-1]}; "
        "`make whole`, [all figures](docs/whole-figures.md#speed-memory-and-folder))."
    )
    kind = "exact" if has_exact_int8_product() else "inexact, so int16 panels run"
    head = (
        f"Medians of runs in turns; in brackets the ratio to the exact model. {machine()} Vectors: "
        f"{torch.backends.cpu.get_cpu_capability()}; torch's int8 product is {kind}."
    )
    return f"{head}\n\n" + "\n".join(lines), sentence


def _row(what: str, values: list[float], unit: str) -> str:
    first, *others = values
    cells = [f"{first:,.0f} {unit}", *(f"{value:,.0f} {unit} ({value / first:.2f})" for value in others)]
    return f"| {what} | {' | '.join(cells)} |"


def _prefill(model: nn.Module, ids: Tensor) -> Callable[[], Any]:
    return lambda: model(ids, logits_to_keep=1, use_cache=True)


def _decode(model: nn.Module, ids: Tensor) -> Callable[[], Any]:
    with torch.inference_mode():
        cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values

    def step() -> Any:
        output = model(ids[:, :1], past_key_values=cache, use_cache=True)
        cache.crop(-1)
        return output

    return step


def _in_turns(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with torch.inference_mode():
        for turn in range(repeats + 2):  # the first two warm up, and compile
            for name, run in arms.items():
                start = time.perf_counter()
                run()
                if turn > 1:
                    seconds[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in seconds.items()}


def _bytes(model: nn.Module) -> int:
    held = (part for tensor in (*model.parameters(), *model.buffers()) for part in _parts(tensor))
    return sum({part.data_ptr(): part.nbytes for part in held}.values())


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the plain tensors that hold a tensor: itself, or the integers and scales of one of torchao's."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def _folder(model: Any) -> int:
    with tempfile.TemporaryDirectory() as folder:
        if any(hasattr(weight, "__tensor_flatten__") for weight in model.parameters()):
            torch.save(model.state_dict(), Path(folder, "weights.pt"))  # safetensors take no such tensors
        else:
            model.save_pretrained(folder)
        return sum(file.stat().st_size for pattern in ("*.pt", "*.safetensors") for file in Path(folder).glob(pattern))


def simulation(tokens: int) -> tuple[str, bool]:
    """Return a table of the events of one pass, and whether it equals the closed form and nothing was left in float."""
    model, tokenizer = load(find_source(None))
    ids = cut_windows(encode(tokenizer, english_text()), tokens, tokens)
    spikeplug.convert(model, recipe="whole", calibration=False)
    with torch.inference_mode():
        closed = model(ids).logits
        with spikeplug.audit(model, linear=True) as found:
            model(ids)
        start = time.perf_counter()
        with spikeplug.simulate(model) as simulated:
            stepped = model(ids).logits
        seconds = time.perf_counter() - start
    equal = torch.equal(closed, stepped) and not found.entries
    lines = ["| operator | calls | spikes | synaptic operations | membrane updates |", "|---|---:|---:|---:|---:|"]
    calls: dict[str, int] = {}
    for entry in simulated.entries:
        calls[entry.operator] = calls.get(entry.operator, 0) + entry.calls
    for name, events in simulated.operators.items():
        lines.append(
            f"| {name} | {calls[name]:,} | {events.spikes:.2e} | {events.synops:.2e} | {events.membrane_updates:.2e} |"
        )
    verdict = "equal to the closed form bit for bit" if torch.equal(closed, stepped) else "NOT EQUAL"
    return (
        f"{tokens} tokens, {seconds:.0f} s, logits {verdict}, {len(simulated.populations)} populations; float "
        f"operations left by the audit: {len(found.entries)}. {machine()}\n\n" + "\n".join(lines),
        equal,
    )


def counting(few: int, lengths: tuple[int, ...]) -> tuple[str, bool]:
    """Return tables of predicted events, and whether those of `few` tokens are the simulated ones."""
    model, tokenizer = load(find_source(None))
    ids = encode(tokenizer, english_text())
    spikeplug.convert(model, recipe="whole", calibration=False)

    def run(how: Any, tokens: int) -> tuple[Any, str]:
        start, busy = time.perf_counter(), time.process_time()
        with torch.inference_mode(), how(model) as found:
            model(cut_windows(ids, tokens, tokens), use_cache=False)
        seconds = f"{time.perf_counter() - start:.0f} ({time.process_time() - busy:.0f})"
        _CONSOLE.print(how.__name__, tokens, seconds, str(found))
        return found, seconds

    (simulated, simulating), (counted, predicting) = (run(how, few) for how in (spikeplug.simulate, spikeplug.count))
    equal = simulated.to_dict() == counted.to_dict()
    lines = ["| tokens | | seconds (of all cores) | spikes | synaptic operations | driven updates | idle updates |"]
    lines.append("|---:|---|---:|---:|---:|---:|---:|")

    def cells(events: spikeplug.Events, tokens: int = 1) -> str:
        counts = (events.spikes, events.synops, events.driven_updates, events.idle_updates)
        return " | ".join(f"{count / tokens:.3g}" for count in counts)

    lines.append(f"| {few} | simulated | {simulating} | {cells(simulated.total)} |")
    lines.append(f"| {few} | predicted | {predicting} | {cells(counted.total)} |")
    for tokens in lengths:
        counted, seconds = run(spikeplug.count, tokens)
        lines.append(f"| {tokens:,} | predicted | {seconds} | {cells(counted.total)} |")
    lines += ["", f"By operator, per token of the {tokens:,}:", ""]
    lines += ["| | spikes | synaptic operations | driven updates | idle updates |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {cells(events, tokens)} |" for name, events in counted.operators.items()]
    verdict = "equal to the simulated ones in every field" if equal else "NOT EQUAL to the simulated ones"
    return f"The predicted events of {few} tokens are {verdict}. {machine()}\n\n" + "\n".join(lines), equal


def encoders() -> str:
    """Return how near MiniLM's embeddings are to the exact ones, and what Whisper writes, exact and spiking."""
    model, tokenizer = packaged_models.minilm()
    texts = packaged_models.sentences(1000)
    with torch.inference_mode():
        exact = packaged_models.embeddings(model, tokenizer, texts).double()
        batch = tokenizer(texts[-32:], padding=True, truncation=True, return_tensors="pt")
        spikeplug.convert(model, recipe="whole", calibration=batch)
        cosine = (exact * packaged_models.embeddings(model, tokenizer, texts).double()).sum(-1).sort().values
    speech, words = packaged_models.speech(), []
    whisper, spelling = packaged_models.whisper()
    words.append(packaged_models.transcript(whisper, spelling, speech))
    report = spikeplug.convert(whisper, recipe="whole", calibration=False)
    words.append(packaged_models.transcript(whisper, spelling, speech))
    with spikeplug.audit(whisper, linear=True) as found:
        packaged_models.transcript(whisper, spelling, speech)
    left = ", ".join(f"{entry.op} in {entry.path or 'generate'}" for entry in found.entries) or "none"
    return (
        f"- **MiniLM**, {len(texts)} sentences: cosine with the exact embedding at least {cosine[0]:.4f}, median "
        f"{cosine[len(texts) // 2]:.4f}.\n- **Whisper tiny.en**, ten seconds of speech: {report}; float operations "
        f"left: {left}; the words are {'the same' if words[0] == words[1] else 'NOT the same'}: “{words[1]}”\n\n"
        f"{machine()}"
    )


def budget(tokens: int, folder: Path) -> str:
    """Return the tables of the error budget, by kind of site and by site."""
    source = find_source(None)
    model, tokenizer = load(source)
    text = english_text()
    settings = report.Settings(
        recipe="whole", context=512, tokens=tokens, studies=("budget",), text=text[len(text) // 2 :]
    )
    facts = model_facts(model, source.name)
    with shown_on(Console(stderr=True)) as progress:
        files = report.run(model, tokenizer, settings, folder, facts, progress)
    (section,) = report.sections_of(files.header, files.rows)
    parts = [
        f"SmolLM2-135M, {tokens:,} tokens of the embedded text's second half, context 512. {section.lead} {machine()}"
    ]
    for part in section.parts:
        if isinstance(part, Table):
            lines = ["| coded | KL alone | perplexity | KL saved if exact |", "|---|---:|---:|---:|"]
            lines += [
                f"| {row[0]} | {_figure(*row[1:3])} | {_figure(*row[3:5])} % | {_figure(*row[5:7])} |"
                for row in part.rows
            ]
            parts.append(f"{part.title}:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _figure(value: float | None, error: float | None) -> str:
    return "" if value is None or error is None else f"{value:.2g} ± {error:.1g}"


def machine() -> str:
    """Return the machine and the versions, in a sentence."""
    facts = environment()
    return f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part", choices=["accuracy", "weights", "speed", "simulation", "counting", "encoders", "budget"]
    )
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--contexts", default="512,2048")
    parser.add_argument("--rows", nargs="+", help="of accuracy or of weights, by name; all by default")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, default=Path("results/budget"), help="of the run of the budget")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = {"accuracy": ACCURACY, "weights": list(WEIGHTS)}.get(arguments.part, [])
    if unknown := set(arguments.rows or []) - set(names):
        parser.error(f"{arguments.part} has no rows {sorted(unknown)}: choose from {names}.")
    equal = True
    if arguments.part == "accuracy":
        contexts = tuple(map(int, arguments.contexts.split(",")))
        for heading, row, line in accuracy(arguments.rows or names, arguments.tokens, contexts):
            print(row)
            if arguments.write:
                pages.write_row(PAGE, "accuracy", heading, row, ACCURACY)
            if arguments.write and line:
                pages.write("README.md", "whole", line)
        return 0
    elif arguments.part == "weights":
        rows = []
        for heading, row in weights(arguments.rows or names, arguments.tokens):
            rows.append(row)
            if arguments.write:
                pages.write_row(PAGE, "weights", heading, row, list(WEIGHTS))
        print("\n".join([*heading, *rows]))
        return 0
    elif arguments.part == "speed":
        text, sentence = speed(arguments.repeats)
        if not has_exact_int8_product():
            arguments.part = "speed without VNNI"
        elif arguments.write:
            pages.write("README.md", "whole speed", sentence)
    elif arguments.part == "simulation":
        text, equal = simulation(min(arguments.tokens, 64))
    elif arguments.part == "budget":
        text = budget(min(arguments.tokens, 4096), arguments.folder)
    elif arguments.part == "counting":
        text, equal = counting(16, (1, 2048))
    else:
        text = encoders()
    print(text)
    if arguments.write:
        pages.write(PAGE, arguments.part, text)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
