"""The Trainer of Hugging Face's transformers, without progress bar, logs and checkpoints."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from benchmarks.peers.watch import Watch
from benchmarks.peers.works import Work, samples


class Model(nn.Module):
    def __init__(self, work: Work, watch: Watch) -> None:
        super().__init__()
        self.model, self.work = watch.seen(work.fresh()), work

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.model(x)
        return {"loss": self.work.loss(outputs, labels), "logits": outputs}


class Named(Dataset[dict[str, Any]]):
    """Samples under the names of the model's arguments."""

    def __init__(self, pairs: Any) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = self._pairs[index]
        return {"x": x, "labels": y}


def train(work: Work, watch: Watch) -> None:
    gpt = work.name == "gpt"
    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=work.batch_size,
            max_steps=work.steps,
            learning_rate=work.lr,
            optim="adamw_torch_fused" if gpt else "sgd",
            lr_scheduler_type="cosine" if gpt else "constant",
            max_grad_norm=1.0 if gpt else 0.0,
            weight_decay=0.1 if gpt else 0.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        Trainer(Model(work, watch), arguments, train_dataset=Named(samples(work))).train()
