"""``python -m edgebnn``, which is also how torchrun starts it."""

from edgebnn.cli import main

if __name__ == "__main__":
    main()
