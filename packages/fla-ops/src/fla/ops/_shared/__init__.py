"""Code that engines and families share: operands, autograd, time cut into chunks, decays, cases for specs."""
