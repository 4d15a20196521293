"""A callback of Hugging Face's Trainer: learned noise and temperature for a model of transformers.

    model = inject_noise(AutoModelForSequenceClassification.from_config(config))
    callback = CrossRegularization(model, held_out)          # batches: dictionaries with "labels"
    trainer = Trainer(model, arguments, train_dataset=..., callbacks=[callback])
    trainer.train()                                          # resume_from_checkpoint=True goes on with it

The learned parameters need no gradient outside the regularizer's own step, so Trainer's optimizer does not touch them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from crossreg import CrossRegularizer

FILE = "crossreg.pt"


class CrossRegularization(TrainerCallback):
    """Learns a model's noise and temperature on held-out batches.

    Args:
        model: after `crossreg.inject_noise`.
        held_out: batches of data that the model does not train on: dictionaries as the model takes them, with "labels".
        options: of `CrossRegularizer`, such as `interval`.
    """

    def __init__(self, model: nn.Module, held_out: Iterable[Any], **options: Any) -> None:
        self.regularizer = CrossRegularizer(model, F.cross_entropy, held_out, **options)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with what a checkpoint holds, where Trainer does."""
        folder = get_last_checkpoint(args.output_dir) if state.global_step else None
        if folder is not None:
            self.regularizer.load_state_dict(torch.load(Path(folder) / FILE, weights_only=True))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step of the optimizer."""
        self.regularizer.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the regularizer's state beside the checkpoint that Trainer has just written."""
        torch.save(self.regularizer.state_dict(), Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)
