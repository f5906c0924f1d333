"""`python -m embed COMMAND` is the same as the console script `embed COMMAND`."""

from embed.commands.main import main

if __name__ == "__main__":
    main()
