"""Say how a model is made spiking: the recipe, its bits and its calibration text, for every command that converts."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeplug.errors import SpikeplugError, shown
from spikeplug.measurement.loading import is_whole, load
from spikeplug.measurement.text import check_vocabulary, positions_of, read_text
from spikeplug.numerics import Fields, Numerics
from spikeplug.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from spikeplug.conversion import Report
    from spikeplug.conversion.whole.layout import Layout
    from spikeplug.conversion.whole.recipe import Whole
    from spikeplug.measurement.loading import Source

RECIPES = ("operators", "whole")
#: Those of other ANN-to-SNN pipelines, which `spikeplug eval` measures too; `conversion.recipes.RECIPES` has them.
PIPELINES = ("spikezip", "spikellm", "fas", "las", "phase")
#: Bits that weights may have.
WEIGHT_BITS = (8, 4)
#: Tokens of the calibration text by default.
TOKENS = 512
#: The value of --calibration for weights that are rounded to nearest.
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Recipe(Fields):
    """Say how a model is made spiking.

    name        "operators": nonlinearities spike; "whole": every tensor between token ids and logits does; or a name of
                PIPELINES: nonlinearities spike, and the tensors that this pipeline codes
    bits        of the inputs of linear layers and of keys and values, the sign included: 4 to 9; None: 9
    weight_bits  8, or 4: weights in int4 groups; None: 8
    calibrated  False: weights are rounded to nearest
    text        whose tokens calibrate the rounding of weights, or a pipeline's neurons; None: the end of the embedded
                English text
    tokens      number of these tokens; None: 512
    exact       leave the nonlinearities exact, as a pipeline's publication does

    Errors: SpikeplugError for a value out of its domain, or one that does not go with the name.
    """

    name: str = "operators"
    bits: int | None = None
    weight_bits: int | None = None
    calibrated: bool = True
    text: str | None = None
    tokens: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.name not in (*RECIPES, *PIPELINES):
            raise SpikeplugError(f"unknown recipe {shown(self.name)}: choose {' or '.join(RECIPES)}.")
        if self.bits is not None and (not isinstance(self.bits, int) or not 4 <= self.bits <= 9):
            raise SpikeplugError(f"bits is {shown(self.bits)}: choose 4 to 9.")
        if self.weight_bits not in (None, *WEIGHT_BITS):
            raise SpikeplugError(
                f"weight bits are {shown(self.weight_bits)}: choose {' or '.join(map(str, WEIGHT_BITS))}."
            )
        if self.tokens is not None and self.tokens < 1:
            raise SpikeplugError(f"the calibration tokens are {self.tokens}: give 1 or more.")
        given = {
            "bits": self.bits is not None,
            "weight bits": self.weight_bits is not None,
            "calibration": self.text is not None or not self.calibrated,
            "calibration tokens": self.tokens is not None,
        }
        if self.name == RECIPES[0] and (named := [name for name, there in given.items() if there]):
            raise SpikeplugError(f"{named[0]} and the recipe operators exclude each other: add --recipe whole.")
        if self.pipeline and (named := [name for name in ("bits", "weight bits") if given[name]]):
            raise SpikeplugError(
                f"{named[0]} and the recipe {self.name} exclude each other: leave {named[0]} out; in Python, "
                f"spikeplug.recipes.{self.name}(...) has levels and steps."
            )
        if self.pipeline and not self.calibrated:
            raise SpikeplugError(
                f"the recipe {self.name} calibrates thresholds: leave calibration out, or name a text."
            )
        if self.exact and not self.pipeline:
            raise SpikeplugError(f"the recipe {self.name} has no form with exact nonlinearities: leave operators out.")
        if not self.calibrated and (self.text is not None or self.tokens is not None):
            raise SpikeplugError("calibration tokens and no calibration exclude each other: leave one of them out.")

    @property
    def whole(self) -> bool:
        """Return whether the whole model is made spiking."""
        return self.name == "whole"

    @property
    def pipeline(self) -> bool:
        """Return whether it is the recipe of another pipeline."""
        return self.name in PIPELINES

    def arguments(self) -> dict[str, Any]:
        """Return name and bits for a record; bits are None for operators."""
        bits, weight_bits = (self.bits or 9, self.weight_bits or 8) if self.whole else (None, None)
        return {"recipe": self.name, "bits": bits, "weight_bits": weight_bits}

    def levels(self) -> Whole:
        """Return the levels of each site of a whole spiking model with these bits."""
        from spikeplug.conversion.whole.recipe import Whole

        return Whole.of_bits(self.bits or 9, self.weight_bits or 8)

    def check(self, dtype: str = "float32", operators: Sequence[str] | None = None) -> None:
        """Check that the recipe goes with other choices of a command. Errors: SpikeplugError."""
        if self.whole and operators is not None:
            raise SpikeplugError("--operators and --recipe whole exclude each other: a whole model replaces all.")
        if self.whole and dtype in ("bfloat16", "float16"):
            raise SpikeplugError(
                f"--recipe whole needs 24 bits between operators, which {dtype} does not hold: give --dtype float32; "
                "the weights become int8 in any case."
            )

    def convert(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None,
        numerics: Numerics,
        *,
        operators: Sequence[str] | None = None,
        exclude: str | None = None,
        unfinished: Path | None = None,
        free_early: bool = False,
        progress: Progress | None = None,
    ) -> Report:
        """Convert the model in place and return the report; arguments and errors as of `spikeplug.convert`.

        tokenizer   cuts the calibration text; None: the model has none
        free_early  keep no float weights of a whole model
        """
        from spikeplug.conversion import convert, recipes

        if self.pipeline:
            pipeline = recipes.RECIPES[self.name](nonlinearities="exact" if self.exact else "spiking")
            batch = self._inputs(model, tokenizer)
            return convert(
                model,
                numerics,
                recipe=pipeline,
                calibration=batch,
                operators=operators,
                exclude=exclude,
                progress=progress,
            )
        if not self.whole:
            return convert(model, numerics, operators=operators, exclude=exclude)
        return convert(
            model,
            numerics,
            recipe=self.levels(),
            calibration=self._inputs(model, tokenizer),
            exclude=exclude,
            keep=not free_early,
            free_early=free_early,
            unfinished=unfinished,
            progress=progress,
        )

    def _inputs(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Any:
        from spikeplug.conversion.whole.calibration import text_tokens

        if not self.calibrated:
            return False
        if tokenizer is None or model.main_input_name != "input_ids":
            raise SpikeplugError(
                f"{type(model).__name__} reads no text, so none calibrates it: give --calibration none, or calibrate "
                "in Python with inputs of your own."
            )
        ids = text_tokens(tokenizer, self.tokens or TOKENS, self.text, positions_of(model))
        check_vocabulary(model, ids.flatten().tolist())
        inputs = {"input_ids": ids}
        return inputs | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})


def as_recipe(recipe: Recipe | str, pipelines: bool = False) -> Recipe:
    """Return the recipe, or that of its name. pipelines: whether it may be that of another pipeline.

    Errors: SpikeplugError for an unknown name, or one that is not served here.
    """
    found = recipe if isinstance(recipe, Recipe) else Recipe(name=recipe)
    if found.pipeline and not pipelines:
        raise SpikeplugError(
            f"the recipe {found.name} is not served here: choose {' or '.join(RECIPES)}, measure it with spikeplug "
            "eval, or convert a model with it in Python."
        )
    return found


def spiking_copy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    recipe: Recipe,
    numerics: Numerics,
    *,
    operators: Sequence[str] | None = None,
    exclude: str | None = None,
    progress: Progress | None = None,
) -> tuple[PreTrainedModel, Report]:
    """Return a converted copy of a model, and the report. The model stays exact.

    Both share their float parameters, so the copy costs only what the conversion makes: for the recipe whole, a byte
    per weight. The copy cannot be reverted.
    Errors: as of `spikeplug.convert`.
    """
    from spikeplug.conversion.whole.coded import free

    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    copied = copy.deepcopy(model, shared)
    report = recipe.convert(copied, tokenizer, numerics, operators=operators, exclude=exclude, progress=progress)
    free(copied)
    return copied, report


def load_exact(
    source: Source, original: Source | None, dtype: str, chosen: Mapping[str, bool]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, PreTrainedModel | None]:
    """Return the exact model to compare with, its tokenizer, and the spiking model if `source` was saved whole.

    original   the float model that `source` was made from; None: `source` has float weights itself
    chosen     option of a conversion -> whether it was given, see `check_saved`

    Errors: SpikeplugError if `original` is missing or has no use, and those of `check_saved` and `load_pair`.
    """
    if is_whole(source):
        check_saved(source.name, chosen)
        if original is None:
            raise SpikeplugError(
                f"{source.name} is a whole spiking model without float weights: add --exact with the float model that "
                "it was made from."
            )
        spiking, model, tokenizer = load_pair(source, original, dtype)
        return model, tokenizer, spiking
    if original is not None:
        raise SpikeplugError(
            f"{source.name} has float weights of its own: leave --exact out; it goes with a folder that `spikeplug "
            "convert --recipe whole` wrote."
        )
    return *load(source, dtype), None


def load_pair(
    source: Source, original: Source, dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a whole spiking model as it was saved, the float model that it came from, and the float model's tokenizer.

    Errors: SpikeplugError if one of them cannot be loaded, or if they are not models of the same kind and size.
    """
    spiking, _ = load(source, dtype, as_saved=True)
    exact, tokenizer = load(original, dtype)
    check_same(spiking, exact, original.name)
    return spiking, exact, tokenizer


def check_same(spiking: PreTrainedModel, exact: PreTrainedModel, name: str) -> None:
    """Check that a float model can be the one that a spiking model was made from: of its kind and size.

    name   of the float model, for the message

    Errors: SpikeplugError.
    """
    for key in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers"):
        value, other = (getattr(model.config, key, None) for model in (spiking, exact))
        if value != other:
            raise SpikeplugError(
                f"{name} is not the model that the spiking one was made from: its {key} is {other}, not {value}; name "
                "the original as exact."
            )


def saved_numerics(model: PreTrainedModel) -> Numerics:
    """Return the numerics that a converted model, made here or loaded, computes with."""
    saved: Numerics = model.config.quantization_config.numerics
    return saved


def saved_levels(model: PreTrainedModel) -> Whole:
    """Return the levels of a whole spiking model, converted or loaded."""
    layout: Layout = model.config.quantization_config.layout
    return layout.recipe


def check_saved(name: str, chosen: Mapping[str, bool]) -> None:
    """Refuse choices that only a conversion takes, for a model that was saved whole.

    chosen   option -> whether it was given

    Errors: SpikeplugError.
    """
    given = [option for option, there in chosen.items() if there]
    if given:
        raise SpikeplugError(
            f"{name} is a whole spiking model already, so {given[0]} has no effect: leave it out, or give the float "
            "model that it was made from."
        )


def read_recipe(
    name: str,
    bits: int | None = None,
    calibration: Path | str | None = None,
    tokens: int | None = None,
    exact: bool = False,
    pipelines: bool = False,
    weight_bits: int | None = None,
) -> Recipe:
    """Return the recipe of a command's options. calibration: the path of a UTF-8 text, or "none".

    pipelines: see `as_recipe`.

    Errors: SpikeplugError for values out of their domain, and for a text that is empty or cannot be read.
    """
    calibrated = str(calibration) != NONE
    text = read_text(calibration) if calibration is not None and calibrated else None
    if text is not None and not text.strip():
        raise SpikeplugError(f"the calibration text {calibration} is empty: give English text, or leave it out.")
    found = Recipe(
        name=name,
        bits=bits,
        weight_bits=weight_bits,
        calibrated=calibrated,
        text=text,
        tokens=tokens,
        exact=exact,
    )
    return as_recipe(found, pipelines)
