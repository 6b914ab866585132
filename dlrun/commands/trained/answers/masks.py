"""Classes of pixels as pictures, one for each sample."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from dlrun.analysis.figures.style import COLOURS
from dlrun.commands.trained.answers.meaning import Answers
from dlrun.errors import UserError
from dlrun.storage.files.replacing import write_atomically

MOST = 256
"""Classes that a picture with a palette has room for."""


class MaskWriter:
    """Writes a PNG with a palette for each sample: a pixel's value is the number of its class.

    It is called as the file that the sample is from; of several in one file with a number behind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._names = folder, set[str]()

    def add(self, answers: Answers, file: str) -> None:
        if answers.classes is None or answers.classes.ndim != 3:
            raise UserError("--masks is for models that give classes of pixels, outputs [classes, height, width].")
        for classes in answers.classes:
            self._write(self._name(Path(file)), classes)

    def _name(self, file: Path) -> str:
        name, number = file.stem, 0
        while name in self._names:
            number += 1
            name = f"{file.stem}_{number}"
        self._names.add(name)
        return name

    def _write(self, name: str, classes: Tensor) -> None:
        from PIL import Image

        self._folder.mkdir(parents=True, exist_ok=True)

        if int(classes.max()) >= MOST:
            raise UserError(f"--masks: a picture has room for {MOST} classes. Type --output FILE.npz")
        picture = Image.fromarray(classes.byte().numpy(), "P")
        picture.putpalette([int(colour[i : i + 2], 16) for colour in _palette() for i in (1, 3, 5)])
        content = io.BytesIO()
        picture.save(content, format="PNG")
        write_atomically(self._folder / f"{name}.png", content.getvalue())


def _palette() -> list[str]:
    # the first class is mostly what is behind the others
    colours = [COLOURS[-1], *COLOURS[:-1]]
    return [colours[place % len(colours)] for place in range(MOST)]
