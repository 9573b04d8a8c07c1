"""`python -m esb_api.cli`: the `esb` command where its script is not installed."""

from esb_api.cli.main import main

if __name__ == "__main__":
    main()
