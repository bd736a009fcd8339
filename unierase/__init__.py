"""UniErase Bench: experiments on unlearning in language models."""

__version__ = "0.1.0"
