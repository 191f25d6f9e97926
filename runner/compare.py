"""`python -m runner.compare`: compares runs and sweeps. See runner.cli.compare."""

from runner.cli.compare import main

if __name__ == "__main__":
    main()
