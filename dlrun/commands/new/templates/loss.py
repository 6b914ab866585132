import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.types import Batch


def my_part(model: nn.Module, batch: Batch, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy with smoothed labels, in nats: [B]."""
    # a value a sample, not their mean: dlrun averages exactly, whatever the size of a batch
    return F.cross_entropy(model(batch.x), batch.y, label_smoothing=smoothing, reduction="none")
