"""A trained model over HTTP: replicas on Ray Serve, the model from MLflow's registry.

Importing this package loads neither ray nor mlflow nor fastapi.
"""

from __future__ import annotations

from crossreg.services.serving.config import ServeConfig

__all__ = ["ServeConfig"]
