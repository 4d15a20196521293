"""Predictions of what lies in files, by a model from MLflow or from a folder."""

from crossreg.services.prediction.files import Predicted, predict_file
from crossreg.services.prediction.opening import open_model
from crossreg.services.prediction.writing import check_output, write

__all__ = ["Predicted", "check_output", "open_model", "predict_file", "write"]
