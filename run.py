"""Run an experiment: ``python run.py`` needs no arguments, ``python run.py --help`` lists them."""

from unierase.app import main

if __name__ == "__main__":
    main()
