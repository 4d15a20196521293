"""Inputs to JSON and back; what is read may come from anywhere, so each value is checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs.array import Array
from crossreg.inputs.columns import CYCLES, KINDS, Category, Column, Date, Number
from crossreg.inputs.sequence import Sequence
from crossreg.inputs.table import Ignored, Table
from crossreg.inputs.text import DATE_FORMATS

__all__ = ["Inputs", "from_json", "to_json"]

Inputs = Table | Array | Sequence
_LAYOUTS = ("as stored", "channels last", "no channel axis")


def to_json(inputs: Inputs) -> dict[str, Any]:
    """Return plain values for `from_json`."""
    if not isinstance(inputs, Table):
        return {"kind": "array" if isinstance(inputs, Array) else "sequence"} | _plain(inputs)
    columns = [{"kind": column.kind} | _plain(column) for column in inputs.columns]
    ignored = [_plain(one) for one in inputs.ignored]
    target = {key: getattr(inputs, key) for key in ("target", "decimal", "thousands", "unit")}
    return {"kind": "table", "columns": columns, "ignored": ignored} | target


def _plain(one: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(one).items()}


def from_json(content: Any) -> Inputs:
    """Return the inputs that `to_json` described.

    Raises:
        UserError: something is missing, unknown, or of another type.
    """
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind == "array":
        array = _made(Array, content, "inputs")
        if array.layout not in _LAYOUTS:
            raise UserError(f"inputs: layout is {quoted(array.layout)}; allowed are {', '.join(_LAYOUTS)}")
        return array
    if kind == "sequence":
        sequence = _made(Sequence, content, "inputs")
        if sequence.time not in ("first", "last"):
            raise UserError(f"inputs: time is {quoted(sequence.time)}; allowed are first and last")
        return sequence
    if kind != "table" or not isinstance(content.get("columns"), list) or not isinstance(content.get("ignored"), list):
        raise UserError("inputs is neither a table with columns nor an array nor a sequence")
    columns = tuple(_column(one) for one in content["columns"])
    names = [column.name for column in columns]
    if len(set(names)) < len(names) or not names:
        raise UserError(f"inputs names {len(names)} columns, {len(set(names))} of them different")
    ignored = tuple(_made(Ignored, one, "ignored") for one in content["ignored"])
    target = [_read(content.get(key), "str", f"inputs: {key}") for key in ("target", "decimal", "thousands", "unit")]
    return Table(columns, ignored, *target)


def _column(content: Any) -> Column:
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in KINDS:
        raise UserError(f"a column is of kind {quoted(kind)}; allowed are {', '.join(KINDS)}")
    column = _made(KINDS[kind], content, f"column {quoted(content.get('name'))}")
    _check(column)
    return column


def _check(column: Column) -> None:
    """Refuse what has the right type and no meaning."""
    what = f"column {quoted(column.name)}"
    if isinstance(column, Number) and (column.decimal not in (".", ",") or column.decimal == column.thousands):
        raise UserError(f"{what}: decimal is {quoted(column.decimal)}; allowed are . and ,")
    if isinstance(column, Category) and len(set(column.values)) < len(column.values):
        raise UserError(f"{what}: a value occurs twice")
    if isinstance(column, Date):
        if column.form not in DATE_FORMATS:
            raise UserError(
                f"{what}: form is {quoted(column.form)}, which is none of {', '.join(DATE_FORMATS[:3])}, ..."
            )
        if unknown := [cycle for cycle in column.cycles if cycle not in CYCLES]:
            raise UserError(f"{what}: cycle {quoted(unknown[0])} is none of {', '.join(CYCLES)}")
        try:
            np.datetime64(column.first, "us")
        except ValueError:
            raise UserError(f"{what}: first is {quoted(column.first)}, which is no date") from None


def _made(kind: Any, content: Any, what: str) -> Any:
    if not isinstance(content, dict):
        raise UserError(f"{what} is no object")
    values = {}
    for field in dataclasses.fields(kind):
        if field.name not in content:
            raise UserError(f"{what}: {field.name} is missing")
        values[field.name] = _read(content[field.name], str(field.type), f"{what}: {field.name}")
    if surplus := content.keys() - values.keys() - {"kind"}:
        raise UserError(f"{what}: unknown field {quoted(min(surplus))}")
    return kind(**values)


def _read(value: Any, annotation: str, what: str) -> Any:
    """Return a value of JSON as the type that a field's annotation names."""
    if annotation.startswith("tuple["):
        if not isinstance(value, list):
            raise UserError(f"{what} is no list")
        inner = annotation.removeprefix("tuple[").partition(",")[0]
        return tuple(_read(one, inner, what) for one in value)
    allowed: Any = {"bool": bool, "float": int | float}.get(annotation, str)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, allowed) or (annotation == "float" and not is_number):
        kind = annotation if annotation in ("bool", "float") else "text"
        raise UserError(f"{what} is {quoted(value)}, not of type {kind}")
    return float(value) if annotation == "float" else value
