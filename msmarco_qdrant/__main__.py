"""The command `msmarco-qdrant` as `python -m msmarco_qdrant`."""

import sys

from msmarco_qdrant.cli.app import main

sys.exit(main())
