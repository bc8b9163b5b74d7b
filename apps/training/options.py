"""How a policy is trained: the settings of every training task. Facts about a machine are a site's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from apps import records

Beta = Annotated[float, Field(ge=0, lt=1)]


class Lora(records.Options):
    """Low-rank adapters (arXiv 2106.09685): W = W0 + (alpha / r) B A; rsLoRA, DoRA and QLoRA by a flag each."""

    r: int = Field(16, ge=1, description="rank")
    alpha: float = Field(32, gt=0, description="the update is scaled by alpha / r")
    targets: tuple[str, ...] = Field((), description="names of the layers; empty = all linear layers but the head")
    rslora: bool = Field(False, description="the update is scaled by alpha / sqrt(r) (arXiv 2312.03732)")
    dora: bool = Field(False, description="magnitudes of the outputs are trained beside the update (arXiv 2402.09353)")
    quantise: Literal["nf4"] | None = Field(
        None, description="QLoRA (arXiv 2305.14314): the base model in 4 bits; wants engine.quantise=nf4 too"
    )


class Options(records.Options):
    """How a policy is trained. The rate is for LoRA, about ten times that of full fine-tuning."""

    lora: Lora | None = Field(Lora(), description="null trains all weights")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    floor: float = Field(0.0, ge=0, le=1, description="share of the peak rate that a falling schedule ends at")
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's moments, each in [0, 1)")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled decay")
    clip: float = Field(1.0, gt=0, description="largest norm of a step's gradient")
    epochs: int = Field(1, ge=1, description="passes over the rows")
    step_rows: int = Field(64, ge=1, description="rows of one optimiser step")
    micro_tokens: int = Field(
        4096, ge=1, description="tokens of one micro-batch; padding comes on top where rows cannot be packed"
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        "float32", description="of the forward pass, weights stay in float32; auto = bfloat16 where that is faster"
    )
    attention: Literal["eager", "sdpa"] = Field(
        "sdpa", description="sdpa is faster on packed rows; eager on a CPU at short lengths, with packing=false"
    )
    packing: bool = Field(
        True,
        description="rows share lines without padding, and prompts that are equal are read once, where the model can",
    )
    activation_checkpointing: bool = Field(
        False,
        description="activations of a layer are worked out again for its gradient: less memory, a third more work",
    )
    parallel: Literal["single", "ddp", "zero1", "zero2", "zero3"] = Field(
        "single",
        description="what ranks divide: nothing to divide, rows, or with DeepSpeed optimiser, gradients, weights too",
    )
    offload: bool = Field(False, description="ZeRO keeps what it divides in the main memory")
    ranks: int = Field(1, ge=1, description="processes, a device each, that train one policy together")

    @field_validator("parallel")
    @classmethod
    def _four_bits_are_not_divided(cls, parallel: str, info: ValidationInfo) -> str:
        lora = info.data.get("lora")
        if parallel.startswith("zero") and lora is not None and lora.quantise:
            raise ValueError("a base model in 4 bits cannot be divided by ZeRO; take single or ddp")
        return parallel

    @field_validator("offload")
    @classmethod
    def _only_zero_offloads(cls, offload: bool, info: ValidationInfo) -> bool:
        if offload and not info.data.get("parallel", "zero").startswith("zero"):
            raise ValueError("only training.parallel=zero1, zero2 or zero3 can off-load")
        return offload

    @field_validator("ranks")
    @classmethod
    def _one_alone(cls, ranks: int, info: ValidationInfo) -> int:
        if ranks > 1 and info.data.get("parallel") == "single":
            raise ValueError("several ranks need training.parallel=ddp, zero1, zero2 or zero3")
        return ranks
