"""The wire contract: ``v1/*.proto`` and the stubs made from them by ``make protos``."""
