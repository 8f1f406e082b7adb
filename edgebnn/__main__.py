"""``edgebnn`` and ``python -m edgebnn``, which is also how torchrun starts it."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly while it is still being imported, too."""
    try:
        from edgebnn.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("edgebnn: interrupted\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
