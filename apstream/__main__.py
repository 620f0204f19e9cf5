"""``python -m apstream`` is the command line."""

from apstream.cli.main import main

if __name__ == "__main__":
    main()
