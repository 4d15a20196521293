"""One MLflow run, written by the driver alone."""

from __future__ import annotations

import io
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from crossreg.core.errors import UserError
from crossreg.core.plain import finite
from crossreg.services.tracking import store, views
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.tracking.opening import OpenRun, create_run, open_spool, reopen_run
from crossreg.services.tracking.outbox import Outbox
from crossreg.services.tracking.params import MAX_TAG, clip
from crossreg.services.tracking.spool import DiskError, History, now_ms
from crossreg.services.tracking.system import PREFIX, SystemSampler
from crossreg.services.tracking.uploader import Uploader
from crossreg.services.tracking.uri import WORKFLOW, check_uri, default_uri, redact, ui_command, without_credentials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Status", "Tracker"]

Status = Literal["FINISHED", "FAILED", "KILLED"]
_log = logging.getLogger(__name__)
_DPI = 80  # a note shows a figure at its own size, which has to fit beside the tags of a run
_LARGEST_SCHEMA = 1_000_000  # characters, less than MLflow takes
_COLUMN_TYPES = {"number": "double", "boolean": "boolean", "category": "string", "date": "datetime"}


class Tracker:
    """Records one run: every call but `log_model` writes to disk and returns; a thread sends it on.

    Made by `Tracker.start`.

    Attributes:
        run_id: the MLflow run.
        experiment_id: its experiment.
    """

    def __init__(self, run: OpenRun, system_interval: float | None) -> None:
        self.run_id, self.experiment_id = run.saved.run_id, run.saved.experiment_id
        self._uri, self._client, self._spool = run.uri, run.client, run.spool
        self._outbox = Outbox(run.spool.directory)
        self._uploader = Uploader(run.spool, self._outbox, run.client, self.run_id, run.known)
        self._uploader.start()
        self._sampler: SystemSampler | None = None
        if system_interval is not None:
            first = 1 + max((step for key, step in run.spool.marks.items() if key.startswith(PREFIX)), default=-1)
            self._sampler = SystemSampler(self.record, first, system_interval)
            self._sampler.start()
        parts = [name.rpartition(".") for name in run.tags]
        self._numbers = Counter(kind for kind, _, number in parts if number.isdigit())
        self._finished: bool | None = None

    @classmethod
    def start(
        cls,
        config: TrackingConfig,
        *,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        spool_dir: Path,
        resume_run_id: str | None = None,
        system_interval: float | None = 10.0,
        verbose: bool = False,
    ) -> Self:
        """Create a run, or go on with one.

        Args:
            config: where to track; its experiment and tags win over the job's.
            experiment: the job's experiment name.
            run_name: the run's name in the UI.
            params: nested configuration. On resume only new parameters are added; a changed one becomes the
                tag `resumed.<name>`, since MLflow refuses to change a parameter.
            tags: the job's tags.
            spool_dir: this run's own folder; keep it to resume.
            resume_run_id: the run to go on with (`saved_run(spool_dir).run_id` on the same machine).
            system_interval: seconds between system metrics; None records none.
            verbose: let MLflow write its INFO lines.

        Raises:
            UserError: the store cannot be used, the folder belongs to another run or process or cannot be written,
                or the run is missing.
        """
        uri = check_uri(config.uri or default_uri())
        all_tags = {**tags, **config.tags}
        client = store.connect(uri, verbose=verbose)  # first: a store that is refused leaves no folder behind
        spool = open_spool(Path(spool_dir).absolute(), resume_run_id)
        try:
            if resume_run_id is None:
                run = create_run(client, uri, spool, config.experiment or experiment, run_name, params, all_tags)
            else:
                run = reopen_run(client, uri, spool, resume_run_id, params, all_tags)
        except DiskError as error:
            spool.close()
            raise UserError(f"{error}; make room there, or choose another folder.") from None
        except BaseException:
            spool.close()
            raise
        return cls(run, system_interval)

    @property
    def url(self) -> str | None:
        """The run's page, where the store is a server."""
        return self._at_server(f"#/experiments/{self.experiment_id}/runs/{self.run_id}{WORKFLOW}")

    @property
    def comparison_url(self) -> str | None:
        """The page that `show_comparison` makes, where the store is a server."""
        return self._at_server(self.comparison_page)

    @property
    def comparison_page(self) -> str:
        """The same, relative to where MLflow is, as it can be linked in a note."""
        return views.link(self.experiment_id, self.run_id, charts=True)

    def _at_server(self, page: str) -> str | None:
        return f"{without_credentials(self._uri)}/{page}" if self._uri.startswith("http") else None

    @property
    def ui_command(self) -> str:
        """The one command that opens the UI on this store."""
        return ui_command(self._uri)

    def record(self, metrics: Mapping[str, float], step: int, timestamp_ms: int | None = None) -> None:
        """Record values at a step; never waits for the network. Thread-safe.

        Args:
            metrics: by name (see `crossreg.core.metrics`). NaN and infinities are kept.
            step: global optimizer step. Points up to their key's last recorded step are ignored: after a
                resume from an earlier checkpoint, training runs those steps again.
            timestamp_ms: when it happened; None is now.
        """
        self._spool.append_metrics(metrics, step, timestamp_ms)

    def flush(self) -> None:
        """Make everything recorded so far survive a power cut.

        Raises:
            DiskError: the disk refuses.
        """
        self._spool.fsync()

    def history(self) -> History:
        """Return everything recorded so far, from the spool: key -> (steps, values)."""
        return self._spool.history()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._spool.append({"tags": {key: clip(str(value), MAX_TAG) for key, value in tags.items()}})

    def add_tag(self, kind: str, text: str) -> None:
        """Set a tag of what may happen more than once, `<kind>.<number>`: from 1, and on where the run is resumed."""
        self.set_tags({f"{kind}.{self._numbers[kind] + 1}": text})
        self._numbers[kind] += 1  # not where the disk is full and it is told again

    def set_note(self, text: str) -> None:
        """Set the run's description, in Markdown."""
        self.set_tags({"mlflow.note.content": text})

    def save_views(self, learned: Iterable[str] = ()) -> None:
        """Give the experiment views of its runs with scores, and links to them; see `services/tracking/views.py`.

        Args:
            learned: names of hyperparameters; those of one regularizer get one chart.
        """
        views.save_views(self._client, self.experiment_id, learned)

    def show_comparison(self, names: Iterable[str]) -> None:
        """Make a page of the runs that this one is the comparison of, grouped by method.

        Args:
            names: of hyperparameters; those of one regularizer get one chart.
        """
        views.save_view_of_comparison(self._client, self.experiment_id, self.run_id, names)

    def dataset(self, name: str, fingerprint: str, source: str, described: Mapping[str, Any] | None = None) -> None:
        """Record the data as an input of the run, which MLflow shows in a column of its own.

        Args:
            name: as a person calls it.
            fingerprint: at most 36 characters, equal for equal data and split.
            source: where it was loaded from.
            described: its sizes and columns, of which as much is kept as the store takes.

        Raises:
            UserError: the store does not answer.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        about = described or {}
        profile = {key: about[key] for key in ("task", "splits", "input_shape", "duplicates") if key in about}
        columns = [
            {"name": one["name"], "type": _COLUMN_TYPES[one["kind"]], "required": not one["missing"]}
            for one in about.get("features", ())
            if one["kind"] in _COLUMN_TYPES
        ]
        schema = json.dumps({"mlflow_colspec": columns})
        entity = Dataset(
            name=name,
            digest=fingerprint,
            source_type="local",
            source=json.dumps({"uri": source}),
            schema=schema if columns and len(schema) <= _LARGEST_SCHEMA else None,
            profile=json.dumps(profile) if profile else None,
        )
        tags = [InputTag("mlflow.data.context", "training")]
        with store.asking(self._uri, "record the dataset"):
            self._client.log_inputs(self.run_id, datasets=[DatasetInput(entity, tags)])

    def figure(self, name: str, figure: Figure) -> None:
        """Record a figure as the artifact `figures/<name>.png`, in place of an earlier one of that name."""
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=_DPI)
        self._outbox.put(f"figures/{name}.png", content.getvalue())

    def shown(self, figure: str) -> str:
        """Return the Markdown that shows a figure of the run in its note."""
        # MLflow's page lies beside where its server gives artifacts out
        return f"![{figure}](get-artifact?path=figures/{figure}.png&run_uuid={self.run_id})"

    def artifact(self, name: str, content: bytes) -> None:
        """Record a file as an artifact, in place of an earlier one of that name; `name` is its path in the run."""
        self._outbox.put(name, content)

    def artifact_json(self, obj: Any, name: str) -> None:
        """Record an object as a JSON artifact; `name` is its path, e.g. `"evaluation.json"`."""
        self._outbox.put(name, json.dumps(finite(obj), indent=2, default=str).encode())

    def log_model(self, directory: Path, input_example: Any, name: str = "model", timeout: float = 60.0) -> str:
        """Log an exported model and return its `models:/` URI; unlike the other calls it waits for the store.

        Args:
            directory: what `crossreg.prediction.export.export_model` wrote.
            input_example: two or more inputs as the predictor takes them: an array `[N, ...]`, or a DataFrame.
            name: the model's name in the run.
            timeout: seconds to try again while the store is away.

        Raises:
            UserError: the folder is no exported model, or the example has no batch.
            StoreError: the store did not take it; the exported folder stays where it is.
        """
        from crossreg.services.tracking.model import log_model

        deadline = time.monotonic() + timeout
        while True:
            try:
                with store.asking(self._uri, f"log the model in {directory}"):
                    return log_model(
                        self._client, self.experiment_id, self.run_id, Path(directory), input_example, name
                    )
            except store.StoreError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(1.0)

    def finish(self, status: Status, timeout: float = 60.0) -> bool:
        """Send what is left and end the run.

        Args:
            status: how the run ended.
            timeout: seconds to wait for a store that is away.

        Returns:
            Whether everything arrived. If not, it stays on disk and a warning says how to send it later.
        """
        if self._finished is None:
            if self._sampler is not None:
                self._sampler.stop()
            try:
                self._spool.append({"status": status, "time": now_ms()})
                self._finished = self._uploader.drain(timeout)
            except DiskError:  # both, whatever becomes of the first
                self._finished = all([self._uploader.drain(timeout), self._end(status)])
            _log.info("run ended", extra={"run_id": self.run_id, "status": status})
            self._spool.close()
            if not self._finished:
                reason = f" ({self._uploader.error})" if self._uploader.error else ""
                _log.warning(
                    "not all of run %s reached %s%s; it is kept: send it later with `crossreg sync %s`",
                    self.run_id, redact(self._uri), reason, self._spool.directory,
                )  # fmt: skip
        return self._finished

    def _end(self, status: Status) -> bool:
        """Tell the store directly how the run ended, for want of a disk to pass it through; say whether it heard."""
        try:
            self._client.set_terminated(self.run_id, status=status)
        except Exception as error:
            _log.debug("the run's end: %s", error)
            return False
        return True
