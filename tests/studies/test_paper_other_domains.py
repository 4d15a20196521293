from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossreg import inject_noise, sampling
from crossreg.models import build
from crossreg.regularizers.noise import noise_layers
from crossreg.services.data import DataConfig, load_data
from crossreg.studies.paper.other_domains import domains
from crossreg.studies.paper.other_domains import study as other_domains
from crossreg.studies.paper.other_domains.claims import (
    ARMS,
    CONSTANT,
    DROPOUT,
    FIXED,
    FLIPPED,
    LEARNED,
    NONE,
    POST,
    PRE,
    TEMPERATURE,
    chosen,
)
from crossreg.studies.paper.other_domains.domains import DOMAINS, Domain, flipped
from crossreg.studies.paper.other_domains.study import AGAIN, RATES, SIGMAS, TRAINED, OtherDomains
from crossreg.studies.paper.training import train
from crossreg.studies.zero_flag.networks import transformer
from crossreg.studies.zero_flag.pairs import Pair, prepare


def rows(nll: dict[str, float], accuracy: dict[str, float] | None = None, seeds: int = 5) -> list[dict[str, Any]]:
    """Scores of every arm on every data set, by how far they are above those with nothing."""
    found = []
    for name, domain in DOMAINS.items():
        for network in domain.networks:
            for seed in range(seeds):
                for arm in (NONE, TEMPERATURE, LEARNED) if (name, network) in AGAIN else ARMS:
                    lead = nll.get(arm, 0.0) * (0.5 if network == POST else 1.0) + 0.001 * (seed % 3)
                    one = {
                        "data": name,
                        "network": network,
                        "seed": seed,
                        "arm": arm,
                        "accuracy": 0.8 + (accuracy or {}).get(arm, 0.0) + 0.001 * (seed % 2),
                        "nll": 1.0 + lead,
                        "nll_scaled": 0.9 + lead / 2,
                        "ece": 0.1,
                        "ece_scaled": 0.05,
                        "temperature": 1.2,
                        "sigma": [0.1, 0.2] if arm in (LEARNED, FIXED) else [],
                    }
                    settings = RATES if arm == DROPOUT else SIGMAS if arm == FIXED else (0.0,)
                    found += [one | {"setting": s, "reg_nll": 1 + s, "nll": one["nll"] + s} for s in settings]
    return found


def verdicts(found: list[dict[str, Any]]) -> dict[str, bool]:
    return {one.name: verdict.shown for one in OtherDomains.claims if (verdict := one.judge(found)) is not None}


def test_claims_are_shown_and_not_shown() -> None:
    good = rows({TEMPERATURE: -0.1, LEARNED: -0.3}, {LEARNED: 0.02})
    assert all(verdicts(good).values())
    assert OtherDomains().outcome(good) == "left open by the paper"
    bad = rows({TEMPERATURE: -0.1, LEARNED: 0.1, DROPOUT: -0.2, FIXED: -0.2}, {LEARNED: -0.02})
    assert not any(verdicts(bad).values())


def test_most_is_more_than_half_of_the_data_sets() -> None:
    good, same = rows({LEARNED: -0.3}), rows({})
    half = [row for row in good if row["data"] in [*DOMAINS][:3]] + [
        row for row in same if row["data"] in [*DOMAINS][3:]
    ]
    assert not verdicts(half)["calibration"]
    more = [row for row in good if row["data"] in [*DOMAINS][:4]] + [
        row for row in same if row["data"] in [*DOMAINS][4:]
    ]
    assert verdicts(more)["calibration"]


def test_two_seeds_show_nothing() -> None:
    found = rows({TEMPERATURE: -0.1, LEARNED: -0.3}, {LEARNED: 0.02}, seeds=2)
    assert not any(verdicts(found).values())


def test_without_rows_there_is_no_verdict() -> None:
    assert all(claim.judge([]) is None for claim in OtherDomains.claims)


def test_a_setting_is_chosen_on_the_held_out_split() -> None:
    found = rows({})
    assert {row["setting"] for row in chosen(found) if row["arm"] == FIXED} == {0.1}
    for row in found:
        row["reg_nll"] = -row["reg_nll"]
    assert {row["setting"] for row in chosen(found) if row["arm"] == FIXED} == {1.0}
    assert len(chosen(found)) == 5 * (5 * len(ARMS) + 3 * 3)


def test_the_table_and_the_figure_show_every_data_set() -> None:
    study, found = OtherDomains(), rows({TEMPERATURE: -0.1, LEARNED: -0.3})
    table = study.table(found)
    assert [set(one) for one in table] == [set(OtherDomains.columns)] * (5 * len(ARMS) + 3 * 3)
    assert study.numbers(found)["nll/docstrings, flipped/pre-norm/learned"] == pytest.approx(0.7, abs=0.01)
    figure = study.figure(found)
    assert len(figure.axes) == 3
    figure.draw_without_rendering()


def test_labels_are_flipped_to_other_classes() -> None:
    y = np.arange(5_000) % 5
    wrong = flipped(y, 5, 0.1, 0)
    assert 0.08 < (wrong != y).mean() < 0.12
    assert set(wrong) == set(range(5))
    assert (flipped(y, 5, 0.1, 0) == wrong).all()
    assert (flipped(y, 5, 0.1, 1) != wrong).any()


def tokens() -> Tensor:
    """Rows of 5 to 8 tokens, at most 8 of 16 places."""
    x = torch.randint(1, 64, (6, 8), generator=torch.Generator().manual_seed(0))
    for row, length in enumerate((5, 6, 7, 8, 5, 8)):
        x[row, length:] = 0
    return x


def padded(x: Tensor, length: int) -> Tensor:
    return nn.functional.pad(x, (0, length - x.shape[1]))


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_answer_does_not_depend_on_how_far_a_batch_is_padded(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = inject_noise(transformer(input_shape=(16,), num_outputs=4, norm_first=norm_first), initial_sigma=1.0).eval()
    x = tokens()
    with torch.no_grad():
        torch.testing.assert_close(model(padded(x, 8)), model(padded(x, 16)), rtol=1e-4, atol=1e-5)
    # in training mode, and with gradients, it is computed on another path
    for noise in noise_layers(model).values():
        noise.rho.data.fill_(-20.0)
    model.train()
    torch.testing.assert_close(model(padded(x, 8)), model(padded(x, 16)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm_first", [True, False])
def test_noise_at_padded_places_has_no_effect_on_the_answer(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = transformer(input_shape=(16,), num_outputs=4, norm_first=norm_first).eval()
    x = padded(tokens(), 16)
    before = model(x)
    hooks = [
        layer.register_forward_hook(lambda layer, given, out: out + 100.0 * torch.randn_like(out) * (x == 0)[..., None])
        for layer in model.modules()
        if isinstance(layer, nn.LayerNorm)
    ]
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("norm_first", [True, False])
def test_noise_is_drawn_after_every_normalization_of_either_network(norm_first: bool) -> None:
    torch.manual_seed(0)
    model = inject_noise(transformer(input_shape=(16,), num_outputs=4, norm_first=norm_first), initial_sigma=0.5).eval()
    assert len(noise_layers(model)) == 5
    x, drawn = padded(tokens(), 16), []
    for noise in noise_layers(model).values():
        noise.register_forward_hook(lambda layer, given, out: drawn.append(not torch.equal(given[0], out)))
    with torch.no_grad(), sampling(model):
        model(x)
    assert drawn == [True] * 5


def test_an_utterance_is_answered_alike_however_far_it_is_padded() -> None:
    torch.manual_seed(0)
    model = inject_noise(build("transformer", input_shape=(3, 12), num_outputs=4)).eval()
    x = torch.randn(2, 3, 12)
    x[0, :, 7:] = torch.nan
    longer = nn.functional.pad(x, (0, 8), value=torch.nan)
    with torch.no_grad():
        torch.testing.assert_close(model(longer), model(x), rtol=1e-4, atol=1e-5)


def test_every_arm_is_a_case_and_nothing_is_trained_twice() -> None:
    cases = OtherDomains().cases(2)
    assert len(cases) == 2 * (5 * len(TRAINED) + 3 * 2)
    assert {case["arm"] for case in cases} == {*ARMS} - {TEMPERATURE}
    assert [*DOMAINS[FLIPPED].networks] == [PRE, POST, CONSTANT]


def made_up(where: DataConfig) -> dict[str, np.ndarray]:
    """Rows of tokens, of which the first says the class, with padding."""
    random = np.random.default_rng(0)
    x = random.integers(1, 20, (400, 8))
    y = random.integers(0, 3, 400)
    x[:, 0] = 20 + y
    x[np.arange(8) >= random.integers(3, 9, 400)[:, None]] = 0
    return {"x": x, "y": y}


def test_a_real_case_of_every_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"test_rows": 50, "training": {"batch_size": 32, "rho": {"interval": 2}}, "transformer": {"width": 8}}
    network = {PRE: DOMAINS["cities"].networks[PRE]}
    monkeypatch.setitem(other_domains.SCALES, "small", tiny)
    monkeypatch.setitem(domains._OWN, "tiny", Pair("tiny", "text", made_up))
    monkeypatch.setattr(other_domains, "DOMAINS", {"tiny": Domain("tiny", "tiny", network, 2, flips=0.1)})
    study = OtherDomains(DataConfig(name="pictures", root=tmp_path))
    study.prepare()
    found = [row for case in study.cases(1) for row in study.solve(**case)]
    assert [(row["arm"], row["setting"]) for row in found] == [
        (TEMPERATURE, 0), (NONE, 0), (LEARNED, 0), *((DROPOUT, rate) for rate in RATES),
        *((FIXED, sigma) for sigma in SIGMAS),
    ]  # fmt: skip
    by_arm = {row["arm"]: row for row in found}
    assert by_arm[NONE]["accuracy"] == by_arm[TEMPERATURE]["accuracy"]
    assert by_arm[NONE]["nll"] != by_arm[TEMPERATURE]["nll"]
    assert (by_arm[NONE]["temperature"], by_arm[DROPOUT]["temperature"]) == (1, 1)
    assert len(by_arm[LEARNED]["sigma"]) == 5
    assert len(study.table(found)) == len(ARMS)


def test_a_temperature_alone_leaves_the_weights_as_they_are_without(tmp_path: Path) -> None:
    pair = Pair("tiny", "text", made_up)
    prepare(pair, tmp_path, DataConfig(name="pictures"))
    data = load_data(pair.config(tmp_path, 0))
    config = {**DOMAINS["cities"].networks[PRE], "model_options": {"width": 8}, "steps": 12, "rho": {"interval": 2}}
    with_one, without = (train(config | {"regularizers": own}, data, 0) for own in ({"temperature": {}}, {}))
    for name, value in without.model.state_dict().items():
        assert torch.equal(with_one.model.state_dict()[name], value), name
