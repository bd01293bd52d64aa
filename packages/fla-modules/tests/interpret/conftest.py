"""These tests need Triton's interpreter, which must be chosen before triton is imported: TRITON_INTERPRET=1."""

import os

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["*"]
