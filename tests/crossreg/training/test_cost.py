from __future__ import annotations

from crossreg import Cost


def test_costs_add_up() -> None:
    one, two = Cost(examples=3, flops=5), Cost(examples=1, backward_examples=2, worker_seconds=0.5)
    assert one + two == Cost(examples=4, backward_examples=2, flops=5, worker_seconds=0.5)
    assert (one + two) - two == one
    assert 3 * two.examples == (two * 3).examples
    assert (one * 3).flops == 15
