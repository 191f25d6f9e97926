"""`python -m runner`: one run, or with -m a sweep."""

from runner.commandline import main

if __name__ == "__main__":
    main()
