"""The history of a picture, told by its pixels and its file: is it clean, or noisy and compressed?

pixels ─► windows.py, 16 at most ─► estimates.py: noise, grid, ... ─┐
a JPEG's luma table ─► its quality ─────────────────────────────────┴► verdict.py
"""

from vdsr_cli.inspection.estimates import Estimates, estimate
from vdsr_cli.inspection.verdict import LOWEST_CLEAN_QUALITY, Verdict, inspect, judge

__all__ = ["LOWEST_CLEAN_QUALITY", "Estimates", "Verdict", "estimate", "inspect", "judge"]
