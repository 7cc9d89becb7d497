"""`python -m promptmill` is `promptmill`."""

from promptmill.cli import main

if __name__ == "__main__":
    main()
