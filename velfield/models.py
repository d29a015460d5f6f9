"""`load_model`: whatever predicts velocities, by its name or URL. torch is loaded only for a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velfield.errors import VelfieldError
from velfield.theory.analytic import NAMES, AnalyticModel

if TYPE_CHECKING:
    from velfield.network.model import Model


def load_model(
    model: str, device: str = "auto", *, tracer: str = "number", smoothing: float | None = None
) -> Model | AnalyticModel:
    """Open a model, to ``predict(ds)`` the velocities of an opened field store.

    Parameters
    ----------
    model : str
        ``linear``, ``linear_padded``, ``linear_halo``, ``linear_halo_padded``, ``wiener`` or ``linear_whole``;
        ``pretrained``, the network that comes with velfield; or the folder of a bundle at any fsspec URL.
    device : str
        Of a network: ``auto`` takes a GPU where there is one; or ``cpu``, ``cuda``.
    tracer : str
        Of ``linear_halo``, ``linear_halo_padded`` and ``linear_whole``: halos weighted by ``number`` or ``mass``.
    smoothing : float, optional
        Gaussian radius of linear theory [h⁻¹Mpc]; by default the model's own.

    Returns
    -------
    Model or AnalyticModel
    """
    if model in NAMES:
        if device not in ("auto", "cpu"):
            raise VelfieldError(f"linear theory runs on the CPU: model={model}, device={device}; leave device out")
        return AnalyticModel(name=model, tracer=tracer, smoothing=smoothing)
    if tracer != "number" or smoothing is not None:
        raise VelfieldError(
            f"tracer and smoothing are for linear theory: model={model}, tracer={tracer}, smoothing={smoothing}; "
            f"leave them out, or name one of {', '.join(NAMES)}"
        )
    from velfield.network.model import load_model as load_network

    return load_network(model, device)
