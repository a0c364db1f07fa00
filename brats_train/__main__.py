"""`python -m brats_train` is the `brats` command."""

from .cli import main

if __name__ == "__main__":
    main()
