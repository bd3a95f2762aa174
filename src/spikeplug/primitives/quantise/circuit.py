"""Build quantising neurons: ST-BIF, and integrate-and-fire neurons of one threshold."""

from __future__ import annotations

from torch import Tensor

from spikeplug.circuit import Form, Gate, Place, StageBuilder, held, state
from spikeplug.errors import SpikeplugError
from spikeplug.primitives.quantise.spec import QuantiseSpec


def quantise(x: Tensor, threshold: Tensor | int, spec: QuantiseSpec, scope: Place) -> Tensor:
    """Return the sum of the spikes for each x, int64, in units of the firing threshold θ, which broadcasts to x.

    Errors: SpikeplugError for neurons of several spikes per time step, or with another threshold in each.
    """
    if spec.levels > 1 or len(set(spec.weights)) > 1:
        what = "several spikes per time step" if spec.levels > 1 else "another threshold in every time step"
        raise SpikeplugError(f"a neuron with {what} has no circuit form: use st_bif or qcfs.")
    build = _both_signs if spec.bounds else _one_sign_each
    return scope.each(lambda stage, x, theta: build(stage, x, theta, spec), x, threshold)


def _one_sign_each(stage: StageBuilder, x: int, theta: int, spec: QuantiseSpec) -> int:
    (weight, *_), only = spec.weights, None if spec.paced else 0
    start = (held(theta, spec.pace * weight if spec.rounds else 0), -1 if spec.strict else 0)
    signs: dict[Form, int] = {"positive": 1, "negative": -1} if spec.signed else {"positive": 1}
    neurons = []
    for form, sign in signs.items():
        threshold = (held(theta, 2 * spec.pace * weight),)
        neuron = stage.neuron("", "threshold", spec.width, start=start, threshold=threshold)
        stage.synapse(neuron, held(x, 2 * sign), stage.train(form, x, form, only=only))
        neurons.append(neuron)
    total = stage.neuron("total", "accumulator", spec.total_width)
    for neuron, sign in zip(neurons, signs.values(), strict=True):
        stage.synapse(total, sign * weight, neuron)
    low, high = stage.builder.bounds(x)
    return stage.settled(total, spec.steps, spec.lowest if low < 0 else 0, spec.highest if high > 0 else 0)


def _both_signs(stage: StageBuilder, x: int, theta: int, spec: QuantiseSpec) -> int:
    assert spec.bounds is not None
    low, high = spec.bounds
    given = stage.train("input", x, "graded", only=0)
    rising = stage.neuron("rising", "threshold", spec.total_width, leak=None, threshold=(1 - high,))
    falling = stage.neuron("falling", "threshold", spec.total_width, leak=None, threshold=(low + 1,))
    up = stage.neuron("", "threshold", spec.width, leak=None, threshold=(held(theta, 2),), fires_if=(Gate(rising),))
    down = stage.neuron("down", "threshold", spec.width, leak=None, threshold=(1,), fires_if=(Gate(falling),))
    membrane = stage.neuron("membrane", "accumulator", spec.width, start=(held(theta, spec.pace * min(spec.weights)),))
    total = stage.neuron("total", "accumulator", spec.total_width)
    stage.synapse(rising, state(total, -1))
    stage.synapse(falling, state(total))
    for neuron, sign in ((up, 1), (down, -1)):
        stage.synapse(neuron, state(membrane, sign))
        stage.synapse(neuron, 2 * sign, given)
        stage.synapse(membrane, held(theta, -2 * sign), neuron)
        stage.synapse(total, sign, neuron)
    stage.synapse(membrane, 2, given)
    return stage.settled(total, spec.steps, low, high)
