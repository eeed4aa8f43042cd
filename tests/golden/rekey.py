"""Gives the rows of `data/results/` the keys of the code as it is: `python tests/golden/rekey.py`.

A row's key is a digest of its settings and checkpoints. Where only their spelling changed (a field renamed, a
checkpoint converted) the rows are as good as before, and only their keys are rewritten. Run it after such a
change: `tests/test_golden.py` must have found no orphan before it, and tokens and waves must be unchanged.
"""

import pandas as pd
from record import RESULTS, keys_of

from slmlab.study.rows import write_rows

if __name__ == "__main__":
    for path in sorted(RESULTS.glob("*.parquet")):
        rows = pd.read_parquet(path)
        if "key" in rows:
            keys = keys_of(path.name, rows)
            if (rows["key"] != keys).any():
                write_rows(rows.assign(key=keys), path)
                print(f"rekeyed: {path.name}")
