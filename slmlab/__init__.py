"""slmlab: a notebook-first laboratory for spoken language models of languages with little recorded speech."""

import os

from slmlab import places

__version__ = "0.1.0"

# OpenMP, which splits torch's work, reads these once, when torch is loaded. By itself its threads wait in a
# loop for each other, and beside another busy program all takes ten times as long and more: here they sleep.
# Nor does it know what a container may use of its host.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if places.usable_cores() < places.bound_cores():
    os.environ.setdefault("OMP_NUM_THREADS", str(places.usable_cores()))
