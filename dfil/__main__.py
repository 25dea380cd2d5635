"""`python -m dfil` is the console script `dfil`."""

import sys

from dfil.cli import main

sys.exit(main())
