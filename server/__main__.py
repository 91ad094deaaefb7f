"""`python -m server`: the same as `agenthub`."""

from server.commands import main

if __name__ == "__main__":
    main()
