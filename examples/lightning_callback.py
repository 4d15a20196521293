"""A Lightning callback: learned noise and temperature for any LightningModule, saved and restored with its checkpoints.

    trainer = Trainer(max_epochs=20, callbacks=[CrossRegularization("classification", held_out)])
    trainer.fit(module, train_loader)

The module stays as it is: noise goes into it when the training is set up, its optimizer never moves what is learned on
held-out data, and after every training step the regularizer counts. Copy this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as lightning
from torch import Tensor

from crossreg import CrossRegularizer, Loss, inject_noise, sigmas


class CrossRegularization(lightning.Callback):
    """Puts noise into a module, and learns it on held-out batches.

    Args:
        loss: as `crossreg.CrossRegularizer` takes it; of the module's `forward`.
        held_out: batches of data that the module does not train on, `(x, y)`.
        interval: training steps between updates.
        options: of `CrossRegularizer`, such as `samples`.
    """

    def __init__(
        self, loss: Loss | Callable[..., Tensor] | str, held_out: Iterable[Any], interval: int = 30, **options: Any
    ) -> None:
        self.loss, self.held_out, self.options = loss, held_out, {"interval": interval, **options}
        self.regularizer: CrossRegularizer | None = None
        self._restored: dict[str, Any] | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Put noise into the module, before its optimizer is made and a checkpoint is loaded into it."""
        if not any(name.endswith("noise.rho") for name, _ in pl_module.named_parameters()):
            inject_noise(pl_module)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Set the regularizer up, when the module is on its device."""
        self.regularizer = CrossRegularizer(pl_module, self.loss, self.held_out, **self.options)
        if self._restored is not None:
            self.regularizer.load_state_dict(self._restored)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Count a step, and log what an update found."""
        assert self.regularizer is not None
        update = self.regularizer.step()
        if update is not None:
            pl_module.log("reg/loss", update.loss)
            for name, sigma in sigmas(pl_module).items():
                pl_module.log(f"regularizers/{name}", sigma.mean())

    def state_dict(self) -> dict[str, Any]:
        """Return the regularizer's state, which Lightning keeps in its checkpoints: its Adam, counters and batches."""
        return {} if self.regularizer is None else self.regularizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state of a checkpoint, for when the regularizer is set up."""
        self._restored = state_dict or None
