"""Recipes of ANN-to-SNN pipelines: their neurons at the tensors that they code, in any convertible model."""

from spikeplug.conversion.recipes.published import RECIPES, fas, las, phase, spikellm, spikezip
from spikeplug.conversion.recipes.recipe import Pipeline, Step

__all__ = ["RECIPES", "Pipeline", "Step", "fas", "las", "phase", "spikellm", "spikezip"]
