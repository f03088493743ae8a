"""transformers' ``VisionEncoderDecoderModel`` as a policy.

Any image encoder with any causal decoder that has cross-attention: what is asked of them is what
transformers' own ``generate`` asks. The network keeps transformers' parameter names, below
``model.``; dropout is off, in training too.

Axes: G groups (images), S sequences of a group, N = G*S, T tokens, P positions of the encoded
image, D width, V vocabulary, H height, W width, C colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)
from transformers.initialization import no_init_weights

from rewardtune.datasets.frame import Framing, Square
from rewardtune.policies.decoding.left_to_right import draw_left_to_right
from rewardtune.policies.draw import Decoding
from rewardtune.policies.encoding import encode_timed
from rewardtune.policies.hugging_face import grouped_attention
from rewardtune.policies.hugging_face.config import HuggingFaceConfig, HuggingFaceError, quietly
from rewardtune.policies.hugging_face.files import read_folder, write_folder
from rewardtune.policies.hugging_face.packed_layers import packed_layers
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.policy import Policy, Samples, TokenLogProbs, TokenQueries


class HuggingFacePolicy(Policy):
    """An image to a distribution over token sequences, by one of transformers' models."""

    kind: ClassVar[str] = "hugging_face"
    sampler_dtypes: ClassVar[tuple[str, ...]] = ("float32",)
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
        raise HuggingFaceError(
            "policy.kind = 'hugging_face' needs policy.checkpoint, the folder of a model as "
            "save_pretrained writes it"
        )

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

    @classmethod
    def load(cls, folder: Path, *, sequence_length: int) -> Self:
        """Read a model from the folder that ``save_pretrained`` wrote, and from nowhere else.

        Args:
            folder: with config.json and weights; preprocessor_config.json gives the normalisation
                of pictures, and tokenizer files are kept for ``export``.
            sequence_length: tokens to draw.

        Raises:
            HuggingFaceError: it is no such folder, of another kind of model, damaged, cannot be
                used as a policy, or has a weight that is not finite.
        """
        files, model = read_folder(folder)
        return cls(HuggingFaceConfig(files=files, sequence_length=sequence_length), model)

    def export(self, folder: Path) -> str:
        """Write a folder that ``from_pretrained`` loads, with the files that the model came with.

        Raises:
            HuggingFaceError: the folder holds something already.
            OSError: it cannot be written.
        """
        write_folder(folder, self.model, self.config.files)
        return "VisionEncoderDecoderModel.from_pretrained"

    def check_vocabulary(self, vocabulary: Mapping[str, Any], stop_tokens: tuple[int, ...]) -> None:
        """
        Raises:
            HuggingFaceError: the task's tokens are not the model's, or end a sequence otherwise.
        """
        if self.vocab_size != vocabulary["vocab_size"]:
            raise HuggingFaceError(
                f"the model has {self.vocab_size} tokens but the task's vocabulary "
                f"{vocabulary['vocab_size']}: set task_options.vocabulary to the tokenizer that "
                "the model was trained with"
            )
        own = self.config.stop_tokens
        if own and stop_tokens and not set(own) & set(stop_tokens):
            raise HuggingFaceError(
                f"the model ends a sequence with token {own[0]} but the task with "
                f"{stop_tokens[0]}: set task_options.stop to the piece that the model ends with"
            )

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
    def framing(self) -> Framing:
        return Square(side=_input_size(self.model))

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
    size = policy.framing.side
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
