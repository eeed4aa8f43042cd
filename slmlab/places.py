"""Where things lie: what comes with the lab, and what is made with it."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()
DATA = (ROOT if IS_CHECKOUT else PACKAGE) / "data"
"""What comes with the lab; a wheel has it inside."""
HOME = Path(os.environ.get("SLMLAB_HOME") or (ROOT if IS_CHECKOUT else "~/slmlab")).expanduser().absolute()
"""Where what is made goes: into the checkout, or where `SLMLAB_HOME` says."""
