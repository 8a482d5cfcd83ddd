"""Who listens to what Snakemake's log tells of jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


class EventRecorder(logging.Handler):
    """Takes note of Snakemake's events; what goes wrong in it stays with it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of one event (``snakemake_interface_logger_plugins.common.LogEvent``)."""
        # An error in here would keep Snakemake from ever learning what became of a job.
        try:
            self.note(str(getattr(record, "event", "")), vars(record))
        except Exception:
            self.handleError(record)

    def note(self, event: str, told: Mapping[str, Any]) -> None:
        """Take note of an event by its name and what the record tells."""
        raise NotImplementedError
