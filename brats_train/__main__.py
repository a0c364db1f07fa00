"""`python -m brats_train` is the `brats` command."""

from __future__ import annotations

from brats_train.cli.main import main

if __name__ == "__main__":
    main()
