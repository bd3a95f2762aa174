"""Define what an evaluation is asked for. Imports no torch unless operators or modules are chosen."""

from __future__ import annotations

from dataclasses import dataclass

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.items import Question
from spikeplug.measurement.recipes import Recipe, as_recipe
from spikeplug.measurement.text import check_tokens
from spikeplug.numerics import Fields, Numerics
from spikeplug.presets import as_numerics


@dataclass(frozen=True, kw_only=True)
class Settings(Fields):
    """What to evaluate.

    numerics    Numerics, or the name of a preset
    operators   names of the operators to replace; None: all
    exclude     regular expression of module paths that stay exact
    recipe      Recipe(...) or its name: how the model is made spiking
    contexts    window lengths in tokens, each at least 2
    tokens      tokens of the text read at each context, at least the longest context
    choices     number of "pick the true continuation" items; 0: none
    tasks       further multiple-choice tasks: (name, questions)
    text        the text; None: the reference text of this Python (`pydoc_data.topics`)
    seed        draws the "pick the true continuation" items

    Errors: SpikeplugError for a value out of its domain.
    """

    numerics: Numerics | str = "default"
    operators: tuple[str, ...] | None = None
    exclude: str | None = None
    recipe: Recipe | str = "operators"
    contexts: tuple[int, ...] = (512, 2048)
    tokens: int = 4096
    choices: int = 32
    tasks: tuple[tuple[str, tuple[Question, ...]], ...] = ()
    text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "numerics", as_numerics(self.numerics))
        object.__setattr__(self, "recipe", as_recipe(self.recipe, pipelines=True))
        as_recipe(self.recipe, pipelines=True).check(operators=self.operators)
        if not self.contexts or min(self.contexts) < 2:
            raise SpikeplugError(f"context is {min(self.contexts, default='empty')}; it must be 2 tokens or more.")
        if len(set(self.contexts)) < len(self.contexts):
            raise SpikeplugError("a context is given twice; name each length once.")
        check_tokens(self.tokens, max(self.contexts))
        if self.choices < 0:
            raise SpikeplugError(f"choices is {self.choices}; it must be 0 (no such items) or more.")
        if self.operators is not None or self.exclude is not None:
            from spikeplug.conversion.check import check_request

            check_request(self.operators, self.exclude)
