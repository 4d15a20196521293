"""A model and data of one's own, as in a notebook: trained, asked and compared in this process, recorded in MLflow.

python examples/notebook.py            # then: crossreg ui
"""

# %% Data: arrays of any kind
from sklearn.datasets import load_wine
from torch import nn

from crossreg.jobs.api import compare, train

x, y = load_wine(return_X_y=True)


# %% A model: a function, so that several networks that predict as one can begin differently
def network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return a small network; its inputs are standardized."""
    (features,) = input_shape
    return nn.Sequential(nn.Linear(features, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, num_outputs))


# %% One run that finds its own length
training = train(network, (x, y), epochs=20)
print(training.result.explanation[0])

# %% Answers for rows as they come
print(training.model(x[:3]).round(3))

# %% Noise learned too, in one network with a length of its own
learned = train(network(x.shape[1:], 3), (x, y), schedule="cosine", learn=["noise"], epochs=20, seed=1)
print(learned.result.learned, learned.result.test)

# %% Against the same network trained without, and a small search
comparison = compare(network, (x, y), seeds=2, population=2, epochs=10)
print(comparison.summary.verdict, comparison.report)
