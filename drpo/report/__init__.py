"""report.html: one page that shows a run, made from its directory or kept while it goes on."""

from __future__ import annotations

from drpo.report.files import REPORT_NAME, write_report
from drpo.report.live import LiveReport
from drpo.report.page import render_report

__all__ = ["REPORT_NAME", "LiveReport", "render_report", "write_report"]
