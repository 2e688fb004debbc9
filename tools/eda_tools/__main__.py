"""``python -m eda_tools TOOL …`` is ``eda TOOL …``."""

import sys

from eda_tools.eda import main

sys.exit(main())
