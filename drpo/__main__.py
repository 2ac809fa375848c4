"""`python -m drpo` is `drpo`."""

from drpo.cli import main

if __name__ == "__main__":
    main()
