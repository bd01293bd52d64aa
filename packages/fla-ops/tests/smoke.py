"""One thing done with nothing but this wheel and what it needs: a chunked kernel agrees with its recurrence."""

import torch

from fla.ops.gla import chunk_gla, naive_recurrent_gla
from fla.utils.numerics import get_err_ratio

q, k, v = torch.randn(3, 2, 100, 2, 24).unbind()
g = -torch.rand(2, 100, 2, 24)
o, state = chunk_gla(q, k, v, g, output_final_state=True)
expected, expected_state = naive_recurrent_gla(q, k, v, gk=g, output_final_state=True)
errors = get_err_ratio(expected, o), get_err_ratio(expected_state, state)
print("chunk_gla against its recurrence: relative errors", *errors)
assert max(errors) < 1e-5
