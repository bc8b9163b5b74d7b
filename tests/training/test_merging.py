"""An adapter added to its model speaks as the two did together, and loads anywhere."""

from __future__ import annotations

import numpy as np
import torch

from apps.inference import app as inference
from apps.training import merging, policy
from tests import models


def test_the_merged_model_is_the_adapted_one(tiny_model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = models.make_adapter(tiny_model, tmp_path / "adapter").adapter
    (tmp_path / "whole").mkdir()
    digest = merging.merge(tiny_model, tmp_path / "adapter", tmp_path / "whole")
    assert digest == policy.digest_of(tmp_path / "whole" / policy.MODEL)
    ids = torch.from_numpy(models.random_ids(np.random.default_rng(0), 40)[None].astype(np.int64))
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        alone = base(ids).logits.log_softmax(-1)
        together = PeftModel.from_pretrained(base, adapter)(ids).logits.log_softmax(-1)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")(ids).logits.log_softmax(-1)
    assert (merged - together).abs().max() < 1e-4 < 1e-2 < (together - alone).abs().max()
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (tiny_model, tmp_path / "whole")]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template is not None
    assert not list((tmp_path / "whole").glob("adapter*"))


def test_a_task_starts_from_the_model_that_an_earlier_stage_made(tmp_path):
    options = {"model": "/first", "seed": "0"}
    assert inference.based({"start": [tmp_path]}, options) == {"model": str(tmp_path), "seed": "0"}
    assert inference.based({}, options) is options
