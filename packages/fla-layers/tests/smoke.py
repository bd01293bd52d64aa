"""One thing done with nothing but this wheel and what it needs: a layer learns to repeat the token before."""

import torch

from fla.layers import GatedLinearAttention

torch.manual_seed(0)
layer = GatedLinearAttention(hidden_size=32, num_heads=2)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
x = torch.randn(4, 20, 32)
losses = []
for _ in range(30):
    loss = (layer(x)[0][:, 1:] - x[:, :-1]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"GatedLinearAttention: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
assert losses[-1] < 0.8 * losses[0]
