"""What a run has shown, as one HTML file that opens without a network."""

from agents.report.page import write_report
from agents.report.parts import Curve, TableData, TokenTrace
from agents.report.traces import token_traces

__all__ = ["Curve", "TableData", "TokenTrace", "token_traces", "write_report"]
