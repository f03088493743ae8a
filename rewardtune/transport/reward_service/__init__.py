"""Rewards over gRPC: messages, client and server."""
