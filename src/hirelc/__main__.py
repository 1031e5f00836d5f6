"""`python -m hirelc`."""

from hirelc.cli import main

if __name__ == "__main__":
    main()
