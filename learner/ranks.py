"""A learner made of several processes: who computes which shards, and how they become one sum.

Every rank computes the gradients of its own shards, all ranks gather those of all, and each adds
them up in the order of the shards, as a single rank does. So neither the number of ranks nor who
was first moves a bit, and all ranks hold the same weights without ever sending them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

_BUCKET_ELEMENTS = 16 * 2**20
"""Gathered at a time: as few calls as keep the extra memory at 64 MiB per shard."""


class RankLost(RuntimeError):
    """Another rank of the learner died, or hangs: all must restart from the checkpoint."""


class ShardExchange(Protocol):
    """The ranks of one learner; every rank makes the same calls in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def seconds(self) -> float:
        """Spent with the other ranks so far, waiting for them included."""
        ...

    def own_shards(self, num_shards: int) -> range:
        """The shards that this rank computes: a contiguous block.

        Raises:
            ValueError: they cannot be shared out evenly.
        """
        ...

    def sum(self, shards: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Tensor by tensor the sum over all ranks' shards, in the order of the shards.

        Args:
            shards: one list of float32 tensors for each of ``own_shards``, alike in shapes.

        Raises:
            RankLost: a rank did not come in time.
        """
        ...

    def decide(self, choice: int) -> int:
        """Rank 0's choice, on every rank; the others' are ignored.

        Raises:
            RankLost: a rank did not come in time.
        """
        ...

    def share(self, data: bytes) -> bytes:
        """Rank 0's bytes, on every rank; the others' are ignored.

        Raises:
            RankLost: a rank did not come in time.
        """
        ...


class LocalShards:
    """One process that computes everything."""

    @property
    def rank(self) -> int:
        return 0

    @property
    def seconds(self) -> float:
        return 0.0

    def own_shards(self, num_shards: int) -> range:
        return range(num_shards)

    def sum(self, shards: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        return [_in_order(parts) for parts in zip(*shards, strict=True)]

    def decide(self, choice: int) -> int:
        return choice

    def share(self, data: bytes) -> bytes:
        return data


class MeetingPoint:
    """Where the ranks of a learner find each other: rank 0 listens from here on."""

    def __init__(self, host: str) -> None:
        """
        Args:
            host: of the interface; the system chooses the port.

        Raises:
            OSError: it is not an address of this machine.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port: int = self._listener.getsockname()[1]

    def hand_over(self) -> int:
        """The descriptor of the socket, which the caller owns from here on."""
        return self._listener.detach()

    def close(self) -> None:
        self._listener.close()


class TorchRanks:
    """A process group of torch.distributed: gloo between CPUs, nccl between GPUs."""

    def __init__(
        self,
        *,
        rank: int,
        num_ranks: int,
        address: str,
        device: torch.device,
        listener: MeetingPoint | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        """Meet the other ranks.

        Args:
            rank: of this process; 0 decides.
            address: host:port at which rank 0 can be reached, the same on all ranks.
            device: where gradients are.
            listener: of rank 0, which has that port; None on the others.
            timeout_seconds: of the meeting and of every call after it.

        Raises:
            RankLost: not all ranks came in time.
        """
        self._device = device
        self._timeout_seconds = timeout_seconds
        self._seconds = 0.0
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        _stay_on(host)
        timeout = timedelta(seconds=timeout_seconds)
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined]
                host,
                int(port),
                num_ranks,
                is_master=listener is not None,
                timeout=timeout,
                # A port chosen by number could be another process's by now, and torch would
                # listen on every interface.
                master_listen_fd=None if listener is None else listener.hand_over(),
            )
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=rank,
                world_size=num_ranks,
                timeout=timeout,
            )
        except RuntimeError as error:
            raise RankLost(
                f"rank {rank} of {num_ranks} did not meet the others at {address} within "
                f"{timeout_seconds:g} s: {_first_line(error)}"
            ) from error

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def seconds(self) -> float:
        return self._seconds

    def own_shards(self, num_shards: int) -> range:
        num_ranks = dist.get_world_size()
        if num_shards % num_ranks:
            raise ValueError(
                f"learner.gradient_shards = {num_shards} cannot be shared out to {num_ranks} "
                f"ranks: use a number of ranks that divides it"
            )
        size = num_shards // num_ranks
        return range(self.rank * size, (self.rank + 1) * size)

    def sum(self, shards: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        totals = []
        for bucket in _buckets([tensor.numel() for tensor in shards[0]]):
            own_LN = torch.stack([torch.cat([t.flatten() for t in s[bucket]]) for s in shards])
            total_N = _in_order(self._gathered(own_LN).unbind())
            like = shards[0][bucket]
            parts = total_N.split([tensor.numel() for tensor in like])
            totals += [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
        return totals

    def decide(self, choice: int) -> int:
        chosen = torch.tensor([choice], device=self._device)
        with self._together():
            dist.broadcast(chosen, src=0)
            return int(chosen)

    def share(self, data: bytes) -> bytes:
        size = self.decide(len(data))
        if size == 0:
            return b""
        if self.rank == 0:
            data_B = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self._device)
        else:
            data_B = torch.empty(size, dtype=torch.uint8, device=self._device)
        with self._together():
            dist.broadcast(data_B, src=0)
            return data_B.cpu().numpy().tobytes()

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()

    def _gathered(self, own_LN: Tensor) -> Tensor:
        """Rows of all ranks, in the order of the ranks."""
        num_shards = len(own_LN) * dist.get_world_size()
        all_KN = own_LN.new_empty(num_shards, own_LN.shape[1])
        with self._together():
            dist.all_gather_into_tensor(all_KN, own_LN)
        return all_KN

    @contextlib.contextmanager
    def _together(self) -> Iterator[None]:
        """Around what needs all ranks."""
        self._synchronize()
        began = time.perf_counter()
        try:
            yield
            self._synchronize()
        except RuntimeError as error:
            raise self._lost(error) from error
        finally:
            self._seconds += time.perf_counter() - began

    def _synchronize(self) -> None:
        """A GPU works on while its process goes on: its time would be counted elsewhere."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _lost(self, error: RuntimeError) -> RankLost:
        return RankLost(
            f"rank {self.rank} lost another rank, or waited {self._timeout_seconds:g} s for it in "
            f"vain; restart all from the checkpoint: {_first_line(error)}"
        )


def _stay_on(host: str) -> None:
    """Ranks that meet on the loopback interface exchange everything there.

    Their libraries would choose the interface by the machine's name.
    """
    found = socket.getaddrinfo(host, None)[0][4][0]
    if not ipaddress.ip_address(found).is_loopback:
        return
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)


def _in_order(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _buckets(sizes: Sequence[int]) -> Iterator[slice]:
    """Runs of neighbours of at most ``_BUCKET_ELEMENTS`` in all, or of one that is larger."""
    start = filled = 0
    for index, size in enumerate(sizes):
        if index > start and filled + size > _BUCKET_ELEMENTS:
            yield slice(start, index)
            start, filled = index, 0
        filled += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
