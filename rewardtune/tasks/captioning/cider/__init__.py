"""CIDEr and CIDEr-D: definition, kernel and document frequencies."""
