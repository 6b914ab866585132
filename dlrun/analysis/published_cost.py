"""The training FLOP of published models, each with its source (Fleuret's book, figure 3.7).

A multiplication and an addition are two operations, a backward pass is twice a forward pass, and only the final
training counts, in all of these sources. Where a source counts in two ways, this is the count of operations.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Domain = Literal["vision", "language", "other"]

OPENAI = "Amodei and Hernandez 2018, AI and Compute, appendix"
GPT3 = "Brown et al. 2020, arXiv:2005.14165, table D.1"


class Published(NamedTuple):
    """A model, when it was published (year and month), its training FLOP, and who says so."""

    name: str
    year: int
    month: int
    domain: Domain
    flop: float
    source: str


PUBLISHED = (
    Published("AlexNet", 2012, 9, "vision", 4.7e17, OPENAI),
    Published("VGG16", 2014, 9, "vision", 8.5e18, OPENAI),
    Published("Seq2Seq", 2014, 9, "language", 7.3e18, OPENAI),
    Published("Deep Speech 2", 2015, 12, "other", 2.6e19, OPENAI),
    # 11.3·10⁹ multiplications and additions an image, 60·10⁴ iterations of 256 images
    Published(
        "ResNet-152", 2015, 12, "vision", 6 * 11.3e9 * 60e4 * 256, "He et al. 2015, arXiv:1512.03385, 3.4, table 1"
    ),
    Published("GNMT", 2016, 9, "language", 1.4e20, "Vaswani et al. 2017, arXiv:1706.03762, table 2"),
    Published("Transformer", 2017, 6, "language", 2.3e19, "Vaswani et al. 2017, arXiv:1706.03762, table 2"),
    Published("BERT", 2018, 10, "language", 5.33e20, GPT3),
    Published("RoBERTa", 2019, 7, "language", 4.26e21, GPT3),
    Published("T5-11B", 2019, 10, "language", 3.3e22, GPT3),
    Published("GPT-3", 2020, 5, "language", 3.14e23, GPT3),
    Published("Chinchilla", 2022, 3, "language", 5.76e23, "Hoffmann et al. 2022, arXiv:2203.15556"),
    Published("PaLM", 2022, 4, "language", 2.56e24, "Chowdhery et al. 2022, arXiv:2204.02311"),
    Published("Llama 3.1 405B", 2024, 7, "language", 3.8e25, "Grattafiori et al. 2024, arXiv:2407.21783"),
)

A100 = 312e12 / 400
"""FLOP a joule of an A100 SXM at its peak in 16 bits (NVIDIA's data sheet: 312 TFLOP/s, 400 W), as in the figure."""
