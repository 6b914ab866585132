"""Pictures that are too many for memory, read and decoded in each epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.utils.data import Dataset

from dlrun.datasets.files.framing import Framing
from dlrun.datasets.images.catalogue import Catalogue
from dlrun.datasets.images.decoded import read_picture
from dlrun.datasets.images.heads import reason_of
from dlrun.datasets.tensors.standardise import Standardise
from dlrun.errors import RunError


@dataclass(frozen=True, eq=False)
class Pictures(Dataset[tuple[Tensor, int]]):
    """Some pictures of a catalogue, prepared: float32 [C, H, W], and their classes."""

    catalogue: Catalogue
    places: Tensor
    labels: Tensor
    framing: Framing
    prepare: Standardise

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        place = int(self.places[i])
        try:
            pixels = read_picture(self.catalogue, place, self.framing)
        except Exception as error:  # each was decoded once: it has been altered, or is gone
            raise RunError(f"{self.catalogue.paths[place]} cannot be read any more: {reason_of(error)}") from error
        return self.prepare(pixels[None])[0], int(self.labels[i])
