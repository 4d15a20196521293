"""Fine-tuning: which weights of a file a network takes, and which stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from crossreg import UserError, inject_noise
from crossreg.models import Ensemble, build
from crossreg.models.weights import freeze, read_weights, take_weights


def network(num_outputs: int = 3) -> nn.Module:
    return build("cnn", input_shape=(1, 8, 8), num_outputs=num_outputs)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_state_dicts_as_people_save_them(tmp_path: Path, wrap: Any, prefix: str) -> None:
    weights = network().state_dict()
    torch.save(wrap({prefix + name: value for name, value in weights.items()}), tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt")
    assert found.keys() == weights.keys()
    assert all(found[name].equal(value) for name, value in weights.items())


def test_the_last_layer_is_fresh_where_the_classes_differ(tmp_path: Path) -> None:
    given = {name: value.clone() for name, value in network(10).state_dict().items()}
    given["extra.weight"] = torch.zeros(2)
    save_file(given, tmp_path / "w.safetensors")
    model = inject_noise(network(3))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    taken = take_weights(model, read_weights(tmp_path / "w.safetensors"), 3)
    head = [name for name, value in given.items() if len(value.shape) and len(value) == 10]
    assert sorted(taken.replaced) == sorted(head)
    assert (taken.unused, taken.fresh) == (["extra.weight"], [])
    assert len(taken.taken) + len(head) == len(network().state_dict())
    for name, value in model.state_dict().items():
        assert value.equal(given[name] if name in taken.taken else fresh[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.zeros(2)}, "no weight fits: the file has a, .*, the model "),
        ({}, None),
        ({"epoch": 3}, "holds no weights; it must be a state dict"),
        (network(), "holds more than weights, which could run anything"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: Any, message: str | None) -> None:
    if message is None:
        first = next(iter(network().state_dict()))
        content = {**network().state_dict(), first: torch.zeros(2, 2)}
        message = rf"1 weights have another shape than the model's: {first} is \(2, 2\), not"
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match=message):
        take_weights(network(), read_weights(tmp_path / "w.pt"), 3)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="there is no file"):
        read_weights(tmp_path / "none.pt")


class TestFreezing:
    def built(self) -> nn.Module:
        block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        return nn.ModuleDict({"body": block, "head": nn.Linear(4, 2)})

    def test_modules_and_weights_by_pattern(self) -> None:
        model = inject_noise(self.built())
        assert freeze(model, ["body"]) == ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]
        assert [one.requires_grad for one in model["head"].parameters()] == [True, True]
        assert not model["body"][1].training
        assert model["body"][0].training
        assert freeze(self.built(), ["*.bias"]) == ["body.0.bias", "body.1.bias", "head.bias"]
        assert freeze(self.built(), ["body.[01]"]) == freeze(self.built(), ["bod*"])

    def test_every_network_of_an_ensemble(self) -> None:
        ensemble = Ensemble([nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)) for _ in range(2)], "classification")
        assert freeze(ensemble, ["0"]) == [
            "members.0.0.weight", "members.0.0.bias", "members.1.0.weight", "members.1.0.bias",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("pattern", "message"), [("bdy", "fits no weight; did you mean 'body'"), ("*", "leaves nothing to train")]
    )
    def test_patterns_that_cannot_be_meant(self, pattern: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            freeze(self.built(), [pattern])
