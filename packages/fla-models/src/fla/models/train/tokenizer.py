"""A tokenizer of bytes: token n is byte n, and one more token stands between texts."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = 256
VOCABULARY = 257
_END = "<|endoftext|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made without any file; ``save_pretrained`` writes it for ``AutoTokenizer``.

    Token 256 starts and ends a text and pads.
    """
    vocabulary = {character: byte for byte, character in enumerate(_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_END,
        eos_token=_END,
        pad_token=_END,
        clean_up_tokenization_spaces=False,
    )


def _characters() -> list[str]:
    """The character by which the byte-level alphabet writes each byte: itself, or from 256 on if it does not print."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]
