"""One thing done with nothing but this wheel and what it needs: a norm and a loss agree with PyTorch's."""

import torch
from torch import nn

from fla.modules import FusedCrossEntropyLoss, RMSNorm

x, labels = torch.randn(6, 32), torch.randint(32, (6,))
ours, theirs = RMSNorm(32, eps=1e-5), nn.RMSNorm(32, eps=1e-5)
torch.testing.assert_close(ours(x), theirs(x))
torch.testing.assert_close(FusedCrossEntropyLoss()(x, labels), nn.CrossEntropyLoss()(x, labels))
print("RMSNorm and FusedCrossEntropyLoss agree with PyTorch's")
