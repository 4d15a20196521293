"""Predictions of what lies in files, by a model from MLflow or from a folder."""

from services.prediction.files import Predicted, predict_file
from services.prediction.opening import open_model
from services.prediction.writing import check_output, write

__all__ = ["Predicted", "check_output", "open_model", "predict_file", "write"]
