"""List the architectures that `make conformance` and tests/conversion/test_families.py iterate over."""

from __future__ import annotations

from typing import Any

import torch
from small_models import (
    FRAMES,
    VOCABULARY,
    Architecture,
    both_sides,
    from_config,
    image,
    image_and_text,
    image_in_text,
    prompt,
    samples,
    seeded,
    small_config,
    spectrogram,
    spectrogram_and_text,
    text,
)
from torch import Tensor, nn


def _decoder(name: str, model_type: str, **overrides: Any) -> Architecture:
    return Architecture(name, "decoder", from_config("AutoModelForCausalLM", model_type, **overrides), text, prompt)


def _encoder(name: str, model_type: str, **overrides: Any) -> Architecture:
    return Architecture(name, "encoder", from_config("AutoModelForMaskedLM", model_type, **overrides), text)


def _sequence(name: str, model_type: str, **overrides: Any) -> Architecture:
    model = from_config("AutoModelForSeq2SeqLM", model_type, **overrides)
    return Architecture(name, "encoder-decoder", model, both_sides, prompt)


def _vision(name: str, model_type: str, **overrides: Any) -> Architecture:
    return Architecture(name, "vision", from_config("AutoModel", model_type, **overrides), image)


def _speech(name: str, model_type: str) -> Architecture:
    convolutions = {"conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 5)}
    sizes = convolutions | {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return Architecture(name, "speech", from_config("AutoModel", model_type, **sizes), samples)


def _two_towers(name: str, model_type: str, **overrides: Any) -> Architecture:
    towers = {f"{tower}_config": small_config(f"{model_type}_{tower}_model").to_dict() for tower in ("text", "vision")}
    return Architecture(
        name, "vision + text", from_config("AutoModel", model_type, **towers, **overrides), image_and_text
    )


def _torch_encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 48, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2)


_HIDDEN = ~text()["attention_mask"].bool()


def _embedded() -> dict[str, Tensor]:
    return {"src": seeded(2, 12, 32), "src_key_padding_mask": _HIDDEN}


def _shown(output: Tensor) -> Tensor:
    # torch's fast path, which the exact model takes, leaves padded positions out.
    return output[~_HIDDEN].clone()


def _embedded_twice() -> dict[str, Tensor]:
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    return {"src": seeded(2, 12, 32), "tgt": seeded(2, 6, 32, seed=2), "tgt_mask": mask}


_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_LLAVA = {
    "text_config": small_config("llama").to_dict(),
    "vision_config": small_config("clip_vision_model").to_dict(),
    "image_token_index": VOCABULARY - 1,
}

ARCHITECTURES = (
    _decoder("Llama 2", "llama", num_key_value_heads=4),
    _decoder("Llama 3", "llama", rope_parameters=_LLAMA_3_ROPE),
    _decoder("Llama 4 (text)", "llama4_text"),
    _decoder("Mistral", "mistral", sliding_window=6),
    _decoder("Mixtral", "mixtral"),
    _decoder("Qwen2", "qwen2"),
    _decoder("Qwen3", "qwen3"),
    _decoder("Qwen3-MoE", "qwen3_moe"),
    _decoder(
        "Qwen3-Next",
        "qwen3_next",
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    ),
    _decoder("Gemma", "gemma"),
    _decoder("Gemma 2", "gemma2", sliding_window=6, query_pre_attn_scalar=8),
    _decoder("Gemma 3 (text)", "gemma3_text", sliding_window=6, query_pre_attn_scalar=8),
    _decoder("GPT-2", "gpt2"),
    _decoder("GPT-J", "gptj"),
    _decoder("GPT-Neo", "gpt_neo", attention_types=[[["global", "local"], 1]], window_size=6),
    _decoder("GPT-NeoX", "gpt_neox"),
    _decoder("gpt-oss", "gpt_oss", sliding_window=6),
    _decoder("OPT", "opt"),
    _decoder("Phi", "phi"),
    _decoder("Phi-3", "phi3"),
    _decoder("Falcon", "falcon"),
    _decoder("Falcon (ALiBi)", "falcon", alibi=True),
    _decoder("Bloom", "bloom"),
    _decoder("MPT", "mpt"),
    _decoder("StableLM", "stablelm"),
    _decoder("StarCoder2", "starcoder2"),
    _decoder("OLMo", "olmo"),
    _decoder("OLMo 2", "olmo2"),
    _decoder("OLMoE", "olmoe"),
    _decoder("Granite", "granite"),
    _decoder("Cohere", "cohere"),
    _decoder("Nemotron", "nemotron"),
    _decoder("GLM-4", "glm4"),
    _decoder("SmolLM3", "smollm3"),
    _decoder("DeepSeek-V3", "deepseek_v3", n_group=2, topk_group=1, first_k_dense_replace=1, num_key_value_heads=4),
    _decoder("BitNet", "bitnet"),
    _decoder("Mamba", "mamba", time_step_rank=4, state_size=4),
    _encoder("BERT", "bert"),
    _encoder("RoBERTa", "roberta"),
    _encoder("XLM-RoBERTa", "xlm-roberta"),
    _encoder("DistilBERT", "distilbert"),
    _encoder("ELECTRA", "electra"),
    _encoder("ALBERT", "albert"),
    _encoder("MPNet", "mpnet"),
    _encoder("ModernBERT", "modernbert", local_attention=6),
    _encoder("DeBERTa-v2", "deberta-v2", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    _sequence("T5", "t5", decoder_start_token_id=0),
    _sequence("mT5", "mt5"),
    _sequence("BART", "bart"),
    _sequence("Pegasus", "pegasus"),
    _sequence("Marian", "marian"),
    _sequence("M2M100", "m2m_100"),
    Architecture(
        "Whisper",
        "speech",
        from_config(
            "AutoModelForSpeechSeq2Seq",
            "whisper",
            num_mel_bins=8,
            max_source_positions=FRAMES // 2,
            max_target_positions=32,
        ),
        spectrogram_and_text,
        spectrogram,
    ),
    _speech("wav2vec 2.0", "wav2vec2"),
    _speech("HuBERT", "hubert"),
    _vision("ViT", "vit"),
    _vision("DeiT", "deit"),
    _vision("DINOv2", "dinov2"),
    _vision("BEiT", "beit"),
    _vision("Swin", "swin", patch_size=2, depths=(2, 2), num_heads=(2, 4), window_size=4, embed_dim=16),
    _two_towers("CLIP", "clip"),
    _two_towers("SigLIP", "siglip"),
    Architecture(
        "LLaVA",
        "vision + text",
        from_config("AutoModelForImageTextToText", "llava", **_LLAVA),
        image_in_text,
        image_in_text,
    ),
    Architecture("torch.nn.TransformerEncoder", "plain torch", _torch_encoder, _embedded, output=_shown),
    Architecture(
        "torch.nn.Transformer",
        "plain torch",
        lambda: nn.Transformer(32, 4, 2, 2, 48, activation=torch.nn.functional.gelu, batch_first=True),
        _embedded_twice,
    ),
)
