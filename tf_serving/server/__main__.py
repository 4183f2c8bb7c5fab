"""``python -m tf_serving.server``: TensorFlow Serving's command line."""

from __future__ import annotations

import sys

from tf_serving.server.main import main

if __name__ == "__main__":
    sys.exit(main())
