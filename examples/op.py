"""A kernel: gated linear attention over a sequence in two pieces, the state carried from one to the other."""

import torch
import torch.nn.functional as F

from fla.ops.gla import chunk_gla

q, k, v = (torch.randn(1, 256, 4, 64) for _ in range(3))  # batch, time, heads, channels of a head
g = F.logsigmoid(torch.randn(1, 256, 4, 64)) / 16  # logarithm of the forget gate of each key channel
o, _ = chunk_gla(q, k, v, g)
_, state = chunk_gla(*(x[:, :100] for x in (q, k, v, g)), output_final_state=True)
rest, _ = chunk_gla(*(x[:, 100:] for x in (q, k, v, g)), initial_state=state)
torch.testing.assert_close(rest, o[:, 100:], atol=1e-4, rtol=1e-4)
print("output", tuple(o.shape), "state", tuple(state.shape))
