"""The parts of a crossreg cluster: a database, an artifact store, MLflow, a Ray head and Ray workers."""

from crossreg.services.cluster.local import ClusterConfig, LocalCluster
from crossreg.services.cluster.parts import Part
from crossreg.services.cluster.secrets import Secrets

__all__ = ["ClusterConfig", "LocalCluster", "Part", "Secrets"]
