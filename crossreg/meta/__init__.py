"""Meta-training of update rules: tasks, meta-losses, inner trainings, and the updates between their windows."""

from crossreg.meta.episodes import Episodes, Seen
from crossreg.meta.losses import META_LOSSES, MetaLoss, meta_loss
from crossreg.meta.networks import NETWORKS, build_small
from crossreg.meta.plan import MetaPlan
from crossreg.meta.tasks import MetaTask
from crossreg.meta.trainer import MetaTrainer, meta_train, shares, tasks_of_slots

__all__ = [
    "META_LOSSES",
    "NETWORKS",
    "Episodes",
    "MetaLoss",
    "MetaPlan",
    "MetaTask",
    "MetaTrainer",
    "Seen",
    "build_small",
    "meta_loss",
    "meta_train",
    "shares",
    "tasks_of_slots",
]
