"""`python -m runner`: one run, or with -m a sweep."""

from runner.cli.main import main

if __name__ == "__main__":
    main()
