"""The demos: pretrained policies on digit scenes, tuned and shown."""
