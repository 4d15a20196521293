"""What a model takes in, as people have it: rows, arrays, images, sequences; described in JSON, kept with the model."""

from crossreg.inputs.array import Array
from crossreg.inputs.columns import Boolean, Category, Column, Date, Number
from crossreg.inputs.describe import Inputs, from_json, to_json
from crossreg.inputs.sequence import Sequence
from crossreg.inputs.table import Ignored, Table

__all__ = [
    "Array",
    "Boolean",
    "Category",
    "Column",
    "Date",
    "Ignored",
    "Inputs",
    "Number",
    "Sequence",
    "Table",
    "from_json",
    "to_json",
]
