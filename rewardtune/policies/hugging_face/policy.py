"""transformers' ``VisionEncoderDecoderModel`` as a policy.

Any image encoder with any causal decoder that has cross-attention: what is asked of them is what
transformers' own ``generate`` asks. The network keeps transformers' parameter names, below
``model.``; dropout is off, in training too.

Axes: G groups (images), S sequences of a group, N = G*S, T tokens, P positions of the encoded
image, D width, V vocabulary, H height, W width, C colours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from rewardtune.policies.decoding.left_to_right import draw_left_to_right
from rewardtune.policies.draw import Decoding
from rewardtune.policies.encoding import encode_timed
from rewardtune.policies.hugging_face import grouped_attention
from rewardtune.policies.hugging_face.packed_layers import packed_layers
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.network import NetworkPolicy
from rewardtune.policies.policy import Samples, TokenLogProbs, TokenQueries

CONFIG, GENERATION, PROCESSOR = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
)


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' progress bars and remarks: what matters is said by errors."""
    verbosity = transformers_logging.get_verbosity()
    has_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


class HuggingFaceError(ValueError):
    """A model that cannot be used as a policy; one line that says why."""


class HuggingFaceConfig(BaseModel):
    """A model as its folder describes it; stored beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, str]
    """The folder's text files by name, tokenizer included, so that it can be written again."""

    sequence_length: PositiveInt
    """Tokens that are drawn; the model may have room for more."""

    @cached_property
    def model(self) -> dict[str, Any]:
        return self._read(CONFIG)

    @cached_property
    def start_token(self) -> int:
        """What stands before the first token.

        Raises:
            HuggingFaceError: the model names none.
        """
        found = self._first("decoder_start_token_id", "bos_token_id")
        if found is None:
            raise HuggingFaceError(
                f"the model's {CONFIG} has no decoder_start_token_id: set "
                "model.config.decoder_start_token_id before save_pretrained"
            )
        return int(found)

    @cached_property
    def stop_tokens(self) -> tuple[int, ...]:
        """What ends a sequence in the model's own ``generate``; empty if it says nothing."""
        found = self._first("eos_token_id")
        if found is None:
            return ()
        return tuple(found) if isinstance(found, list) else (int(found),)

    @property
    def image_mean(self) -> tuple[float, ...]:
        """Of colours in [0, 1]; with ``image_std`` it maps them to what the encoder wants."""
        return tuple(self._read(PROCESSOR).get("image_mean") or (0.5, 0.5, 0.5))

    @property
    def image_std(self) -> tuple[float, ...]:
        return tuple(self._read(PROCESSOR).get("image_std") or (0.5, 0.5, 0.5))

    def _first(self, *keys: str) -> Any:
        """The first value that is there, the way transformers looks for it."""
        places = (self._read(GENERATION), self.model, self.model.get("decoder", {}))
        for key in keys:
            for place in places:
                if place.get(key) is not None:
                    return place[key]
        return None

    def _read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files.get(name, "{}"))
        return found


class HuggingFacePolicy(NetworkPolicy):
    """An image to a distribution over token sequences, by one of transformers' models."""

    architecture: ClassVar[str] = "hugging_face"
    config: HuggingFaceConfig

    def __init__(self, config: HuggingFaceConfig, model: VisionEncoderDecoderModel) -> None:
        """Take a model over.

        Raises:
            HuggingFaceError: it names no start token, takes pictures that are not square, or has
                no room for sequences of this length.
        """
        super().__init__()
        self.config = config
        self.model: Any = model.requires_grad_(True)
        self.eval()
        _check_sizes(config, self.model)
        self._start_token = config.start_token
        self._mean_C = nn.Buffer(torch.tensor(config.image_mean), persistent=False)
        self._std_C = nn.Buffer(torch.tensor(config.image_std), persistent=False)
        for name, head in self.model.decoder.named_children():
            if name != self.model.decoder.base_model_prefix:
                _compute_in_float32(head)
        self._shares_context = _shares_context(self.model)
        _set_aside_unused(self)

    @classmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        """Not to be had: a model of transformers comes from a folder.

        Raises:
            ValueError: always.
        """
        raise ValueError("a Hugging Face model is read from its folder: set policy.checkpoint")

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        settings = HuggingFaceConfig.model_validate(config)
        # Initial values would cost seconds, and random numbers that others count on.
        with torch.random.fork_rng(devices=()), no_init_weights():
            model: Any = VisionEncoderDecoderModel(
                VisionEncoderDecoderConfig.from_dict(settings.model)
            )
        model.tie_weights()
        return cls(settings, model.float())

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, each once however often it is used, and what the network keeps beside."""
        buffers = dict(self.named_buffers())
        kept = {name: buffers[name] for name in self.state_dict() if name in buffers}
        return {**dict(self.named_parameters()), **kept}

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])

    def train(self, mode: bool = True) -> Self:
        """Stays as it is: what is tuned must be what was sampled, so nothing drops out."""
        return super().train(False)

    @property
    def vocab_size(self) -> int:
        return int(self.model.decoder.config.vocab_size)

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def input_size(self) -> int:
        return _input_size(self.model)

    def encode(self, images_GHWC: Tensor) -> Tensor:
        """Images in [-1, 1] to context [G, P, D], as wide as the decoder's attention wants it."""
        normal_GHWC = ((images_GHWC + 1) / 2 - self._mean_C) / self._std_C
        pixels_GCHW = normal_GHWC.permute(0, 3, 1, 2).to(self._dtype)
        context_GPD: Tensor = self.model.encoder(pixel_values=pixels_GCHW).last_hidden_state
        if hasattr(self.model, "enc_to_dec_proj"):
            context_GPD = self.model.enc_to_dec_proj(context_GPD)
        return context_GPD

    def logits(self, context_GPD: Tensor, tokens_NT: Tensor) -> Tensor:
        """Teacher-forced logits [N, T, V] of sequences whose groups stand next to each other."""
        inputs_NT = F.pad(tokens_NT[:, :-1], (1, 0), value=self._start_token)
        logits_NTV: Tensor = self.model.decoder(
            input_ids=inputs_NT,
            encoder_hidden_states=self._spread(context_GPD, len(tokens_NT)),
            use_cache=False,
        ).logits
        return logits_NTV.float()

    def log_prob(
        self,
        images_GHWC: Tensor,
        tokens_GST: Tensor,
        *,
        queries: TokenQueries | None = None,
        temperature: float = 1.0,
        recompute: bool = False,
    ) -> TokenLogProbs:
        """See ``Policy.log_prob``. ``recompute`` keeps the encoded image and no more."""
        tokens_NT = tokens_GST.flatten(0, 1)
        if recompute:
            context_GPD: Tensor = checkpoint(self.encode, images_GHWC, use_reentrant=False)
            logits_NTV: Tensor = checkpoint(
                self.logits, context_GPD, tokens_NT, use_reentrant=False
            )
        else:
            logits_NTV = self.logits(self.encode(images_GHWC), tokens_NT)
        return log_probs_of(logits_NTV, tokens_GST, queries=queries, temperature=temperature)

    @torch.no_grad()
    def sample(
        self,
        images_GHWC: Tensor,
        uniforms_GST: Tensor,
        *,
        decoding: Decoding,
        probe_tokens: tuple[int, ...] = (),
        stop_tokens: tuple[int, ...] = (),
    ) -> Samples:
        """See ``Policy.sample``."""
        # Its own dtypes, whatever the caller's autocast.
        with torch.autocast(images_GHWC.device.type, enabled=False):
            encoded = encode_timed(self.encode, images_GHWC)
            num_sequences = uniforms_GST.shape[0] * uniforms_GST.shape[1]
            decoder = self.model.decoder
            with packed_layers(decoder, num_rows=num_sequences):
                samples = draw_left_to_right(
                    _CachedDecoder(decoder, self._spread(encoded.context_GPD, num_sequences)),
                    uniforms_GST,
                    decoding=decoding,
                    probe_tokens=probe_tokens,
                    stop_tokens=stop_tokens,
                    start_token=self._start_token,
                )
        return replace(samples, encode_seconds=encoded.seconds)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def _spread(self, context_GPD: Tensor, num_sequences: int) -> Tensor:
        """The context of each sequence, where the decoder cannot share a group's."""
        if self._shares_context:
            return context_GPD
        return context_GPD.repeat_interleave(num_sequences // len(context_GPD), dim=0)


class _CachedDecoder:
    """A decoder at work, with the keys and values of image and past tokens."""

    def __init__(self, decoder: Any, context_GPD: Tensor) -> None:
        self._decoder = decoder
        self._context_GPD = context_GPD
        self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def logits(self, token_N: Tensor, position: int) -> Tensor:
        logits_N1V: Tensor = self._decoder(
            input_ids=token_N[:, None],
            encoder_hidden_states=self._context_GPD,
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        return logits_N1V[:, 0].float()


def _input_size(model: Any) -> int:
    size = model.encoder.config.image_size
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise HuggingFaceError(
            f"the model's encoder takes pictures of {list(size)} pixels, but policies see square "
            "ones: choose an encoder with one image_size"
        )
    return int(sides.pop())


def _check_sizes(config: HuggingFaceConfig, model: Any) -> None:
    _input_size(model)
    room = getattr(model.decoder.config, "max_position_embeddings", config.sequence_length)
    if config.sequence_length > room:
        raise HuggingFaceError(
            f"sequences of {config.sequence_length} tokens do not fit a decoder with "
            f"{room} positions: lower the task's max_tokens to {room}"
        )


@torch.no_grad()
def _shares_context(model: Any) -> bool:
    """Let the decoder take an image once for several sequences, if it can: found out by trying.

    By shapes alone, since the weights may not be there yet.
    """
    decoder = model.decoder
    before = decoder.config._attn_implementation
    try:
        with quietly():
            decoder.set_attn_implementation(grouped_attention.NAME)
        decoder(
            input_ids=torch.zeros(4, 1, dtype=torch.int64),
            encoder_hidden_states=torch.zeros(2, 3, _context_width(model)),
            use_cache=False,
        )
    except (RuntimeError, ValueError, KeyError):  # a decoder with attention of its own
        decoder.set_attn_implementation(before)
        return False
    return True


def _context_width(model: Any) -> int:
    config = model.decoder.config
    width = getattr(config, "cross_attention_hidden_size", None) or config.hidden_size
    return int(width)


@torch.enable_grad()
def _set_aside_unused(policy: HuggingFacePolicy) -> None:
    """Make buffers of parameters that no log-prob depends on, such as a pooler's.

    They stay in files; the optimizer would miss their gradients.
    """
    size = policy.input_size
    device = next(policy.parameters()).device
    tokens = torch.zeros(1, 1, 2, dtype=torch.int64, device=device)
    log_prob = policy.log_prob(torch.zeros(1, size, size, 3, device=device), tokens).drawn_GST
    named = dict(policy.named_parameters())
    gradients = torch.autograd.grad(log_prob.sum(), list(named.values()), allow_unused=True)
    for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
        if gradient is None:
            owner, _, leaf = name.rpartition(".")
            module = policy.get_submodule(owner)
            delattr(module, leaf)
            module.register_buffer(leaf, parameter.detach())


def _compute_in_float32(head: nn.Module) -> None:
    """Keep a head out of autocast: log-probs differ in digits that bfloat16 does not have."""
    head.register_forward_pre_hook(_enter_float32)
    head.register_forward_hook(_leave_float32, always_call=True)


def _enter_float32(head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    kind = inputs[0].device.type
    head._was_autocast = torch.is_autocast_enabled(kind)  # type: ignore[assignment]
    torch.set_autocast_enabled(kind, False)
    return (inputs[0].float(), *inputs[1:])


def _leave_float32(head: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    torch.set_autocast_enabled(inputs[0].device.type, bool(head._was_autocast))
