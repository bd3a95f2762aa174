"""Compare an exact model with its converted self: switch between both, and compare their predictions in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from spikeplug import conversion
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Logits are turned to float64 this many at a time (8 MiB per tensor), so that the comparison needs little memory.
_CHUNK = 1 << 20


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode within the block; afterwards each module has its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def converted(
    model: nn.Module, numerics: Numerics, operators: Sequence[str] | None = None, exclude: str | None = None
) -> Iterator[conversion.Report]:
    """Convert the model within the block and yield the report; afterwards the model is exact again.

    Errors: those of `convert`.
    """
    report = conversion.convert(model, numerics, operators=operators, exclude=exclude)
    try:
        yield report
    finally:
        conversion.revert(model)


def next_token_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Return the logits with which a model predicts each token after the first: (context - 1, vocabulary).

    ids   token ids of one sequence, int64 (1, context)
    """
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, :-1]


@dataclass(frozen=True)
class Predictions:
    """How two models predicted the same consecutive tokens: float64 vectors with one value per prediction.

    exact, converted   negative log-likelihood of the true token by both models, in nats
    kl                 Σ p (log p - log q) over the vocabulary, p exact and q converted, in nats
    agree              1 where both models have the same most likely token, else 0
    """

    exact: Tensor
    converted: Tensor
    kl: Tensor
    agree: Tensor


def compare(exact: Tensor, converted: Tensor, targets: Tensor) -> Iterator[Predictions]:
    """Compare the logits of two models in float64, a few predictions at a time, and yield the results in order.

    exact, converted   logits (predictions, vocabulary)
    targets            ids of the true tokens, int64 (predictions,)

    Errors: SpikeplugError if the exact model yields NaN.
    """
    rows = max(1, _CHUNK // exact.shape[-1])
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        p, q = (logits[chunk].double().log_softmax(-1) for logits in (exact, converted))
        probability, target = p.exp(), targets[chunk, None]
        # 0 log 0 = 0: a token that the exact model rules out adds nothing, whatever the converted model gives it.
        terms = (probability * (p - q)).masked_fill_(probability == 0.0, 0.0)
        found = Predictions(
            exact=-p.gather(-1, target)[:, 0],
            converted=-q.gather(-1, target)[:, 0],
            kl=terms.sum(-1).clamp_min_(0.0),
            agree=(p.argmax(-1) == q.argmax(-1)).double(),
        )
        if bool(found.exact.isnan().any()):
            raise SpikeplugError(
                "the exact model itself yields NaN: its weights are damaged, or the dtype is too narrow for it (try "
                "--dtype float32)."
            )
        yield found
