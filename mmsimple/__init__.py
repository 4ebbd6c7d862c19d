"""mmsimple: the simple multimodal model, an image encoder and a projector in front of a language model."""
