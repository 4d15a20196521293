"""What experiments of the paper have in common, the pattern of noise, and the page of verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossreg import UserError, inject_noise
from crossreg.models import build
from crossreg.services.data import DataConfig
from crossreg.services.tracking.spool import Spool
from crossreg.studies.claims import Claim, Verdict
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.noise_pattern import study as noise_pattern
from crossreg.studies.paper.noise_pattern.claims import FROZEN, OF_NETWORK, REPLAYED
from crossreg.studies.paper.noise_pattern.study import NoisePattern, around_skips
from crossreg.studies.paper.page import page
from crossreg.studies.run import Reproduced, experiments, metric_name
from crossreg.studies.study import Measurement

LAYERS = 7
BY_NAME = {claim.name: claim for claim in NoisePattern.claims}


def row(network: str, arm: str, seed: int, end: list[float], start: float = 0.1, late: float = 1.0) -> Measurement:
    """A training whose sigma goes from a start to an end in ten looks; the gap opens `late` times as slowly."""
    curve = []
    for k in range(11):
        rise = min(1.0, (k + 0.01 * seed) / 10)
        gap = min(1.0, k / 10 / late)
        curve.append(
            {
                "step": 10 * k,
                "epoch": float(k),
                "temperature": 1.5,
                "sigma": [start * (last / start) ** rise for last in end] if arm != "none" else [],
                "train/accuracy": 0.3 + 0.5 * gap,
                "test/accuracy": 0.3,
            }
        )
    scores = {"accuracy": 0.4, "nll": 1.6 + 0.01 * seed, "nll_scaled": 1.5}
    around = [network == "resnet" and k % 2 == 0 for k in range(len(end))]
    return {"network": network, "arm": arm, "seed": seed, **scores, "around": around, "curve": curve}


def rows(vgg: list[float], resnet: list[float], shift: float = 0.0) -> list[Measurement]:
    found = []
    for seed in range(3):
        for network, arms in OF_NETWORK.items():
            end = vgg if network == "vgg" else resnet
            found += [row(network, arm, seed, [one * (1 + 0.1 * seed) for one in end]) for arm in arms]
        for arm in (FROZEN, REPLAYED):
            found.append(row("vgg", arm, seed, vgg) | {"nll": 1.6 + shift + 0.01 * seed + 0.001 * (seed - 1)})
    return found


RISING = [0.1 * 2**k for k in range(LAYERS)]
LEVEL = [0.51, 0.5, 0.51, 0.49, 0.51, 0.5, 0.5]
AROUND = [0.2, 2.0, 0.2, 2.1, 0.2, 1.9, 0.2]  # every other layer is passed by


def shown(name: str, found: list[Measurement]) -> bool:
    verdict = BY_NAME[name].judge(found)
    assert verdict is not None
    return verdict.shown


def test_without_measurements_there_is_no_verdict() -> None:
    study = NoisePattern()
    assert all(claim.judge([]) is None for claim in study.claims)
    assert study.outcome([]) == "not judged"


def test_claims_can_be_shown_and_not_be_shown() -> None:
    yes, no = rows(RISING, AROUND), rows(LEVEL, LEVEL, shift=0.1)
    for name in ("depth", "depth with temperature", "large", "skips", "skips with temperature", "starts", "schedule"):
        assert shown(name, yes), name
    for name in ("depth", "large", "skips", "schedule", "frozen"):
        assert not shown(name, no), name
    assert shown("when", yes)
    slow = [one | {"curve": row(one["network"], one["arm"], 0, RISING, late=0.2)["curve"]} for one in yes]
    assert not shown("when", slow)
    apart = [one for one in yes if one["arm"] != "from 1"]
    apart += [row("vgg", "from 1", seed, [3 * value for value in RISING]) for seed in range(3)]
    assert not shown("starts", apart)
    assert NoisePattern().outcome(no) == "partly reproduced"  # noise rises with the gap in both


def test_two_seeds_show_nothing() -> None:
    few = [one for one in rows(RISING, AROUND) if one["seed"] < 2]
    assert not any(shown(name, few) for name in ("depth", "skips", "when", "schedule", "frozen"))


def test_table_figure_and_numbers() -> None:
    study, found = NoisePattern(), rows(RISING, AROUND)
    table = study.table(found)
    assert [one["arm"] for one in table if one["network"] == "resnet"] == list(OF_NETWORK["resnet"])
    assert {one["largest"] for one in table if one["arm"] == "none"} == {"–"}
    assert float(next(one for one in table if one["arm"] == "learned")["largest"]) == pytest.approx(7.0, abs=0.1)
    assert len(study.figure(found).axes) == 6 + 4  # with the gaps' own axes
    numbers = study.numbers(found)
    assert numbers["shown/depth"] == 1.0
    assert numbers["largest_sigma/vgg/none"] == 0.0


def test_what_a_skip_goes_round() -> None:
    model = inject_noise(build("wide_resnet", input_shape=(3, 16, 16), num_outputs=10, depth=10, width=1))
    # where a block changes the shape its shortcut begins after the first normalization; the last layer follows all
    assert around_skips(model) == [True, True, False, True, False, True, False]
    assert not any(around_skips(inject_noise(build("vgg16", input_shape=(3, 16, 16), num_outputs=10, width=2))))


def test_a_real_training_of_each_network(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = noise_pattern.SCALES["small"] | {"epochs": 2, "batch_size": 20, "rho": {"interval": 4}}
    small |= {"vgg": {"model": "vgg16", "model_options": {"width": 2}}}
    small |= {"resnet": {"model": "wide_resnet", "model_options": {"depth": 10, "width": 1}}}
    monkeypatch.setitem(noise_pattern.SCALES, "small", small)
    monkeypatch.setattr(noise_pattern, "POINTS", 4)
    study = NoisePattern(DataConfig(name="pictures", root=squares))
    study.prepare()  # finds the file that is there
    assert len(study.cases(2)) == 2 * (5 + 3)
    found = [
        one
        for network in OF_NETWORK
        for one in study.solve(scale="small", network=network, arm="learned", seed=0, root=str(squares))
    ]
    assert [one["arm"] for one in found] == ["learned", FROZEN, REPLAYED, "learned"]
    first, frozen, replayed, _ = found
    end = first["curve"][-1]["sigma"]
    assert end != first["curve"][0]["sigma"]
    assert frozen["curve"][0]["sigma"] == pytest.approx(end)
    for look, again in zip(first["curve"], replayed["curve"], strict=True):
        assert again["sigma"] == pytest.approx(look["sigma"])
        assert again["temperature"] == pytest.approx(look["temperature"])
    assert len(found[-1]["around"]) == len(found[-1]["curve"][0]["sigma"]) == 7


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: NoisePattern(only=["cifar-cnn"]), "has no pairs"),
        (lambda: NoisePattern(DataConfig(name="digits")), "takes no other data than its own; leave out --data digits"),
    ],
)
def test_mistakes_are_named(wrong: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


class Tiny(Experiment):
    name = "tiny"
    summary = "nothing much"
    columns = {"a": "first", "b": "second"}  # noqa: RUF012
    deviations = ("smaller",)
    claims = (
        Claim("one", "it is so", lambda rows: Verdict(True, "1 of 1") if rows else None, "so"),
        Claim("two", "it is more", lambda rows: Verdict(bool(rows[0]["b"]), "b") if rows else None, "more"),
        Claim("own", "it is ours", lambda rows: Verdict(False, "c") if rows else None),
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        return [{"seed": seed} for seed in range(seeds)]

    def solve(self, **case: Any) -> list[Measurement]:
        return [case]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        return [{"a": "x", "b": "y"}]

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        return self.shown(rows)

    def figure(self, rows: list[Measurement]) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("b", "outcome"), [(0, "partly reproduced"), (1, "reproduced")])
def test_the_page_holds_outcomes_claims_and_tables(b: int, outcome: str, tmp_path: Path) -> None:
    study, found = Tiny(), [{"b": b}]
    assert study.outcome(found) == outcome
    assert study.numbers(found) == {"shown/one": 1.0, "shown/two": float(b), "shown/own": 0.0}
    assert study.findings(found)[0] == f"{outcome} at scale small"
    one = Reproduced(study, found, study.table(found), [], "run", "ui", tmp_path / "tiny-1" / "tiny.png", seeds=3)
    text = page([one], tmp_path)
    assert f"| [tiny](#tiny) | {outcome} | {1 + b} of 2 |" in text
    assert "crossreg reproduce tiny --scale small --seeds 3" in text
    assert "![nothing much](tiny-1/tiny.png)" in text
    assert "| it is ours | – | c | no |" in text
    assert "| x | y |" in text
    assert "Not as in the paper:\n\n- smaller\n" in text
    assert "crossreg reproduce all --scale small" in text


def test_what_the_paper_leaves_open_is_no_verdict_on_it(tmp_path: Path) -> None:
    class Open(Tiny):
        claims = Tiny.claims[2:]

    study, found = Open(), [{"b": 1}]
    assert study.outcome(found) == "left open by the paper"
    one = Reproduced(study, found, study.table(found), [], "run", "ui", tmp_path / "tiny.png", seeds=3)
    assert "| [tiny](#tiny) | left open by the paper | – |" in page([one], tmp_path)


def test_every_experiment_says_what_is_the_papers_and_how_it_differs() -> None:
    assert NoisePattern in experiments()
    for kind in experiments():
        assert kind.claims, kind.name
        assert kind.deviations, kind.name
        assert set(kind.scales) == {"small", "paper"}
        assert len({claim.name for claim in kind.claims}) == len(kind.claims)


def test_what_claims_and_arms_are_called_can_be_recorded(tmp_path: Path) -> None:
    names = list({f"shown/{claim.name}" for kind in experiments() for claim in kind.claims})
    assert any("," in name for name in names)
    names += ["nll/docstrings flipped/pre-norm, padded/none", "overfitting/20 %/reg_0.5"]
    recorded = [metric_name(name) for name in names]
    assert len(set(recorded)) == len(recorded)
    spool = Spool(tmp_path)
    spool.append_metrics(dict.fromkeys(recorded, 1.0), 0)  # it refuses what MLflow would
    spool.close()
