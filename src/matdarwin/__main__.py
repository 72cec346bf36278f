"""`python -m matdarwin`: the same as the command `darwin`."""

from matdarwin.cli import main

if __name__ == "__main__":
    main()
