"""A layer: gated linear attention fitted to some sequences, to give at each step the input of the step before."""

import torch

from fla.layers import GatedLinearAttention

layer = GatedLinearAttention(hidden_size=64, num_heads=2)
optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
x = torch.randn(8, 64, 64)  # batch, time, channels
for _ in range(50):
    loss = (layer(x)[0][:, 1:] - x[:, :-1]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"mean squared error {loss:.3f}, 1.0 before training")
