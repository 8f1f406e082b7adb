"""edgebnn: binarized neural networks from PyTorch to a microcontroller, equal to the bit."""

__version__ = "0.1.0"
