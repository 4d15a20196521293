"""The report of a comparison: numbers, sentences, figures.

Importing this package loads neither ray nor mlflow nor matplotlib.
"""

from __future__ import annotations

from crossreg.services.comparison.report.context import Context
from crossreg.services.comparison.report.report import Report, write_report
from crossreg.services.comparison.report.summary import Summary, summarize

__all__ = ["Context", "Report", "Summary", "summarize", "write_report"]
