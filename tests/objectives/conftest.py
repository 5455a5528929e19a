"""How an objective sees logits: through the engine, with the identity as head."""

import pytest
import torch
from torch import Tensor

from manypaths.engine import Projection, token_statistics
from manypaths.objectives import Objective


@pytest.fixture(params=("chunked", "reference"))
def losses_of(request):
    """(objective, logits [T, V], labels [T], reference logits or None) -> losses [T], on both backends."""

    def losses(objective: Objective, z: Tensor, labels: Tensor, z_ref: Tensor | None = None) -> Tensor:
        eye = torch.eye(z.shape[1], dtype=z.dtype)
        reference = None if z_ref is None else Projection(z_ref, eye)
        return objective(
            token_statistics(
                z, eye, labels, want=objective.statistics, reference=reference, backend=request.param,
                **objective.engine_parameters,
            )
        )  # fmt: skip

    return losses
