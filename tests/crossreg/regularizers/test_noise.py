from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from crossreg import UserError, inject_noise, remove_noise, sampling, sigmas
from crossreg.regularizers.base import rho_from_sigma, rho_parameters, sigma_from_rho
from crossreg.regularizers.noise import Noise, noise_layers
from crossreg.regularizers.normal import standard_normal_like
from tests.crossreg.conftest import small_model


class OwnNorm(nn.BatchNorm2d):
    pass


class LlamaRMSNorm(nn.Module):
    """A normalization layer of another library, known by its name alone."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def layers() -> dict[str, tuple[nn.Module, torch.Tensor, tuple[int, ...]]]:
    from torchvision.models.convnext import LayerNorm2d
    from torchvision.ops import FrozenBatchNorm2d

    image, sequence, volume = torch.randn(4, 6, 5, 5), torch.randn(4, 7, 6), torch.randn(2, 6, 3, 4, 4)
    return {
        "BatchNorm1d": (nn.BatchNorm1d(6), torch.randn(4, 6), (6,)),
        "BatchNorm1d on sequences": (nn.BatchNorm1d(6), torch.randn(4, 6, 9), (6,)),
        "BatchNorm2d": (nn.BatchNorm2d(6), image, (6,)),
        "BatchNorm3d": (nn.BatchNorm3d(6), volume, (6,)),
        "subclass": (OwnNorm(6), image, (6,)),
        "SyncBatchNorm": (nn.SyncBatchNorm(6).eval(), image, (6,)),
        "GroupNorm": (nn.GroupNorm(2, 6), image, (6,)),
        "LayerNorm": (nn.LayerNorm(6), sequence, (6,)),
        "LayerNorm over two": (nn.LayerNorm((7, 6)), sequence, (7, 6)),
        "LayerNorm without weights": (nn.LayerNorm(6, elementwise_affine=False), sequence, (6,)),
        "RMSNorm": (nn.RMSNorm(6), sequence, (6,)),
        "InstanceNorm1d": (nn.InstanceNorm1d(6), torch.randn(4, 6, 9), (6,)),
        "InstanceNorm1d unbatched": (nn.InstanceNorm1d(6), torch.randn(6, 9), (6,)),
        "InstanceNorm2d": (nn.InstanceNorm2d(6), image, (6,)),
        "InstanceNorm3d": (nn.InstanceNorm3d(6), volume, (6,)),
        "torchvision LayerNorm2d": (LayerNorm2d(6), image, (6,)),
        "torchvision FrozenBatchNorm2d": (FrozenBatchNorm2d(6), image, (6,)),
        "by name": (LlamaRMSNorm(6), sequence, (6,)),
    }


@pytest.mark.parametrize("name", list(layers()))
@pytest.mark.parametrize("granularity", ["layer", "unit"])
@pytest.mark.parametrize("form", ["additive", "multiplicative"])
def test_noise_of_every_normalization_layer_is_sigma_times_standard_normal(
    name: str, granularity: str, form: str
) -> None:
    norm, x, units = layers()[name]
    model = nn.Sequential(norm, nn.Flatten(0), nn.Linear(x.numel(), 1))
    inject_noise(model, granularity, form, 0.5)  # type: ignore[arg-type]
    noise = noise_layers(model)["0"]
    assert noise.rho.shape == (units if granularity == "unit" else ())
    if granularity == "unit":  # the last unit is loud, the others silent: only its places may change
        with torch.no_grad():
            noise.rho.fill_(-16)
            noise.rho.view(-1)[-1] = rho_from_sigma(0.5)
    with sampling(model):
        draws = torch.stack([norm(x).detach() for _ in range(400)]) - plain_eval(norm, x)
    if form == "multiplicative":
        draws = draws / plain_eval(norm, x)
    spread = draws.std(0)
    loud = spread > 0.1
    expected = torch.zeros_like(spread, dtype=torch.bool)
    if granularity == "layer":
        expected |= True
    elif len(units) == 2:
        expected[..., -1, -1] = True
    elif "LayerNorm2d" not in name and ("Layer" in name or "RMS" in name or name == "by name"):
        expected[..., -1] = True
    else:
        expected.select(0 if "unbatched" in name else 1, 5).fill_(True)
    assert torch.equal(loud, expected)
    assert spread[expected].mean() == pytest.approx(0.5, rel=0.06)


def plain_eval(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    noise = norm._modules.pop("noise")
    hooks, norm._forward_hooks = norm._forward_hooks, type(norm._forward_hooks)()
    training = norm.training
    result: torch.Tensor = norm.eval()(x).detach()
    norm.train(training)
    norm._forward_hooks = hooks
    norm._modules["noise"] = noise
    return result


def test_training_draws_and_evaluation_does_not(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = inject_noise(small_model("layer"))
    x, _ = batch
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
    with sampling(model):
        assert not torch.equal(model(x), model(x))
    assert torch.equal(model(x), model(x))


def test_sampling_restores_every_mode_and_leaves_buffers(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = inject_noise(small_model())
    model[4].eval()
    modes = [module.training for module in model.modules()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    with pytest.raises(ZeroDivisionError), sampling(model):
        model(batch[0])
        raise ZeroDivisionError
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert not any(noise.forced or noise.learning for noise in noise_layers(model).values())


def test_sigma_is_a_constant_of_the_theta_step(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = inject_noise(small_model())
    model.requires_grad_(True)  # as fine-tuning code does; rho must not listen
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    rho = {id(p) for p in rho_parameters(model).values()}
    assert all((p.grad is None) == (id(p) in rho) for p in model.parameters())


def test_weights_of_the_plain_model_load_strictly_and_names_stay() -> None:
    plain = small_model()
    model = inject_noise(copy.deepcopy(plain), initial_sigma=0.7)
    assert set(plain.state_dict()) < set(model.state_dict())
    for parameter in plain.parameters():
        parameter.data.add_(1)
    model.load_state_dict(plain.state_dict(), strict=True)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in plain.state_dict().items())
    assert all(float(s) == pytest.approx(0.7) for s in sigmas(model).values())
    other = inject_noise(copy.deepcopy(plain))
    other.load_state_dict(model.state_dict())
    assert sigmas(other) == sigmas(model)


def test_deepcopy_and_pickle_keep_the_noise(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = inject_noise(small_model("layer"), "unit")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.manual_seed(5)
        expected = model(batch[0])
        torch.manual_seed(5)
        assert torch.equal(twin(batch[0]), expected)
        twin[1].noise.rho.data.add_(1)
        torch.manual_seed(5)
        assert not torch.equal(twin(batch[0]), expected)


def test_compiled_model_draws_fresh_noise_and_follows_sigma(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = inject_noise(small_model("layer"))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x, _ = batch
    assert not torch.equal(compiled(x), compiled(x))
    with torch.no_grad():
        for noise in noise_layers(compiled).values():
            noise.rho.fill_(rho_from_sigma(1e-6))
    torch.testing.assert_close(compiled(x), model.eval()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_dtype_that_the_model_would_have(dtype: torch.dtype) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", dtype):
        expected = plain(x).dtype
        output = inject_noise(plain, "unit")(x)
    assert output.dtype == expected
    assert output.isfinite().all()


def test_channels_last_stays_and_is_filled_with_independent_draws() -> None:
    x = torch.empty(8, 16, 9, 9).to(memory_format=torch.channels_last)
    eps = standard_normal_like(x)
    assert eps.is_contiguous(memory_format=torch.channels_last)
    assert eps.shape == x.shape
    assert eps.unique().numel() > 0.99 * eps.numel()
    assert float(eps.std()) == pytest.approx(1, abs=0.03)
    model = inject_noise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    out = model.to(memory_format=torch.channels_last)(  # type: ignore[call-overload]
        torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    )
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_where_selects_by_pattern_patterns_and_predicate() -> None:
    assert list(sigmas(inject_noise(small_model(), where="4"))) == ["noise/00_4"]
    assert list(sigmas(inject_noise(small_model(), where=["1", "9*"]))) == ["noise/00_1"]
    chosen = inject_noise(small_model(), where=lambda name, module: module.num_features == 12)
    assert list(sigmas(chosen)) == ["noise/00_4"]


def test_remove_noise_gives_the_plain_model_back(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    plain = small_model("layer")
    model = inject_noise(copy.deepcopy(plain))
    keys = list(plain.state_dict())
    assert remove_noise(model) is model
    assert list(model.state_dict()) == keys
    assert torch.equal(model(batch[0]), plain(batch[0]))
    assert not hasattr(model, "output_temperature")
    inject_noise(model)


def test_noise_in_place_of_dropout_starts_at_its_rate_and_gives_it_back() -> None:
    plain = nn.Sequential(nn.Linear(5, 200), nn.Dropout(0.2), nn.Linear(200, 2), nn.Dropout(0.0))
    model = inject_noise(copy.deepcopy(plain), after="dropout")
    found = sigmas(model)
    assert list(found) == ["noise/00_1", "noise/01_3"]
    # of mean 1 and the variance of dropout, p / (1 - p)
    torch.testing.assert_close(found["noise/00_1"], torch.tensor(0.5))
    torch.testing.assert_close(found["noise/01_3"], torch.tensor(0.1))
    x = torch.ones(400, 5)
    hidden = model[0](x).detach()
    ratio = model.train()[:2](x).detach() / hidden
    assert float(ratio.mean()) == pytest.approx(1, abs=0.01)
    assert float(ratio.std()) == pytest.approx(0.5, rel=0.02)
    assert not bool((ratio == 0).any())
    remove_noise(model)
    assert [model[1].p, model[3].p] == [0.2, 0.0]
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_shared_normalization_layer_has_one_sigma() -> None:
    norm = nn.LayerNorm(4)
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm)
    assert list(sigmas(inject_noise(model))) == ["noise/00_1"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: inject_noise(nn.Sequential(nn.Linear(2, 2))), "no normalization layer"),
        (lambda: inject_noise(inject_noise(small_model())), "'1' has noise already"),
        (lambda: inject_noise(small_model(), "channel"), "'channel'.*'layer' and 'unit'"),  # type: ignore[arg-type]
        (lambda: inject_noise(small_model(), form="salt"), "'salt'.*'additive'"),  # type: ignore[arg-type]
        (lambda: inject_noise(small_model(), after="dropout"), "no dropout layer.*add nn.Dropout"),
        (lambda: inject_noise(small_model(), after="relu"), "'relu'.*'normalization' and 'dropout'"),  # type: ignore[arg-type]
        (lambda: inject_noise(small_model(), initial_sigma=0.0), "initial_sigma is 0.0.*positive"),
        (lambda: inject_noise(small_model(), initial_sigma=float("nan")), "initial_sigma is nan"),
        (lambda: inject_noise(small_model(), where="head.*"), r"'head\.\*' selects none.*1, 4"),
        (lambda: remove_noise(small_model()), "no noise to remove"),
        (lambda: inject_noise(torch.compile(small_model())), "wrapped"),  # type: ignore[arg-type]
    ],
)
def test_mistakes_are_named(wrong: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()  # type: ignore[operator]


def test_a_layer_rebuilt_after_injection_is_noticed() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(inject_noise(small_model()))
    with pytest.raises(UserError, match="'1' was rebuilt after inject_noise"):
        sigmas(model)


def test_rho_and_sigma_convert_both_ways_and_sigma_stays_positive_and_finite() -> None:
    sigma = torch.logspace(-6, 6, 25)
    torch.testing.assert_close(sigma_from_rho(rho_from_sigma(sigma)), sigma)
    extremes = sigma_from_rho(torch.tensor([-1e9, 1e9]))
    assert (extremes > 0).all()
    assert extremes.isfinite().all()


class FusedAddNorm(nn.LayerNorm):
    """Returns what it normalized and the sum that it was given, as fused kernels do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


class WrappedLayerNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * 2


class BatchNormAct(nn.BatchNorm1d):
    """Activates what it normalized, as timm's layers do."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


class TestLayersAsPeopleHaveThem:
    def test_the_first_of_several_outputs_is_the_normalized_one(self) -> None:
        layer, x = inject_noise(FusedAddNorm(4)).train(), torch.randn(5, 4)
        normalized, given = layer(x)
        assert given is x
        assert not normalized.allclose(nn.LayerNorm(4)(x))

    def test_a_wrapper_leaves_the_noise_to_what_it_wraps(self) -> None:
        model = inject_noise(nn.Sequential(WrappedLayerNorm(), WrappedLayerNorm()))
        assert list(sigmas(model)) == ["noise/00_0.inner", "noise/01_1.inner"]

    def test_a_layer_that_activates_gets_its_noise_before(self) -> None:
        model = inject_noise(nn.Sequential(BatchNormAct(4)), granularity="unit", initial_sigma=3.0).train()
        out = model(torch.randn(200, 4))
        assert list(sigmas(model)) == ["noise/00_0"]
        assert sigmas(model)["noise/00_0"].shape == (4,)
        assert (out >= 0).all()  # after the activation half of it would be negative
        assert out.max() > 4
        noise = model[0].act.noise
        remove_noise(model, temperature=False)
        assert model(torch.randn(200, 4)).max() < 5
        assert noise not in list(model.modules())
        assert not model[0].act._forward_pre_hooks

    def test_padding_in_an_encoder_of_pytorch(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2).eval()
        x, padded = torch.randn(4, 6, 8), torch.arange(6).expand(4, 6) > torch.tensor([[5], [3], [5], [1]])
        with torch.no_grad():
            plain = encoder(x, src_key_padding_mask=padded)
        inject_noise(encoder, initial_sigma=1e-7, temperature=False)
        with sampling(encoder, learning=True):
            noisy = encoder(x, src_key_padding_mask=padded)
        (noisy[~padded].sum()).backward()
        torch.testing.assert_close(noisy[~padded], plain[~padded], rtol=1e-4, atol=1e-5)
        remove_noise(encoder, temperature=False)
        assert encoder.use_nested_tensor

    @pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
    def test_nested_tensors(self, layout: torch.layout) -> None:
        layer = inject_noise(nn.LayerNorm(4), granularity="unit", initial_sigma=2.0).train()
        rows = [torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)]
        out = layer(torch.nested.as_nested_tensor(rows, layout=layout))
        assert [tuple(row.shape) for row in out.unbind()] == [(3, 4), (5, 4)]
        assert not out.unbind()[0].allclose(nn.LayerNorm(4)(rows[0]))
        with pytest.raises(UserError, match="does not fit nested tensors; give the model padded ones"):
            Noise((4,), 1, "additive", 0.1).train()(torch.nested.as_nested_tensor(rows, layout=layout))

    def test_names_hold_what_names_of_metrics_may(self) -> None:
        odd = {"norm#1": nn.LayerNorm(4), "größe [a]": nn.LayerNorm(4), "x" * 300: nn.LayerNorm(4)}
        names = list(sigmas(inject_noise(nn.ModuleDict(odd))))
        assert names[:2] == ["noise/00_norm_1", "noise/01_größe _a_"]
        assert names[2].startswith("noise/02_xxx")
        assert len(names[2]) < 220
