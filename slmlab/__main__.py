"""`python -m slmlab`: the commands, where no `slmlab` is on the path."""

import sys

from slmlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
