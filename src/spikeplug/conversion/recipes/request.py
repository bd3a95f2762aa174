"""Read the recipe of a request to `convert`."""

from __future__ import annotations

from spikeplug.conversion.recipes.published import RECIPES
from spikeplug.conversion.recipes.recipe import Pipeline
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError, shown


def as_recipe(recipe: object, operators: object, calibration: object) -> Whole | Pipeline | None:
    """Return the recipe of a request to `convert`; None for "operators".

    Errors: SpikeplugError for another name or type, or for arguments that do not go with the recipe.
    """
    if recipe == "operators":
        if calibration is not None:
            raise SpikeplugError(
                'calibration goes with recipe="whole" and those of pipelines: leave it out, nonlinearities need none.'
            )
        return None
    if recipe == "whole":
        recipe = Whole()
    elif isinstance(recipe, str) and recipe in RECIPES:
        recipe = RECIPES[recipe]()
    if isinstance(recipe, Pipeline):
        if operators is not None and recipe.nonlinearities == "exact":
            raise SpikeplugError('operators goes with nonlinearities="spiking": leave it out.')
        return recipe
    if not isinstance(recipe, Whole):
        names = ", ".join(f'"{name}"' for name in ("operators", "whole", *RECIPES))
        raise SpikeplugError(f"recipe is {shown(recipe)}: choose {names}, or give a Whole(...) or a Pipeline(...).")
    if operators is not None:
        raise SpikeplugError('operators goes with recipe="operators": a whole model replaces everything.')
    return recipe
