"""Vision models as policies: distributions over token sequences given an image."""
