"""cxr: train, compare and trust chest X-ray classifiers."""

__version__ = "0.1.0"
