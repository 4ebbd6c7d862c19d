"""mmconvert: checkpoints of multimodal models from one layout to another, planned from headers and proved bit for bit."""

__version__ = "0.1.0"
