"""`python -m imae` is the `imae` command."""

from imae.cli import main

if __name__ == "__main__":
    main()
