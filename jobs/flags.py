"""Options of the command line, made from the configurations: each field that is a flag says so itself.

A command takes those of some configurations with `@takes(TrainConfig, Placement, ...)`, and turns what was given, and a
file's settings, into theirs with `settings`.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from crossreg.core.errors import UserError, quoted
from crossreg.jobs.options import merge, nest, read_yaml, section
from crossreg.services.settings import Flag
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig, default_regularizers

__all__ = [
    "Address",
    "AsJson",
    "ConfigFile",
    "Experiment",
    "TrackingUri",
    "Verbose",
    "mapping",
    "regularizers",
    "settings",
    "takes",
]

WHAT, LEARNED, WHERE, OUT = "What to train", "Learned regularization", "Where to run", "Tracking and output"
_PANELS = {
    "TrainConfig": WHAT,
    "DataConfig": "Data",
    "OptimizerConfig": WHAT,
    "RhoConfig": LEARNED,
    "Placement": WHERE,
    "TrackingConfig": OUT,
    "MetaTrainConfig": "What to meta-train",
    "CompareConfig": "What to compare",
    "ServeConfig": "How to serve",
}

Learn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=START]",
        help="Learn this regularizer too; may be repeated. `none`: nothing but what else is named; `list`: show all "
        "there are. Default: how long to train alone; noise and temperature where the schedule is given.",
        rich_help_panel=LEARNED,
    ),
]
Fix = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Keep this regularizer at a value, e.g. weight_decay=0.1; 0 leaves it out. May be repeated.",
        rich_help_panel=LEARNED,
    ),
]
Stop = Annotated[
    str | None,
    typer.Option(
        metavar="RULE=VALUE",
        help="End the training earlier by a rule, e.g. patience=5: evaluations without a better held-out NLL.",
        rich_help_panel=WHAT,
    ),
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file of settings; flags win over it.", rich_help_panel=OUT)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=OUT)]
Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, http://host:8265. Default: RAY_API_SERVER_ADDRESS, else this machine's.",
    ),
]


@dataclass(frozen=True)
class _Option:
    """An option of a command: its parameter's name and annotation, and the setting that it fills."""

    parameter: str
    path: str
    annotation: Any
    form: str = ""  # "list" or "mapping" where text is split at commas


def _options(kind: type[BaseModel], prefix: str = "") -> Iterator[_Option]:
    """Yield the options of a configuration and of those in it."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            if field.annotation is not TrainConfig:  # which a command takes by itself
                yield from _options(field.annotation, f"{prefix}{name}.")
            continue
        flag = next((mark for mark in field.metadata if isinstance(mark, Flag)), None)
        if flag is None:
            continue
        plain, choices, form = _plain_type(field.annotation)
        if flag.text:
            plain, choices = str, flag.text
        long = flag.name or name.replace("_", "-")
        names = [f"--{long}/--no-{long}" if flag.negated else f"--{long}"] if plain is bool else [f"--{long}"]
        text = " ".join(filter(None, [field.description, "" if plain is bool else _default(field, flag)]))
        option = typer.Option(*names, help=text, metavar=choices, rich_help_panel=_PANELS[kind.__name__])
        yield _Option(long.replace("-", "_"), prefix + name, Annotated[plain | None, option], form)


def _plain_type(annotation: Any) -> tuple[Any, str | None, str]:
    """Return the type that a flag's text is read as, its choices, and what it is split into at commas."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if get_origin(annotation) is Literal:
        return str, "|".join(map(str, get_args(annotation))), ""
    if get_origin(annotation) is tuple:
        return str, "NAME,...", "list"
    if get_origin(annotation) is dict:
        return str, "NAME=VALUE,...", "mapping"
    return annotation, None, ""


def _default(field: Any, flag: Flag) -> str:
    value = field.default
    if flag.default is None and (value is None or value is PydanticUndefined):
        return ""
    said = flag.default or (
        ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else f"{value}"
    )
    return f"Default: {said}."


def _of(kind: type[BaseModel], parameter: str) -> Any:
    return next(option.annotation for option in _options(kind) if option.parameter == parameter)


TrackingUri = _of(TrackingConfig, "tracking_uri")
Experiment = _of(TrackingConfig, "experiment")
Verbose = _of(Placement, "verbose")


_Command = Callable[..., Any]


def takes(*kinds: type[BaseModel], leave_out: tuple[str, ...] = ()) -> Callable[[_Command], _Command]:
    """Give a command, which takes `**given`, the options of configurations before its own.

    Args:
        kinds: the configurations; `TrainConfig` brings `--learn`, `--fix` and `--stop` too. A flag that two have, such
            as `--budget`, is the first's.
        leave_out: parameters that the command does not take.
    """
    parameters: dict[str, Any] = {}
    for kind in kinds:
        for option in _options(kind):
            parameters.setdefault(option.parameter, option.annotation)
        if kind is TrainConfig:
            parameters |= {"learn": Learn, "fix": Fix, "stop": Stop}
    parameters = {name: annotation for name, annotation in parameters.items() if name not in leave_out}

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def wrapped(**given: Any) -> Any:
            return command(**given)

        kind = inspect.Parameter.KEYWORD_ONLY
        hints = get_type_hints(command, include_extras=True)
        made = [inspect.Parameter(name, kind, default=None, annotation=one) for name, one in parameters.items()]
        own = [
            parameter.replace(kind=kind, annotation=hints[name])
            for name, parameter in inspect.signature(command).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        wrapped.__signature__ = inspect.Signature([*made, *own])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {one.name: one.annotation for one in (*made, *own)}
        return wrapped

    return decorate


def parameters(*kinds: type[BaseModel]) -> list[str]:
    """Return the parameters that `takes` gives a command."""
    found = dict.fromkeys(option.parameter for kind in kinds for option in _options(kind))
    return [*found, *(("learn", "fix", "stop") if TrainConfig in kinds else ())]


def settings(given: Mapping[str, Any], *kinds: type[BaseModel], file: Path | None = None) -> list[dict[str, Any]]:
    """Return the settings of configurations from flags, and from a file where flags leave them open.

    Args:
        given: the flags of a command by parameter name; None where not given.
        kinds: the configurations; a flag that two have is the first's.
        file: YAML with the settings of `TrainConfig` at its top, and a section for each of the others: `placement`,
            `tracking`, `compare`.

    Raises:
        UserError: a file that cannot be read, or a section that is none.
    """
    content = {} if file is None else read_yaml(file)
    if isinstance(content.get("data"), str):
        content["data"] = {"name": content["data"]}
    found = []
    taken: set[str] = set()
    for kind in kinds:
        own = [option for option in _options(kind) if option.parameter not in taken]
        taken |= {option.parameter for option in own}
        values = nest({option.path: _read(given.get(option.parameter), option) for option in own})
        if kind is TrainConfig:
            found.append(values)
            continue
        found.append(merge(section(content, kind.__name__.lower().removesuffix("config")), values))
    if TrainConfig in kinds:
        for name in ("data", "rho", "optimizer"):
            if part := section(content, name):
                content[name] = part
        place = kinds.index(TrainConfig)
        training = merge(content, found[place])
        chosen = regularizers(given, content.get("regularizers"), training)
        stop = _pairs([given["stop"]] if given.get("stop") else [], "--stop")
        found[place] = (
            training | ({} if chosen is None else {"regularizers": chosen}) | ({"stopping": stop} if stop else {})
        )
    return found


def _read(value: Any, option: _Option) -> Any:
    if not isinstance(value, str) or not option.form:
        return value
    parts = tuple(part.strip() for part in value.split(",") if part.strip())
    if option.form == "list":
        return parts
    return mapping(value, f"--{option.parameter.replace('_', '-')}")


def mapping(text: str | None, flag: str) -> dict[str, str]:
    """Return `{"x": "images", "y": "labels"}` for "x=images,y=labels".

    Raises:
        UserError: no `=` where there has to be one.
    """
    found = {}
    for part in filter(None, map(str.strip, (text or "").split(","))):
        name, equals, value = (one.strip() for one in part.partition("="))
        if not (name and equals and value):
            raise UserError(f"{flag} {quoted(part)} is not of the form NAME=VALUE")
        found[name] = value
    return found


def regularizers(given: Mapping[str, Any], base: Any, training: Mapping[str, Any]) -> Any:
    """Return the section `regularizers` with `--learn` and `--fix` put into it; None where all is left to the default.

    Args:
        given: the flags.
        base: the section of a file or of an earlier run; None for the default.
        training: that they are of, whose schedule decides what the default is.
    """
    learn, fix = given.get("learn") or [], given.get("fix") or []
    if not learn and not fix:
        return base
    if base is None or base == "none":
        base = default_regularizers(training, none=base == "none")
    elif isinstance(base, list):
        base = dict.fromkeys(base)
    if not isinstance(base, dict):
        return base  # which is refused where it is validated
    options = {name: _options_of(one) for name, one in base.items()}
    changed = {name: one for name, one in base.items() if "none" not in learn or _is_fixed(one)}
    for name, start in _pairs([text for text in learn if text != "none"], "--learn", bare=True).items():
        changed[name] = {**options.get(name, {}), "learn": True, "start": start}
    for name, value in _pairs(fix, "--fix").items():
        changed[name] = {**options.get(name, {}), "learn": False, "value": value}
    return changed


def _is_fixed(one: Any) -> bool:
    number = isinstance(one, int | float) and not isinstance(one, bool)
    return number or (isinstance(one, dict) and ("value" in one or one.get("learn") is False))


def _options_of(one: Any) -> dict[str, Any]:
    return {k: v for k, v in one.items() if k not in ("learn", "start", "value")} if isinstance(one, dict) else {}


def _pairs(texts: list[str], flag: str, bare: bool = False) -> dict[str, str | None]:
    """Return `{"l2": "0.01"}` for `["l2=0.01"]`, with underscores in names.

    Raises:
        UserError: no `=` where there has to be one.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or (not bare and not (equals and value)):
            raise UserError(f"{flag} {quoted(text)} is not of the form NAME=VALUE")
        base, slash, part = name.partition("/")
        found[base.replace("-", "_") + slash + part] = value or None
    return found
