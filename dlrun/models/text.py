"""Checks shared by the models of text."""

from __future__ import annotations

from dlrun.errors import ConfigError


def text_shape(input_shape: tuple[int, ...], vocabulary: int | None, *, model: str) -> tuple[int, int]:
    """The context in tokens, and the size of the vocabulary.

    Raises `ConfigError` for data other than text.

    >>> text_shape((64,), 65, model="gpt")
    (64, 65)
    """
    if vocabulary is None or len(input_shape) != 1:
        raise ConfigError(
            f"model={model} needs a text, whose samples are windows of tokens; the inputs of this data set have the"
            f" shape {list(input_shape)} and no vocabulary. Choose a text, `dataset=tinyshakespeare`, or another"
            f" model, `model=mlp`."
        )
    return input_shape[0], vocabulary


def check_dropout(dropout: float) -> None:
    """Raise `ConfigError` unless 0 ≤ dropout < 1."""
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout}: expected at least 0 and less than 1, as in `model.dropout=0.1`.")


def check_context(seen: int, more: int, context: int) -> None:
    """Raise `ValueError` if `seen` + `more` tokens exceed the context."""
    if seen + more > context:
        raise ValueError(
            f"{more} tokens after {seen} exceed the model's context of {context}. Begin anew with the last of them:"
            f" step(x, None) with at most {context} tokens."
        )


def require_vocabulary(vocabulary: int | None, *, choice: str) -> int:
    """The size of the vocabulary.

    Raises `ConfigError` for data without one.
    """
    if vocabulary is None or vocabulary < 1:
        raise ConfigError(
            f"model={choice} predicts the tokens of a text, and this data set has none (vocabulary {vocabulary}). "
            "Type for example dataset=tinyshakespeare"
        )
    return vocabulary
