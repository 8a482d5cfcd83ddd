"""Base class of the recorders of Snakemake's log events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any


class EventRecorder(logging.Handler):
    """Handler that records Snakemake's events; its errors never reach Snakemake."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Record one event (``snakemake_interface_logger_plugins.common.LogEvent``)."""
        # An error in this handler would hide the end of a job from Snakemake.
        try:
            self.note(str(getattr(record, "event", "")), vars(record))
        except Exception:
            self.handleError(record)

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """Record an event, given its name and the fields of its log record."""
        raise NotImplementedError
