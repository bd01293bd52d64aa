"""A model: gated linear attention as a language model of transformers, made, trained on one text and asked to go on."""

import torch
from transformers import AutoModelForCausalLM

import fla.models

config = fla.models.GLAConfig(vocab_size=256, hidden_size=64, num_hidden_layers=2, num_heads=2)
model = AutoModelForCausalLM.from_config(config)
text = torch.tensor([list(b"the quick brown fox jumps over the lazy dog. " * 3)])
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(60):
    model(text, labels=text).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(
    bytes(model.eval().generate(text[:, :9], max_new_tokens=50, do_sample=False, pad_token_id=0)[0].tolist()).decode()
)
