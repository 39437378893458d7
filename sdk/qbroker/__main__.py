"""`python -m qbroker` is the `qbroker` command, of the interpreter that is named."""

from qbroker.cli.main import main

if __name__ == "__main__":
    main()
