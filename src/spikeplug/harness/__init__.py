"""Run lm-eval (the Language Model Evaluation Harness) on spiking models.

    import spikeplug.harness                                   # registers the model name "spiking"
    lm_eval.simple_evaluate(model="spiking", model_args="pretrained=NAME,preset=paper", tasks=[...])

Importing this package is quick: the model class is imported when lm-eval asks for it. It needs the extra
`spikeplug[lm-eval]`. Errors: SpikeplugError if lm-eval is not installed.
"""

from spikeplug.errors import SpikeplugError
from spikeplug.lazy import names_of

try:
    import lm_eval.models  # noqa: F401  # lm-eval fills its registry here; our entry follows
    from lm_eval.api.registry import model_registry
except ModuleNotFoundError as error:
    raise SpikeplugError(
        f"lm-eval is not installed (no module {error.name}): pip install 'spikeplug[lm-eval]'"
    ) from error

MODEL = "spiking"

if MODEL not in model_registry:
    model_registry.register(MODEL, target="spikeplug.harness.model:SpikingLM")

__all__ = ["MODEL"]

__getattr__ = names_of(__name__, {"compare": (), "model": ("SpikingLM",)})
