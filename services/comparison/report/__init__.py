"""The report of a comparison: numbers, sentences, figures.

Importing this package loads neither ray nor mlflow nor matplotlib.
"""

from __future__ import annotations

from services.comparison.report.context import Context
from services.comparison.report.report import Report, write_report
from services.comparison.report.summary import Summary, summarize

__all__ = ["Context", "Report", "Summary", "summarize", "write_report"]
