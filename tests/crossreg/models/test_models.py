"""Models by name: shapes, sizes known from the literature, and the answer to every wrong request."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from crossreg.core.errors import UserError
from crossreg.models import build, describe, known, zoo

FOR_SEQUENCES = ["cnn1d", "lstm", "gru", "transformer"]
OWN = ["mlp", "cnn", *FOR_SEQUENCES, "vgg16", "resnet18", "resnet34", "resnet50", "wide_resnet"]
FOR_IMAGES = [name for name in OWN if name not in FOR_SEQUENCES]


def on_meta(name: str, input_shape: tuple[int, ...], num_outputs: int = 10, **options: Any) -> nn.Module:
    """Build without memory or initialization: shapes and counts need neither."""
    with torch.device("meta"):
        return build(name, input_shape=input_shape, num_outputs=num_outputs, **options)


def output_shape(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(model(torch.empty(2, *input_shape, device="meta")).shape)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", FOR_IMAGES)
@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 32, 32), (5, 31, 40), (3, 64, 64)])
def test_own_models_map_images_to_logits(name: str, input_shape: tuple[int, ...]) -> None:
    assert output_shape(on_meta(name, input_shape, num_outputs=7), input_shape) == (2, 7)


@pytest.mark.parametrize("name", [n for n in FOR_IMAGES if n != "vgg16"])
def test_own_models_take_digits(name: str) -> None:
    assert output_shape(on_meta(name, (1, 8, 8)), (1, 8, 8)) == (2, 10)


@pytest.mark.parametrize("input_shape", [(4,), (3, 5), (2, 3, 4, 5)])
def test_mlp_takes_any_shape(input_shape: tuple[int, ...]) -> None:
    assert output_shape(on_meta("mlp", input_shape, num_outputs=1), input_shape) == (2, 1)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("vgg16", 14.72),
        ("resnet18", 11.17),
        ("resnet34", 21.28),
        ("resnet50", 23.52),
        ("wide_resnet", 36.48),
    ],
)
def test_parameter_counts_of_the_literature(name: str, millions: float) -> None:
    assert num_parameters(on_meta(name, (3, 32, 32))) / 1e6 == pytest.approx(millions, abs=0.006)


def test_parameter_count_of_a_smaller_wide_resnet() -> None:
    # WRN-40-4 of the paper's table 4: 8.9 M
    count = num_parameters(on_meta("wide_resnet", (3, 32, 32), depth=40, width=4))
    assert count / 1e6 == pytest.approx(8.95, abs=0.05)


def test_layer_counts() -> None:
    vgg = on_meta("vgg16", (3, 32, 32))
    assert sum(isinstance(m, nn.Conv2d) for m in vgg.modules()) == 13
    assert sum(isinstance(m, nn.BatchNorm2d) for m in vgg.modules()) == 13
    narrow = on_meta("vgg16", (3, 32, 32), width=8)
    assert [m.out_channels for m in narrow.modules() if isinstance(m, nn.Conv2d)] == [
        8,
        8,
        16,
        16,
        *[32] * 3,
        *[64] * 6,
    ]
    cnn = on_meta("cnn", (3, 32, 32))
    channels = [m.out_channels for m in cnn.modules() if isinstance(m, nn.Conv2d)]
    assert channels == [24, 24, 48, 48, 96, 96]
    wide = on_meta("wide_resnet", (3, 32, 32))
    # the depth counts convolutions, the three shortcuts that change the shape among them
    assert sum(isinstance(m, nn.Conv2d) for m in wide.modules()) == 28


def test_mlp_options() -> None:
    default = on_meta("mlp", (1, 28, 28))
    assert [m.out_features for m in default.modules() if isinstance(m, nn.Linear)] == [512, 512, 512, 10]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in default.modules()) == 3
    layer = on_meta("mlp", (4,), hidden=16, depth=2, norm="layer")
    assert [m.out_features for m in layer.modules() if isinstance(m, nn.Linear)] == [16, 16, 10]
    assert sum(isinstance(m, nn.LayerNorm) for m in layer.modules()) == 2


def test_resnet_keeps_the_state_names_of_torchvision() -> None:
    ours = on_meta("resnet18", (3, 32, 32), num_outputs=1000).state_dict()
    theirs = on_meta("torchvision:resnet18", (3, 32, 32), num_outputs=1000).state_dict()
    assert list(ours) == list(theirs)
    assert [k for k in ours if ours[k].shape != theirs[k].shape] == ["conv1.weight"]


@pytest.mark.parametrize("name", ["mlp", "cnn", "vgg16"])
def test_initial_weights_have_the_variance_of_he(name: str) -> None:
    torch.manual_seed(0)
    *hidden, output = (
        m
        for m in build(name, input_shape=(1, 28, 28), num_outputs=10).modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    )
    for layer in hidden:
        fan = layer.in_features if isinstance(layer, nn.Linear) else 9 * layer.out_channels
        tolerance = 4 / (2 * layer.weight.numel()) ** 0.5  # four standard errors of a standard deviation
        assert float(layer.weight.detach().std()) == pytest.approx((2 / fan) ** 0.5, rel=tolerance)
    assert float(output.weight.detach().abs().max()) <= output.in_features**-0.5


def test_own_models_train() -> None:
    torch.manual_seed(0)
    model = build("cnn", input_shape=(1, 8, 8), num_outputs=3, width=8)
    x, y = torch.randn(24, 1, 8, 8), torch.arange(24) % 3
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v3_small", 32),
        ("convnext_tiny", 32),
        ("vit_b_16", 32),
        ("densenet121", 32),
        ("efficientnet_b0", 32),
        ("swin_t", 32),
        ("maxvit_t", 224),
        ("googlenet", 64),
        ("inception_v3", 96),
        ("torchvision:vgg16", 32),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_models_map_images_to_logits(name: str, size: int, channels: int) -> None:
    shape = (channels, size, size)
    assert output_shape(on_meta(name, shape, num_outputs=7), shape) == (2, 7)


def test_own_names_win_and_the_prefix_gives_the_original() -> None:
    assert on_meta("resnet18", (3, 32, 32)).get_submodule("conv1").kernel_size == (3, 3)
    assert on_meta("torchvision:resnet18", (3, 32, 32)).get_submodule("conv1").kernel_size == (7, 7)


def test_gray_images_give_what_repeated_channels_give() -> None:
    torch.manual_seed(0)
    color = build("mobilenet_v3_small", input_shape=(3, 32, 32), num_outputs=4).eval()
    torch.manual_seed(0)
    gray = build("mobilenet_v3_small", input_shape=(1, 32, 32), num_outputs=4).eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(gray(x), color(x.expand(-1, 3, -1, -1)))
    assert all(p.requires_grad for p in gray.parameters())


def test_torchvision_options_are_passed_on() -> None:
    model = on_meta("vit_b_16", (3, 64, 64), dropout=0.25)
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.25}
    assert model.get_parameter("encoder.pos_embedding").shape[1] == 4 * 4 + 1


@pytest.mark.parametrize(
    ("name", "input_shape", "options", "message"),
    [
        (
            "resnet19",
            (3, 32, 32),
            {},
            "unknown model 'resnet19'; did you mean 'resnet1.'.*own models are mlp, cnn, cnn1d, lstm, gru",
        ),
        ("nothing_like_it", (3, 32, 32), {}, "unknown model 'nothing_like_it'; own models are mlp"),
        ("fasterrcnn_resnet50_fpn", (3, 32, 32), {}, "unknown model"),
        ("torchvision:resnet19", (3, 32, 32), {}, "no classifier 'resnet19'; did you mean 'resnet1.'"),
        (
            "cnn",
            (20,),
            {},
            r"'cnn' needs images of shape .* at least 8 pixels.*have shape \(20,\).*use 'mlp'",
        ),
        ("cnn", (1, 7, 8), {}, r"at least 8 pixels.*\(1, 7, 8\)"),
        ("vgg16", (1, 8, 8), {}, r"'vgg16' needs .* at least 16 pixels.*\(1, 8, 8\).*'cnn' \(from 8x8\)"),
        ("resnet18", (3, 32), {}, "'resnet18' needs images"),
        ("wide_resnet", (3, 4, 4), {}, "at least 8"),
        ("vit_b_16", (20,), {}, "'torchvision:vit_b_16' needs images"),
        ("vit_b_16", (3, 28, 28), {}, r"cannot be built for inputs of shape \(3, 28, 28\).*patch size"),
        ("vit_b_16", (3, 32, 48), {}, "square images, not 32x48"),
        ("maxvit_t", (3, 32, 32), {}, "cannot be built for inputs of shape"),
        ("densenet121", (2, 32, 32), {}, r"3 channels, or 1; .*\(2, 32, 32\)"),
        ("mlp", (4,), {"widht": 3}, "does not take the option 'widht'; its options are hidden, depth, norm"),
        ("mlp", (4,), {"dept": 3}, "'dept'; did you mean 'depth'"),
        ("resnet18", (3, 32, 32), {"depth": 3}, "'depth'; it takes no options"),
        ("vgg16", (3, 32, 32), {"width": 0}, "width of 'vgg16' must be a positive integer, not 0"),
        (
            "resnet101",
            (3, 32, 32),
            {"depth": 3},
            "refused its options: .*'depth'; it takes zero_init_residual",
        ),
        ("regnet_y_400mf", (3, 32, 32), {"depth": 3}, "refused its options: .*'depth'; it takes stem_width"),
        ("resnet101", (3, 32, 32), {"weights": "DEFAULT"}, "'weights' of torchvision's resnet101 is set"),
        ("mlp", (4,), {"depth": 0}, "depth of 'mlp' must be a positive integer, not 0"),
        ("mlp", (4,), {"hidden": "512"}, "hidden of 'mlp' must be a positive integer, not '512'"),
        ("mlp", (4,), {"depth": True}, "not True"),
        (
            "mlp",
            (4,),
            {"norm": "bach"},
            "norm of 'mlp' is 'bach'; did you mean 'batch'.; allowed are batch, layer",
        ),
        ("cnn", (1, 8, 8), {"width": -1}, "width of 'cnn' must be a positive integer"),
        ("cnn1d", (1, 8, 8), {}, r"takes sequences \(channels, time\), but an example has shape \(1, 8, 8\)"),
        ("cnn1d", (3, 50), {"width": 20}, "width of 'cnn1d' is 20; it must be a multiple of 8"),
        ("lstm", (50,), {}, r"'lstm' takes sequences \(channels, time\)"),
        ("gru", (3, 50), {"hidden": 0}, "hidden of 'gru' must be a positive integer, not 0"),
        (
            "transformer",
            (3, 50),
            {"width": 30},
            "width of 'transformer' is 30; it must be even and a multiple of its 4",
        ),
        ("wide_resnet", (3, 32, 32), {"depth": 27}, "depth of 'wide_resnet' is 27; it must be 6n [+] 4"),
        ("wide_resnet", (3, 32, 32), {"depth": 4}, "it must be 6n [+] 4"),
        ("mlp", (), {}, r"input_shape is \(\)"),
        ("mlp", 5, {}, "input_shape is 5"),
        ("mlp", (3, 0), {}, r"every size in input_shape \(3, 0\) must be a positive integer, not 0"),
    ],
)
def test_wrong_requests_are_refused(
    name: str, input_shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        on_meta(name, input_shape, **options)


@pytest.mark.parametrize("num_outputs", [0, 2.0, True])
def test_wrong_num_outputs_is_refused(num_outputs: int) -> None:
    with pytest.raises(UserError, match="num_outputs must be a positive integer"):
        build("mlp", input_shape=(4,), num_outputs=num_outputs)


def test_known_and_describe_name_every_own_model() -> None:
    assert list(known()) == OWN
    assert all(line.endswith(".") and "\n" not in line for line in known().values())
    text = describe()
    assert all(f"{name}: {line}" in text for name, line in known().items())
    assert "hidden=512, depth=3, norm='batch'" in text
    assert "torchvision:NAME" in text
    assert "package.module:function" in text


def test_a_list_from_a_yaml_file_is_a_shape() -> None:
    assert output_shape(on_meta("cnn", [1, 8, 8]), (1, 8, 8)) == (2, 10)  # type: ignore[arg-type]


def test_importing_models_loads_no_torchvision() -> None:
    code = "import sys, crossreg.models; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0


def test_without_torchvision_own_models_build_and_the_rest_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("torchvision"):
            raise ImportError("No module named 'torchvision'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in ("mlp", "cnn", "vgg16", "wide_resnet"):
        on_meta(name, (3, 32, 32))
    assert zoo.names() == []
    for name in ("resnet18", "torchvision:resnet18"):
        with pytest.raises(UserError, match="No module named 'torchvision'; install"):
            on_meta(name, (3, 32, 32))
    with pytest.raises(UserError, match=r"unknown model 'swin_t'.*does not work here"):
        on_meta("swin_t", (3, 32, 32))


USER_CODE = """
from torch import nn
from crossreg.core.errors import UserError

number = 3

class Net(nn.Module):
    def __init__(self, input_shape, num_outputs, width=4):
        super().__init__()
        self.width = width
        self.out = nn.Linear(input_shape[0], num_outputs)

    def forward(self, x):
        return self.out(x)

    @classmethod
    def wide(cls, input_shape, num_outputs):
        return cls(input_shape, num_outputs, 100)

def make(*, input_shape, num_outputs, width=4):
    return Net(input_shape, num_outputs, width)

def wrong(*, input_shape, classes):
    return Net(input_shape, classes)

def text(**options):
    return "a model"

def fails(**options):
    raise ZeroDivisionError("inside")

def refuses(**options):
    raise UserError("only on Sundays")

def lazy(**options):
    return nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))

def frozen(*, input_shape, num_outputs):
    return Net(input_shape, num_outputs).requires_grad_(False)

class Auxiliary(Net):
    def forward(self, x):
        return (super().forward(x), x) if self.training else {"logits": super().forward(x), "more": x}

def pretrained(*, input_shape, num_outputs):
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, num_outputs)).eval()

def half_frozen(*, input_shape, num_outputs):
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, num_outputs))
    model[0].eval()
    return model
"""


@pytest.fixture
def user_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "users_package"
    package.mkdir()
    (package / "nets.py").write_text(USER_CODE)
    (package / "broken.py").write_text("import no_such_module_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [m for m in sys.modules if m.partition(".")[0] == "users_package"]:
        monkeypatch.delitem(sys.modules, name)
    return "users_package.nets"


def test_users_own_function_is_found_in_the_working_directory(user_code: str) -> None:
    model = build(f"{user_code}:make", input_shape=(6,), num_outputs=2, width=9)
    assert model(torch.zeros(3, 6)).shape == (3, 2)
    assert model.width == 9
    assert build(f"{user_code}:Net", input_shape=(6,), num_outputs=2).width == 4
    assert build(f"{user_code}:Net.wide", input_shape=(6,), num_outputs=2).width == 100


@pytest.mark.parametrize(
    ("attribute", "options", "message", "cause"),
    [
        ("mak", {}, "has no 'mak'; did you mean 'make'", AttributeError),
        ("number", {}, "is of type int, not a function; expected function[(]input_shape", None),
        ("wrong", {}, "has the signature .*classes.*input_shape, num_outputs", TypeError),
        ("make", {"depth": 3}, "cannot be called with input_shape, num_outputs, depth", TypeError),
        ("text", {}, "returned str; expected function", None),
        (
            "fails",
            {},
            "failed when called with .*num_outputs=2: ZeroDivisionError: inside",
            ZeroDivisionError,
        ),
        ("refuses", {}, "^only on Sundays$", None),
        ("lazy", {}, r"weights of unknown size \(0.weight, 0.bias\); in your function, call it with torch.zeros", None),
        ("frozen", {}, "all 2 weights of model .* are frozen .*; leave at least its last layer free", None),
    ],
)
def test_wrong_functions_of_the_user_are_refused(
    user_code: str, attribute: str, options: dict[str, Any], message: str, cause: type[Exception] | None
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(f"{user_code}:{attribute}", input_shape=(6,), num_outputs=2, **options)
    assert (type(caught.value.__cause__) if cause else None) is cause


def test_a_tuple_or_a_dictionary_stands_for_its_first_or_its_logits(user_code: str) -> None:
    model = build(f"{user_code}:Auxiliary", input_shape=(6,), num_outputs=2)
    assert model(torch.zeros(3, 6)).shape == model.eval()(torch.zeros(3, 6)).shape == (3, 2)
    assert model.returns == "dict"


def test_modes_are_those_of_the_function_but_for_the_whole(user_code: str) -> None:
    whole = build(f"{user_code}:pretrained", input_shape=(6,), num_outputs=2)
    assert all(module.training for module in whole.modules())
    part = build(f"{user_code}:half_frozen", input_shape=(6,), num_outputs=2)
    assert [module.training for module in part.modules()] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "users_package.broken:make",
            "importing users_package.broken failed: ModuleNotFoundError: .*no_such_module",
        ),
        ("users_package.missing:make", "importing users_package.missing failed.*under the working directory"),
        ("users_package.nets:", "is not of the form package.module:function"),
        (":make", "is not of the form"),
        ("users_package/nets.py:make", "is not of the form"),
        ("a:b:c", "is not of the form"),
    ],
)
def test_wrong_import_paths_are_refused(user_code: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(name, input_shape=(6,), num_outputs=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_torchvision_classifier(name: str) -> None:
    if name.startswith("regnet") or num_parameters_of_default(name) > 90e6:
        pytest.skip("needs real memory, or too much of it")
    size = 299 if name == "inception_v3" else 224
    shape = (3, size, size)
    assert output_shape(on_meta(zoo.PREFIX + name, shape, num_outputs=3), shape) == (2, 3)
    assert re.search(r"\w", zoo._options(torchvision.models, name))


def num_parameters_of_default(name: str) -> int:
    return int(torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"])
