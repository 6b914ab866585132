"""Keras 3 on PyTorch, without its progress bar."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"

from typing import Any

import keras

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work


class Notes(keras.callbacks.Callback):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch, self._steps = watch, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._watch.begins(self._steps)
        self._steps += 1


def model(work: Work) -> Any:
    """The work's model in Keras's own layers."""
    layers = keras.layers
    if work.name == "convnet":
        return keras.Sequential(
            [
                layers.Input((1, 28, 28)),
                layers.Conv2D(32, 5),
                layers.MaxPooling2D(3),
                layers.ReLU(),
                layers.Conv2D(64, 5),
                layers.MaxPooling2D(2),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(200, activation="relu"),
                layers.Dense(10),
            ]
        )
    if work.name == "mlp":
        return keras.Sequential([layers.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10)])
    if work.name == "plane":
        hidden = [layers.Dense(2, activation="tanh") for _ in range(8)]
        return keras.Sequential([layers.Input((2,)), *hidden, layers.Dense(2)])
    return keras.Sequential([layers.Input((9,)), layers.Dense(1)])


def train(work: Work, watch: Watch) -> None:
    keras.config.set_image_data_format("channels_first")
    keras.utils.set_random_seed(1)
    made = model(work)
    losses = keras.losses
    loss = (
        losses.MeanSquaredError()
        if work.name == "polynomial"
        else losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    made.compile(optimizer=keras.optimizers.SGD(work.lr), loss=loss)
    made.fit(work.x, work.y, batch_size=work.batch_size, epochs=1, verbose=0, callbacks=[Notes(watch)])
