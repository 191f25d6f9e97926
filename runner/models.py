"""`python -m runner.models`: lists the models that an account or this machine can use. See runner.cli.models."""

from runner.cli.models import main

if __name__ == "__main__":
    main()
