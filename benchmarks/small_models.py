"""Make tiny models with random weights from transformers' own config classes: nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.utils import logging

VOCABULARY = 99
IMAGE, FRAMES, SAMPLES = 16, 24, 640

# Small sizes, in every spelling of the config classes; a class takes the fields it has.
_SIZES = {
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
    "num_key_value_heads num_experts_per_tok moe_k depth encoder_depth",
    4: "num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads decoder_attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts",
    8: "head_dim d_kv rotary_dim patch_size qk_rope_head_dim qk_nope_head_dim v_head_dim linear_key_head_dim "
    "linear_value_head_dim kv_channels",
    16: "q_lora_rank kv_lora_rank image_size",
    32: "hidden_size n_embd d_model dim embedding_size embed_dim word_embed_proj_dim projection_dim",
    48: "intermediate_size d_ff ffn_dim hidden_dim ffn_hidden_size n_inner encoder_ffn_dim decoder_ffn_dim "
    "intermediate_size_mlp moe_intermediate_size shared_expert_intermediate_size",
    64: "max_position_embeddings n_positions max_seq_len max_sequence_length",
    VOCABULARY: "vocab_size",
}
_SMALL: dict[str, Any] = {name: size for size, names in _SIZES.items() for name in names.split()} | {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}


def small_config(model_type: str, **overrides: Any) -> PreTrainedConfig:
    """Return a config of this type, two layers deep and 32 wide."""
    cls = CONFIG_MAPPING[model_type]
    sizes = {name: value for name, value in _SMALL.items() if name in cls.__dataclass_fields__}
    return cls(**(sizes | overrides))


def from_config(head: str, model_type: str, **overrides: Any) -> Callable[[], nn.Module]:
    """Return a function that makes the model which the auto class `head` has for this type."""
    return lambda: getattr(transformers, head).from_config(small_config(model_type, **overrides))


def seeded(*shape: int, seed: int = 1) -> Tensor:
    """Return a standard normal tensor, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(length: int = 12, seed: int = 1) -> Tensor:
    """Return two rows of token ids, none of them special; int64 (2, length)."""
    return torch.randint(3, VOCABULARY - 1, (2, length), generator=torch.Generator().manual_seed(seed))


def text() -> dict[str, Tensor]:
    """Return two rows of text, the second one padded at its end."""
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 7:] = 0
    return {"input_ids": tokens(), "attention_mask": mask}


def prompt() -> dict[str, Tensor]:
    """Return two rows of text, the second one padded at its start."""
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, :3] = 0
    return {"input_ids": tokens(8) * mask, "attention_mask": mask}


def both_sides() -> dict[str, Tensor]:
    """Return text for an encoder and a decoder."""
    return text() | {"decoder_input_ids": tokens(6, 2)}


def image() -> dict[str, Tensor]:
    """Return two random images."""
    return {"pixel_values": seeded(2, 3, IMAGE, IMAGE)}


def image_and_text() -> dict[str, Tensor]:
    """Return images and text, for two towers."""
    return image() | text()


def image_in_text() -> dict[str, Tensor]:
    """Return an image and a text in which the last token of the vocabulary stands for each patch."""
    patches = torch.full((2, (IMAGE // 8) ** 2), VOCABULARY - 1)
    ids = torch.cat([patches, tokens(6)], 1)
    return image() | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def samples() -> dict[str, Tensor]:
    """Return two random waveforms."""
    return {"input_values": seeded(2, SAMPLES)}


def spectrogram() -> dict[str, Tensor]:
    """Return two random spectrograms."""
    return {"input_features": seeded(2, 8, FRAMES)}


def spectrogram_and_text() -> dict[str, Tensor]:
    """Return spectrograms and text for a decoder."""
    return spectrogram() | {"decoder_input_ids": tokens(6, 2)}


def main_output(output: Any) -> Tensor:
    """Return a copy of the logits or, if there are none, of the last layer's output."""
    for name in ("logits", "logits_per_image", "last_hidden_state"):
        value = getattr(output, name, None)
        if value is not None:
            return value.clone()
    return (output if isinstance(output, Tensor) else output[0]).clone()


@dataclass(frozen=True)
class Architecture:
    """Describe one row of the conformance table.

    name      as the table shows it
    kind      "decoder", "encoder", "encoder-decoder", "vision", ...
    model     makes the model, with any weights
    inputs    makes the arguments of its forward
    prompt    makes the arguments of its `generate`; None if it does not generate
    output    picks the tensor to compare from the result of its forward
    """

    name: str
    kind: str
    model: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    prompt: Callable[[], dict[str, Tensor]] | None = None
    output: Callable[[Any], Tensor] = main_output

    def build(self) -> nn.Module:
        """Return the model in eval mode and float32, always with the same weights, none of them 0 or 1."""
        torch.manual_seed(0)
        level = logging.get_verbosity()
        logging.set_verbosity_error()  # small sizes are not what some configs expect
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self.model().eval()
        logging.set_verbosity(level)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    # Large enough that attention is far from uniform, so that a wrong mask shows.
                    parameter.normal_(0.0, 0.3, generator=generator)
                else:
                    # Norms whose weights are all one would hide how weights come in.
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        return model
