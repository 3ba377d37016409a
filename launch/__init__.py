"""The engine room: configs, one distributed trainer, generation backends, runs and reports, the command line."""

__version__ = "0.1.0"
