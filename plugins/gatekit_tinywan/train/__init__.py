"""How the shipped weights were made: ``python -m gatekit_tinywan.train`` makes them again.

Needs torch, diffusers, transformers, tokenizers and, for the GGUF files, libggml-python
and gguf (the extras ``wan`` and ``quant``).
"""
