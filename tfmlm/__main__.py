"""`python -m tfmlm`."""

import sys

from tfmlm.cli.main import main

sys.exit(main())
