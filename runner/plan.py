"""`python -m runner.plan`: prints what a run would do and cost. See runner.cli.plan."""

from runner.cli.plan import main

if __name__ == "__main__":
    main()
