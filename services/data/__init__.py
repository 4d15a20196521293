"""Load, check, split and fingerprint data. Imports torchvision, scikit-learn and pandas lazily."""

from crossreg.services.data.config import DataConfig, known
from crossreg.services.data.dataset import Dataset, Split, fingerprint
from crossreg.services.data.load import load_data
from crossreg.services.data.report import describe, in_lines
from crossreg.services.data.split import default_reg_size
from crossreg.services.data.stream import Part, Piece, Stream, Streams
from crossreg.services.data.streamed import can_stream

__all__ = [
    "DataConfig",
    "Dataset",
    "Part",
    "Piece",
    "Split",
    "Stream",
    "Streams",
    "can_stream",
    "default_reg_size",
    "describe",
    "fingerprint",
    "in_lines",
    "known",
    "load_data",
]
