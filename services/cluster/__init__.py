"""The parts of a crossreg cluster: a database, an artifact store, MLflow, a Ray head and Ray workers."""

from services.cluster.local import ClusterConfig, LocalCluster
from services.cluster.parts import Part
from services.cluster.secrets import Secrets

__all__ = ["ClusterConfig", "LocalCluster", "Part", "Secrets"]
