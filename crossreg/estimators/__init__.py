"""How the gradient of the held-out loss in rho is estimated: one estimator a file, all interchangeable.

| estimator | what it follows |
|---|---|
| `Direct` | rho in the held-out prediction, theta held fixed (the paper's) |
| `T1T2` | rho in one step of theta; the held-out prediction has no noise |
| `Unrolled` | both, through s steps of theta's own optimizer |
| `Implicit` | both, through the minimum that theta is heading for |
"""

from crossreg.estimators.base import Estimator
from crossreg.estimators.direct import Direct
from crossreg.estimators.hypergradient import HypergradientEstimator
from crossreg.estimators.implicit import Implicit
from crossreg.estimators.t1_t2 import T1T2
from crossreg.estimators.unrolled import Unrolled

__all__ = ["T1T2", "Direct", "Estimator", "HypergradientEstimator", "Implicit", "Unrolled"]
