"""`python -m stemwise` is the command `stemwise`."""

from stemwise.cli import main

if __name__ == "__main__":
    main()
