"""The README's three lines with nothing installed but torch: noise is learned,."""

import sys

import torch
from torch import nn
from torch.nn import functional as F

from crossreg import CrossRegularizer, inject_noise, predict, sigmas

torch.manual_seed(0)
x = torch.randn(400, 20)
y = (x[:, :3].sum(1) + 2 * torch.randn(400) > 0).long()
model = inject_noise(nn.Sequential(nn.Linear(20, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 2)))
before = dict(sigmas(model))
regularizer = CrossRegularizer(model, "classification", [(x[200:300], y[200:300])], interval=5)
optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-2)
for _ in range(200):
    F.cross_entropy(model(x[:200]), y[:200]).backward()
    optimizer.step()
    optimizer.zero_grad()
    regularizer.step()
after = dict(sigmas(model))
assert after != before, (before, after)
print("sigma:", after, "answers:", predict(model, x[300:]).mean.shape)
assert not {"ray", "mlflow", "numpy", "pydantic"} & set(sys.modules)
