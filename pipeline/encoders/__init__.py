"""Raw text, pictures and clips → vectors, by frozen encoders."""
