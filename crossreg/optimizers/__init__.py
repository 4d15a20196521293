"""Optimizers that are learned: update rules, their file, and the optimizer that follows one."""

from crossreg.optimizers.file import RULES, SHIPPED, About, LearnedRule, load_rule, save_rule, update_rule
from crossreg.optimizers.layout import Layout
from crossreg.optimizers.learned import LearnedOptimizer
from crossreg.optimizers.lstm import LSTMRule
from crossreg.optimizers.mlp import MLPRule
from crossreg.optimizers.rule import UpdateRule, Weights

__all__ = [
    "RULES",
    "SHIPPED",
    "About",
    "LSTMRule",
    "Layout",
    "LearnedOptimizer",
    "LearnedRule",
    "MLPRule",
    "UpdateRule",
    "Weights",
    "load_rule",
    "save_rule",
    "update_rule",
]
