"""Every regularizer by name: described, given to a model, set, learned, saved, exported, counted, taken out."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossreg import (
    Batches,
    Classification,
    CrossRegularizer,
    Direct,
    Estimator,
    Preprocess,
    Trainer,
    Unrolled,
    UserError,
    get_hyperparameters,
    hyperparameters,
    predict,
    set_hyperparameters,
)
from crossreg.inputs import Array
from crossreg.models import Ensemble
from crossreg.prediction.export import export_model, load_exported
from crossreg.regularizers.augmentation import KINDS
from crossreg.regularizers.registry import REGISTRY, attach, description, regularizer, remove
from crossreg.training.compute import measure_flops
from tests.crossreg.regularizers.network import CLASSES, INPUT_SHAPE, images, network

TRAINING_ONLY = ("l2", "l1", "label_smoothing", "loss_temperature", *KINDS)
"""Those that act on training alone and have no part in a prediction."""
LEARNED = [name for name, entry in REGISTRY.items() if entry.hyperparameter.learned_by_rho]
SET = [name for name in REGISTRY if name not in LEARNED]

BETWEEN = ("diversity", "consistency", "joint")
"""Those between the networks of an ensemble."""

every = pytest.mark.parametrize("name", REGISTRY)


def other(name: str) -> str:
    """Return a regularizer beside this one."""
    return "l2" if name == "temperature" else "temperature"


def suited(name: str) -> nn.Module:
    """Return a model that has a place for it."""
    if name not in BETWEEN:
        return network()
    ones = [network(), network()]
    with torch.no_grad():
        for parameter in ones[1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Ensemble(ones, "classification")


def regularized(name: str, value: float | None = None) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model with this one and `other`, and an optimizer that has the weight decay."""
    model = attach(suited(name), {name: value, other(name): None})
    rho = {id(one.rho) for one in hyperparameters(model).values()}
    decay = value if name == "weight_decay" and value is not None else 0.01
    return model, torch.optim.AdamW([p for p in model.parameters() if id(p) not in rho], lr=0.01, weight_decay=decay)


def parts(name: str, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, float]:
    """Return the values of one regularizer."""
    found = hyperparameters(model, optimizer)
    return get_hyperparameters(model, optimizer, [one for one in found if found[one].base == name])


def estimator_for(name: str, optimizer: torch.optim.Optimizer | None = None) -> Estimator:
    if description(name).direct:
        return Direct()
    return Unrolled(Batches(*images(24, 1), 12, seed=1), optimizer)


def test_the_names_and_their_order() -> None:
    assert list(REGISTRY) == [
        "noise", "temperature", "norm", "l1_level", "l2", "l1", "label_smoothing", "loss_temperature", "shift",
        "rotation", "shear", "scale", "brightness", "contrast", "input_noise", "diversity", "consistency", "joint",
        "weight_decay", "dropout",
    ]  # fmt: skip
    assert {name for name, entry in REGISTRY.items() if entry.exported} == {"noise", "temperature"}
    assert {name for name, entry in REGISTRY.items() if entry.changes_images} == set(KINDS)
    direct = {name for name, entry in REGISTRY.items() if entry.hyperparameter.direct}
    assert direct == {"noise", "temperature", "norm", "l1_level"}
    assert SET == ["weight_decay", "dropout"]


@every
def test_it_is_described(name: str) -> None:
    one = description(name)
    assert one.name == one.base == name == regularizer(name).name
    assert one is description(f"{name}/00_part")
    assert one.help
    assert "\n" not in one.help
    assert one.unit
    low, high = one.range
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low < high
    assert one.default is None or low <= one.default <= high
    for value in (low, high, *([] if one.default is None else [one.default])):
        one.check(value)


@every
def test_positions_and_perturbations_stay_in_the_range(name: str) -> None:
    one = description(name)
    low, high = one.range
    for position in (0.0, 0.1, 0.5, 0.9, 1.0):
        value = one.at(position)
        assert low <= value <= high
        assert one.position(value) == pytest.approx(position, abs=1e-6)
        assert one.at(one.position(value)) == pytest.approx(value, rel=1e-5)
        for factor in (1e-9, 0.8, 1.0, 1.25, 1e9):
            assert low <= one.perturbed(value, factor) <= high
        assert one.perturbed(value, 1.0) == pytest.approx(value)
    middle = one.at(0.5)
    assert one.perturbed(middle, 1.25) > middle > one.perturbed(middle, 0.8)
    assert one.perturbed(one.perturbed(middle, 1.25), 0.8) == pytest.approx(middle)
    assert one.position(low / 10) == 0.0
    assert one.position(min(10 * high, 0.999) if one.scale == "logit" else 10 * high) == 1.0


@every
def test_it_is_attached_at_its_default_or_at_a_value_and_set(name: str) -> None:
    one = description(name)
    model, optimizer = regularized(name)
    assert parts(name, model, optimizer)
    if one.default is None:  # it stays what the model makes it
        weights = [p for p in network().parameters() if p.ndim >= 2]
        power = {"norm": 2, "l1_level": 1}[name]
        expected = [float(w.detach().abs().pow(power).mean() ** (1 / power)) for w in weights]
    else:
        expected = [one.default] * len(parts(name, model, optimizer))
    assert list(parts(name, model, optimizer).values()) == pytest.approx(expected)
    for position in (0.3, 0.7):
        model, optimizer = regularized(name, one.at(position))
        found = parts(name, model, optimizer)
        assert found == pytest.approx(dict.fromkeys(found, one.at(position)))
        kept = parts(other(name), model)
        changed = {key: one.at(0.2 + 0.05 * index) for index, key in enumerate(found)}
        set_hyperparameters(model, optimizer, changed)
        assert parts(name, model, optimizer) == pytest.approx(changed)
        assert parts(other(name), model) == kept


@every
def test_values_and_options_that_are_not_allowed_are_refused(name: str) -> None:
    for wrong in (-1.0, math.nan, math.inf, "0.1"):
        with pytest.raises(UserError, match=f"{name} is .*; it must lie in"):
            attach(suited(name), {name: wrong})  # type: ignore[dict-item]
    with pytest.raises(UserError, match=f"{name} has no option 'whre'"):
        attach(suited(name), {name: None}, {name: {"whre": "*"}})
    with pytest.raises(UserError, match=f"has no hyperparameter '{name}/77_nothing'"):
        attach(suited(name), {name: None, f"{name}/77_nothing": 0.1})
    with pytest.raises(UserError, match=f"no hyperparameter '{name}/00_part'.*it has"):
        attach(suited(name), {other(name): None, f"{name}/00_part": 0.1})


@pytest.mark.parametrize("name", ["noise", "norm", "l1_level"])
def test_a_part_has_its_own_value(name: str) -> None:
    first, *rest = parts(name, attach(suited(name), {name: 0.2}))
    assert first.startswith(f"{name}/00_")
    model = attach(suited(name), {first: 0.05, name: 0.2})
    assert parts(name, model) == pytest.approx({first: 0.05, **dict.fromkeys(rest, 0.2)})
    assert rest


@pytest.mark.parametrize("name", LEARNED)
def test_it_alone_is_learned(name: str) -> None:
    model, optimizer = regularized(name)
    estimator = estimator_for(name, optimizer)
    regularizer = CrossRegularizer(model, "classification", [images(24, 2)], 1, 2, learn=[name], estimator=estimator)
    before, beside = parts(name, model), parts(other(name), model)
    assert set(regularizer.hyperparameters) == set(before)
    for _ in range(3):
        update = regularizer.step()
        assert update is not None
        assert update.applied
    after = parts(name, model)
    assert all(after[key] != value for key, value in before.items())
    assert parts(other(name), model) == beside


@pytest.mark.parametrize("name", ["noise", "norm", "l1_level"])
def test_one_part_alone_is_learned(name: str) -> None:
    model, _ = regularized(name)
    before = parts(name, model)
    part = list(before)[1]
    regularizer = CrossRegularizer(model, "classification", [images(24, 2)], 1, 2, learn=[part])
    regularizer.update()
    changed = {key for key, value in parts(name, model).items() if value != before[key]}
    assert changed == {part} == set(regularizer.hyperparameters)


@pytest.mark.parametrize("name", SET)
def test_what_has_no_rho_is_not_learned(name: str) -> None:
    model, _ = regularized(name)
    with pytest.raises(UserError, match=f"the model has no '{name}' to learn.*it has temperature$"):
        CrossRegularizer(model, "classification", [images(8)], learn=[name])


@pytest.mark.parametrize("name", [name for name in LEARNED if not description(name).direct])
def test_the_direct_gradient_refuses_what_it_cannot_learn(name: str) -> None:
    model, _ = regularized(name)
    with pytest.raises(UserError, match=rf"does not depend on {name} with.*Unrolled\(train\)"):
        CrossRegularizer(model, "classification", [images(8)])
    CrossRegularizer(model, "classification", [images(8)], learn=[other(name)])


@every
def test_a_saved_state_gives_the_same_model_again(name: str) -> None:
    model, optimizer = regularized(name, description(name).at(0.4))
    train(model, optimizer, name)
    twin, _ = regularized(name, description(name).at(0.4))
    twin.load_state_dict(model.state_dict())
    assert twin.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(twin.state_dict()[key], value), key
    assert get_hyperparameters(twin) == get_hyperparameters(model)
    x, _ = images(8, 5)
    for dropout in (False, True):
        one, two = (predict(m, x, 4, seed=3, dropout=dropout) for m in (model, twin))
        assert torch.equal(one.mean, two.mean)


@every
def test_removing_it_gives_the_plain_model_back(name: str) -> None:
    model, optimizer = regularized(name, description(name).at(0.4))
    train(model, optimizer, name)
    x, _ = images(8, 5)
    expected = model.eval()(x)
    assert remove(model) is model
    assert set(model.state_dict()) == set(suited(name).state_dict())
    assert list(get_hyperparameters(model)) == ["dropout"]
    torch.testing.assert_close(model(x), expected)
    plain = suited(name).eval()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(x), expected)
    remove(model)  # once more is nothing
    attach(model, {name: None})


@every
def test_a_prediction_keeps_what_it_needs(name: str, tmp_path: Path) -> None:
    """As exported and loaded again: the same predictions, with noise and temperature in them."""
    model = attach(suited(name), {name: description(name).at(0.6), other(name): None})
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    train(model, optimizer, name)
    x, _ = images(8, 5)
    expected = predict(model, x, 4, seed=3).mean
    remove(model, keep_exported=True)
    kept = {key for key in (name, other(name)) if REGISTRY[key].exported}
    assert {key.partition("/")[0] for key in get_hyperparameters(model)} == {*kept, "dropout"}
    torch.testing.assert_close(predict(model, x, 4, seed=3).mean, expected)
    folder = export_model(
        model,
        Preprocess(torch.zeros(1), torch.ones(1)),
        tmp_path,
        name="tests.crossreg.regularizers.network:network",
        input_shape=INPUT_SHAPE,
        inputs=Array("uint8"),
        num_outputs=CLASSES,
        members=2 if name in BETWEEN else 1,
        regularizers={key: {} for key in kept},
    )
    exported = load_exported(folder)
    assert exported.images
    loaded, standard = exported._model, Preprocess(torch.zeros(1), torch.ones(1))
    torch.testing.assert_close(predict(loaded, standard(x), 4, seed=3).mean, expected)
    raw = torch.randint(0, 256, (8, *INPUT_SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    found = exported(raw.numpy(), samples=4, seed=3)
    torch.testing.assert_close(torch.from_numpy(found), predict(model, standard(raw), 4, seed=3, common=True).mean)


@every
def test_operations_are_counted(name: str) -> None:
    model, _ = regularized(name)
    x, y = images(24, 1)
    learned = [name] if name in LEARNED else [other(name)]
    regularizer = CrossRegularizer(
        model, "classification", [(x, y)], learn=learned, estimator=estimator_for(learned[0])
    )
    flops = measure_flops(model, Classification(), x, y, 3, regularizer.estimator, list(regularizer.rho))
    assert set(flops) == {"theta", "forward", "rho"}
    plain = measure_flops(suited(name), Classification(), x, y, 3)
    assert set(plain) == {"theta", "forward"}
    for phase, value in flops.items():
        assert math.isfinite(value), phase
        # of the forward passes of a rho step those share what no draw has reached; here, the whole of one at most
        assert value >= plain.get(phase, plain["forward"] / 5), phase
    assert flops["forward"] == pytest.approx(plain["forward"], rel=0.01)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> dict[str, float]:
    """Train for a few steps, and learn what can be learned beside `other`."""
    learned = [name, other(name)] if name in LEARNED else [other(name)]
    regularizer = CrossRegularizer(
        model,
        "classification",
        [images(24, 2)],
        1,
        2,
        learn=learned,
        estimator=Unrolled(Batches(*images(24, 1), 12, seed=1), optimizer),
    )
    run = Trainer(model, "classification", optimizer, Batches(*images(24, 1), 12), regularizer=regularizer, steps=3)
    return run.fit()


def plain_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))


def test_all_of_them_are_learned_together_and_taken_off_again() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 6, 6, generator=generator), torch.randint(0, 3, (24,), generator=generator)
    model = attach(plain_network(), dict.fromkeys(TRAINING_ONLY))
    before = get_hyperparameters(model)
    assert set(before) == set(TRAINING_ONLY)
    assert before == pytest.approx({name: description(name).default for name in TRAINING_ONLY})
    regularizer = CrossRegularizer(model, "classification", [(x, y)], 1, 2, estimator=Unrolled(Batches(x, y, 12)))
    optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
    assert isinstance(regularizer.estimator, Unrolled)
    regularizer.estimator.optimizer = optimizer
    said: dict[str, float] = {}
    trainer = Trainer(model, "classification", optimizer, Batches(x, y, 12), regularizer=regularizer, steps=2)
    said = trainer.fit()
    for name in TRAINING_ONLY:
        assert get_hyperparameters(model)[name] != before[name], name
        assert said[f"regularizers/{name}"] == pytest.approx(get_hyperparameters(model)[name])
    model.eval()
    expected = model(x)
    remove(model)
    assert get_hyperparameters(model) == {}
    assert set(model.state_dict()) == set(plain_network().state_dict())
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.train()(x), expected)


@pytest.mark.parametrize("weights", ["norm", "l1_level"])
def test_all_that_a_network_can_hold_at_once(weights: str) -> None:
    """Norm and L1 level each compute the weights, so the networks of an ensemble hold one of them."""
    names = [name for name in REGISTRY if name in (weights, *set(REGISTRY) - {"norm", "l1_level"})]
    model = attach(suited("diversity"), dict.fromkeys(names))
    twin = copy.deepcopy(model)
    x, y = images(24, 1)
    estimator = Unrolled(Batches(x, y, 12))
    regularizer = CrossRegularizer(model, "classification", [images(24, 2)], 1, 2, estimator=estimator)
    estimator.optimizer = torch.optim.SGD(regularizer.theta, lr=0.01)
    run = Trainer(model, "classification", estimator.optimizer, Batches(x, y, 12), regularizer=regularizer, steps=3)
    said = run.fit()
    assert run.ledger is not None
    assert run.ledger.cost.flops > 0
    before, after = get_hyperparameters(twin), get_hyperparameters(model)
    assert {name.partition("/")[0] for name in after} == set(names) - {"weight_decay"}
    for name, value in after.items():
        assert (value != before[name]) is (name != "dropout"), name
        assert name == "dropout" or said[f"regularizers/{name}"] == value
    twin.load_state_dict(model.state_dict())
    assert get_hyperparameters(twin) == after
    expected = model.eval()(x)
    torch.testing.assert_close(remove(model)(x), expected)
    with pytest.raises(UserError, match="no weight is left to take; a weight has one norm or one level"):
        attach(network(), {"norm": None, "l1_level": None})


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("noise", {"where": "1"}, ["noise/00_1"]),
        ("noise", {"after": "dropout"}, ["noise/00_3"]),
        ("norm", {"where": ["5.*", "8.weight"]}, ["norm/00_5.weight", "norm/01_5.bias", "norm/02_8.weight"]),
        ("l1_level", {"where": "*.weight", "granularity": "unit"}, None),
        ("l2", {"where": "0.*"}, ["l2"]),
        ("l1", {"where": lambda name, parameter: parameter.ndim == 1}, ["l1"]),
    ],
)
def test_options_choose_where(name: str, options: dict[str, Any], expected: list[str] | None) -> None:
    model = attach(network(), {name: 0.05}, {name: options})
    found = parts(name, model)
    assert expected is None or list(found) == expected
    assert found == pytest.approx(dict.fromkeys(found, 0.05))
    assert set(remove(model).state_dict()) == set(network().state_dict())


@every
def test_the_default_may_depend_on_the_options(name: str) -> None:
    assert regularizer(name).default({}) == description(name).default
    if name == "noise":  # in place of dropout it starts at the rate of each layer
        assert regularizer(name).default({"after": "dropout"}) is None
        model = attach(network(), {name: None}, {name: {"after": "dropout"}})
        assert get_hyperparameters(model) == pytest.approx({"noise/00_3": (0.25 / 0.75) ** 0.5, "dropout": 0.0})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("noise", {"granularity": "channel"}, "noise.granularity is 'channel'; it is one of layer, unit"),
        ("noise", {"after": "normalisation"}, "noise.after is 'normalisation'; it is one of normalization, dropout"),
        ("norm", {"granularity": "layer"}, "norm.granularity is 'layer'; it is one of tensor, unit"),
        ("l1_level", {"where": 3}, "l1_level.where is 3; it is a pattern of names, or several"),
        ("l2", {"where": ["0.*", 1]}, "l2.where is .*; it is a pattern of names, or several"),
        ("l1", {"were": "*"}, "l1 has no option 'were'; did you mean 'where'.; its options are where"),
        ("shift", {"where": "*"}, "shift has no option 'where'; it has no options"),
        ("l2", {"where": "nothing*"}, "selects none of the weights: 0.weight, "),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        attach(network(), {name: None}, {name: options})


def test_a_model_without_a_place_for_it_is_refused() -> None:
    missing = {"noise": "no normalization layer", "dropout": "has no dropout layer", "norm": "there are none"}
    for name, words in missing.items():
        with pytest.raises(UserError, match=words):
            attach(nn.Sequential(nn.Flatten(), nn.ReLU()), {name: None})
    for name in ("noise", "temperature", "norm", "l1_level", "l2", "shift"):
        with pytest.raises(UserError, match="wrapped model"):
            attach(nn.DataParallel(network()), {name: None})


def test_a_wrong_name_is_named() -> None:
    with pytest.raises(UserError, match="no regularizer is called 'shft'; did you mean 'shift'"):
        attach(plain_network(), {"shft": 1.0})
    with pytest.raises(UserError, match="no regularizer is called 'nois'; did you mean 'noise'"):
        description("nois/00_norm1")
    with pytest.raises(UserError, match="the model has no 'nose' to learn; did you mean 'noise'"):
        CrossRegularizer(attach(network(), {"noise": None}), "classification", [images(8)], learn=["nose"])
    with pytest.raises(UserError, match="learn is empty; the model has noise/00_1, noise/01_6"):
        CrossRegularizer(attach(network(), {"noise": None}), "classification", [images(8)], learn=[])


def test_weights_of_a_plain_model_load_strictly_where_their_names_stay() -> None:
    plain: dict[str, Tensor] = copy.deepcopy(network().state_dict())
    names = [name for name in REGISTRY if name not in ("norm", "l1_level", *BETWEEN)]
    model = attach(network(), {name: description(name).at(0.3) for name in names})
    before = get_hyperparameters(model)
    model.load_state_dict(plain, strict=True)
    assert get_hyperparameters(model) == before
