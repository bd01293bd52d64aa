"""One thing done with nothing but this wheel and what it needs: a model is saved, loaded and continues a text."""

import tempfile

import torch
from transformers import AutoModelForCausalLM

import fla.models

config = fla.models.GLAConfig(hidden_size=32, num_hidden_layers=2, num_heads=2, vocab_size=64)
model = fla.models.GLAForCausalLM(config).eval()
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
prompt = torch.randint(64, (2, 5))
ours, again = (m.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=0) for m in (model, loaded))
print("continued with", ours[:, 5:].tolist())
assert isinstance(loaded, fla.models.GLAForCausalLM)
assert torch.equal(ours, again)
