"""A base model in 4 bits: NF4 with doubly quantised constants (QLoRA, arXiv 2305.14314), by bitsandbytes where it has kernels.

Linear layers but the head are quantised as the model is read; everything else stays as it is, and so does an adapter on top. A
policy that was trained over a quantised base speaks over the same one: its engine reads it in 4 bits too.
"""

from __future__ import annotations

import importlib.util

from apps.records import MeritError

KINDS = (
    "cuda",
    "xpu",
)  # not "cpu": there its weights are packed anew at the first use, and then no longer what DoRA reads


def check(device: str = "cuda") -> None:
    """MeritError where there are no 4-bit kernels for a device. No library is imported for it."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MeritError(
            "quantise=nf4 (training.lora, engine) wants 4-bit kernels, and bitsandbytes, which has them, is not installed here; "
            "install it on a platform that it supports, or leave quantise out: LoRA on the whole base model"
        )
    kind = device.partition(":")[0]
    if kind not in KINDS:
        raise MeritError(
            f"quantise=nf4 (training.lora, engine): there are no 4-bit kernels for {kind} (bitsandbytes' are trusted "
            f"on {' and '.join(KINDS)}); leave quantise out: LoRA on the whole base model"
        )


def loading(dtype: str, device: str) -> dict:
    """What `from_pretrained` is told besides: quantise to NF4 and compute in `dtype`."""
    check(device)
    import torch
    from transformers import BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    return {"quantization_config": nf4, "device_map": {"": device}}
