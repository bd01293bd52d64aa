"""The base of all models; each model is a file beside this package.

``modeling`` has the model that all of them are. ``configuration`` has the base of every config, and ``ranges`` the
numbers that its keys may have. ``hybrid`` gives layers another mixer, ``losses`` has the loss, ``cache`` the states
between calls, and ``checkpointing`` runs a block a second time with them.

Some models share more: ``backbone`` is that of Mamba, Mamba-2 and Samba, ``rwkv`` that of RWKV-6 and RWKV-7,
``lower_bounds`` that of HGRN and HGRN2, and ``rope`` has the configs with rotary positions.

``registration`` makes models known to the Auto classes of transformers, and ``trainer`` to its Trainer.
"""
