from math import prod

from torch import Tensor, nn


class MyPart(nn.Module):
    """Two linear layers with a ReLU between them."""

    # dlrun fills in the shape of a sample and the number of outputs by the data set. All other arguments are keys.
    def __init__(self, input_shape: tuple[int, ...], outputs: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(prod(input_shape), width),
            nn.ReLU(),
            nn.Linear(width, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        # from [B, *input_shape] to [B, outputs]; of classes these are the logits
        return self.layers(x)
