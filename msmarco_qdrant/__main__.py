"""`python -m msmarco_qdrant` is the command `msmarco-qdrant`."""

import sys

from msmarco_qdrant.cli.app import main

sys.exit(main())
