"""`python -m runner.resume`: finishes an interrupted run. See runner.cli.resume."""

from runner.cli.resume import main

if __name__ == "__main__":
    main()
