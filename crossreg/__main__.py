"""The `crossreg` command, also `python -m crossreg`: the jobs, where what they need is installed."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what it takes to have one: the library alone needs PyTorch and no more."""
    try:
        from crossreg.jobs.cli import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "crossreg":
            raise
        sys.exit(
            f"error: the command line needs {error.name} and more, which the library alone does without; "
            "install it with: pip install 'crossreg[service]'"
        )
    run()


if __name__ == "__main__":
    main()
