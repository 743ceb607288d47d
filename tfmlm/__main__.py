"""`python -m tfmlm`."""

import sys

from tfmlm.cli import main

sys.exit(main())
