"""What notebooks work with: `start` in their first cell, players, plots, exercises."""

from slmlab.notebook.lab import Lab, Live, figures, start

__all__ = ["Lab", "Live", "figures", "start"]
